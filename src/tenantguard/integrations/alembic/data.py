"""Data statements in migrations: for each tenant, or for all of them in so many words.

Under FORCE the owner sees no rows, and an UPDATE of all of them reports success. Migrations run
under `row_security = off`, where it is an error; these operations say whose rows are meant.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from alembic.operations import Operations
from alembic.util import CommandError
from sqlalchemy.dialects.postgresql.base import PGDialect

from tenantguard.catalog import SETTING
from tenantguard.integrations.alembic.operation import (
    TenantOperation,
    autocommits,
    operation,
    send,
)
from tenantguard.rls.names import DEFAULT_SCHEMA, do_block, plain_literal, qualified, quote

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.sql.elements import CompilerElement

__all__ = ["AsMaintenance", "ForEachTenant", "WithoutForce"]

_DEPTH = "tenantguard_depth"

# A tenant whose own row in the registry is not the only one to be seen is not entered: the role
# sees more, the registry has no policies, or a signed setting does not believe a migration.
_EACH = """\
DECLARE
    former_role text := current_setting('role');
    former_security text := current_setting('row_security');
    former_tenant text := coalesce(current_setting({setting}, true), '');
    tenants text[];
    tenant text;
    seen text[];
BEGIN
    PERFORM set_config('row_security', 'on', true), set_config('role', {maintenance}, true);
    EXECUTE {all} INTO tenants;
    IF cardinality(tenants) = 0 AND pg_relation_size({registry}::regclass) > 0 THEN
        RAISE EXCEPTION 'tenantguard: the maintenance role sees no tenant in the registry'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Run `tenantguard rls apply`, which'
            ' gives it its policy. If all tenants were deleted, VACUUM the registry.';
    END IF;
    PERFORM set_config('role', {application}, true);
    FOREACH tenant IN ARRAY tenants LOOP
        PERFORM set_config({setting}, tenant, true);
        EXECUTE {own} INTO seen;
        IF seen IS DISTINCT FROM ARRAY[tenant] THEN
            RAISE EXCEPTION 'tenantguard: a tenant is set, and the registry does not show it alone'
                USING ERRCODE = 'insufficient_privilege', HINT = 'Protect the registry first, and'
                ' name the role of the application. With a signed setting use op.as_maintenance().';
        END IF;
        EXECUTE {statement};
    END LOOP;
    PERFORM set_config({setting}, former_tenant, true), set_config('role', former_role, true),
        set_config('row_security', former_security, true);
END"""


@operation
@dataclass
class ForEachTenant(TenantOperation):
    """Run a statement once a tenant, as the application's role with the tenant set.

    Attributes:
        statement: SQL text, or a construct of SQLAlchemy whose values can be written as literals.
        registry: The registry's name.
        key: Its primary key.
        application: The role that the statement runs as; policies hold for it.
        maintenance: The role that sees which tenants there are.
        setting: The setting that carries the tenant.
        schema: The registry's schema.
    """

    verb: ClassVar[str] = "for_each_tenant"

    statement: str | CompilerElement
    registry: str = field(kw_only=True)
    key: str = field(kw_only=True)
    application: str = field(kw_only=True)
    maintenance: str = field(kw_only=True)
    setting: str = field(default=SETTING, kw_only=True)
    schema: str = field(default=DEFAULT_SCHEMA, kw_only=True)

    @classmethod
    def invoke(cls, operations: Operations, *args: Any, **kwargs: Any) -> None:
        """Run it, as `op` does; a construct becomes text."""
        made = cls(*args, **kwargs)
        made.statement = _text(made.statement)
        operations.invoke(made)

    def statements(self) -> Iterator[str]:
        """Yield one block."""
        registry, key = qualified((self.schema, self.registry)), quote(self.key)
        rows = f"SELECT ARRAY(SELECT {key}::text FROM {registry}"
        words = {
            "registry": registry,
            "all": f"{rows} ORDER BY 1)",
            "own": f"{rows} LIMIT 2)",
            "application": self.application,
            "maintenance": self.maintenance,
            "setting": self.setting,
            "statement": str(self.statement),
        }
        yield do_block(_EACH.format(**{name: plain_literal(each) for name, each in words.items()}))


@Operations.register_operation("as_maintenance")
class AsMaintenance:
    """`op.as_maintenance`."""

    @classmethod
    def as_maintenance(cls, operations: Operations, role: str, *, reason: str) -> Any:
        """Run the block's statements as the maintenance *role*, which sees all tenants' rows.

        Raises:
            CommandError: If *reason* is empty.
        """
        _require(reason, "op.as_maintenance")
        return _settings(operations.migration_context, {"role": role, "row_security": "on"})


@Operations.register_operation("without_force")
class WithoutForce:
    """`op.without_force`."""

    @classmethod
    def without_force(
        cls, operations: Operations, *tables: str, reason: str, schema: str = "public"
    ) -> Any:
        """Let the owner see all rows of *tables* inside the block, under ACCESS EXCLUSIVE.

        Raises:
            CommandError: If *reason* is empty.
        """
        _require(reason, "op.without_force")
        names = [qualified((schema, table)) for table in tables]
        return _lifted(operations.migration_context, names)


@contextmanager
def _lifted(context: MigrationContext, names: list[str]) -> Iterator[None]:
    with _undone_on_error(context):
        for name in names:
            send(context, f"ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY")
        yield
        for name in names:
            send(context, f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY")


def _require(reason: str, verb: str) -> None:
    if not reason.strip():
        raise CommandError(f"{verb}() reaches all tenants' rows: give it a reason='…'.")


@contextmanager
def _settings(context: MigrationContext, wanted: dict[str, str]) -> Iterator[None]:
    """Set *wanted* inside the block. What was set before is kept in settings of our own."""
    depth = context.opts.get(_DEPTH, 0)
    context.opts[_DEPTH] = depth + 1
    kept = {name: plain_literal(f"tenantguard.{name}_{depth}") for name in wanted}
    try:
        with _undone_on_error(context):
            for name, value in wanted.items():
                _set(context, kept[name], f"current_setting('{name}')")
                _set(context, f"'{name}'", plain_literal(value))
            yield
            for name in wanted:
                _set(context, f"'{name}'", f"current_setting({kept[name]})")
    finally:
        context.opts[_DEPTH] = depth


def _set(context: MigrationContext, name: str, expression: str) -> None:
    send(context, f"SELECT pg_catalog.set_config({name}, {expression}, true)")


@contextmanager
def _undone_on_error(context: MigrationContext) -> Iterator[None]:
    """Roll back to where the block began if it fails, so that nobody goes on with its rights."""
    if context.as_sql or context.connection is None:
        yield
        return
    if autocommits(context.connection):
        raise CommandError(
            "This needs a transaction, and an autocommit block has none. Move it out of there."
        )
    with context.connection.begin_nested():
        yield


def _text(statement: Any) -> str:
    if isinstance(statement, str):
        return statement
    # A "format" paramstyle would double the per cent signs.
    dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
