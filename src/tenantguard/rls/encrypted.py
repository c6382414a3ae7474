"""What encrypted columns need in the database: the keys' table, search columns, format checks.

Columns, indexes and checks are the models', so `create_all` and migrations make them too. What is
missing is made here, and nothing of it is undone: it holds the application's data.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, Column, Computed
from sqlalchemy.schema import CreateTable

from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import ENCRYPTED, KEPT, SEARCHES, key_table
from tenantguard.rls.kept import (
    derived_sql,
    hand_over,
    keeper,
    keeper_body,
    keeping,
    kept_by_source,
    unkeeping,
)
from tenantguard.rls.names import (
    column_list,
    constraint_name,
    ddl,
    do_block,
    expression_sql,
    index_name,
    object_name,
    plain_literal,
    qualified,
    quote,
    target_of,
    type_sql,
)
from tenantguard.rls.step import Derived, Keeper, Key, Kind, Phase, Step, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Table

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = [
    "encrypted_steps",
    "formats",
    "idle_steps",
    "keepers",
    "key_table_steps",
    "searches",
    "watched_columns",
]


def key_table_steps(entry: Entry, catalog: Catalog) -> Iterator[Step]:
    """Yield the step that makes the table of keys, if *entry* is that table.

    The registry's owner becomes its owner: a superuser may make it, and the owner looks after it.
    """
    if entry.kind is not TableKind.KEYS:
        return
    target = target_of(entry)
    create = ddl(CreateTable(key_table(catalog.tenant_type, target[0]), if_not_exists=True))
    hand_over = _hand_over(target, target_of(catalog.registry))
    up = (create, hand_over)
    yield Step(Phase.TABLES, target, Kind.TABLE, entry.name, up, (), Value(entry.name))


def encrypted_steps(entry: Entry) -> Iterator[Step]:
    """Yield the steps for the encrypted columns of *entry*'s table, in the table's order.

    Raises:
        ConfigurationError: If a column is searched that the database does not keep.
    """
    table, tenant = entry.table, entry.column
    if table is None or tenant is None or entry.kind is not TableKind.SCOPED:
        return
    found = list(searches(table))
    # What no value can make fail, and rewrites nothing, has a transaction of its own.
    yield from (_search_column(entry, each, wanted) for each, wanted in found if wanted.kept)
    yield from (_search_trigger(entry, name, wanted) for name, wanted in keepers(table))
    # Then what may be refused: a generated column rewrites the table.
    for constraint, wanted in formats(table):
        yield _format(entry, constraint, wanted)
    for column, wanted in found:
        if not wanted.kept:
            yield _search_column(entry, column, wanted)
        yield _search_index(entry, tenant, column)


def searches(table: Table) -> Iterator[tuple[Column[Any], Derived]]:
    """Yield the columns of *table* that are searched, with what each is generated as, or kept."""
    for column in table.columns:
        source = column.info.get(SEARCHES)
        if source is None:
            continue
        if KEPT in column.info:
            yield column, _kept(column)
            continue
        if not isinstance(column.computed, Computed):
            raise ConfigurationError(
                f"Column {column} is searched in place of an encrypted one, and not generated "
                "from it, so it could drift from it. Declare it as Computed(…, persisted=True)."
            )
        yield column, Derived(expression_sql(column.computed.sqltext), source, column.name)


def keepers(table: Table) -> Iterator[tuple[str, Keeper]]:
    """Yield the names of the triggers that keep search columns of *table*, with what each does."""
    for source, columns in kept_by_source(table).items():
        yield keeper(table.name, source), Keeper(keeper_body(columns), source)


def idle_steps(entry: Entry, facts: Facts) -> Iterator[Step]:
    """Yield the steps that drop triggers of *entry*'s table whose search columns are gone."""
    if entry.table is None or entry.kind is not TableKind.SCOPED:
        return
    target, wanted = target_of(entry), dict(keepers(entry.table))
    for name, trigger in facts["keepers"].items():
        if trigger["idle"] and name not in wanted:
            up = unkeeping(qualified(target), qualified((target[0], name)), name)
            nothing = Keeper("", "")
            yield Step(Phase.TABLES, target, Kind.SEARCH_TRIGGER, name, up, (), nothing)


def formats(table: Table) -> Iterator[tuple[CheckConstraint, Derived]]:
    """Yield the checks of *table*'s encrypted columns, with what each demands.

    Those of search columns that a trigger keeps come last.
    """
    searched = {wanted.source for _, wanted in searches(table)}
    found = [
        (
            constraint,
            Derived(expression_sql(constraint.sqltext), source, searched=source in searched),
        )
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
        and (source := constraint.info.get(ENCRYPTED)) is not None
    ]
    found += [
        (constraint, _kept(table.columns[column]))
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
        and (column := constraint.info.get(KEPT)) is not None
    ]
    # A table's constraints are a set.
    yield from sorted(found, key=lambda each: (each[1].kept, each[1].source, each[1].expression))


def watched_columns(entry: Entry) -> tuple[str, ...]:
    """Return the columns of *entry*'s table that are compared with the database."""
    if entry.table is None:
        return ()
    return tuple(
        column.name
        for column in entry.table.columns
        if entry.kind is TableKind.KEYS or {ENCRYPTED, SEARCHES} & column.info.keys()
    )


def _hand_over(target: Target, registry: Target) -> str:
    table, of = (f"{plain_literal(qualified(each))}::regclass" for each in (target, registry))
    return do_block(
        "DECLARE\n"
        f"    made regclass := {table};\n"
        f"    keeper oid := (SELECT relowner FROM pg_class WHERE oid = {of});\n"
        "BEGIN\n"
        "    IF keeper <> (SELECT relowner FROM pg_class WHERE oid = made) THEN\n"
        "        EXECUTE format('ALTER TABLE %s OWNER TO %I', made, pg_get_userbyid(keeper));\n"
        "    END IF;\n"
        "END"
    )


def _kept(column: Column[Any]) -> Derived:
    holds = f"{quote(column.name)} IS NOT DISTINCT FROM {derived_sql(column)}"
    return Derived(holds, column.info[SEARCHES], column.name, kept=True)


def _search_column(entry: Entry, column: Column[Any], wanted: Derived) -> Step:
    target = target_of(entry)
    add = (
        f"ALTER TABLE {qualified(target)} ADD COLUMN IF NOT EXISTS {quote(column.name)} "
        f"{type_sql(column)}"
    )
    if not wanted.kept:
        add += f"\n    GENERATED ALWAYS AS ({wanted.expression}) STORED"
    phase = Phase.TABLES if wanted.kept else Phase.STRUCTURE
    return Step(phase, target, Kind.SEARCH_COLUMN, column.name, (add,), (), wanted)


def _search_trigger(entry: Entry, name: str, wanted: Keeper) -> Step:
    target = target_of(entry)
    table, function = qualified(target), qualified((target[0], name))
    up = (*keeping(table, function, name, wanted.body), hand_over(table, function))
    return Step(Phase.TABLES, target, Kind.SEARCH_TRIGGER, name, up, (), wanted)


def _search_index(entry: Entry, tenant: Column[Any], column: Column[Any]) -> Step:
    target = target_of(entry)
    columns = (tenant.name, column.name)
    name = _index_of_models(column.table, columns) or object_name(entry.name, *columns, "idx")
    index = plain_literal(qualified((target[0], name)))
    # IF NOT EXISTS would take another table's index of that name for this one.
    create = do_block(
        "BEGIN\n"
        "    IF NOT EXISTS (SELECT FROM pg_index\n"
        f"            WHERE indexrelid = to_regclass({index})\n"
        f"            AND indrelid = {plain_literal(qualified(target))}::regclass) THEN\n"
        f"        CREATE INDEX {quote(name)} ON {qualified(target)} ({column_list(columns)});\n"
        "    END IF;\n"
        "END"
    )
    return Step(Phase.STRUCTURE, target, Kind.SEARCH_INDEX, name, (create,), (), Key(columns))


def _index_of_models(table: Any, columns: tuple[str, ...]) -> str | None:
    found = (
        index_name(index)
        for index in table.indexes
        if tuple(getattr(each, "name", None) for each in index.expressions) == columns
    )
    return min(found, default=None)


def _format(entry: Entry, constraint: CheckConstraint, wanted: Derived) -> Step:
    target = target_of(entry)
    name = constraint_name(constraint) or object_name(entry.name, wanted.source, "format")
    alter = f"ALTER TABLE {qualified(target)}"
    up = (
        # Search may have been added or removed since: the other check would contradict.
        f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}",
        f"{alter} ADD CONSTRAINT {quote(name)} CHECK ({wanted.expression}) NOT VALID",
        # It scans the table itself, below policies: unlike a foreign key's, FORCE hides no row.
        f"{alter} VALIDATE CONSTRAINT {quote(name)}",
    )
    return Step(Phase.STRUCTURE, target, Kind.FORMAT, name, up, (), wanted)
