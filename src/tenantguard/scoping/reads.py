"""Which tables a FROM clause reads, and where the predicate of each belongs.

A table read plainly or through an inner join takes its predicate in WHERE; on the nullable side of
an outer join it takes it in ON, so that the join keeps its rows. Neither place serves under a FULL
JOIN: there the table itself is rendered as a filtered sub-select.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.sql.selectable import AliasedReturnsRows, FromGrouping, Join, TableClause

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.expression import FromClause

__all__ = ["Leaf", "Reads", "nullable_leaves", "table_of", "where_leaves"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A table as one FROM clause names it: *source* is the table or its alias."""

    source: FromClause
    table: TableClause


@dataclass(slots=True)
class Reads:
    """The leaves of a FROM clause by the place where their predicate belongs."""

    where: list[Leaf] = field(default_factory=list)
    inline: list[Leaf] = field(default_factory=list)


def table_of(source: FromClause) -> TableClause | None:
    """Return the table behind *source*, or None for anything that is not a table or its alias."""
    element = source
    while isinstance(element, AliasedReturnsRows):
        element = element.element  # type: ignore[assignment]  # an alias of a FROM clause
    return element if isinstance(element, TableClause) else None


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
        table = table_of(source)
        if table is not None:
            (reads.inline if inline else reads.where).append(Leaf(source, table))
