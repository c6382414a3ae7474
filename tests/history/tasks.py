"""A worker in a task: sessions and connections of an asynchronous engine, and cancellation."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from desk import Abandoned
from entries import Entry
from ledger import ENTRIES
from reading import driven
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from workers import Stop, Worker, perform, raw_steps
from writing import insert_core

if TYPE_CHECKING:
    from threading import Event

    from desk import Desk
    from disturbing import Disturber
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

__all__ = ["TaskWorker"]

_CANCELLED = 0.06
_SOON = 0.015

_CANCELLED_SAFELY = {
    # Before, close() waited for ever on a connection that was lost while its task was cancelled:
    # https://github.com/MagicStack/asyncpg/issues/1356
    "asyncpg": (0, 32),
    # Before, the task might get a TypeError instead: https://github.com/psycopg/psycopg/issues/1005
    "psycopg": (3, 2, 10),
}
"""The version of each driver from which tasks may be cancelled."""


def _safe(driver: str) -> bool:
    installed = tuple(map(int, re.findall(r"\d+", version(driver))[:3]))
    return installed >= _CANCELLED_SAFELY[driver]


class TaskWorker(Worker):
    """Takes turns on *engine* until it has run its transactions; some are cancelled.

    Where the driver's version does not survive that, none is.
    """

    def __init__(
        self, number: int, seed: str, disturber: Disturber | None, over: Event, engine: AsyncEngine
    ) -> None:
        super().__init__(number, seed, disturber, over)
        self.engine = engine
        self._cancels = disturber is not None and _safe(engine.dialect.driver)

    async def run(self, transactions: int) -> None:
        """Run at least *transactions*."""
        shapes = (self._session, self._connection, self._block, self._raw)
        while self.done < transactions and not self.over.is_set():
            shape = self._no_tenant if self.rng.random() < 0.02 else self.rng.choice(shapes)
            turn = asyncio.create_task(shape())
            if self._cancels and self.rng.random() < _CANCELLED:
                asyncio.get_running_loop().call_later(self.rng.random() * _SOON, turn.cancel)
            try:
                with suppress(Stop, asyncio.CancelledError):
                    await turn
            except Exception as error:  # noqa: BLE001  (whatever it is has to be written down)
                self.stray(error)

    async def commit_for_each_tenant(self) -> None:
        """Commit an entry for each tenant; each attempt uses up a connection that has been lost."""
        for tenant in self.attempts():
            with suppress(Stop), self.transaction(tenant, "at last") as desk:
                async with self.engine.begin() as connection:
                    await connection.run_sync(_insert, desk)
                    desk.record.committing = True
                desk.record.committed = True

    async def _end(self, target: AsyncSession | AsyncConnection, desk: Desk) -> None:
        end = self.end()
        if desk.soiled or end == "commit":
            desk.record.committing = True
            await target.commit()
            desk.record.committed = True
        elif end == "rollback":
            await target.rollback()
        elif end == "raise":
            raise Abandoned

    async def _session(self) -> None:
        """Transactions of one session, closed before the tenant changes."""
        async with AsyncSession(self.engine) as session:
            for _ in range(self.rng.randint(1, 3)):
                with self.transaction(self.tenant(), "session") as desk:
                    await session.run_sync(perform, desk)
                    await self._stream(session, desk)
                    await self._end(session, desk)
                    await session.close()

    async def _stream(self, target: AsyncSession | AsyncConnection, desk: Desk) -> None:
        if desk.soiled or self.rng.random() < 0.9:
            return
        table = Entry.__table__.c
        query = select(table.id, table.tenant_id, table.owner, table.writer, table.seq)
        options = {"yield_per": 4}
        result = await target.stream(
            query.where(table.writer == self.number), execution_options=options
        )
        rows = [tuple(row) async for row in result]
        desk.read(ENTRIES, rows, whole=True, by="stream()")

    async def _connection(self) -> None:
        """Several transactions in one check-out, for changing tenants."""
        before = None
        connection = None
        try:
            for _ in range(self.rng.randint(1, 3)):
                tenant = self.tenant()
                changed = tenant != before
                with self.transaction(tenant, "connection", first=changed) as desk:
                    connection = connection or await self.engine.connect()
                    await connection.run_sync(perform, desk)
                    await self._stream(connection, desk)
                    await self._end(connection, desk)
                    await connection.rollback()
                before = tenant
        finally:
            if connection is not None:
                await asyncio.shield(connection.close())

    async def _block(self) -> None:
        with self.transaction(self.tenant(), "begin()") as desk:
            async with self.engine.begin() as connection:
                await connection.run_sync(perform, desk)
                if self.end() == "raise":
                    raise Abandoned
                desk.record.committing = True
            desk.record.committed = True

    async def _raw(self) -> None:
        """SQL text alone, on a cursor of SQLAlchemy's adapted connection."""
        with self.transaction(self.tenant(), "raw connection") as desk:
            async with self.engine.connect() as connection:
                await connection.run_sync(_raw_steps, desk)
                if self.end() == "commit":
                    desk.record.committing = True
                    await connection.commit()
                    desk.record.committed = True

    async def _no_tenant(self) -> None:
        with self.idle() as record:
            async with AsyncSession(self.engine) as session:
                work = select(Entry)
                await session.run_sync(
                    lambda sync: self.must_fail(record, lambda: sync.scalars(work), "ORM")
                )
        with self.idle() as record:
            async with self.engine.connect() as connection:
                query = text("SELECT * FROM entries")
                await connection.run_sync(
                    lambda sync: self.must_fail(record, lambda: sync.execute(query), "text()")
                )
        with self.idle() as record:
            async with self.engine.connect() as connection:
                await connection.run_sync(self.nothing, record)


def _raw_steps(connection: Connection, desk: Desk) -> None:
    connection.begin()
    with driven(connection) as cursor:

        def execute(query: str) -> list[Any]:
            cursor.execute(query)
            return list(cursor.fetchall()) if cursor.description else []

        raw_steps(desk, execute)


def _insert(connection: Connection, desk: Desk) -> None:
    desk.bare = connection
    insert_core(desk)
