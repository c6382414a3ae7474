"""Changed copies of statements; the application's own objects are never changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import and_
from sqlalchemy.sql.elements import Grouping

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.elements import ColumnElement

__all__ = ["closed", "compiled_as", "copy_with", "with_where"]


def copy_with(element: Any, **attributes: Any) -> Any:
    """Return a shallow copy of *element* that has *attributes*."""
    copy = element.__class__.__new__(element.__class__)
    copy.__dict__ = {**element.__dict__, **attributes}
    return copy


def compiled_as(statement: Any, state: Any) -> Any:
    """Return a copy of *statement* that compiles with *state* instead of making a new one."""
    return copy_with(statement, _compile_state_factory=lambda *_, **__: state)


def with_where(statement: Any, predicates: list[ColumnElement[bool]]) -> Any:
    """Return *statement* with *predicates* before its own criteria."""
    if not predicates:
        return statement
    where = (*predicates, *closed(statement._where_criteria))  # noqa: SLF001
    return copy_with(statement, _where_criteria=where)


def closed(criteria: Iterable[Any]) -> list[Any]:
    """Put *criteria* into parentheses, so that no OR in a text reaches past the predicate."""
    clauses = [clause for clause in criteria if clause is not None]
    return [Grouping(and_(*clauses))] if clauses else []
