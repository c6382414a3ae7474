"""Data statements in migrations that do not say for whom they are: read from the scripts, not run.

Neither Alembic nor the scripts are imported.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError
from tenantguard.migrate.written import Values, Written, dotted, written_by

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["DataStatement", "data_statements"]

_ENTRY = "upgrade"
_BLOCKS = {"as_maintenance", "without_force"}
_OURS = {"for_each_tenant"}


@dataclass(frozen=True, slots=True)
class DataStatement:
    """A data statement outside `op.for_each_tenant` and `op.as_maintenance`.

    Attributes:
        path: The script.
        line: Where the call begins, from 1 on.
        what: The call and the kind of statement, such as "op.execute(UPDATE …)"; never its text.
        table: The table's name as it is written there, without quotes; None if it is not to be
            read from the script.
    """

    path: Path
    line: int
    what: str
    table: str | None = None


def data_statements(directory: Path) -> list[DataStatement]:
    """Return the data statements that the scripts in *directory* run for nobody, in order.

    Looked at is what `upgrade()` of each script reaches: its own lines, and the functions of the
    same script that it names. Statements that are put together at run time are not seen; when they
    run, `tenantguard.integrations.alembic.configure` makes them an error.

    Args:
        directory: The directory of the versions; directories below it are read too.

    Raises:
        ConfigurationError: If it is no directory, or a script is no Python.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"{directory} is no directory. Name the one with Alembic's versions."
        )
    return [found for path in sorted(directory.rglob("*.py")) for found in _of_script(path)]


def _of_script(path: Path) -> list[DataStatement]:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        raise ConfigurationError(
            f"{path} cannot be read as Python ({type(error).__name__}). Correct it, or move it out "
            "of the directory of versions."
        ) from None
    found = {line: (what, written.table) for line, what, written in _Reader(module).found()}
    return [DataStatement(path, line, *found[line]) for line in sorted(found)]


class _Reader:
    """Follows what `upgrade()` of one script reaches."""

    def __init__(self, module: ast.Module) -> None:
        self._functions = {
            each.name: each for each in ast.walk(module) if isinstance(each, ast.FunctionDef)
        }
        self._values = Values(module)
        self._seen: set[str] = set()

    def found(self) -> Iterator[tuple[int, str, Written]]:
        """Yield line, call and statement."""
        yield from self._of_function(_ENTRY)

    def _of_function(self, name: str) -> Iterator[tuple[int, str, Written]]:
        function = self._functions.get(name)
        if function is None or name in self._seen:
            return
        self._seen.add(name)
        for statement in function.body:
            yield from self._of(statement)

    def _of(self, node: ast.AST) -> Iterator[tuple[int, str, Written]]:
        if _says_for_whom(node):
            return
        if isinstance(node, ast.Call) and (written := written_by(node, self._values)):
            yield node.lineno, f"{dotted(node.func)}({written.kind} …)", written
        if isinstance(node, ast.Name):
            yield from self._of_function(node.id)
        for child in ast.iter_child_nodes(node):
            yield from self._of(child)


def _says_for_whom(node: ast.AST) -> bool:
    if isinstance(node, ast.With):
        return any(_calls(item.context_expr, _BLOCKS) for item in node.items)
    return _calls(node, _OURS)


def _calls(node: ast.AST, names: set[str]) -> bool:
    return isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in names
