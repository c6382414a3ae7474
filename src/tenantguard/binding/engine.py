"""Attaching the binding to an engine's connections: when they are made, taken and returned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from tenantguard.binding.autocommit import refusing
from tenantguard.binding.entry import PROCESS, Entry
from tenantguard.binding.execution import note_statements, state_of
from tenantguard.binding.state import (
    SNAPSHOT_QUERY,
    Binding,
    ConnectionState,
    scrub_sql,
)
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, Dialect, Engine

    from tenantguard.binding.driver import Driver

__all__ = ["bind_engine", "refuse_driver"]

_DRIVERS = ("psycopg", "asyncpg", "psycopg2")


def bind_engine(engine: Engine, binding: Binding, *, verify: Callable[[Any, bool], None]) -> None:
    """Bind the tenant to every transaction on *engine*'s connections.

    Args:
        engine: An engine that `refuse_driver` lets pass. Connections already in its pool are
            closed.
        binding: What to send, and what to refuse.
        verify: Called with a driver connection and whether it is the pool's first, before its
            first use; raises when the connection must not be used.

    Raises:
        ConfigurationError: If this version of the driver lacks a hook.
    """
    driver = _driver(engine)
    pool = _PoolEvents(engine, driver, binding, verify)
    event.listen(engine, "do_connect", pool.connect)
    event.listen(engine, "checkout", pool.check_out)
    event.listen(engine, "checkin", pool.check_in)
    note_statements(engine, binding, driver)
    # A session that is closed after its tenant's block gives its connection back.
    _let_end(engine.dialect, "do_rollback_to_savepoint")
    if engine.dialect.driver == "asyncpg" or hasattr(engine.dialect, "_do_prepared_twophase"):
        # SQLAlchemy ends a prepared transaction itself, outside of any transaction. psycopg's in
        # SQLAlchemy 2.1, and psycopg2's, are left to the driver.
        _let_end(engine.dialect, "do_commit_twophase", "do_rollback_twophase")
        # The others are refused by the driver itself.
        begin_twophase = refusing(engine.dialect.do_begin_twophase, binding)
        engine.dialect.do_begin_twophase = begin_twophase  # type: ignore[method-assign]
    engine.dispose(close=not engine.dialect.is_async)


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
            if state.alone:
                # The pool has rolled back; whether it is in AUTOCOMMIT again is not certain.
                record.invalidate()

    def _prepare(self, connection: Any, driven: Any) -> None:
        # In the transaction that verifying then goes on with, and before it sets anything.
        settings = _snapshot(connection)
        pooled = _is_pooled(settings, driven)
        if pooled:
            # What is set on a pooler's connection to the server may be another tenant's doing.
            connection.cursor().execute("RESET ALL")
        entering = self._binding.entering
        entry = Entry.of(entering, settings, pooled=pooled) if entering is not None else None
        # dispose() makes a new pool: perhaps after a failover, or a migration.
        pool = self._engine.pool
        self._verify(connection, self._verified_pool is not pool)
        self._verified_pool = pool
        connection.rollback()
        scrub = scrub_sql({} if pooled else settings)
        driven.tenantguard = ConnectionState(self._binding, scrub, pooled, entry=entry)


def _let_end(dialect: Dialect, *names: str) -> None:
    """Let the methods *names* of *dialect*, which end something, do so whoever is active."""
    for name in names:
        setattr(dialect, name, _ending(getattr(dialect, name)))


def _ending(end: Callable[..., None]) -> Callable[..., None]:
    def run(connection: Connection, *args: Any, **options: Any) -> None:
        state = state_of(connection)
        if state is None:
            end(connection, *args, **options)
            return
        state.ends = True
        try:
            end(connection, *args, **options)
        finally:
            state.ends = False

    return run


def _snapshot(connection: Any) -> dict[str, str]:
    cursor = connection.cursor()
    cursor.execute(SNAPSHOT_QUERY)
    settings = dict(cursor.fetchall())
    cursor.close()
    return settings


def _is_pooled(settings: dict[str, str], driven: Any) -> bool:
    # A pooler such as PgBouncer tells the driver a process of its own making.
    return settings.get(PROCESS) != str(driven.server_process())


def refuse_driver(engine: Engine) -> None:
    """Raise `ConfigurationError` unless *engine*'s driver can bind a tenant."""
    dialect = engine.dialect
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise ConfigurationError(
            f"tenantguard cannot bind a tenant with {dialect.name}+{dialect.driver}; use "
            "postgresql with psycopg, asyncpg or psycopg2."
        )


def _driver(engine: Engine) -> Driver:
    dialect = engine.dialect
    mode = "asynchronous" if dialect.is_async else "synchronous"
    # A driver is an optional extra.
    driver: Driver = getattr(import_module(f"{__package__}.{dialect.driver}"), mode)()
    return driver
