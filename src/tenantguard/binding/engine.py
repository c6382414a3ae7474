"""Attaching the binding to an engine's connections: when they are made, taken and returned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from tenantguard.binding.state import SNAPSHOT_QUERY, Binding, ConnectionState, scrub_sql
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

__all__ = ["bind_engine"]


def bind_engine(engine: Engine, binding: Binding, *, verify: Callable[[Any, bool], None]) -> None:
    """Bind the tenant to every transaction on *engine*'s connections.

    Args:
        engine: An engine of a supported driver. Connections already in its pool are closed.
        binding: What to send, and what to refuse.
        verify: Called with a driver connection and whether it is the pool's first, before its
            first use; raises when the connection must not be used.

    Raises:
        ConfigurationError: If the driver is not supported.
    """
    pool = _PoolEvents(engine, _connection_class(engine), binding, verify)
    event.listen(engine, "do_connect", pool.connect)
    event.listen(engine, "checkout", pool.check_out)
    event.listen(engine, "checkin", pool.check_in)
    if hasattr(engine.dialect, "_do_prepared_twophase"):
        # SQLAlchemy 2.0 ends a prepared transaction in AUTOCOMMIT; 2.1 leaves it to the driver.
        event.listen(engine, "commit_twophase", _end_prepared)
        event.listen(engine, "rollback_twophase", _end_prepared)
    engine.dispose()


class _PoolEvents:
    """What happens to one engine's connections as the pool makes, hands out and takes them back."""

    def __init__(
        self,
        engine: Engine,
        connection_class: Any,
        binding: Binding,
        verify: Callable[[Any, bool], None],
    ) -> None:
        self._engine = engine
        self._class = connection_class
        self._binding = binding
        self._verify = verify
        self._verified_pool: object = None

    def connect(self, _dialect: Any, _record: Any, args: Any, params: Any) -> Any:
        return self._class.connect(*args, **params)

    def check_out(self, connection: Any, _record: Any, _proxy: Any) -> None:
        if not isinstance(connection, self._class):
            self._binding.refuse_foreign_connection()
            return
        if connection.tenantguard is None:
            self._prepare(connection)
        if not connection.autocommit and connection.info.transaction_status:
            self._binding.refuse_open_transaction()
        connection.tenantguard.checked_out = True
        connection.tenantguard.dirty = True

    def check_in(self, connection: Any, _record: Any) -> None:
        # The connection is None when it was invalidated.
        state = getattr(connection, "tenantguard", None)
        if state is not None:
            state.checked_out = False

    def _prepare(self, connection: Any) -> None:
        # dispose() makes a new pool: perhaps after a failover, or a migration.
        pool = self._engine.pool
        self._verify(connection, self._verified_pool is not pool)
        self._verified_pool = pool
        scrub = scrub_sql(_snapshot(connection), connection.sql_literal)
        connection.tenantguard = ConnectionState(self._binding, scrub)


def _end_prepared(connection: Any, _xid: Any, is_prepared: bool) -> None:  # noqa: FBT001
    state = getattr(connection.connection.dbapi_connection, "tenantguard", None)
    if state is not None:
        state.ends_prepared = is_prepared


def _snapshot(connection: Any) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(SNAPSHOT_QUERY)
        settings: list[tuple[str, str]] = cursor.fetchall()
    connection.rollback()
    return settings


def _connection_class(engine: Engine) -> Any:
    if engine.dialect.is_async:
        raise ConfigurationError(
            "protect(): asynchronous engines are not supported yet; use create_engine() with "
            "postgresql+psycopg."
        )
    if engine.dialect.name == "postgresql" and engine.dialect.driver == "psycopg":
        from tenantguard.binding import psycopg as driver  # noqa: PLC0415  (an optional extra)

        driver.check_driver()
        return driver.TenantConnection
    raise ConfigurationError(
        f"tenantguard cannot bind a tenant with {engine.dialect.name}+{engine.dialect.driver} yet; "
        "use postgresql+psycopg."
    )
