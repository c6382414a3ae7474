"""Steps of the generator as operations: privileges on tables and schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.integrations.alembic.operation import PUBLIC
from tenantguard.integrations.alembic.privileges import (
    GrantTenantPrivileges,
    GrantTenantSchema,
    RestoreTenantPrivileges,
    RestoreTenantSchema,
)
from tenantguard.rls.step import Grants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.integrations.alembic.from_steps import Before
    from tenantguard.integrations.alembic.operation import TenantOperation
    from tenantguard.rls.step import Step

__all__ = ["table_privileges", "usage_of_schema"]

_CONFINED = 2
"""The application and support come first among the granted roles."""


def table_privileges(step: Step, before: Before) -> TenantOperation | None:
    """Return the operation that grants what *step* wants."""
    schema, table = step.target
    wanted = step.wanted
    if not isinstance(wanted, Grants):
        return None
    return GrantTenantPrivileges(
        table,
        {role: sorted(wanted.table.get(role, ())) for role in before.roles},
        schema=schema,
        sequences={role: sorted(each) for role, each in wanted.sequences.items()} or None,
        named_sequences=wanted.named_sequences,
        if_exists=wanted.optional,
        undo=_restored(step, wanted, before),
    )


def usage_of_schema(step: Step, before: Before) -> TenantOperation:
    """Return the operation that lets the roles use a schema."""
    schema = step.target[0]
    former = _by_role(before.former.schema(schema), (PUBLIC, *before.roles))
    return GrantTenantSchema(
        schema,
        roles=list(before.roles),
        confined=list(before.roles[:_CONFINED]),
        undo=RestoreTenantSchema(schema, former),
    )


def _restored(step: Step, wanted: Grants, before: Before) -> RestoreTenantPrivileges:
    schema, table = step.target
    everybody = (PUBLIC, *before.roles)
    facts = before.former.table(step.target) or {"acl": [], "columns": {}, "sequences": {}}
    columns = {
        name: held
        for name, column in facts["columns"].items()
        if (held := _held(column["acl"], everybody))
    }
    sequences = {
        name: _by_role(acl, tuple(wanted.sequences)) for name, acl in facts["sequences"].items()
    }
    return RestoreTenantPrivileges(
        table,
        _by_role(facts["acl"], everybody),
        schema=schema,
        columns=columns or None,
        sequences=sequences if wanted.sequences and sequences else None,
        allow_unprotected=before.reason(step.target),
    )


def _held(acl: Iterable[list[str]], roles: tuple[str, ...]) -> dict[str, list[str]]:
    return {role: held for role, held in _by_role(acl, roles).items() if held}


def _by_role(acl: Iterable[list[str]], roles: tuple[str, ...]) -> dict[str, list[str]]:
    listed = list(acl)
    return {role: [each for holder, each in listed if holder == role] for role in roles}
