"""Binding the tenant with psycopg2.

psycopg2 sends BEGIN from C, where nothing can be added, and then the statement as one simple query.
The class below puts the tenant, and after a check-out the scrub, in front of the transaction's
first statement. What is not sent as one simple query (a named cursor, COPY, executemany, callproc)
gets the tenant in a message of its own.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg2 import extensions

from tenantguard.binding.driver import Driver

if TYPE_CHECKING:
    from tenantguard.binding.state import Beginning, ConnectionState

__all__ = ["synchronous"]

_IDLE = extensions.TRANSACTION_STATUS_IDLE


class TenantConnection(extensions.connection):
    """psycopg2's connection with the tenant in front of each transaction's first statement."""

    tenantguard: ConnectionState | None = None

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, without asking the server."""
        return bool(self.get_transaction_status() != _IDLE)

    def server_process(self) -> int:
        """Return the number of the server's process, as the driver was told it."""
        return int(self.get_backend_pid())

    def sql_literal(self, text: str) -> str:
        """Return *text* as an SQL literal, escaped by the driver."""
        quoted = extensions.QuotedString(text)
        quoted.prepare(self)
        return str(quoted.getquoted().decode(self._codec()))

    def cursor(self, name: Any = None, cursor_factory: Any = None, **options: Any) -> Any:
        factory = cursor_factory or self.cursor_factory or extensions.cursor
        return super().cursor(name, _binding(factory), **options)

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        self.bind_ahead()
        return super().lobject(*args, **kwargs)

    def tpc_begin(self, xid: Any) -> None:
        super().tpc_begin(xid)
        state = self.tenantguard
        if state is not None and state.check_outs:
            self.send(state, state.begin(None))

    def bind_ahead(self) -> None:
        """Begin the transaction and bind its tenant, if none is open."""
        state = self.beginning_state()
        if state is not None:
            self.send(state, state.begin(None))

    def beginning_state(self) -> ConnectionState | None:
        """Check the command that comes; return the state if it is its transaction's first."""
        state = self.tenantguard
        if state is None or not state.check_outs:
            return None
        in_transaction = self.in_transaction()
        state.check(in_transaction=in_transaction, autocommit=self.autocommit)
        return None if in_transaction or self.autocommit else state

    def send(self, state: ConnectionState, beginning: Beginning) -> None:
        """Carry out *beginning* in a message of its own."""
        with super().cursor() as cursor:
            cursor.execute(self.encoded(beginning))
            state.begun(beginning, cursor.rowcount)

    def encoded(self, beginning: Beginning) -> bytes:
        """Return *beginning* as the bytes of one message."""
        return "; ".join(beginning.commands).encode(self._codec())

    def _codec(self) -> str:
        return str(extensions.encodings[self.encoding])


class CursorBinding:
    """Mixed in before one of psycopg2's cursor classes."""

    connection: TenantConnection
    name: str | None

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002  (psycopg2's name)
        state = self.connection.beginning_state()
        if state is not None:
            beginning = state.begin(None)
            if self.name is None and not beginning.asks:
                self._execute_together(state, beginning, query, vars)
                return
            self.connection.send(state, beginning)
        super().execute(query, vars)  # type: ignore[misc]  # psycopg2's cursor is next

    def _execute_together(
        self, state: ConnectionState, beginning: Beginning, query: Any, values: Any
    ) -> None:
        statement: bytes = self.mogrify(query, values)  # type: ignore[attr-defined]
        # Whatever fails now leaves a transaction that answers nothing before it is rolled back.
        state.bound = beginning.tenant
        # On a line of its own: PostgreSQL's errors quote the line at fault.
        message = self.connection.encoded(beginning) + b";\n" + statement
        super().execute(message)  # type: ignore[misc]
        state.begun(beginning, 0)


def _ahead(name: str) -> Any:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.connection.bind_ahead()
        return getattr(super(CursorBinding, self), name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name in ("callproc", "copy_expert", "copy_from", "copy_to", "executemany"):
    setattr(CursorBinding, _name, _ahead(_name))


@cache
def _binding(factory: type[Any]) -> type[Any]:
    """Return *factory*, the application's own cursor class, with the binding."""
    if issubclass(factory, CursorBinding):
        return factory
    return type(factory.__name__, (CursorBinding, factory), {})


def synchronous() -> Driver:
    """Return how SQLAlchemy's `postgresql+psycopg2` connects."""
    return Driver.by_argument(TenantConnection, "connection_factory", TenantConnection)
