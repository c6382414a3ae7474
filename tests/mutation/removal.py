"""An operator for Cosmic Ray: a statement that does something is left out.

Calls, raises, and assignments to attributes and items are. Without an assignment to a plain name,
the code would only fail to run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import parso
from cosmic_ray.operators.operator import Example, Operator

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Provider", "RemoveStatement"]

_DOES = {"raise_stmt", "atom_expr", "power"}
_ASSIGNED = {"atom_expr", "power"}


class RemoveStatement(Operator):  # type: ignore[misc]
    """Puts `pass` in the place of a statement."""

    def mutation_positions(self, node: Any) -> Iterator[tuple[Any, Any]]:
        """Yield where *node* is, if it is such a statement."""
        if node.type == "simple_stmt" and _does_something(node.children[0]):
            statement = node.children[0]
            yield statement.start_pos, statement.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return *node* without what it does."""
        if index:
            raise IndexError(index)
        statement = node.children[0]
        node.children[0] = parso.parse(statement.get_first_leaf().prefix + "pass")
        return node

    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        """Return what Cosmic Ray's own tests of operators would run."""
        return (Example("check(1)\n", "pass\n"), Example("a.b = 1\n", "pass\n"))


def _does_something(statement: Any) -> bool:
    if statement.type == "expr_stmt":
        return statement.children[0].type in _ASSIGNED
    return statement.type in _DOES


class Provider:
    """What Cosmic Ray asks for operators."""

    def __iter__(self) -> Iterator[str]:
        yield "RemoveStatement"

    def __getitem__(self, name: str) -> type[RemoveStatement]:
        return {"RemoveStatement": RemoveStatement}[name]
