"""The changes to a table around a migration of plaintext, as operations up and down."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tenantguard.encrypt.schema import expand, parts_of
from tenantguard.encrypt.triggers import trigger_statements, without_triggers
from tenantguard.integrations.alembic.encrypting import (
    DropOwnIndex,
    RestoreNotNull,
    RunSql,
    ValidateOrDropCheck,
)
from tenantguard.integrations.alembic.partitioned import CreatePartitionedIndex
from tenantguard.integrations.alembic.requiring import (
    UNCOMPARED,
    RequirePlaintext,
    RequireSealed,
    RequireTriggers,
)
from tenantguard.integrations.alembic.transactions import OwnStep, RefuseDowngrade
from tenantguard.rls.kept import unkeeping
from tenantguard.rls.names import object_name, plain_literal, qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from alembic.operations import MigrateOperation

    from tenantguard.encrypt.migrating import Migration
    from tenantguard.encrypt.schema import Statements, Structure
    from tenantguard.integrations.alembic.operation import TenantOperation

__all__ = ["Change", "contracting", "expanding"]

_INSTANT = "ACCESS EXCLUSIVE, an instant"


@dataclass(frozen=True, slots=True)
class Change:
    """What a migration does, and what takes it back."""

    up: Sequence[TenantOperation]
    down: Sequence[MigrateOperation]


def expanding(migration: Migration, there: Structure) -> Change:
    """Return what is missing before values can be sealed, and what takes just that away again."""
    # The partitions of the database that is asked are not those of another.
    rest = replace(there, indexes=_of_all(migration)) if there.partitions else there
    up = [step for each in expand(migration, rest) for step in _steps(migration, each)]
    if there.partitions:
        up += _indexed(migration, there)
    return Change(up, list(_retracting(migration, there)))


def contracting(migration: Migration, there: Structure, *, keep: bool) -> Change:
    """Return what ends the migration, once the database itself holds that every row is sealed.

    Args:
        migration: The two columns.
        there: What the table has.
        keep: Whether the plain column is renamed instead of dropped.
    """
    schema, table = target_of(migration.entry)
    check = object_name(table, migration.sealed.name, "moved")
    triggers = [migration.marker, migration.guardian]
    up: list[TenantOperation] = [
        OwnStep(
            "check what is written from now on",
            _INSTANT,
            [
                RequireTriggers(table, schema=schema, triggers=triggers),
                *_sql(_checked(migration, check)),
            ],
        ),
        OwnStep(
            "check what is there; if a row has no sealed value, the check is dropped again",
            "SHARE UPDATE EXCLUSIVE, one scan, beside writes",
            [ValidateOrDropCheck(table, check, schema=schema)],
        ),
        OwnStep(
            f"{'rename' if keep else 'drop'} the column of plaintext, unless that check failed",
            _INSTANT,
            [
                RequireSealed(table, check, schema=schema, triggers=triggers),
                *_sql(_ended(migration, check, keep=keep)),
            ],
        ),
    ]
    return Change(up, [_back(migration, there) if keep else RefuseDowngrade(_GONE)])


def _steps(migration: Migration, statements: Statements) -> Iterator[OwnStep]:
    lock = f"{statements.lock}, {statements.duration}"
    if not statements.alone:
        yield OwnStep(statements.what, lock, list(_sql(statements.sql)))
        return
    schema, table = target_of(migration.entry)
    # An interrupted CREATE INDEX CONCURRENTLY leaves an index that serves nobody.
    made = statements.sql[-1].partition(" ON ")[0]
    left = [
        DropOwnIndex(table, name, schema=schema)
        for name in parts_of(migration).indexes
        if made.endswith(f" {quote(name)}")
    ]
    yield OwnStep("drop what an earlier run has left of the search's index", _INSTANT, left)
    # The last of them makes it; one before it drops what this database has.
    yield OwnStep(statements.what, lock, list(_sql(statements.sql[-1:])), alone=True)


def _of_all(migration: Migration) -> dict[str, bool]:
    return dict.fromkeys(parts_of(migration).indexes, True)


def _indexed(migration: Migration, there: Structure) -> Iterator[OwnStep]:
    schema, table = target_of(migration.entry)
    for name, columns in parts_of(migration).indexes.items():
        if not there.indexes.get(name):
            make = CreatePartitionedIndex(table, name, columns, schema=schema)
            yield OwnStep(
                "make the search's index on each partition, and attach it to the table's",
                "SHARE UPDATE EXCLUSIVE on one partition at a time, two scans, beside writes",
                [make],
                several=True,
            )


def _sql(statements: tuple[str, ...]) -> Iterator[RunSql]:
    yield from map(RunSql, statements)


def _demanded(migration: Migration) -> str:
    """Return what a row has to fulfil before its plaintext goes."""
    sealed = f"{quote(migration.sealed.name)} IS NOT NULL"
    if not migration.sealed.nullable:
        return sealed
    return f"{quote(migration.plain.name)} IS NULL OR {sealed}"


def _checked(migration: Migration, check: str) -> tuple[str, ...]:
    alter = f"ALTER TABLE {migration.table}"
    return (
        f"{alter} DROP CONSTRAINT IF EXISTS {quote(check)}",
        f"{alter} ADD CONSTRAINT {quote(check)} CHECK ({_demanded(migration)}) NOT VALID",
    )


def _ended(migration: Migration, check: str, *, keep: bool) -> tuple[str, ...]:
    alter, plain = f"ALTER TABLE {migration.table}", quote(migration.plain.name)
    # The valid check spares SET NOT NULL its own look at all rows.
    demand = f"{alter} ALTER {quote(migration.sealed.name)} SET NOT NULL"
    kept = f"{alter} RENAME COLUMN {plain} TO {_kept(migration)}"
    return (
        *(() if migration.sealed.nullable else (demand,)),
        *without_triggers(migration),
        f"{alter} DROP CONSTRAINT {quote(check)}",
        kept if keep else f"{alter} DROP COLUMN {plain}",
    )


def _kept(migration: Migration) -> str:
    return quote(f"{migration.plain.name}_plaintext")


def _back(migration: Migration, there: Structure) -> OwnStep:
    """Return what gives a kept column its name and its triggers again."""
    alter = f"ALTER TABLE {migration.table}"
    allow = f"{alter} ALTER {quote(migration.sealed.name)} DROP NOT NULL"
    guardian = quote(migration.guardian)
    demanded = migration.sealed.nullable or there.columns[migration.sealed.name]
    statements = (
        f"{alter} RENAME COLUMN {_kept(migration)} TO {quote(migration.plain.name)}",
        *(() if demanded else (allow,)),
        *trigger_statements(migration),
        f"COMMENT ON TRIGGER {guardian} ON {migration.table} IS {plain_literal(UNCOMPARED)}",
    )
    what = "name the column of plaintext as before; its values are those of the upgrade"
    return OwnStep(what, _INSTANT, list(_sql(statements)))


def _retracting(migration: Migration, there: Structure) -> Iterator[OwnStep]:
    operations = list(_retracted(migration, there))
    loses = any(isinstance(each, RequirePlaintext) for each in operations)
    scans = loses or any(isinstance(each, RestoreNotNull) for each in operations)
    what = "take away what the upgrade has made" + (", unless values would be lost" * loses)
    if operations:
        yield OwnStep(what, "ACCESS EXCLUSIVE, one scan" if scans else _INSTANT, operations)


def _retracted(migration: Migration, there: Structure) -> Iterator[TenantOperation]:
    schema, table = target_of(migration.entry)
    plain, sealed = migration.plain.name, migration.sealed.name
    triggers = [migration.marker, migration.guardian]
    if sealed not in there.columns:
        yield RequirePlaintext(table, plain, sealed, schema=schema, triggers=triggers)
    if there.columns.get(plain):
        yield RestoreNotNull(table, plain, schema=schema)
    if not there.trigger:
        yield from _sql(without_triggers(migration))
    for name, columns in parts_of(migration).indexes.items():
        if not there.indexes.get(name) and {*columns} <= there.columns.keys():
            yield DropOwnIndex(table, name, schema=schema)
    yield from _sql(tuple(_dropped(migration, there)))


def _dropped(migration: Migration, there: Structure) -> Iterator[str]:
    parts, sealed = parts_of(migration), migration.sealed.name
    alter = f"ALTER TABLE {migration.table}"
    for name in parts.keepers.keys() - there.keepers.keys():
        function = qualified((target_of(migration.entry)[0], name))
        yield from unkeeping(migration.table, function, name)
    for name in parts.checks.keys() - there.valid.keys():
        yield f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}"
    made = [name for name in (*parts.searched, sealed) if name not in there.columns]
    if made:
        yield f"{alter} {', '.join(f'DROP COLUMN IF EXISTS {quote(name)}' for name in made)}"


_GONE = (
    "The column of plaintext was dropped, and a migration has no keys to bring its values back. "
    "Add the column to table and model again, and run `tenantguard encrypt backfill --decrypt`."
)
