"""A worker in a thread: sessions, connections and raw connections of a synchronous engine."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from desk import Abandoned
from entries import Entry
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from workers import Stop, Worker, committed, perform, raw_steps
from writing import insert_core

if TYPE_CHECKING:
    from threading import Event

    from desk import Desk
    from disturbing import Disturber
    from sqlalchemy import Connection, Engine

__all__ = ["ThreadWorker"]


class ThreadWorker(Worker):
    """Takes turns on *engine* until it has run its transactions."""

    def __init__(
        self, number: int, seed: str, disturber: Disturber | None, over: Event, engine: Engine
    ) -> None:
        super().__init__(number, seed, disturber, over)
        self.engine = engine
        self._kept = Session(engine)

    def run(self, transactions: int) -> None:
        """Run at least *transactions*."""
        shapes = (self._session, self._kept_session, self._connection, self._block, self._raw)
        while self.done < transactions and not self.over.is_set():
            shape = self._no_tenant if self.rng.random() < 0.02 else self.rng.choice(shapes)
            try:
                shape()
            except Stop:
                continue
            except Exception as error:  # noqa: BLE001  (whatever it is has to be written down)
                self.stray(error)
        self._kept.close()

    def commit_for_each_tenant(self) -> None:
        """Commit an entry for each tenant; each attempt uses up a connection that has been lost."""
        for tenant in self.attempts():
            with suppress(Stop), self.transaction(tenant, "at last") as desk:
                with self.engine.begin() as connection:
                    desk.bare = connection
                    insert_core(desk)
                    desk.record.committing = True
                desk.record.committed = True

    def _end(self, target: Session | Connection, desk: Desk) -> None:
        end = self.end()
        if desk.soiled or end == "commit":
            committed(desk, target.commit)
        elif end == "rollback":
            target.rollback()
        elif end == "raise":
            raise Abandoned

    def _session(self) -> None:
        with self.transaction(self.tenant(), "session") as desk, Session(self.engine) as session:
            perform(session, desk)
            self._end(session, desk)

    def _kept_session(self) -> None:
        """One session object for the worker's whole life, closed before the tenant changes."""
        tenant = self.tenant()
        try:
            for number in range(self.rng.randint(1, 3)):
                first = number == 0
                with self.transaction(tenant, "kept session", first=first) as desk:
                    perform(self._kept, desk)
                    self._end(self._kept, desk)
                    self._kept.rollback()
        finally:
            self._kept.close()

    def _connection(self) -> None:
        """Several transactions in one check-out, for changing tenants."""
        before = None
        with self.transaction(self.tenant(), "connection") as desk:
            connection = self.engine.connect()
            desk.record.shape = "connection"
            before = self._one(connection, desk)
        try:
            for _ in range(self.rng.randint(0, 2)):
                tenant = self.tenant()
                changed = tenant != before
                with self.transaction(tenant, "connection, kept", first=changed) as desk:
                    before = self._one(connection, desk)
        finally:
            connection.close()

    def _one(self, connection: Connection, desk: Desk) -> Any:
        try:
            perform(connection, desk)
            self._end(connection, desk)
            connection.rollback()
        except BaseException:
            connection.close()
            raise
        if desk.soiled:
            connection.close()
        return desk.tenant

    def _block(self) -> None:
        with self.transaction(self.tenant(), "begin()") as desk:
            with self.engine.begin() as connection:
                perform(connection, desk)
                if self.end() == "raise":
                    raise Abandoned
                desk.record.committing = True
            desk.record.committed = True

    def _raw(self) -> None:
        """A connection of the driver's, with SQL text alone."""
        with self.transaction(self.tenant(), "raw connection") as desk:
            connection: Any = self.engine.raw_connection()
            try:
                cursor = connection.cursor()

                def execute(query: str) -> list[Any]:
                    cursor.execute(query)
                    return list(cursor.fetchall()) if cursor.description else []

                raw_steps(desk, execute)
                if self.end() == "commit":
                    committed(desk, connection.commit)
            finally:
                connection.close()

    def _no_tenant(self) -> None:
        with self.idle() as record, Session(self.engine) as session:
            query = select(Entry)
            self.must_fail(record, lambda: session.scalars(query).all(), "ORM without a tenant")
        with self.idle() as record, self.engine.connect() as connection:
            sql = text("SELECT * FROM entries")
            self.must_fail(record, lambda: connection.execute(sql), "text() without a tenant")
        with self.idle() as record, self.engine.connect() as connection:
            self.nothing(connection, record)
