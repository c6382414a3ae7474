"""Foreign keys that contain the tenant, because foreign keys are checked without policies.

They exist in the database only: in the models, both keys together would make every relationship
ambiguous, and the composite one alone would set the tenant to NULL with the parent.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import NoReferencedColumnError, NoReferencedTableError

from tenantguard.catalog import Kind as TableKind
from tenantguard.catalog import parent_keys
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import (
    column_list,
    do_block,
    object_name,
    plain_literal,
    qualified,
    quote,
    target_of,
)
from tenantguard.rls.step import Key, Kind, Phase, Step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ForeignKeyConstraint, Table

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.rls.step import Target

__all__ = ["CompositeKey", "composite_keys", "key_steps", "lifted"]


@dataclass(frozen=True, slots=True)
class CompositeKey:
    """A foreign key of the models, with the tenant added on both sides."""

    child: Entry
    parent: Entry
    columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    on_delete: str = ""
    options: str = ""


def composite_keys(catalog: Catalog) -> list[CompositeKey]:
    """Return the composite keys that the foreign keys between scoped tables ask for."""
    return [
        found
        for table in sorted(catalog.metadata.tables.values(), key=lambda each: each.fullname)
        if catalog.entry(table).kind is TableKind.SCOPED
        for key in parent_keys(table)
        if (found := _composite(catalog, catalog.entry(table), key))
    ]


def key_steps(entry: Entry, catalog: Catalog, composites: list[CompositeKey]) -> Iterator[Step]:
    """Yield the foreign keys of *entry*'s table: to the registry, and the composite ones."""
    registry = _registry_key(entry, catalog)
    own = [key for key in composites if target_of(key.child) == target_of(entry)]
    for key in [registry, *own] if registry else own:
        yield _step(key)


def lifted(targets: list[Target], statement: str) -> str:
    """Return a block that runs *statement* with FORCE lifted from *targets*, then restored.

    Under FORCE the owner sees no rows, so that a validation succeeds on crossing data. Lifting
    takes ACCESS EXCLUSIVE, and only where FORCE is on.
    """
    names = ", ".join(
        f"{plain_literal(qualified(target))}::regclass" for target in dict.fromkeys(targets)
    )
    return do_block(
        "DECLARE\n"
        "    forced regclass[] := ARRAY(SELECT oid::regclass FROM pg_class\n"
        f"        WHERE oid IN ({names}) AND relforcerowsecurity ORDER BY oid);\n"
        "    lifted regclass;\n"
        "BEGIN\n"
        "    FOREACH lifted IN ARRAY forced LOOP\n"
        "        EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', lifted);\n"
        "    END LOOP;\n"
        f"    {statement};\n"
        "    FOREACH lifted IN ARRAY forced LOOP\n"
        "        EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', lifted);\n"
        "    END LOOP;\n"
        "END"
    )


def _composite(catalog: Catalog, child: Entry, key: ForeignKeyConstraint) -> CompositeKey | None:
    parent = catalog.entry(_parent_table(child, key))
    if parent.kind is not TableKind.SCOPED or child.column is None or parent.column is None:
        return None
    pairs = [(each.parent.name, each.column.name) for each in key.elements]
    tenants = (child.column.name, parent.column.name)
    if tenants in pairs:
        return None
    if any(tenants[0] == own or tenants[1] == theirs for own, theirs in pairs):
        raise ConfigurationError(
            f"A foreign key of {child.fullname} to {parent.fullname} uses a tenant column on one "
            "side only. Make it refer to the other table's tenant column, or drop it."
        )
    if (key.onupdate or "").upper().startswith("SET"):
        raise ConfigurationError(
            f"A foreign key of {child.fullname} has ON UPDATE {key.onupdate}, which would empty "
            "the tenant column too. Use ON UPDATE CASCADE or leave it out."
        )
    pairs.insert(0, tenants)
    return CompositeKey(
        child,
        parent,
        tuple(own for own, _ in pairs),
        tuple(theirs for _, theirs in pairs),
        _on_delete(key),
        _options(key),
    )


def _parent_table(child: Entry, key: ForeignKeyConstraint) -> Table:
    try:
        return key.referred_table
    except (NoReferencedTableError, NoReferencedColumnError):
        raise ConfigurationError(
            f"A foreign key of {child.fullname} leads to a table or column that the MetaData does "
            "not have. Import the module that defines it first."
        ) from None


def _on_delete(key: ForeignKeyConstraint) -> str:
    action = (key.ondelete or "").upper()
    if action in {"SET NULL", "SET DEFAULT"}:
        # Without the columns, PostgreSQL would empty the tenant column as well.
        return f"{action} ({column_list(column.name for column in key.columns)})"
    return action


def _options(key: ForeignKeyConstraint) -> str:
    deferrable = "" if key.deferrable is None else " DEFERRABLE" * key.deferrable
    return "".join(
        (
            f" ON UPDATE {key.onupdate.upper()}" if key.onupdate else "",
            deferrable,
            f" INITIALLY {key.initially}" if key.initially and deferrable else "",
        )
    )


def _registry_key(entry: Entry, catalog: Catalog) -> CompositeKey | None:
    registry = catalog.registry
    if entry.table is None or entry.column is None or registry.column is None:
        return None
    wanted = [(entry.column, registry.column)]
    for key in parent_keys(entry.table):
        _parent_table(entry, key)
        if [(each.parent, each.column) for each in key.elements] == wanted:
            return None
    return CompositeKey(entry, registry, (entry.column.name,), (registry.column.name,))


def _step(key: CompositeKey) -> Step:
    child, parent = target_of(key.child), target_of(key.parent)
    name = object_name(key.child.name, *key.columns, "fkey")
    alter = f"ALTER TABLE {qualified(child)}"
    on_delete = f" ON DELETE {key.on_delete}" if key.on_delete else ""
    add = (
        f"{alter} ADD CONSTRAINT {quote(name)}\n"
        f"    FOREIGN KEY ({column_list(key.columns)})\n"
        f"    REFERENCES {qualified(parent)} ({column_list(key.parent_columns)})"
        f"{on_delete}{key.options} NOT VALID"
    )
    return Step(
        phase=Phase.KEYS,
        target=child,
        kind=Kind.FOREIGN_KEY,
        name=name,
        up=(add, lifted([child, parent], f"{alter} VALIDATE CONSTRAINT {quote(name)}")),
        down=(f"{alter} DROP CONSTRAINT IF EXISTS {quote(name)}",),
        wanted=Key(key.columns, parent, key.parent_columns, key.on_delete),
    )
