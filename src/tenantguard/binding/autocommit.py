"""AUTOCOMMIT: each execution of SQLAlchemy's gets a transaction of its own, with its tenant.

A setting that ends with a transaction needs one, and one for the session must not exist. So the
driver's autocommit is off for as long as an execution lasts: the driver then begins as it always
does, the tenant on its BEGIN, and what the execution has done is committed when it ends.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import _IdentifiedClause

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection
    from sqlalchemy.engine.default import DefaultExecutionContext

    from tenantguard.binding.state import Binding, ConnectionState

__all__ = ["Alone", "begin_alone", "refusing"]


class Alone:
    """One execution's own transaction.

    Args:
        state: The driver connection's state, which is told that the transaction is there.
        connection: The DBAPI connection.
        switch: Switches its autocommit on or off, without asking the server.
    """

    __slots__ = ("_connection", "_state", "_switch")

    def __init__(
        self, state: ConnectionState, connection: Any, switch: Callable[[Any, bool], None]
    ) -> None:
        self._state = state
        self._connection = connection
        self._switch = switch
        switch(connection, False)  # noqa: FBT003
        state.alone = True

    def commit(self) -> None:
        """Commit, and let the connection be in AUTOCOMMIT again."""
        self._connection.commit()
        self._over()

    def roll_back(self) -> None:
        """Roll back; a connection with which that fails is used no more."""
        # The error that ended the execution is the one to show.
        with suppress(Exception):
            self._connection.rollback()
            self._over()

    def _over(self) -> None:
        self._switch(self._connection, True)  # noqa: FBT003
        self._state.alone = False


def begin_alone(
    state: ConnectionState,
    context: DefaultExecutionContext,
    switch: Callable[[Any, bool], None],
) -> Alone | None:
    """Return the transaction of *context*'s own that its execution has to have, if it has to.

    Raises:
        UnscopedStatementError: If its rows would be fetched after that transaction, or another
            execution on the connection has not ended.
    """
    if state.alone:
        state.binding.refuse_another()
    connection: Any = context.root_connection._dbapi_connection.dbapi_connection  # type: ignore[union-attr]  # noqa: SLF001
    if not connection.autocommit or not _is_bound(state, context):
        return None
    if context._is_server_side:  # noqa: SLF001
        context.cursor.close()
        state.binding.refuse_stream()
    return Alone(state, connection, switch)


def _is_bound(state: ConnectionState, context: DefaultExecutionContext) -> bool:
    """Return whether *context* is to run in a transaction that there is not yet."""
    if state.binding.observe is not None or not state.check_outs or state.ends:
        return False
    # A savepoint alone would be gone at once, and what follows it could not be undone.
    statement = getattr(context.compiled, "statement", None)
    return not isinstance(statement, _IdentifiedClause) and not _in_transaction(context)


def _in_transaction(context: DefaultExecutionContext) -> bool:
    driven: Any = context.root_connection._dbapi_connection.driver_connection  # type: ignore[union-attr]  # noqa: SLF001
    return bool(driven.in_transaction())


def refusing(begin: Callable[..., None], binding: Binding) -> Callable[..., None]:
    """Return *begin*, which begins a two-phase transaction, refused where there can be none."""

    def run(connection: Connection, xid: Any) -> None:
        if connection.connection.dbapi_connection.autocommit:  # type: ignore[union-attr]
            binding.refuse_autocommit()
        begin(connection, xid)

    return run
