"""What `tenantguard encrypt plan` tells before anything is changed."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from tenantguard.cli.seeing import seen_whole
from tenantguard.rls.names import plain_literal, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Engine

    from tenantguard.encrypt.migrating import Migration
    from tenantguard.encrypt.schema import Statements, Structure
    from tenantguard.guard import TenantGuard

__all__ = ["Facts", "facts", "write_plan"]

_VERSION = 1
_LARGE = 64 << 20
"""Bytes of a table from which on to rewrite it takes too long for an application that waits."""
_WITHOUT_REWRITING = (
    'declare search=Exact(kept_by="trigger"), Last and Prefix alike, and nothing is rewritten'
)
_OVERHEAD = 64
"""Bytes a value that is sealed takes more, roughly: header, an index, Tink's and the row's."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What there is.

    Attributes:
        rows: All rows of the table.
        plain: Rows with plaintext.
        waiting: Those of them that have nothing sealed yet.
        tenants: Whose they are.
        table_bytes: The table's size, without its indexes.
        column_bytes: The plaintext's.
        indexes: Indexes that have the plain column.
        statistics: Whether PostgreSQL's statistics hold values of it.
    """

    rows: int
    plain: int
    waiting: int
    tenants: int
    table_bytes: int
    column_bytes: int
    indexes: list[str]
    statistics: bool


def facts(guard: TenantGuard, engine: Engine, migration: Migration, there: Structure) -> Facts:
    """Return what there is to encrypt, read by a role that sees all rows."""
    plain, sealed = quote(migration.plain.name), quote(migration.sealed.name)
    missing = f"{sealed} IS NULL" if migration.sealed.name in there.columns else "true"
    if migration.plain.name not in there.columns:
        plain, missing = "NULL", "false"
    tenant = quote(str(migration.entry.column.name)) if migration.entry.column is not None else ""
    schema, table = map(plain_literal, target_of(migration.entry))
    column, name = plain_literal(migration.plain.name), plain_literal(migration.table)
    with seen_whole(guard, engine, {target_of(migration.entry)}) as run:
        [[rows, filled, waiting, tenants, size, width]] = run(
            f"SELECT count(*), count({plain}), count(*) FILTER (WHERE {plain} IS NOT NULL "
            f"AND {missing}), count(DISTINCT {tenant}) FILTER (WHERE {plain} IS NOT NULL), "
            f"pg_catalog.pg_table_size({name}::regclass), "
            f"coalesce(sum(pg_catalog.pg_column_size({plain})), 0)::bigint FROM {migration.table}"
        )
        indexes = run(
            "SELECT DISTINCT c.relname FROM pg_catalog.pg_index i "
            "JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid "
            "JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = ANY(i.indkey) "
            f"WHERE i.indrelid = {name}::regclass AND a.attname = {column} ORDER BY 1"
        )
        [[statistics]] = run(
            f"SELECT count(*) FROM pg_catalog.pg_stats WHERE schemaname = {schema} "
            f"AND tablename = {table} AND attname = {column}"
        )
    names = [index for [index] in indexes]
    return Facts(rows, filled, waiting, tenants, size, width, names, bool(statistics))


def write_plan(
    migration: Migration, found: Facts, missing: Sequence[Statements], *, output: str
) -> None:
    """Write what there is, what will be done, and what keeps the plaintext."""
    if output == "json":
        steps = [{"what": e.what, "lock": e.lock, "duration": e.duration} for e in missing]
        document = {
            "version": _VERSION,
            "column": migration.name,
            **asdict(found),
            "expand": steps,
            "advice": _advice(found, missing),
            "keeps_plaintext": [list(pair) for pair in _keepers(migration)],
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo("\n".join(_lines(migration, found, missing)))


def _lines(migration: Migration, found: Facts, missing: Sequence[Statements]) -> Iterator[str]:
    plain, sealed = migration.plain.name, migration.sealed.name
    yield f"{migration.entry.fullname}: {plain} comes into {sealed}, sealed."
    yield f"  rows      {found.rows:,}, {found.plain:,} with plaintext"
    yield f"  tenants   {found.tenants:,}"
    yield f"  to seal   {found.waiting:,}"
    more = found.column_bytes + _OVERHEAD * found.plain
    yield f"  size      table {_size(found.table_bytes)}, plaintext {_size(found.column_bytes)};"
    yield f"            sealed about {_size(more)}, and as much again until VACUUM"
    for index in found.indexes:
        yield f"  index     {index} has the plaintext; it goes with the column"
    yield "\nexpand"
    for each in missing:
        yield f"  {each.what}\n    {each.lock}, {each.duration}"
    if not missing:
        yield "  nothing: the table has it all"
    advice = _advice(found, missing)
    if advice:
        yield f"  instead   {advice}"
    yield "\nWhat keeps plaintext after `contract`, and what clears it"
    for what, clears in _keepers(migration):
        yield f"  {what}\n    {clears}"
    if found.statistics:
        yield "  now       pg_stats shows common values of the column to whoever may read it"


def _advice(found: Facts, missing: Sequence[Statements]) -> str | None:
    """Return how to avoid that a large table is rewritten, if it would be."""
    rewritten = found.table_bytes >= _LARGE and any(each.rewrites for each in missing)
    return _WITHOUT_REWRITING if rewritten else None


def _keepers(migration: Migration) -> list[tuple[str, str]]:
    return [
        (
            "the table's pages: DROP COLUMN leaves the bytes in every row",
            f"VACUUM (FULL, ANALYZE) {migration.table};  -- ACCESS EXCLUSIVE while it copies",
        ),
        (
            "the write-ahead log, and replicas",
            "CHECKPOINT; SELECT pg_switch_wal();  -- recycled later",
        ),
        ("archived WAL and backups", "their retention; delete older ones when it is over"),
        ("PostgreSQL's log, and pg_stat_statements", "rotate the log; pg_stat_statements_reset();"),
        ("logical replication's subscribers", "drop the column there"),
    ]


def _size(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1024:  # noqa: PLR2004
            return f"{number:,.0f} {unit}"
        number /= 1024
    return f"{number:,.1f} TB"
