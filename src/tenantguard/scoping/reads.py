"""Which tables a FROM clause reads, and where the predicate of each belongs.

A table read plainly or through an inner join takes its predicate in WHERE; on the nullable side of
an outer join it takes it in ON, so that the join keeps its rows. Neither place serves under a FULL
JOIN: there the table itself is rendered as a filtered sub-select.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join, TableClause
from sqlalchemy.sql.visitors import iterate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.expression import FromClause

__all__ = ["Leaf", "Reads", "leaf_of", "mentions", "nullable_leaves", "where_leaves"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table as one FROM clause names it.

    Attributes:
        source: The table or its alias, which qualifies its columns.
        table: The table itself.
        rendered: What stands directly around the table's name when it is rendered: *source*, or
            the innermost of several aliases.
    """

    source: FromClause
    table: TableClause
    rendered: FromClause


@dataclass(slots=True)
class Reads:
    """The leaves of a FROM clause by the place where their predicate belongs."""

    where: list[Leaf] = field(default_factory=list)
    inline: list[Leaf] = field(default_factory=list)


def leaf_of(source: FromClause) -> Leaf | None:
    """Return the leaf of *source*, or None for anything that is not a table or its alias."""
    element: Any = source
    rendered = source
    while isinstance(element, AliasedReturnsRows):
        rendered, element = element, element.element
    return Leaf(source, element, rendered) if isinstance(element, TableClause) else None


def where_leaves(sources: Iterable[FromClause]) -> Reads:
    """Return the leaves of *sources* whose predicate belongs into WHERE, or inline."""
    reads = Reads()
    for source in sources:
        _collect(source, reads, inline=False)
    return reads


def nullable_leaves(join: Join) -> Reads:
    """Return the leaves of a LEFT JOIN's right side; those of `Reads.where` belong into its ON."""
    reads = Reads()
    if join.isouter and not join.full:
        _collect(join.right, reads, inline=False)
    return reads


def _collect(source: FromClause, reads: Reads, *, inline: bool) -> None:
    if isinstance(source, FromGrouping):
        _collect(source.element, reads, inline=inline)
    elif isinstance(source, Join):
        inline = inline or source.full
        _collect(source.left, reads, inline=inline)
        # The nullable side is collected when that join is rendered, unless it is filtered inline.
        if inline or not source.isouter:
            _collect(source.right, reads, inline=inline)
    else:
        leaf = leaf_of(source)
        if leaf is not None:
            (reads.inline if inline else reads.where).append(leaf)


def mentions(criteria: Iterable[Any], leaf: Leaf, column: str) -> bool:
    """Return whether *criteria* speak of *leaf*'s *column*, as a predicate by hand does."""
    source = getattr(leaf.source, "name", None)
    return any(
        isinstance(element, ColumnClause)
        and element.name == column
        and getattr(element.table, "name", None) == source
        for clause in criteria
        if clause is not None
        for element in iterate(clause)
    )
