"""A connection that listens to a channel, proven by a message that another connection has sent."""

from __future__ import annotations

import selectors
from contextlib import contextmanager
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from tenantguard.binding.literal import sql_literal
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import object_name, quote

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

__all__ = ["Listener", "NotDeliveredError", "listening", "own_engine"]

_DELIVERY = 5.0
"""Seconds within which a message is expected."""

_READS = 100
"""How often a driver reads, some kilobytes each time, before what has come is acted on."""

_CONNECTING = {
    "fallback_application_name": "tenantguard keys",
    "connect_timeout": 10,
    # A connection that has died without a word is noticed within a minute.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

_ADDRESS = (
    "follow_keys() takes an address for psycopg or psycopg2, such as postgresql+psycopg://…, or an "
    "Engine of its own with one of them. It listens in a thread, so asynchronous applications give "
    "it such an address too."
)


class NotDeliveredError(Exception):
    """What another connection sent did not arrive.

    Attributes:
        pooler: Whether something between here and PostgreSQL answers the driver.
    """

    def __init__(self, *, pooler: bool) -> None:
        super().__init__()
        self.pooler = pooler


class _Driver(Protocol):
    def read(self) -> set[str]: ...


class _Psycopg:
    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._heard: set[str] = set()
        # Of what arrives while a statement runs.
        raw.add_notify_handler(lambda notice: self._heard.add(notice.channel))

    def read(self) -> set[str]:
        connection = self._raw.pgconn
        connection.consume_input()
        while (notice := connection.notifies()) is not None:
            self._heard.add(notice.relname.decode())
        heard, self._heard = self._heard, set()
        return heard


class _Psycopg2:
    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def read(self) -> set[str]:
        self._raw.poll()
        heard = {notice.channel for notice in self._raw.notifies}
        self._raw.notifies.clear()
        return heard


_DRIVERS: dict[str, type[_Psycopg | _Psycopg2]] = {"psycopg": _Psycopg, "psycopg2": _Psycopg2}


class Listener:
    """What is heard on *raw*, a driver's connection, until *woken* can be read."""

    def __init__(self, driver: _Driver, raw: Any, woken: socket.socket) -> None:
        self._driver = driver
        self._woken = woken
        self._is_woken = False
        # Not select(): a server's process may have more files open than that can wait for.
        self._selector = selectors.DefaultSelector()
        self._selector.register(raw.fileno(), selectors.EVENT_READ)
        self._selector.register(woken, selectors.EVENT_READ)

    def wait(self, seconds: float | None = None) -> set[str]:
        """Return the channels that something has come on; none after so many seconds."""
        heard = set[str]()
        for _ in range(_READS):
            ready = [key.fileobj for key, _ in self._selector.select(seconds)]
            self._is_woken = self._woken in ready
            if not ready:
                break
            heard |= self._driver.read()
            if self._is_woken:
                break
            seconds = 0
        return heard

    def hears(self, channel: str) -> bool:
        """Return whether something comes on *channel* in time."""
        heard, until = self._driver.read(), monotonic() + _DELIVERY
        while channel not in heard and (left := until - monotonic()) > 0 and not self._is_woken:
            heard |= self.wait(left)
        return channel in heard

    def close(self) -> None:
        """Stop waiting."""
        self._selector.close()


def own_engine(address: str | URL | Engine) -> Engine:
    """Return an engine for *address*, or the one that was given.

    Raises:
        ConfigurationError: If there is no synchronous driver for it.
    """
    engine = address if isinstance(address, Engine) else _engine_for(address)
    if engine is None or engine.dialect.driver not in _DRIVERS or engine.dialect.is_async:
        raise ConfigurationError(_ADDRESS)
    return engine


def _engine_for(address: str | URL) -> Engine | None:
    # SQLAlchemy's errors can quote the address, so there is none that ours would be raised from.
    try:
        url = make_url(address)
        options = {name: value for name, value in _CONNECTING.items() if name not in url.query}
        return create_engine(url, poolclass=NullPool, connect_args=options)
    except (ArgumentError, ImportError, ValueError):
        return None


@contextmanager
def listening(engine: Engine, channel: str, woken: socket.socket) -> Iterator[Listener]:
    """Yield what listens to *channel*, on a connection that nothing else uses.

    Raises:
        NotDeliveredError: If messages do not arrive.
    """
    with engine.connect() as connection:
        try:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            raw: Any = connection.connection.driver_connection
            listener = Listener(_DRIVERS[engine.dialect.driver](raw), raw, woken)
            try:
                _prove(engine, connection, listener, channel)
                yield listener
            finally:
                listener.close()
        finally:
            # What listens does not go back into a pool; nor is anything said to a server that died.
            connection.invalidate()


def _prove(engine: Engine, connection: Connection, listener: Listener, channel: str) -> None:
    probe = object_name("probe", token_hex(8))
    for name in (channel, probe):
        connection.exec_driver_sql(f"LISTEN {quote(name)}")
    _send(engine, probe)
    if not listener.hears(probe):
        raise NotDeliveredError(pooler=_is_behind_pooler(connection))
    connection.exec_driver_sql(f"UNLISTEN {quote(probe)}")
    connection.exec_driver_sql("SET idle_session_timeout = 0")


def _send(engine: Engine, channel: str) -> None:
    """Notify *channel* from another connection: a pooler tells a client what its own causes."""
    with engine.connect() as other:
        other.execution_options(isolation_level="AUTOCOMMIT")
        other.exec_driver_sql(f"SELECT pg_catalog.pg_notify({sql_literal(channel)}, '')")


def _is_behind_pooler(connection: Connection) -> bool:
    """Return whether the driver was told another process than PostgreSQL's own."""
    raw: Any = connection.connection.driver_connection
    process = connection.exec_driver_sql("SELECT pg_catalog.pg_backend_pid()").scalar()
    return bool(raw.info.backend_pid != process)
