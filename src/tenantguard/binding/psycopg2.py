"""Binding the tenant with psycopg2.

psycopg2 sends BEGIN from C, where nothing can be added, and then the statement as one simple query.
The class below puts the tenant, and after a check-out the scrub, in front of the transaction's
first statement. What is not sent as one simple query (a named cursor, COPY, executemany, callproc)
gets the tenant in a message of its own.
"""

from __future__ import annotations

from functools import cache
from threading import RLock
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import extensions

from tenantguard.binding.driver import Driver
from tenantguard.binding.entry import OURS, WRONG_TIME, not_begun

if TYPE_CHECKING:
    from tenantguard.binding.state import Beginning, ConnectionState

__all__ = ["synchronous"]

_IDLE = extensions.TRANSACTION_STATUS_IDLE
_LEVELS = {
    extensions.ISOLATION_LEVEL_READ_UNCOMMITTED: "ISOLATION LEVEL READ UNCOMMITTED",
    extensions.ISOLATION_LEVEL_READ_COMMITTED: "ISOLATION LEVEL READ COMMITTED",
    extensions.ISOLATION_LEVEL_REPEATABLE_READ: "ISOLATION LEVEL REPEATABLE READ",
    extensions.ISOLATION_LEVEL_SERIALIZABLE: "ISOLATION LEVEL SERIALIZABLE",
}
_ACCESS = {True: "READ ONLY", False: "READ WRITE"}
_DEFERRABLE = {True: "DEFERRABLE", False: "NOT DEFERRABLE"}
_READING = ("client_encoding", "standard_conforming_strings")
"""What the server reads a whole message by, as it is set before the message."""


class TenantConnection(extensions.connection):
    """psycopg2's connection with the tenant in front of each transaction's first statement."""

    tenantguard: ConnectionState | None = None
    # psycopg2 lets threads share a connection; none may come between a check and its command.
    lock: RLock
    begins = 0
    apart = False
    _reading: tuple[str, ...] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.lock = RLock()
        super().__init__(*args, **kwargs)

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, without asking the server."""
        return bool(self.get_transaction_status() != _IDLE)

    def server_process(self) -> int:
        """Return the number of the server's process, as the driver was told it."""
        return int(self.get_backend_pid())

    def cursor(self, name: Any = None, cursor_factory: Any = None, **options: Any) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        return super().cursor(name, _binding(factory, name is not None), **options)

    def commit(self) -> None:
        with self.lock:
            super().commit()

    def rollback(self) -> None:
        with self.lock:
            super().rollback()

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        with self.lock:
            self.bind_ahead()
            return super().lobject(*args, **kwargs)

    def tpc_begin(self, xid: Any) -> None:
        with self.lock:
            super().tpc_begin(xid)
            state = self.tenantguard
            if state is None or not state.check_outs:
                return
            try:
                state.again = self.begin_command()
                self.send(state, state.begin(None))
            except Exception:
                # Otherwise no rollback() would be allowed.
                if not self.closed:
                    self.tpc_rollback()
                raise

    def bind_ahead(self) -> None:
        """Begin the transaction and bind its tenant, if none is open."""
        state = self.beginning_state()
        if state is not None:
            self.send(state, self.beginning(state))

    def beginning(self, state: ConnectionState) -> Beginning:
        """Return what to send in front of the transaction's first statement."""
        # Where SQL text has ended the transaction, psycopg2 does not send another BEGIN.
        state.again = self.begin_command()
        return state.begin(None, apart=self.status == extensions.STATUS_READY)

    def beginning_state(self) -> ConnectionState | None:
        """Check the command that comes; return the state if it is its transaction's first."""
        state = self.tenantguard
        if state is None or not state.check_outs:
            return None
        in_transaction = self.in_transaction()
        state.check(in_transaction=in_transaction, autocommit=self.autocommit)
        return None if in_transaction or self.autocommit else state

    def begin_command(self) -> str:
        """Return psycopg2's own BEGIN, which a scrub has to repeat."""
        modes = (
            _LEVELS.get(self.isolation_level),
            _ACCESS.get(self.readonly),
            _DEFERRABLE.get(self.deferrable),
        )
        return " ".join(["BEGIN", *filter(None, modes)])

    def send(self, state: ConnectionState, beginning: Beginning) -> None:
        """Carry out *beginning* in a message of its own."""
        with super().cursor() as cursor:
            try:
                cursor.execute(self.encoded(beginning))
            except psycopg2.Error as error:
                if beginning.scrubs or error.pgcode == WRONG_TIME:
                    # What cannot be cleaned must not be used again.
                    self.close()
                raise _without_statement(error) from None
            self.begun(state, beginning, cursor.rowcount)

    def begun(self, state: ConnectionState, beginning: Beginning, rows: int) -> None:
        """Note that *beginning* was carried out, and forget what was left in the driver."""
        self.begins += 1
        self.apart = False
        if beginning.scrubs:
            self.notifies.clear()
        state.begun(beginning, rows)

    def fits_together(self, beginning: Beginning) -> bool:
        """Return whether the transaction's first statement may be in *beginning*'s message.

        Not when a scrub has failed together with a statement, nor when the server would read the
        statement by settings that somebody has left behind.
        """
        reading = tuple(map(self.get_parameter_status, _READING))
        self._reading = self._reading or reading
        return not beginning.asks and not self.apart and reading == self._reading

    def encoded(self, beginning: Beginning) -> bytes:
        """Return *beginning* as the bytes of one message."""
        return "; ".join(beginning.commands).encode(extensions.encodings[self.encoding])


class CursorBinding(extensions.cursor):
    """psycopg2's cursor, which binds the tenant; the application's own classes come before it."""

    connection: TenantConnection
    name: str | None

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        with self.connection.lock:
            state = self.connection.beginning_state()
            if state is not None:
                beginning = self.connection.beginning(state)
                if self.name is None and self.connection.fits_together(beginning):
                    self._execute_together(state, beginning, query, vars)
                    return
                self.connection.send(state, beginning)
            super().execute(query, vars)

    def _execute_together(
        self, state: ConnectionState, beginning: Beginning, query: Any, values: Any
    ) -> None:
        statement: bytes = self.mogrify(query, values)
        # Whatever fails now leaves a transaction that answers nothing before it is rolled back.
        state.bound = beginning.tenant
        self.connection.apart = beginning.scrubs
        self.connection.notices.clear()
        # On a line of its own: PostgreSQL's errors quote the line at fault.
        message = self.connection.encoded(beginning) + b";\n" + statement
        try:
            super().execute(message)
        except psycopg2.Error as error:
            if error.pgcode == WRONG_TIME:
                self.connection.close()
            if (error.pgcode or "").startswith(OURS):
                raise _without_statement(error) from None
            raise
        self.connection.begun(state, beginning, 0)


class WatchedCursor:
    """Mixed in before the application's own cursor classes: do they use the binding?"""

    connection: TenantConnection

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        state, begins = self.connection.beginning_state(), self.connection.begins
        super().execute(query, vars)  # type: ignore[misc]  # the application's class is next
        if state is not None and self.connection.begins == begins:
            state.binding.refuse_unbound_cursor()


def _ahead(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self.connection.lock:
            self.connection.bind_ahead()
            return getattr(super(CursorBinding, self), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in ("callproc", "copy_expert", "copy_from", "copy_to", "executemany"):
    setattr(CursorBinding, _name, _ahead(_name))


class NamedCursorBinding(CursorBinding):
    """psycopg2's server-side cursor, which fetches in its tenant's transaction."""


# What has been fetched ahead for an iteration is checked as well.
for _name in ("__next__", "fetchone", "fetchmany", "fetchall", "scroll"):
    setattr(NamedCursorBinding, _name, _ahead(_name))


@cache
def _binding(factory: type[Any], named: bool) -> type[Any]:  # noqa: FBT001
    """Return *factory*, the application's own cursor class, with the binding."""
    bound = NamedCursorBinding if named else CursorBinding
    if issubclass(factory, bound):
        return factory
    if issubclass(bound, factory):
        return bound
    return type(factory.__name__, (WatchedCursor, factory, bound), {})


def _without_statement(error: psycopg2.Error) -> psycopg2.Error:
    """Return *error* without PostgreSQL's own text, which would quote the tenant."""
    return type(error)(not_begun(error.pgcode))


def synchronous() -> Driver:
    """Return how SQLAlchemy's `postgresql+psycopg2` connects."""
    return Driver.by_argument(TenantConnection, "connection_factory", TenantConnection)
