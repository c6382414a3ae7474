"""Attaching the binding to an engine's connections: when they are made, taken and returned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import event

from tenantguard.binding.state import (
    PROCESS,
    SNAPSHOT_QUERY,
    Binding,
    ConnectionState,
    scrub_sql,
)
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect, Engine
    from sqlalchemy.engine.default import DefaultExecutionContext

    from tenantguard.binding.driver import Driver

__all__ = ["ask", "bind_engine"]

_DRIVERS = ("psycopg", "asyncpg", "psycopg2")


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
    pool = _PoolEvents(engine, _driver(engine), binding, verify)
    event.listen(engine, "do_connect", pool.connect)
    event.listen(engine, "checkout", pool.check_out)
    event.listen(engine, "checkin", pool.check_in)
    # Not by events of the engine: with one, SQLAlchemy dispatches all of them for each statement.
    _note_statements(engine.dialect, binding)
    if engine.dialect.driver == "asyncpg" or hasattr(engine.dialect, "_do_prepared_twophase"):
        # SQLAlchemy ends a prepared transaction itself, outside of any transaction. psycopg's in
        # SQLAlchemy 2.1, and psycopg2's, are left to the driver.
        for name in ("do_commit_twophase", "do_rollback_twophase"):
            setattr(engine.dialect, name, _ending(getattr(engine.dialect, name)))
    engine.dispose(close=not engine.dialect.is_async)


def ask(connection: Connection, query: str) -> list[Any]:
    """Run *query*, which is tenantguard's own, in *connection*'s transaction; return its rows.

    It passes by SQLAlchemy's events and logs.

    Raises:
        DBAPIError: If it fails, as SQLAlchemy would raise it for a statement; its text does not
            show the query, but the driver's error may.
    """
    state = _state_of(connection)
    dialect = connection.dialect
    cursor: Any = cast("Any", connection.connection).cursor()
    try:
        if state is not None:
            if dialect.is_async:
                state.caller = state.binding.tenant()
            state.vouched = True
        cursor.execute(query)
        return list(cursor.fetchall()) if cursor.description else []
    except dialect.loaded_dbapi.Error as error:
        connection._handle_dbapi_exception(error, "tenantguard", (), cursor, None)  # noqa: SLF001
    finally:
        if state is not None:
            state.vouched = False
        cursor.close()


class _PoolEvents:
    """What happens to one engine's connections as the pool makes, hands out and takes them back."""

    def __init__(
        self,
        engine: Engine,
        driver: Driver,
        binding: Binding,
        verify: Callable[[Any, bool], None],
    ) -> None:
        self._engine = engine
        self._driver = driver
        self._binding = binding
        self._verify = verify
        self._verified_pool: object = None

    def connect(self, dialect: Any, _record: Any, args: Any, params: Any) -> Any:
        return self._driver.connect(dialect, args, params)

    def check_out(self, connection: Any, record: Any, _proxy: Any) -> None:
        driven = record.driver_connection
        # Not isinstance: asyncpg's connections claim to be instances of every subclass.
        if self._driver.connection_class not in type(driven).__mro__:
            self._binding.refuse_foreign_connection()
            return
        if driven.tenantguard is None:
            self._prepare(connection, driven)
        if driven.in_transaction() and not connection.autocommit:
            self._binding.refuse_open_transaction()
        driven.tenantguard.check_out()

    def check_in(self, _connection: Any, record: Any) -> None:
        # There is no connection when it was invalidated.
        state = getattr(record.driver_connection, "tenantguard", None)
        if state is not None:
            state.check_outs -= 1

    def _prepare(self, connection: Any, driven: Any) -> None:
        # In the transaction that verifying then goes on with, and before it sets anything.
        settings = _snapshot(connection)
        # dispose() makes a new pool: perhaps after a failover, or a migration.
        pool = self._engine.pool
        self._verify(connection, self._verified_pool is not pool)
        self._verified_pool = pool
        connection.rollback()
        # What is set on a pooler's connection to the server may be another tenant's doing.
        pooled = _is_pooled(settings, driven)
        scrub = scrub_sql({} if pooled else settings)
        driven.tenantguard = ConnectionState(self._binding, scrub, pooled)


class _Noting:
    """Mixed into the execution context: tells the connection what SQLAlchemy is about to send."""

    binding: Binding
    # None until pre_exec: SQLAlchemy runs a column's sequence before it.
    _noted: ConnectionState | None = None

    def pre_exec(self) -> None:
        context = cast("DefaultExecutionContext", self)
        state = self._noted = _state_of(context.root_connection)
        if state is not None:
            if context.dialect.is_async:
                # SQLAlchemy's greenlet may be in a context of its own; the driver is in the task's.
                state.caller = self.binding.tenant()
            state.vouched = self.binding.vouches(context)
        super().pre_exec()  # type: ignore[misc]  # SQLAlchemy's own context is next

    def post_exec(self) -> None:
        super().post_exec()  # type: ignore[misc]
        self._is_over()

    def handle_dbapi_exception(self, error: BaseException) -> None:
        self._is_over()
        super().handle_dbapi_exception(error)  # type: ignore[misc]

    def _is_over(self) -> None:
        if self._noted is not None:
            self._noted.vouched = False


def _note_statements(dialect: Dialect, binding: Binding) -> None:
    base = dialect.execution_ctx_cls
    dialect.execution_ctx_cls = type(base.__name__, (_Noting, base), {"binding": binding})


def _ending(end: Callable[..., None]) -> Callable[..., None]:
    """Return *end*, which ends a two-phase transaction, allowed to do so outside of any."""

    def run(connection: Connection, xid: Any, is_prepared: bool = True, **options: Any) -> None:  # noqa: FBT001, FBT002  (SQLAlchemy's own)
        state = _state_of(connection)
        if state is None:
            end(connection, xid, is_prepared, **options)
            return
        state.ends_prepared = is_prepared
        try:
            end(connection, xid, is_prepared, **options)
        finally:
            state.ends_prepared = False

    return run


def _state_of(connection: Connection) -> ConnectionState | None:
    # An invalidated connection has none.
    fairy = connection._dbapi_connection  # noqa: SLF001
    return getattr(fairy and fairy.driver_connection, "tenantguard", None)


def _snapshot(connection: Any) -> dict[str, str]:
    cursor = connection.cursor()
    cursor.execute(SNAPSHOT_QUERY)
    settings = dict(cursor.fetchall())
    cursor.close()
    return settings


def _is_pooled(settings: dict[str, str], driven: Any) -> bool:
    # A pooler such as PgBouncer tells the driver a process of its own making.
    return settings.get(PROCESS) != str(driven.server_process())


def _driver(engine: Engine) -> Driver:
    dialect = engine.dialect
    mode = "asynchronous" if dialect.is_async else "synchronous"
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise ConfigurationError(
            f"tenantguard cannot bind a tenant with {dialect.name}+{dialect.driver}; use "
            "postgresql with psycopg, asyncpg or psycopg2."
        )
    # A driver is an optional extra.
    driver: Driver = getattr(import_module(f"{__package__}.{dialect.driver}"), mode)()
    return driver
