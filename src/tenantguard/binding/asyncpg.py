"""Binding the tenant with asyncpg.

asyncpg begins a transaction by `execute("BEGIN …;")`, one simple query. The class below puts the
tenant, and after a check-out the scrub, into that same message. Everything else that asyncpg sends
passes its protocol object, also what a prepared statement from a cache sends; there each command is
checked to run in the transaction of its tenant.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
from asyncpg.protocol import Protocol

from tenantguard.binding.driver import Driver, need_hooks
from tenantguard.binding.entry import WRONG_TIME, not_begun

if TYPE_CHECKING:
    from tenantguard.binding.state import ConnectionState

__all__ = ["asynchronous"]

# What asyncpg's Transaction sends; other text is a command like any other.
_BEGIN = re.compile(r"BEGIN( ISOLATION LEVEL [A-Z ]+)?( READ ONLY)?( DEFERRABLE)?;")
_CONTROL = re.compile(r"(COMMIT|ROLLBACK|(SAVEPOINT|RELEASE SAVEPOINT|ROLLBACK TO) \w+);")
# A refused command must not have been prepared either: asyncpg leaves the message that prepares
# without the Sync that would end it, with locks held.
_CHECKED = (
    "bind",
    "bind_execute",
    "bind_execute_many",
    "copy_in",
    "copy_out",
    "execute",
    "prepare",
)


class TenantProtocol(Protocol):
    """asyncpg's protocol, which runs a command only in its tenant's transaction."""

    tenantguard: ConnectionState | None = None

    def _check(self) -> None:
        state = self.tenantguard
        if state is not None and state.check_outs:
            state.check(in_transaction=self.is_in_transaction(), autocommit=True)

    async def query(self, query: str, timeout: Any) -> Any:  # noqa: ASYNC109  (asyncpg's name)
        if not _CONTROL.fullmatch(query):
            self._check()
        return await super().query(query, timeout)


def _checked(name: str) -> Any:
    unchecked = getattr(Protocol, name)

    async def send(self: TenantProtocol, *args: Any, **kwargs: Any) -> Any:
        self._check()
        try:
            return await unchecked(self, *args, **kwargs)
        except asyncpg.InvalidSQLStatementNameError:
            # SQL text took away what asyncpg and SQLAlchemy keep as prepared.
            if self.tenantguard is not None:
                self.abort()
            raise

    send.__name__ = name
    return send


class TenantConnection(asyncpg.Connection):
    """asyncpg's connection with the tenant on its BEGIN."""

    _protocol: Any
    _listeners: Any
    _top_xact: Any

    def __init__(self, protocol: Any, *args: Any) -> None:
        # asyncpg has made the protocol by now and takes no other class for it.
        protocol.__class__ = TenantProtocol
        super().__init__(protocol, *args)

    @property
    def tenantguard(self) -> ConnectionState | None:
        """The connection's state; None once it is closed."""
        return getattr(self._protocol, "tenantguard", None)

    @tenantguard.setter
    def tenantguard(self, state: ConnectionState) -> None:
        self._protocol.tenantguard = state

    def in_transaction(self) -> bool:
        """Return whether a transaction is open, without asking the server."""
        return bool(self.is_in_transaction())

    def server_process(self) -> int:
        """Return the number of the server's process, as the driver was told it."""
        return int(self.get_server_pid())

    async def execute(
        self,
        query: str,
        *args: Any,
        timeout: float | None = None,  # noqa: ASYNC109  (asyncpg's name)
    ) -> str:
        state = self.tenantguard
        begins = not args and _BEGIN.fullmatch(query) and not self.in_transaction()
        if state is None or not state.check_outs or not begins:
            return str(await super().execute(query, *args, timeout=timeout))
        try:
            return await self._begin_for_tenant(state, query.rstrip(";"), timeout)
        except BaseException:
            # asyncpg would take the next transaction for one inside this.
            self._top_xact = None
            raise

    async def _begin_for_tenant(
        self, state: ConnectionState, command: str, seconds: float | None
    ) -> str:
        beginning = state.begin(command)
        try:
            answer: str = await Protocol.query(
                self._protocol, "; ".join(beginning.commands), seconds
            )
        except asyncpg.PostgresError as error:
            code = getattr(error, "sqlstate", None)
            if beginning.scrubs or code == WRONG_TIME:
                # What cannot be cleaned must not be used again.
                self.terminate()
            elif self.in_transaction():
                await Protocol.query(self._protocol, "ROLLBACK", seconds)
            raise _without_statement(error) from None
        if beginning.scrubs:
            # The server no longer listens for them; the next add_listener() has to ask it again.
            self._listeners.clear()
        try:
            state.begun(beginning, _rows(answer))
        except Exception:
            await Protocol.query(self._protocol, "ROLLBACK", seconds)
            raise
        return answer


def _rows(answer: str) -> int:
    """Return the number of rows that the message's last command gave."""
    return int(answer.rpartition(" ")[2]) if answer.startswith("SELECT ") else 0


def _without_statement(error: asyncpg.PostgresError) -> asyncpg.PostgresError:
    """Return *error* without PostgreSQL's own text, which would quote the tenant."""
    return type(error)(not_begun(getattr(error, "sqlstate", None)))


def _switch(connection: Any, on: bool) -> None:  # noqa: FBT001
    # Not by its `autocommit`, which goes back to the level that was set last.
    connection.isolation_level = "autocommit" if on else None


def asynchronous() -> Driver:
    """Return how SQLAlchemy's `postgresql+asyncpg` connects."""
    need_hooks("asyncpg>=0.30", Protocol, ("query", "is_in_transaction", *_CHECKED))
    for name in _CHECKED:
        setattr(TenantProtocol, name, _checked(name))
    driver = Driver.by_argument(TenantConnection, "connection_class", TenantConnection)
    return replace(driver, switch=_switch)
