"""What a tenant column needs besides policies: NOT NULL, default, index, unique key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, UniqueConstraint

from tenantguard.catalog import Kind as TableKind
from tenantguard.rls.names import column_list, object_name, qualified, quote, target_of
from tenantguard.rls.policies import bound_tenant
from tenantguard.rls.step import Key, Kind, Phase, Step, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Index, Table

    from tenantguard.catalog import Entry
    from tenantguard.rls.keys import CompositeKey

__all__ = ["structure_steps"]


def structure_steps(entry: Entry, references: list[CompositeKey]) -> Iterator[Step]:
    """Yield the steps for *entry*'s table, to which *references* point."""
    table, column = entry.table, entry.column
    if table is None or column is None or entry.kind is not TableKind.SCOPED:
        return
    yield _not_null(entry, column)
    # A default of the model's own is not ours to replace; the policy's check still holds.
    if column.server_default is None:
        yield _default(entry, column)
    wanted = {
        reference.parent_columns: None
        for reference in references
        if target_of(reference.parent) == target_of(entry)
    }
    uniques = [columns for columns in wanted if set(columns) not in _unique_keys(table)]
    for columns in sorted(uniques):
        yield _unique(entry, columns)
    if not uniques and column.name not in _leading_columns(table):
        yield _index(entry, column)


def _not_null(entry: Entry, column: Column[Any]) -> Step:
    target = target_of(entry)
    return Step(
        phase=Phase.STRUCTURE,
        target=target,
        kind=Kind.NOT_NULL,
        name=column.name,
        up=(f"ALTER TABLE {qualified(target)} ALTER COLUMN {quote(column.name)} SET NOT NULL",),
        down=(),  # Whether the column could be empty before is not known, and never was meant.
        wanted=Value("", column=column.name),
    )


def _default(entry: Entry, column: Column[Any]) -> Step:
    target = target_of(entry)
    alter = f"ALTER TABLE {qualified(target)} ALTER COLUMN {quote(column.name)}"
    return Step(
        phase=Phase.STRUCTURE,
        target=target,
        kind=Kind.DEFAULT,
        name=column.name,
        up=(f"{alter} SET DEFAULT {bound_tenant(column)}",),
        down=(f"{alter} DROP DEFAULT",),
        wanted=Value(bound_tenant(column), column=column.name),
    )


def _unique(entry: Entry, columns: tuple[str, ...]) -> Step:
    target = target_of(entry)
    name = object_name(entry.name, *columns, "key")
    alter = f"ALTER TABLE {qualified(target)}"
    return Step(
        phase=Phase.STRUCTURE,
        target=target,
        kind=Kind.UNIQUE,
        name=name,
        up=(f"{alter} ADD CONSTRAINT {quote(name)} UNIQUE ({column_list(columns)})",),
        # A migration makes the index alone, which serves foreign keys as well.
        down=(
            f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}",
            f"DROP INDEX IF EXISTS {qualified((target[0], name))}",
        ),
        wanted=Key(columns),
    )


def _index(entry: Entry, column: Column[Any]) -> Step:
    target = target_of(entry)
    name = object_name(entry.name, column.name, "idx")
    return Step(
        phase=Phase.STRUCTURE,
        target=target,
        kind=Kind.INDEX,
        name=name,
        up=(f"CREATE INDEX {quote(name)} ON {qualified(target)} ({quote(column.name)})",),
        down=(f"DROP INDEX IF EXISTS {qualified((target[0], name))}",),
        wanted=Key((column.name,)),
    )


def _unique_keys(table: Table) -> list[set[str]]:
    keys = [table.primary_key, *_unique_constraints(table)]
    return [{column.name for column in key.columns} for key in keys]


def _unique_constraints(table: Table) -> list[UniqueConstraint]:
    return [key for key in table.constraints if isinstance(key, UniqueConstraint)]


def _is_whole(index: Index) -> bool:
    options: Any = index.dialect_options
    return options["postgresql"].get("where") is None


def _leading_columns(table: Table) -> set[str]:
    keys: list[list[Any]] = [
        list(key.columns) for key in (table.primary_key, *_unique_constraints(table))
    ]
    indexes: list[list[Any]] = [
        list(index.expressions) for index in table.indexes if _is_whole(index)
    ]
    leading: list[Any] = [columns[0] for columns in [*keys, *indexes] if columns]
    return {column.name for column in leading if isinstance(column, Column)}
