"""What stored values tell whoever reads the database without any key: equality, and lengths.

Blind indexes of two tenants never equal each other, and which row is whose is no secret: whoever
reads the rows looks at each tenant apart. So groups of equal indexes are counted by tenant, and
counts are all that leaves the database.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tenantguard.columns.search import name_of
from tenantguard.columns.storage import searched_column
from tenantguard.encrypt.forms import field_of
from tenantguard.encrypt.telling import FEW, MANY, RARE, Telling, frequencies_tell, telling_of
from tenantguard.rls.names import qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.columns.search import Search

    Run = Callable[[str], Sequence[Any]]

__all__ = ["Groups", "Indexed", "Leak", "Lengths", "counted", "indexes_of", "lengths"]


@dataclass(frozen=True, slots=True, repr=False)
class Groups:
    """The rows of one tenant by their blind index: those that have the same are a group.

    Attributes:
        tenant: The tenant's id as PostgreSQL writes it.
        rows: How many have a value.
        empty: How many are NULL.
        number: How many groups.
        smallest: Rows of the smallest group.
        largest: Rows of the largest.
        alone: Rows that share their index with no other.
    """

    tenant: str
    rows: int
    empty: int
    number: int
    smallest: int
    largest: int
    alone: int

    @property
    def share(self) -> float:
        """The share of rows with a value that the largest group has."""
        return self.largest / self.rows if self.rows else 0.0

    @property
    def telling(self) -> Telling:
        """What it tells."""
        if not self.rows:
            return Telling.NOTHING
        told = frequencies_tell(self.largest, self.number, self.share * self.number)
        return telling_of(self.largest, told=told, unique=self.alone >= (1 - RARE) * self.rows)


@dataclass(frozen=True, slots=True, repr=False)
class Indexed:
    """A search of an encrypted column.

    Attributes:
        column: The encrypted column.
        generated: The column that has the blind indexes.
        search: What the application has declared.
    """

    column: Column[Any]
    generated: Column[Any]
    search: Search

    @property
    def name(self) -> str | None:
        """What it is called; None for the search that `==` uses."""
        return name_of(self.search)

    @property
    def reason(self) -> str | None:
        """Why few values may be searched, as the application says."""
        return (self.search.few_values or "").strip() or None


@dataclass(frozen=True, slots=True, repr=False)
class Leak:
    """What one search of a column tells.

    Attributes:
        of: The search.
        telling: The worst that it tells of a tenant's values.
        rows: Rows with a value, of all tenants.
        empty: Rows that are NULL.
        groups: Different indexes.
        largest: Rows of the largest group.
        smallest: Rows of the smallest; None if that is not known.
        alone: Rows that share their index with no other; likewise.
        share: The share of its tenant's rows that the most frequent index has, of the tenant of
            whose values it tells most.
        told: How many tenants' values are told by their frequencies; likewise.
        tenants: How many tenants have rows.
        counted: The groups by tenant; empty if they are not known.
    """

    of: Indexed
    telling: Telling
    rows: int
    empty: int
    groups: int
    largest: int
    smallest: int | None
    alone: int | None
    share: float
    told: int | None
    tenants: int
    counted: tuple[Groups, ...] = ()


@dataclass(frozen=True, slots=True, repr=False)
class Lengths:
    """The lengths of a column's stored values, of all tenants: they mean the same for each.

    Attributes:
        column: The encrypted column.
        number: How many different ones there are; None if they were not counted.
        rarest: Rows that have the rarest one.
        commonest: Rows that have the most frequent one.
        rows: Rows with a value.
        mean: Bytes, from statistics; None if they were counted.
    """

    column: Column[Any]
    number: int | None
    rarest: int
    commonest: int
    rows: int
    mean: int | None = None

    @property
    def padded(self) -> bool:
        """Whether the column hides them."""
        return field_of(self.column).pad is not None

    @property
    def tell(self) -> bool:
        """Whether lengths stand for values, or single out rows."""
        if self.padded or self.number is None or self.number < 2:  # noqa: PLR2004
            return False
        return self.number <= FEW or self.rarest < MANY


def indexes_of(column: Column[Any]) -> Iterator[Indexed]:
    """Yield the searches of *column*, an encrypted one."""
    for index in field_of(column).indexes:
        generated = searched_column(column.table, column.name, index.name)
        yield Indexed(column, generated, index.search)


def counted(run: Run, entry: Entry, index: Indexed) -> Leak:
    """Count the groups of *index* by tenant, in one statement; *run* sees all rows."""
    tenant, made = _name(cast("Column[Any]", entry.column)), _name(index.generated)
    filled = "FILTER (WHERE g.filled)"
    found = run(
        f"SELECT g.tenant, coalesce(sum(g.rows) {filled}, 0)::bigint, "
        "coalesce(sum(g.rows) FILTER (WHERE NOT g.filled), 0)::bigint, "
        f"count(*) {filled}, coalesce(min(g.rows) {filled}, 0), coalesce(max(g.rows) {filled}, 0), "
        "count(*) FILTER (WHERE g.filled AND g.rows = 1) FROM ("
        f"SELECT {tenant}::text AS tenant, {made} IS NOT NULL AS filled, count(*) AS rows "
        f"FROM {qualified(target_of(entry))} GROUP BY {tenant}, {made}) g GROUP BY 1 ORDER BY 1"
    )
    return _leak(index, tuple(Groups(*row) for row in found))


def lengths(run: Run, entry: Entry, column: Column[Any]) -> Lengths:
    """Count the lengths of the stored values of *column*, in one statement."""
    name = _name(column)
    [[number, rarest, commonest, rows]] = run(
        "SELECT count(*), coalesce(min(g.rows), 0), coalesce(max(g.rows), 0), "
        "coalesce(sum(g.rows), 0)::bigint FROM ("
        f"SELECT count(*) AS rows FROM {qualified(target_of(entry))} "
        f"WHERE {name} IS NOT NULL GROUP BY octet_length({name})) g"
    )
    return Lengths(column, number, rarest, commonest, rows)


def _leak(index: Indexed, found: tuple[Groups, ...]) -> Leak:
    ranks = list(Telling)
    worst = max(
        found, key=lambda each: (ranks.index(each.telling), each.largest, each.rows), default=None
    )
    return Leak(
        index,
        Telling.NOTHING if worst is None else worst.telling,
        rows=sum(each.rows for each in found),
        empty=sum(each.empty for each in found),
        groups=sum(each.number for each in found),
        largest=max((each.largest for each in found), default=0),
        smallest=min((each.smallest for each in found if each.rows), default=0),
        alone=sum(each.alone for each in found),
        share=0.0 if worst is None else worst.share,
        told=sum(each.telling is Telling.FREQUENCIES for each in found),
        tenants=len(found),
        counted=found,
    )


def _name(column: Column[Any]) -> str:
    return quote(column.name)
