"""Autogenerate sees what row-level security needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic.operations.ops import AddColumnOp, AlterColumnOp, ModifyTableOps
from alembic.util import CommandError

from tenantguard.catalog import Kind
from tenantguard.errors import TenantGuardError
from tenantguard.integrations.alembic.missing import missing_operations
from tenantguard.keytable import MIGRATING

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext
    from alembic.operations.ops import UpgradeOps

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.guard import TenantGuard

__all__ = ["compare"]


def compare(autogen_context: AutogenContext, upgrade_ops: UpgradeOps, guard: TenantGuard) -> Any:
    """Add the operations that *guard*'s models still need to *upgrade_ops*.

    Raises:
        CommandError: If the models or the database have to be mended first.
    """
    if autogen_context.connection is None:
        raise CommandError("tenantguard compares with a database, and Alembic has none here.")
    _leave_columns(upgrade_ops, guard.catalog)
    try:
        found = missing_operations(autogen_context.connection, guard, ahead=True)
    except TenantGuardError as error:
        raise CommandError(str(error)) from None
    upgrade_ops.ops.extend(found)
    return _continue()


def _continue() -> Any:
    try:
        from alembic.util import PriorityDispatchResult  # noqa: PLC0415  (not before 1.18)
    except ImportError:
        return None
    return PriorityDispatchResult.CONTINUE


def _leave_columns(upgrade_ops: UpgradeOps, catalog: Catalog) -> None:
    """Keep NOT NULL and the default of tenant columns, which the models need not have.

    And let encrypted columns be NULL that are being filled; the end of that makes them NOT NULL.
    """
    scoped = {(entry.schema, entry.name): entry for entry in catalog if entry.kind is Kind.SCOPED}
    for group in [each for each in upgrade_ops.ops if isinstance(each, ModifyTableOps)]:
        entry = scoped.get((group.schema, group.table_name))
        if entry is not None:
            filled = _filled(entry)
            group.ops[:] = [each for each in group.ops if not _is_ours(each, entry)]
            group.ops[:] = [each for each in group.ops if not _is_early(each, filled)]
        if group.is_empty():
            upgrade_ops.ops.remove(group)


def _is_ours(change: Any, entry: Entry) -> bool:
    """Take what `rls` has made out of *change*; return whether nothing is left of it."""
    column = entry.column
    if not isinstance(change, AlterColumnOp) or column is None or change.column_name != column.name:
        return False
    if change.modify_nullable is True:
        change.modify_nullable = None
    if change.modify_server_default is None and column.server_default is None:
        change.modify_server_default = False
    return not change.has_changes()


def _filled(entry: Entry) -> set[str]:
    """Return the encrypted columns of *entry*'s table that take the place of plain ones."""
    columns = () if entry.table is None else entry.table.columns
    return {column.name for column in columns if MIGRATING in column.info}


def _is_early(change: Any, filled: set[str]) -> bool:
    """Take NOT NULL of *filled* columns out of *change*; return whether nothing is left of it."""
    if isinstance(change, AddColumnOp) and change.column.name in filled:
        # The column can be the model's own.
        change.column = change.column._copy()  # noqa: SLF001  (as Alembic does it)
        change.column.nullable = True
    if not isinstance(change, AlterColumnOp) or change.column_name not in filled:
        return False
    if change.modify_nullable is False:
        change.modify_nullable = None
    return not change.has_changes()
