"""Sending the statements that change a table, each as soon as its lock is to be had."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.errors import LOCK_NOT_AVAILABLE, ConfigurationError, TenantGuardError, sqlstate
from tenantguard.rls.generate import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Connection, Engine

    from tenantguard.encrypt.schema import Statements

__all__ = ["asking", "send"]

_ATTEMPTS = 5
_DEADLOCK = "40P01"
_DEPENDENT, _CHECK = "2BP01", "23514"
_PLAIN = {"no_parameters": True}


def asking(connection: Connection) -> Callable[[str], Sequence[Any]]:
    """Return a function that runs SQL on *connection* and returns its rows."""

    def ask(statement: str) -> Sequence[Any]:
        return connection.exec_driver_sql(statement, execution_options=_PLAIN).fetchall()

    return ask


def send(
    engine: Engine, statements: Iterable[Statements], *, progress: Callable[[int, int, str], None]
) -> int:
    """Send *statements*, and return how many there were; a lock is waited for 3 s, five times.

    Raises:
        ConfigurationError: If rows or other objects do not allow it.
        TenantGuardError: If the table stays locked.
    """
    listed = list(statements)
    for number, each in enumerate(listed):
        progress(number, len(listed), each.what)
        _send(engine, each)
    return len(listed)


def _send(engine: Engine, statements: Statements) -> None:
    code = ""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _run(engine, statements)
        except DBAPIError as error:
            code = sqlstate(error) or ""
            if code not in {LOCK_NOT_AVAILABLE, _DEADLOCK}:
                if code in {_DEPENDENT, _CHECK}:
                    break
                raise
            if attempt < _ATTEMPTS:
                time.sleep(0.1 * 2**attempt)
        else:
            return
    if code == _CHECK and statements.undo:
        _send(
            engine, replace(statements, what="drop that check again", sql=statements.undo, undo=())
        )
    # Outside of the block: PostgreSQL's text could quote a row.
    raise _refusal(statements, code)


def _run(engine: Engine, statements: Statements) -> None:
    if not statements.alone:
        with engine.begin() as connection:
            for each in (f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'", *statements.sql):
                connection.exec_driver_sql(each, execution_options=_PLAIN)
        return
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        # It waits for transactions to end, and nobody queues behind it.
        for each in statements.sql:
            connection.exec_driver_sql(each, execution_options=_PLAIN)


def _refusal(statements: Statements, code: str) -> TenantGuardError:
    if code == _DEPENDENT:
        return ConfigurationError(
            f"PostgreSQL refused to {statements.what} ({code}): a view or another object uses it. "
            "Change that first; psql's \\d+ shows which. Everything before it was done."
        )
    if code == _CHECK:
        return ConfigurationError(
            f"PostgreSQL refused to {statements.what} ({code}): a row does not fulfil it"
            f"{', and the check was dropped again' if statements.undo else ''}. Somebody "
            "has written plaintext since the comparison: run `tenantguard encrypt backfill` and "
            "`verify` again, once every application writes sealed values."
        )
    return TenantGuardError(
        f"The table stayed locked by another session, so it was not possible to {statements.what}. "
        "pg_locks shows which session; run the command again. Everything before it was done."
    )
