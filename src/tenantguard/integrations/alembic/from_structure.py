"""Steps of the generator as operations: columns, indexes and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.integrations.alembic.columns import (
    DropTenantDefault,
    DropTenantNotNull,
    SetTenantDefault,
    SetTenantNotNull,
)
from tenantguard.integrations.alembic.keys import (
    CreateTenantForeignKey,
    CreateTenantIndex,
    CreateTenantKey,
    DropTenantForeignKey,
    DropTenantIndex,
    DropTenantKey,
    ValidateTenantForeignKey,
)
from tenantguard.rls.keys import composite_keys
from tenantguard.rls.names import object_name, target_of
from tenantguard.rls.step import Key, Kind, Value

if TYPE_CHECKING:
    from tenantguard.integrations.alembic.from_steps import Before
    from tenantguard.integrations.alembic.operation import TenantOperation
    from tenantguard.rls.step import Step

__all__ = ["as_column", "as_foreign_key", "as_key"]


def as_column(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation on the tenant column."""
    schema, table = step.target
    if not isinstance(step.wanted, Value):
        return None
    column = step.wanted.column
    if step.kind is Kind.NOT_NULL:
        undo = DropTenantNotNull(
            table, column, schema=schema, allow_unprotected=before.reason(step.target)
        )
        return SetTenantNotNull(table, column, schema=schema, undo=undo)
    former = _of(before, step, "columns", column) or {"default": None}
    return SetTenantDefault(
        table,
        column,
        step.wanted.text,
        schema=schema,
        undo=DropTenantDefault(table, column, schema=schema, former=former["default"]),
    )


def as_key(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation that makes an index or a unique key."""
    schema, table = step.target
    wanted = step.wanted
    if not isinstance(wanted, Key):
        return None
    facts = before.former.table(step.target) or {"indexes": {}}
    make: type[CreateTenantKey] = CreateTenantKey
    drop: type[DropTenantKey | DropTenantIndex] = DropTenantKey
    if step.kind is Kind.INDEX:
        make, drop = CreateTenantIndex, DropTenantIndex
    return make(
        table,
        step.name,
        list(wanted.columns),
        schema=schema,
        replaces=step.name in facts["indexes"],
        undo=drop(table, step.name, schema=schema, former=facts["indexes"].get(step.name)),
    )


def as_foreign_key(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation that makes a foreign key, or checks one that is there."""
    schema, table = step.target
    wanted = step.wanted
    if not isinstance(wanted, Key):
        return None
    parent_schema, parent = wanted.parent or step.target
    former = _of(before, step, "constraints", step.name)
    undo = DropTenantForeignKey(
        table,
        step.name,
        schema=schema,
        former=former,
        allow_unprotected=before.reason(step.target, (parent_schema, parent)),
    )
    if len(step.up) == 1:
        return ValidateTenantForeignKey(
            table, step.name, parent, schema=schema, parent_schema=parent_schema, undo=undo
        )
    return CreateTenantForeignKey(
        table,
        step.name,
        list(wanted.columns),
        parent,
        list(wanted.parent_columns),
        schema=schema,
        parent_schema=parent_schema,
        on_delete=wanted.on_delete,
        options=_options(step, before),
        replaces=former is not None,
        undo=undo,
    )


def _options(step: Step, before: Before) -> str:
    """Return what the models' key says besides ON DELETE."""
    found = (
        key.options
        for key in composite_keys(before.catalog)
        if target_of(key.child) == step.target
        and object_name(key.child.name, *key.columns, "fkey") == step.name
    )
    return next(found, "")


def _of(before: Before, step: Step, what: str, name: str) -> Any:
    facts = before.former.table(step.target)
    return None if facts is None else facts[what].get(name)
