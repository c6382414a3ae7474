"""What PostgreSQL's own statistics say of blind indexes: enough to find a leak, not to rule it out.

`pg_stats` is about a column of all tenants' rows together, from a sample. Of its common values the
frequencies are read, and never the values.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tenantguard.encrypt.leaks import Leak, Lengths, indexes_of
from tenantguard.encrypt.telling import RARE, Telling, frequencies_tell, telling_of
from tenantguard.rls.names import column_list, plain_literal, qualified, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.encrypt.leaks import Indexed

    Run = Callable[[str], Sequence[Any]]

__all__ = ["CHANGED", "Statistics", "statistics"]

CHANGED = 0.2
"""The share of rows that may have changed since the table was analyzed."""
_ROWS_A_TARGET = 300
"""PostgreSQL's ANALYZE looks at so many rows for each unit of the statistics target."""


class _Facts(NamedTuple):
    """What is known of the table.

    Attributes:
        partitioned: Whether its rows are in partitions.
        rows: How many, when it was analyzed; negative if it never was.
        hidden: Whether policies hold for who asks, so that PostgreSQL shows no statistics.
        analyzed: Whether the server knows when it was analyzed.
        changes: Rows that have changed since.
        sample: How many rows PostgreSQL looks at, as it is set now.
    """

    partitioned: bool
    rows: int
    hidden: bool
    analyzed: bool
    changes: int
    sample: int


@dataclass(frozen=True, slots=True)
class _Spread:
    """A column's statistics.

    Attributes:
        empty: The share of rows that are NULL.
        distinct: How many values; negative, the share of rows.
        top: The share of rows that have the most common one; None if none is common.
        width: The mean in bytes.
    """

    empty: float
    distinct: float
    top: float | None
    width: int

    def values(self, rows: int) -> float:
        """Return how many different values *rows* have."""
        return self.distinct if self.distinct >= 0 else -self.distinct * rows


class Statistics:
    """Statistics of *entry*'s table, as far as they may be relied on.

    Attributes:
        missing: Why they say nothing, and what to do; None if they do.
    """

    def __init__(self, entry: Entry, facts: _Facts, spreads: dict[str, _Spread]) -> None:
        self._rows = max(0, facts.rows)
        self._sample = min(self._rows, facts.sample)
        self._spreads = spreads
        self._tenant = cast("Column[Any]", entry.column).name
        self.missing = _unusable(facts)

    def lacking(self, names: Iterable[str]) -> str | None:
        """Return why nothing is known of the columns *names*; None if something is."""
        if self.missing is not None or not self._rows:
            return self.missing
        if {*names, self._tenant} <= self._spreads.keys():
            return None
        return "PostgreSQL has no statistics of it. Run ANALYZE, or give --exact."

    def leak(self, index: Indexed) -> Leak:
        """Return what *index* tells at least."""
        spread = self._spreads.get(index.generated.name)
        if spread is None or not self._rows:
            return _no_rows(index)
        tenants, greatest = self._tenants()
        empty = round(self._rows * spread.empty)
        rows, groups = self._rows - empty, spread.values(self._rows)
        if not rows or not groups:
            return _no_rows(index, empty, tenants)
        largest = max((spread.top or 0.0) * self._rows, rows / groups)
        # The tenant that has the largest group may be the greatest of all: so much it has at least.
        share = min(1.0, largest / rows / greatest)
        # In a sample an index can be frequent by chance: it counts as often as it was seen there.
        seen = (spread.top or 0.0) * self._sample
        # Tenants may have as many indexes each, or as many as they have rows: both must tell.
        told = frequencies_tell(seen, groups * greatest, share * groups / tenants)
        return Leak(
            index,
            telling_of(largest, told=told, unique=groups >= (1 - RARE) * rows),
            rows,
            empty,
            round(groups),
            round(largest),
            smallest=None,
            alone=None,
            share=share,
            told=None,
            tenants=tenants,
        )

    def lengths(self, column: Column[Any]) -> Lengths:
        """Return the mean length of the stored values of *column*: no more is known."""
        spread = self._spreads.get(column.name)
        if spread is None or not self._rows:
            return Lengths(column, None, 0, 0, 0, 0)
        rows = round(self._rows * (1 - spread.empty))
        return Lengths(column, None, 0, 0, rows, spread.width)

    def _tenants(self) -> tuple[int, float]:
        """Return how many tenants have rows, and the share that the greatest of them has."""
        spread = self._spreads[self._tenant]
        number = max(1, round(spread.values(self._rows)))
        return number, max(spread.top or 0.0, 1 / number)


def statistics(run: Run, entry: Entry, columns: Iterable[Column[Any]]) -> Statistics:
    """Return the statistics of *columns*, encrypted ones of *entry*'s table, and of their indexes.

    Nothing of a row is read.
    """
    listed = list(columns)
    names = [each.name for each in listed]
    names += [index.generated.name for each in listed for index in indexes_of(each)]
    # PostgreSQL refuses it if the table or a column is missing, which has no statistics either.
    run(f"SELECT {column_list(names)} FROM {qualified(target_of(entry))} LIMIT 0")
    return Statistics(entry, _facts(run, entry), _spreads(run, entry, names))


def _facts(run: Run, entry: Entry) -> _Facts:
    table = plain_literal(qualified(target_of(entry)))
    [row] = run(
        "SELECT c.relkind = 'p', c.reltuples::bigint, pg_catalog.row_security_active(c.oid), "
        "coalesce(s.last_analyze, s.last_autoanalyze) IS NOT NULL, "
        "coalesce(s.n_mod_since_analyze, 0), "
        f"{_ROWS_A_TARGET} * pg_catalog.current_setting('default_statistics_target')::int "
        "FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_stat_all_tables s ON s.relid = c.oid "
        f"WHERE c.oid = {table}::regclass"
    )
    return _Facts(*row)


def _spreads(run: Run, entry: Entry, names: Iterable[str]) -> dict[str, _Spread]:
    schema, table = map(plain_literal, target_of(entry))
    wanted = ", ".join(map(plain_literal, (*names, cast("Column[Any]", entry.column).name)))
    found = run(
        "SELECT attname, null_frac, n_distinct, most_common_freqs[1], avg_width "
        f"FROM pg_catalog.pg_stats WHERE schemaname = {schema} AND tablename = {table} "
        f"AND NOT inherited AND attname IN ({wanted})"
    )
    return {name: _Spread(*spread) for name, *spread in found}


def _unusable(facts: _Facts) -> str | None:
    if facts.hidden:
        return (
            "PostgreSQL hides a table's statistics from a role that policies hold for. Give the "
            "address of a superuser or a login that is granted the backup role, or give --exact."
        )
    if facts.partitioned:
        return (
            "PostgreSQL does not note how old the statistics of a partitioned table are. Give "
            "--exact."
        )
    if not facts.analyzed or facts.rows < 0:
        return (
            "The table was not analyzed, as far as the server knows. Run ANALYZE, or give --exact."
        )
    if facts.changes > CHANGED * facts.rows:
        return (
            f"More than {CHANGED:.0%} of the table's rows have changed since it was analyzed. Run "
            "ANALYZE, or give --exact."
        )
    return None


def _no_rows(index: Indexed, empty: int = 0, tenants: int = 0) -> Leak:
    return Leak(
        index,
        Telling.NOTHING,
        rows=0,
        empty=empty,
        groups=0,
        largest=0,
        smallest=None,
        alone=None,
        share=0.0,
        told=None,
        tenants=tenants,
    )
