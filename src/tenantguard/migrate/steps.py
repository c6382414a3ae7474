"""The ordered steps of a migration, with the lock that each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.migrate.backfill import backfill
from tenantguard.migrate.target import with_tenant_column
from tenantguard.rls.generate import table_steps
from tenantguard.rls.keys import composite_keys
from tenantguard.rls.names import column_list, object_name, qualified, quote, target_of, type_sql
from tenantguard.rls.roles import role_steps
from tenantguard.rls.step import Key, Kind, Phase
from tenantguard.rls.structure import structure_steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.rls.keys import CompositeKey
    from tenantguard.rls.step import Step

__all__ = ["MigrationStep", "migration"]

_LOCK = "ACCESS EXCLUSIVE"


@dataclass(frozen=True, slots=True)
class MigrationStep:
    """One step of a migration.

    Attributes:
        title: What it does.
        lock: Which lock it takes on which table, and for how long.
        statements: The SQL, in order.
        transaction: Whether the statements run in one transaction; PostgreSQL refuses some in any.
        guarded: Whether policies must not be allowed to hide rows from the statements.
    """

    title: str
    lock: str
    statements: tuple[str, ...]
    transaction: bool = True
    guarded: bool = False


def migration(
    catalog: Catalog,
    roles: Roles,
    table: str,
    *,
    from_parent: str | None = None,
    create_roles: bool = False,
) -> list[MigrationStep]:
    """Return the steps that give *table* its tenant column and the locks that go with it.

    Foreign keys of other tables to *table* are left out, because those tables may not have their
    column yet: their own steps add them, or `tenantguard.rls.apply` in the end.

    Args:
        catalog: The application's tables; the model may have the column already, or not yet.
        roles: The roles to grant to.
        table: Name in the MetaData, with its schema if it has one; "public" may be given to a
            table that has none.
        from_parent: As `tenantguard.migrate.backfill.backfill` takes it.
        create_roles: Begin with a step that creates those of *roles* that do not exist.

    Raises:
        ConfigurationError: If the table or the parent is not known.
    """
    catalog.check()
    catalog, entry = with_tenant_column(catalog, table)
    composites = composite_keys(catalog)
    steps = list(table_steps(entry, catalog, roles, composites))
    return [
        *(_roles(roles) if create_roles else ()),
        *_column(entry, steps),
        _fill(catalog, entry, from_parent),
        *_not_null(entry),
        *_indexes([*steps, *_parents(entry, composites)]),
        *_keys(steps),
        _protection(entry, steps),
    ]


def _roles(roles: Roles) -> Iterator[MigrationStep]:
    yield MigrationStep(
        "Create the roles that do not exist, which takes a superuser; no password is set",
        "none on tables",
        tuple(line for step in role_steps(roles) for line in step.up),
    )


def _parents(entry: Entry, composites: list[CompositeKey]) -> Iterator[Step]:
    """Yield the unique keys that *entry*'s own foreign keys will need on other tables."""
    needed = {
        (target_of(key.parent), key.parent_columns): key.parent
        for key in composites
        if target_of(key.child) == target_of(entry) and target_of(key.parent) != target_of(entry)
    }
    for (_, columns), parent in sorted(needed.items(), key=lambda item: item[0]):
        for step in structure_steps(parent, composites):
            if isinstance(step.wanted, Key) and step.wanted.columns == columns:
                yield step


def _column(entry: Entry, steps: list[Step]) -> Iterator[MigrationStep]:
    if entry.column is None:
        return
    default = [line for step in steps if step.kind is Kind.DEFAULT for line in step.up]
    table = qualified(target_of(entry))
    added = f"ADD COLUMN IF NOT EXISTS {quote(entry.column.name)} {type_sql(entry.column)}"
    yield MigrationStep(
        "Add the tenant column, empty, and its default from the session's tenant",
        f"{_LOCK} on {entry.fullname}, brief: no row is rewritten",
        (f"ALTER TABLE {table} {added}", *default),
    )


def _fill(catalog: Catalog, entry: Entry, from_parent: str | None) -> MigrationStep:
    found = backfill(catalog, entry, from_parent=from_parent)
    source = f", {_LOCK} on both tables where FORCE is on already" if found.source else ""
    return MigrationStep(
        f"Backfill. {found.comment} On a large table, do it in batches",
        f"ROW EXCLUSIVE on {entry.fullname} until the end of the update{source}",
        (found.statement,),
        guarded=True,
    )


def _not_null(entry: Entry) -> Iterator[MigrationStep]:
    if entry.column is None:
        return
    alter, name = f"ALTER TABLE {qualified(target_of(entry))}", entry.fullname
    column = quote(entry.column.name)
    check = quote(object_name(entry.name, entry.column.name, "filled"))
    yield MigrationStep(
        "Demand the tenant of new rows",
        f"{_LOCK} on {name}, brief",
        (
            f"{alter} DROP CONSTRAINT IF EXISTS {check}",
            f"{alter} ADD CONSTRAINT {check} CHECK ({column} IS NOT NULL) NOT VALID",
        ),
    )
    yield MigrationStep(
        "Check that all rows have their tenant. Rows for all tenants belong into a shared table",
        f"SHARE UPDATE EXCLUSIVE on {name} for one scan: reads and writes go on",
        (f"{alter} VALIDATE CONSTRAINT {check}",),
    )
    yield MigrationStep(
        "NOT NULL, proven by the check, which is dropped",
        f"{_LOCK} on {name}, brief: no scan",
        (
            f"{alter} ALTER COLUMN {column} SET NOT NULL",
            f"{alter} DROP CONSTRAINT {check}",
        ),
    )


def _indexes(steps: Iterable[Step]) -> Iterator[MigrationStep]:
    for step in steps:
        if step.kind not in {Kind.INDEX, Kind.UNIQUE} or not isinstance(step.wanted, Key):
            continue
        columns = column_list(step.wanted.columns)
        what = "unique index" if step.kind is Kind.UNIQUE else "index"
        index = f"{quote(step.name)} ON {qualified(step.target)} ({columns})"
        yield MigrationStep(
            f"{what.capitalize()} of {step.table} that begins with the tenant. If it fails, "
            f"drop the invalid index {step.name} and repeat",
            f"SHARE UPDATE EXCLUSIVE on {step.table} for two scans: reads and writes go on",
            (f"CREATE {what.upper()} CONCURRENTLY IF NOT EXISTS {index}",),
            transaction=False,
        )


def _keys(steps: Iterable[Step]) -> Iterator[MigrationStep]:
    for step in steps:
        if step.kind is not Kind.FOREIGN_KEY or not isinstance(step.wanted, Key):
            continue
        add, validate = step.up
        parent = ".".join(step.wanted.parent or ())
        drop = f"ALTER TABLE {qualified(step.target)} DROP CONSTRAINT IF EXISTS {quote(step.name)}"
        yield MigrationStep(
            f"Foreign key of {step.table} to {parent}, for new rows",
            f"SHARE ROW EXCLUSIVE on {step.table} and {parent}, brief; {_LOCK} if it is replaced",
            (drop, add),
        )
        yield MigrationStep(
            f"Check the key against all rows of {step.table}, before FORCE hides them",
            f"SHARE UPDATE EXCLUSIVE on {step.table}, ROW SHARE on {parent}, for one scan; "
            f"{_LOCK} on both where FORCE is on already",
            (validate,),
            guarded=True,
        )


def _protection(entry: Entry, steps: list[Step]) -> MigrationStep:
    return MigrationStep(
        "Policies, which do nothing until they are switched on; switch on; privileges",
        f"{_LOCK} on {entry.fullname}, brief",
        tuple(line for step in steps if step.phase is Phase.PROTECTION for line in step.up),
    )
