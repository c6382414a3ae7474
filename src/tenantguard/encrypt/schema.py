"""The changes to a table by which an encrypted column takes a plain one's place."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.partitions import Partition, partitioned_index, partitions_of
from tenantguard.encrypt.statements import BESIDE, EXCLUSIVE, WRITES, Statements
from tenantguard.encrypt.triggers import trigger_statements, without_triggers
from tenantguard.rls.encrypted import encrypted_steps
from tenantguard.rls.kept import is_keeper
from tenantguard.rls.names import (
    column_list,
    object_name,
    plain_literal,
    qualified,
    quote,
    target_of,
)
from tenantguard.rls.state import KEEPERS
from tenantguard.rls.step import Derived, Keeper, Key, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tenantguard.encrypt.migrating import Migration
    from tenantguard.rls.state import Facts

    Ask = Callable[[str], Sequence[Any]]

__all__ = [
    "Parts",
    "Statements",
    "Structure",
    "contract",
    "expand",
    "left_by_contract",
    "parts_of",
    "structure_of",
]

_TRIGGERS = (
    "forget what is sealed, or plain, when a version of the application writes the other alone"
)


@dataclass(frozen=True, slots=True)
class Structure:
    """What a table has of a migration.

    Attributes:
        columns: The names of its columns, and whether each is NOT NULL.
        valid: Names of its constraints, and whether each is validated.
        indexes: Names of its indexes, and whether each is usable.
        trigger: Whether the triggers are there, and enabled in each partition.
        partitions: The table and its partitions, if it has any.
        keepers: The triggers that keep search columns, by name.
    """

    columns: dict[str, bool]
    valid: dict[str, bool]
    indexes: dict[str, bool]
    trigger: bool
    partitions: tuple[Partition, ...] = ()
    keepers: dict[str, Facts] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parts:
    """What an encrypted column needs beside itself.

    Attributes:
        searched: The columns that are searched, and what they are generated as, if they are.
        keepers: The triggers that keep the others, what each does, and what makes it.
        checks: The checks of the column's format, and what each demands.
        indexes: The indexes of columns that are searched, and their columns.
    """

    searched: dict[str, str | None]
    keepers: dict[str, tuple[str, tuple[str, ...]]]
    checks: dict[str, str]
    indexes: dict[str, tuple[str, ...]]


def structure_of(ask: Ask, migration: Migration) -> Structure | None:
    """Return what the database has; None if it does not have the table."""
    name = plain_literal(migration.table)
    [[found]] = ask(f"SELECT to_regclass({name})::oid::bigint")
    if found is None:
        return None
    columns = ask(
        "SELECT attname, attnotnull FROM pg_catalog.pg_attribute "
        f"WHERE attrelid = {found} AND attnum > 0 AND NOT attisdropped"
    )
    constraints = ask(
        f"SELECT conname, convalidated FROM pg_catalog.pg_constraint WHERE conrelid = {found}"
    )
    indexes = ask(
        "SELECT c.relname, i.indisvalid FROM pg_catalog.pg_index i "
        f"JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {found}"
    )
    triggers = ask(
        f"SELECT count(*) FILTER (WHERE tgrelid = {found}) = 2 "
        "AND bool_and(tgenabled IN ('O', 'A')) FROM pg_catalog.pg_trigger "
        f"WHERE (tgrelid = {found} "
        f"OR tgrelid IN (SELECT relid FROM pg_catalog.pg_partition_tree({found}::regclass))) "
        f"AND tgname IN ({plain_literal(migration.guardian)}, {plain_literal(migration.marker)})"
    )
    [[keepers]] = ask(f"SELECT {KEEPERS}::text FROM pg_catalog.pg_class k WHERE k.oid = {found}")
    return Structure(
        columns=dict(map(tuple, columns)),
        valid=dict(map(tuple, constraints)),
        indexes=dict(map(tuple, indexes)),
        trigger=bool(triggers[0][0]),
        partitions=partitions_of(ask, migration.table),
        keepers=json.loads(keepers),
    )


def parts_of(migration: Migration) -> Parts:
    """Return what an encrypted column needs beside itself."""
    steps = list(encrypted_steps(migration.entry))
    mine = [
        (step, step.wanted)
        for step in steps
        if isinstance(step.wanted, Derived) and step.wanted.source == migration.sealed.name
    ]
    searched = {
        step.name: None if wanted.kept else wanted.expression
        for step, wanted in mine
        if step.kind is Kind.SEARCH_COLUMN
    }
    return Parts(
        searched,
        {
            step.name: (step.wanted.body, step.up)
            for step in steps
            if isinstance(step.wanted, Keeper) and step.wanted.source == migration.sealed.name
        },
        {step.name: wanted.expression for step, wanted in mine if step.kind is Kind.FORMAT},
        {
            step.name: tuple(step.wanted.columns)
            for step in steps
            if isinstance(step.wanted, Key) and searched.keys() & {*step.wanted.columns}
        },
    )


def expand(migration: Migration, there: Structure) -> Iterator[Statements]:
    """Yield what is missing before values can be sealed, or in the way of it."""
    parts = parts_of(migration)
    yield from left_by_contract(migration, there)
    yield from _columns(migration, parts.searched, there)
    for name, (body, sql) in parts.keepers.items():
        if not is_keeper(there.keepers.get(name), body):
            yield Statements("fill what is searched by, by a trigger", sql, WRITES, "an instant")
    for name, expression in parts.checks.items():
        yield from _check(migration, name, expression, there)
    for name, columns in parts.indexes.items():
        yield from _index(migration, name, columns, there)
    if not there.trigger:
        yield Statements(_TRIGGERS, trigger_statements(migration), WRITES, "an instant")
    if there.columns.get(migration.plain.name):
        yield Statements(
            "let rows be without plaintext, once the application writes none",
            (f"ALTER TABLE {migration.table} ALTER {quote(migration.plain.name)} DROP NOT NULL",),
            EXCLUSIVE,
            "an instant",
        )


def left_by_contract(migration: Migration, there: Structure) -> Iterator[Statements]:
    """Yield what drops the checks of a `contract` that was ended in between.

    They refuse what older applications go on writing.
    """
    left = [name for name in _checks_of_contract(migration) if name in there.valid]
    if left:
        yield Statements(
            "drop the checks that an earlier contract has left",
            _without_checks(migration, left),
            EXCLUSIVE,
            "an instant",
        )


def _checks_of_contract(migration: Migration) -> tuple[str, str]:
    table, sealed = migration.entry.name, migration.sealed.name
    return object_name(table, sealed, "moved"), object_name(table, sealed, "filled")


def _without_checks(migration: Migration, names: Iterable[str]) -> tuple[str, ...]:
    alter = f"ALTER TABLE {migration.table}"
    return tuple(f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}" for name in names)


def contract(migration: Migration, there: Structure, *, keep: bool) -> Iterator[Statements]:
    """Yield what ends the migration: from the first of them on, no row is without its sealed value.

    Args:
        migration: The two columns.
        there: What the table has.
        keep: Whether the plain column is renamed instead of dropped.
    """
    plain, sealed = quote(migration.plain.name), quote(migration.sealed.name)
    moved, filled = _checks_of_contract(migration)
    alter = f"ALTER TABLE {migration.table}"
    # Checks that do not hold would refuse what older applications go on writing.
    undo = _without_checks(migration, (moved, filled))
    all_moved = f"{plain} IS NULL OR {sealed} IS NOT NULL"
    yield from _check(migration, moved, all_moved, there, undo=undo)
    if not migration.sealed.nullable and not there.columns.get(migration.sealed.name):
        yield from _check(migration, filled, f"{sealed} IS NOT NULL", there, undo=undo)
        # A valid check spares SET NOT NULL its own look at all rows.
        now = (f"{alter} ALTER {sealed} SET NOT NULL", f"{alter} DROP CONSTRAINT {quote(filled)}")
        yield Statements("demand a sealed value in every row", now, EXCLUSIVE, "an instant")
    end = f"{alter} DROP COLUMN {plain}"
    if keep:
        end = f"{alter} RENAME COLUMN {plain} TO {quote(f'{migration.plain.name}_plaintext')}"
    last = (
        *without_triggers(migration),
        f"{alter} DROP CONSTRAINT {quote(moved)}",
        end,
    )
    what = "rename" if keep else "drop"
    yield Statements(f"{what} the column of plaintext", last, EXCLUSIVE, "an instant")


def _columns(
    migration: Migration, searched: dict[str, str | None], there: Structure
) -> Iterator[Statements]:
    parts, rewrites = [], False
    if migration.sealed.name not in there.columns:
        parts.append(f"ADD COLUMN IF NOT EXISTS {quote(migration.sealed.name)} bytea")
    for name, expression in searched.items():
        if name not in there.columns:
            generated = f" GENERATED ALWAYS AS ({expression}) STORED" if expression else ""
            parts.append(f"ADD COLUMN IF NOT EXISTS {quote(name)} bytea{generated}")
            rewrites = rewrites or expression is not None
    if parts:
        # In one statement, so that the table is rewritten once.
        yield Statements(
            "add the encrypted column"
            + (", and generate its index: this REWRITES the table" if rewrites else ""),
            (f"ALTER TABLE {migration.table} {', '.join(parts)}",),
            EXCLUSIVE,
            "while the table is rewritten" if rewrites else "an instant",
            rewrites=rewrites,
        )


def _check(
    migration: Migration,
    name: str,
    expression: str,
    there: Structure,
    *,
    undo: tuple[str, ...] = (),
) -> Iterator[Statements]:
    alter = f"ALTER TABLE {migration.table}"
    if name not in there.valid:
        add = (
            f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}",
            f"{alter} ADD CONSTRAINT {quote(name)} CHECK ({expression}) NOT VALID",
        )
        yield Statements(
            f"check what is written from now on ({name})", add, EXCLUSIVE, "an instant"
        )
    if not there.valid.get(name):
        validate = f"{alter} VALIDATE CONSTRAINT {quote(name)}"
        duration = "one scan, beside writes"
        yield Statements("check what is there", (validate,), BESIDE, duration, undo=undo)


def _index(
    migration: Migration, name: str, columns: Sequence[str], there: Structure
) -> Iterator[Statements]:
    if there.indexes.get(name):
        return
    if there.partitions:
        yield from partitioned_index(there.partitions, name, columns)
        return
    schema = target_of(migration.entry)[0]
    create = (
        f"CREATE INDEX CONCURRENTLY {quote(name)} ON {migration.table} ({column_list(columns)})"
    )
    # An interrupted CREATE INDEX CONCURRENTLY leaves an index that serves nobody.
    drop = f"DROP INDEX CONCURRENTLY IF EXISTS {qualified((schema, name))}"
    sql = (drop, create) if name in there.indexes else (create,)
    yield Statements("make the search's index", sql, BESIDE, "two scans, beside writes", alone=True)
