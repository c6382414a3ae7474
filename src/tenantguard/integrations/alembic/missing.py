"""What a database is missing, as operations that know what was there before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.integrations.alembic.former import read_former
from tenantguard.integrations.alembic.from_privileges import table_privileges, usage_of_schema
from tenantguard.integrations.alembic.from_steps import Before, as_object, as_policy, as_switch
from tenantguard.integrations.alembic.from_structure import as_column, as_foreign_key, as_key
from tenantguard.rls.generate import entries
from tenantguard.rls.grants import granted_roles
from tenantguard.rls.names import target_of
from tenantguard.rls.plan import plan
from tenantguard.rls.step import Grants, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tenantguard.guard import TenantGuard
    from tenantguard.integrations.alembic.operation import TenantOperation
    from tenantguard.rls.step import Step, Target

__all__ = ["missing_operations"]

_OF_MODELS = {Kind.SEARCH_COLUMN, Kind.SEARCH_INDEX}
"""What Alembic compares itself."""

_WRITTEN: dict[Kind, Callable[[Step, Before], TenantOperation | None]] = {
    Kind.SCHEMA: usage_of_schema,
    Kind.NOT_NULL: as_column,
    Kind.DEFAULT: as_column,
    Kind.INDEX: as_key,
    Kind.UNIQUE: as_key,
    Kind.FOREIGN_KEY: as_foreign_key,
    Kind.POLICY: as_policy,
    Kind.ENABLE: as_switch,
    Kind.FORCE: as_switch,
    Kind.GRANTS: table_privileges,
}
"""What makes an operation of a step; of every other kind it is the step's own SQL."""


def missing_operations(
    connection: Connection, guard: TenantGuard, *, ahead: bool = False
) -> list[TenantOperation]:
    """Return the operations that bring the database to what the models ask for, in order.

    Args:
        connection: Of the tables' owner or a superuser.
        guard: The application's guard.
        ahead: Whether Alembic makes tables and columns of the models in the same migration.

    Raises:
        ConfigurationError: As `tenantguard.rls.plan`.
    """
    catalog = guard.catalog
    steps = plan(connection, catalog, guard.roles, ahead=ahead)
    functions = [(step.target[0], step.name) for step in steps]
    former = read_former(connection, _tables(steps, guard), functions if steps else [])
    before = Before(former, catalog, granted_roles(guard.roles))
    made = [_operation(step, before) for step in steps if _wanted(step, before, ahead=ahead)]
    return [each for each in made if each is not None]


def _tables(steps: list[Step], guard: TenantGuard) -> dict[Target, tuple[str, ...]]:
    tables: dict[Target, tuple[str, ...]] = {
        target_of(entry): () for entry in entries(guard.catalog)
    }
    for step in steps:
        named = step.wanted.named_sequences if isinstance(step.wanted, Grants) else ()
        tables[step.target] = named or tables.get(step.target, ())
    return tables


def _wanted(step: Step, before: Before, *, ahead: bool) -> bool:
    if not ahead:
        return True
    made_with_table = step.kind is Kind.FORMAT and before.former.table(step.target) is None
    return step.kind not in _OF_MODELS and not made_with_table


def _operation(step: Step, before: Before) -> TenantOperation | None:
    return _WRITTEN.get(step.kind, as_object)(step, before)
