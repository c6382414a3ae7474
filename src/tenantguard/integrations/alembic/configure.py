"""What `env.py` calls in place of `context.configure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from alembic import context
from sqlalchemy import event

from tenantguard.integrations.alembic.operation import autocommits
from tenantguard.integrations.alembic_plugin import NAME, OPTION, compare, plugin
from tenantguard.migrate import autogenerate

try:
    from alembic.runtime.plugins import Plugin
except ImportError:  # before 1.18
    from alembic.autogenerate import comparators

    comparators.dispatch_for("schema")(compare)
    Plugin = None  # type: ignore[assignment, misc, unused-ignore]

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from tenantguard.guard import TenantGuard

__all__ = ["configure"]

_COMPARED = ("alembic.autogenerate.*",)
_OFF = "SET LOCAL row_security = off"


def configure(guard: TenantGuard, **options: Any) -> None:
    """Configure Alembic for the application of *guard*.

    Autogenerate and `alembic check` then see what row-level security needs. Every transaction of a
    migration runs under `row_security = off`: a statement whose rows policies would hide is an
    error, where it would report success and change none of them.

    Args:
        guard: The application's guard.
        options: Those of `alembic.context.configure`, such as connection and target_metadata.
    """
    context.configure(**_with_ours(guard, options))
    migration = context.get_context()
    if migration.as_sql:
        _watch_script(migration)
    elif migration.connection is not None:
        _watch(migration.connection)


def _with_ours(guard: TenantGuard, options: dict[str, Any]) -> dict[str, Any]:
    theirs, their_rendering = options.get("include_object"), options.get("render_item")

    def include_object(*args: Any) -> bool:
        return autogenerate.include_object(*args) and (theirs is None or bool(theirs(*args)))

    def render_item(*args: Any) -> Any:
        ours = autogenerate.render_item(*args)
        return their_rendering(*args) if ours is False and their_rendering else ours

    merged = {**options, OPTION: guard, "include_object": include_object}
    merged["render_item"] = render_item
    if Plugin is not None:
        _register()
        merged["autogenerate_plugins"] = [*options.get("autogenerate_plugins", _COMPARED), NAME]
    return merged


def _register() -> None:
    """Register the plugin, unless its entry point has done so."""
    try:
        registered = Plugin(NAME)
    except ValueError:
        return
    plugin.setup(registered)


def _watch(connection: Connection) -> None:
    """Turn row security off in every transaction of *connection*, while migrations run."""

    def begun(connection: Connection) -> None:
        if _migrating():
            _send(connection, "SET row_security = off" if autocommits(connection) else _OFF)

    def ended(connection: Connection) -> None:
        if autocommits(connection):
            _send(connection, "RESET row_security")

    event.listen(connection, "begin", begun)
    event.listen(connection, "commit", ended)
    event.listen(connection, "rollback", ended)
    if connection.in_transaction():
        begun(connection)


def _watch_script(migration: MigrationContext) -> None:
    """Write the same into the script of `--sql`, where each transaction begins."""
    impl = migration.impl
    begin = impl.emit_begin

    def emit_begin() -> None:
        begin()
        impl.static_output(_OFF + impl.command_terminator)

    impl.emit_begin = emit_begin  # type: ignore[method-assign]


def _migrating() -> bool:
    try:
        context.get_context()
    except (NameError, AttributeError):
        # No environment is left: the connection is somebody else's now.
        return False
    return True


def _send(connection: Connection, statement: str) -> None:
    # Below SQLAlchemy, whose transaction is just about to begin.
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement)
    finally:
        cursor.close()
