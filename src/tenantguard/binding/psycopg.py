"""Binding the tenant with psycopg 3.

psycopg sends its start command (BEGIN with isolation level, READ ONLY, DEFERRABLE) right before a
transaction's first statement, whoever sends that: a cursor, COPY, `transaction()` or two-phase.
The class below puts the tenant, and after a check-out the scrub, into that same message. The logic
is in generators that psycopg's synchronous and asynchronous connections both run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import generators, pq, sql

from tenantguard.binding.driver import Driver, need_hooks
from tenantguard.binding.entry import WRONG_TIME, not_begun

if TYPE_CHECKING:
    from collections.abc import Generator

    from tenantguard.binding.state import ConnectionState

__all__ = ["asynchronous", "synchronous"]

_IDLE = pq.TransactionStatus.IDLE
_FETCHES = (b"FETCH", b"MOVE")
"""What a server-side cursor sends to read, past psycopg's other queries."""
_COMPLETED = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


class TenantBinding:
    """Mixed in before one of psycopg's connection classes."""

    tenantguard: ConnectionState | None = None
    pgconn: pq.abc.PGconn
    _pipeline: Any
    _tpc: Any

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, without asking the server."""
        return self.pgconn.transaction_status != _IDLE

    def server_process(self) -> int:
        """Return the number of the server's process, as the driver was told it."""
        return cast("psycopg.Connection[Any]", self).info.backend_pid

    def discard(self) -> None:
        """Close the connection: what cannot be cleaned must not be used again."""
        self.pgconn.finish()

    def _start_query(self) -> Generator[Any, Any, None]:
        state = self.tenantguard
        if state is not None and state.check_outs:
            autocommit = cast("psycopg.Connection[Any]", self).autocommit
            in_transaction = self.in_transaction()
            begins = self._tpc is not None and not in_transaction
            state.check(in_transaction=in_transaction, autocommit=autocommit, begins=begins)
            starts = not (autocommit or in_transaction)
            if starts and self._pipeline and state.entry is not None:
                yield from self._start_query_ahead(self._pipeline)
                return
        yield from super()._start_query()  # type: ignore[misc]  # psycopg's connection is next

    def _start_query_ahead(self, pipeline: Any) -> Generator[Any, Any, None]:
        """Begin outside of the pipeline, where BEGIN and a signed tenant can be one message.

        In a pipeline psycopg waits for the answer to BEGIN as well.
        """
        if pipeline.command_queue or pipeline.result_queue:
            yield from pipeline._sync_gen()  # noqa: SLF001
        self.pgconn.exit_pipeline_mode()
        self._pipeline = None
        try:
            yield from super()._start_query()  # type: ignore[misc]
        finally:
            self._pipeline = pipeline
            if self.pgconn.status != pq.ConnStatus.BAD:
                self.pgconn.enter_pipeline_mode()

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        state = self.tenantguard
        if state is not None and isinstance(command, sql.Composable):
            command = command.as_bytes(cast("psycopg.Connection[Any]", self))
            if command.startswith(_FETCHES) and state.tenant() != state.bound:
                # A held cursor outlives its transaction, and ends with the next one of another
                # tenant; until then it is the one's that the connection was bound to last.
                state.binding.refuse_switch()
        begins = isinstance(command, bytes) and command.startswith(b"BEGIN")
        if state is None or not state.check_outs or not begins:
            return (yield from super()._exec_command(command, *args, **kwargs))  # type: ignore[misc]
        try:
            return (yield from self._begin_for_tenant(state, command.decode()))
        except Exception:
            # A two-phase transaction that is refused is none; else no rollback() would be allowed.
            self._tpc = None
            raise

    def _begin_for_tenant(
        self, state: ConnectionState, command: str
    ) -> Generator[Any, Any, pq.abc.PGresult | None]:
        beginning = state.begin(command, answered=not self._pipeline)
        if self._pipeline:
            # One command a message, sent together: so still no additional round trip. The answers
            # come later, so the registry is asked each time, and the next BEGIN scrubs once more.
            for each in beginning.commands:
                yield from super()._exec_command(each)  # type: ignore[misc]
            state.bound = beginning.tenant
            return None
        encoding = cast("psycopg.Connection[Any]", self).info.encoding
        self.pgconn.send_query("; ".join(beginning.commands).encode(encoding))
        results: list[pq.abc.PGresult] = yield from generators.execute(self.pgconn)
        for result in results:
            if result.status not in _COMPLETED:
                code = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                if beginning.scrubs or code == WRONG_TIME:
                    self.discard()
                raise _without_statement(code)
        if beginning.scrubs:
            # Since psycopg 3.3: what came while nobody asked for notifications.
            getattr(self, "_notifies_backlog", []).clear()
        state.begun(beginning, results[-1].ntuples)
        return results[-1]


def _without_statement(state: str) -> psycopg.Error:
    """Return the driver's error of *state*."""
    try:
        kind: type[psycopg.Error] = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError
    return kind(not_begun(state))


class TenantConnection(TenantBinding, psycopg.Connection[Any]):
    """psycopg's connection with the tenant on its BEGIN."""


class AsyncTenantConnection(TenantBinding, psycopg.AsyncConnection[Any]):
    """psycopg's asynchronous connection with the tenant on its BEGIN."""


_HOOKS = ("_exec_command", "_start_query", "_get_tx_start_command")


def synchronous() -> Driver:
    """Return how SQLAlchemy's `postgresql+psycopg` connects."""
    need_hooks("psycopg>=3.2", psycopg.Connection, _HOOKS)
    return Driver(
        TenantConnection,
        lambda _dialect, args, params: TenantConnection.connect(*args, **params),
    )


def asynchronous() -> Driver:
    """Return how SQLAlchemy's `postgresql+psycopg` connects with `create_async_engine`."""
    need_hooks("psycopg>=3.2", psycopg.AsyncConnection, _HOOKS)
    return Driver.by_argument(
        AsyncTenantConnection, "async_creator_fn", AsyncTenantConnection.connect
    )
