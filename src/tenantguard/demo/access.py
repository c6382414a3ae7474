"""How the checks reach the database: through an Engine, or through an AsyncEngine."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool
from sqlalchemy.util import await_only, greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

__all__ = ["Access", "access_through"]

_T = TypeVar("_T")


class Access(Protocol):
    """One engine, and how to use it in a check's body, which never awaits anything itself."""

    @property
    def engine(self) -> Any:
        """The Engine or AsyncEngine."""

    def to(self, address: URL) -> Access:
        """Return access of the same kind, by the same driver and without a pool, to *address*."""

    def run(self, body: Callable[[], _T]) -> _T:
        """Run a check's body."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a session; what it wrote is not committed."""

    def connect(self) -> AbstractContextManager[Connection]:
        """Open a connection; what it wrote is not committed."""

    def ask_driver(self, connection: Connection, query: str) -> Sequence[Sequence[Any]]:
        """Return the rows of *query*, which is sent past SQLAlchemy."""

    def close(self) -> None:
        """Close the engine's connections."""


def access_through(engine: Engine | AsyncEngine) -> Access:
    """Return the access that fits *engine*."""
    if isinstance(engine, AsyncEngine):
        return _Asynchronous(engine, asyncio.Runner())
    return _Synchronous(engine)


class _Synchronous:
    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def to(self, address: URL) -> Access:
        return _Synchronous(create_engine(_by(self.engine, address), poolclass=NullPool))

    def run(self, body: Callable[[], _T]) -> _T:
        return body()

    def session(self) -> AbstractContextManager[Session]:
        return Session(self.engine)

    def connect(self) -> AbstractContextManager[Connection]:
        return self.engine.connect()

    def ask_driver(self, connection: Connection, query: str) -> Sequence[Sequence[Any]]:
        cursor = connection.connection.cursor()
        cursor.execute(query)
        return cursor.fetchall()

    def close(self) -> None:
        self.engine.dispose()


class _Asynchronous:
    """Runs a body in a greenlet, where SQLAlchemy awaits the driver for it."""

    def __init__(self, engine: AsyncEngine, runner: asyncio.Runner) -> None:
        self.engine = engine
        # Pooled connections belong to their event loop: all bodies run on the same one.
        self._runner = runner

    def to(self, address: URL) -> Access:
        engine = create_async_engine(_by(self.engine, address), poolclass=NullPool)
        return _Asynchronous(engine, self._runner)

    def run(self, body: Callable[[], _T]) -> _T:
        return self._runner.run(greenlet_spawn(body))

    @contextmanager
    def session(self) -> Iterator[Session]:
        session = AsyncSession(self.engine)
        try:
            yield session.sync_session
        finally:
            await_only(session.close())

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        connection = await_only(self.engine.connect().start())
        try:
            yield cast("Connection", connection.sync_connection)
        finally:
            await_only(connection.close())

    def ask_driver(self, connection: Connection, query: str) -> Sequence[Sequence[Any]]:
        driver: Any = connection.connection.driver_connection
        if hasattr(driver, "fetch"):
            return list(await_only(driver.fetch(query)))
        return list(await_only(await_only(driver.execute(query)).fetchall()))

    def close(self) -> None:
        with self._runner:
            self._runner.run(self.engine.dispose())


def _by(engine: Engine | AsyncEngine, address: URL) -> URL:
    return address.set(drivername=engine.url.drivername)
