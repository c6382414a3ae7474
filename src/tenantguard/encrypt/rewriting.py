"""Sealing anew what is not sealed as it would be now: after a rotation, or with more indexes.

Of most values that is seen from outside. Which key has computed their blind indexes is not. What a
trigger fills for searches is filled too in rows that are older than the trigger.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tenantguard.encrypt.batches import Cell, Work, name_sql
from tenantguard.encrypt.counting import Form, Rows, head_sql, parts_of_head
from tenantguard.encrypt.forms import Indexed, Present, Values, field_of, is_sealed_sql
from tenantguard.errors import ConfigurationError
from tenantguard.rls.kept import derived_sql, fills, keeper, kept_by_source
from tenantguard.rls.names import plain_literal, qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.counting import Run

    Anew = Callable[[tuple[str, ...], bytes | None], bytes | None]

__all__ = ["Rewriting", "searchable", "unfilled", "waiting"]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Seals anew the values of *columns*, encrypted ones of one table.

    With *indexes*, every value is opened, to see whether its blind indexes are those of now.
    """

    entry: Entry
    columns: Sequence[Column[Any]]
    indexes: bool = False

    @property
    def cells(self) -> list[Cell]:
        """The stored values, and whether what they are searched by is not filled.

        A row is written only if none of the values has changed.
        """
        values = [Cell(name_sql(column.name), "bytea") for column in self.columns]
        return [*values, *(Cell(_not_filled(column, name_sql)) for column in self.columns)]

    @property
    def written(self) -> list[tuple[str, str]]:
        """The same columns."""
        return [(column.name, "bytea") for column in self.columns]

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what seals anew the values that are not sealed as they would be now."""
        anew = [_anew(column, keys, indexes=self.indexes) for column in self.columns]
        lacking = (
            f"({self._lacking(column, keys)}) OR {_not_filled(column, name_sql)}"
            for column in self.columns
        )
        width = len(anew)

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[Any]]:
            stored, bare = cells[:width], cells[width:]
            written = [make(key, old) for make, old in zip(anew, stored, strict=True)]
            # To write the same value again sets the trigger off.
            done = zip(written, stored, bare, strict=True)
            return sum(new is not old or empty for new, old, empty in done), written

        return Work(" OR ".join(lacking), made)

    def _lacking(self, column: Column[Any], keys: TenantKeys) -> str:
        name, present = name_sql(column.name), Present(column, keys)
        opened = self.indexes and field_of(column).indexes
        return is_sealed_sql(name) if opened else present.lacking(name)


def waiting(
    counted: Iterable[Rows], columns: Iterable[Column[Any]], primary: Mapping[str, int]
) -> Iterator[Rows]:
    """Yield those of *counted* that are not sealed as they would be now.

    Args:
        counted: Rows of *columns*.
        columns: Encrypted columns.
        primary: The numbers of the keys that seal, by tenant; other tenants are left out.
    """
    headers = {(each.table.fullname, each.name): field_of(each).header for each in columns}
    for rows in counted:
        if rows.form is Form.SEALED and rows.tenant in primary:
            now = primary[rows.tenant], headers[rows.table, rows.column]
            if (rows.key, rows.header) != now:
                yield rows


def searchable(counted: Iterable[Rows], columns: Iterable[Column[Any]]) -> Iterator[Rows]:
    """Yield those of *counted*, rows of *columns*, that hold values with blind indexes."""
    names = {(each.table.fullname, each.name) for each in columns if field_of(each).indexes}
    for rows in counted:
        if rows.form is Form.SEALED and (rows.table, rows.column) in names:
            yield rows


def unfilled(
    run: Run, tables: Iterable[tuple[Entry, list[Column[Any]]]], tenant: str | None
) -> Iterator[Rows]:
    """Yield rows whose values have their indexes, and what a trigger fills with them is not filled.

    Raises:
        ConfigurationError: If a column that a trigger fills is not there yet, or the trigger.
    """
    for entry, columns in tables:
        kept = kept_by_source(columns[0].table)
        for column in columns:
            if column.name in kept:
                _require(run, entry, column.name, kept[column.name])
                yield from _unfilled(run, entry, column, tenant)


def _unfilled(run: Run, entry: Entry, column: Column[Any], tenant: str | None) -> Iterator[Rows]:
    own, stored = quote(cast("Column[Any]", entry.column).name), quote(column.name)
    header = field_of(column).header
    only = "" if tenant is None else f" AND {own} = {plain_literal(tenant)}"
    for name, head, rows in run(
        f"SELECT {own}::text, encode({head_sql(stored)}, 'hex'), count(*) "
        f"FROM {qualified(target_of(entry))} "
        f"WHERE substring({stored}, 1, {len(header)}) = '\\x{header.hex()}'::bytea "
        f"AND {_not_filled(column, quote)}{only} GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        key = None if head is None else parts_of_head(head)[1]
        yield Rows(entry.fullname, column.name, name, Form.SEALED, key, header, rows)


def _require(run: Run, entry: Entry, source: str, kept: Sequence[Column[Any]]) -> None:
    table = plain_literal(qualified(target_of(entry)))
    there = run(
        "SELECT attname FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {table}::regclass AND NOT attisdropped"
    )
    bodies = run(
        "SELECT p.prosrc FROM pg_catalog.pg_trigger t "
        f"JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = {table}::regclass "
        f"AND t.tgname = {plain_literal(keeper(entry.name, source))} AND t.tgenabled IN ('O', 'A')"
    )
    missing = sorted({column.name for column in kept} - {name for [name] in there})
    if missing:
        raise ConfigurationError(
            f"Table {entry.fullname} has no column {missing[0]!r} yet, which a trigger fills. Run "
            "`tenantguard rls apply` first: it adds column and trigger before it looks at values."
        )
    idle = sorted(
        each.name for each in kept if not any(fills(body, each.name) for [body] in bodies)
    )
    if idle:
        raise ConfigurationError(
            f"Table {entry.fullname} lacks the trigger that fills {idle[0]!r}, or it is disabled. "
            "Run `tenantguard rls apply` first: it adds the trigger before it looks at values."
        )


def _not_filled(column: Column[Any], named: Callable[[str], str]) -> str:
    """Return the condition that what *column* is searched by is not filled by its trigger yet."""
    conditions = [
        f"{named(each.name)} IS DISTINCT FROM {derived_sql(each, named)}"
        for each in kept_by_source(column.table).get(column.name, ())
    ]
    return f"({' OR '.join(conditions)})" if conditions else "false"


def _anew(column: Column[Any], keys: TenantKeys, *, indexes: bool) -> Anew:
    values, present, indexed = Values(column, keys), Present(column, keys), Indexed(column, keys)
    compared = indexes and field_of(column).indexes

    def anew(key: tuple[str, ...], stored: bytes | None) -> bytes | None:
        if stored is None:
            return None
        if present.has(stored) and not (compared and not indexed.has(key, stored)):
            return stored
        return values.seal(key, values.open(key, stored))

    return anew
