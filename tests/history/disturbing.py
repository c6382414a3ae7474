"""What befalls connections, and which errors it explains."""

from __future__ import annotations

import re
from collections import Counter
from threading import Lock
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionError

from tenantguard.errors import (
    PolicyDriftError,
    UnsafeRoleError,
    UnscopedStatementError,
    sqlstate,
)

if TYPE_CHECKING:
    from random import Random

    from entries import Site

_BACKENDS = text(
    "SELECT pid FROM pg_stat_activity WHERE usename = :name AND datname = current_database()"
)
_CANCELLED = "57014"
_TERMINATED = re.compile("57P0.|08...")
# As a text of ours, or as the scrub's own in psycopg's pipeline; no program divides.
_PREPARED_BY_TEXT = "22012"
_REFUSED = {
    # SQLAlchemy's asyncpg connection forgets a transaction whose COMMIT or ROLLBACK was cancelled.
    # The guard refuses that connection, and the pool closes it.
    "connection refused in a transaction": re.compile("handed out a connection whose transaction"),
    # A new connection is verified before its first use. That may be cut short; behind PgBouncer it
    # may find what a tenant has left on the connection to the server, which only a BEGIN scrubs.
    "connection refused as not verified": re.compile(
        "policies could not be compared|not empty at the start of the session"
    ),
}
_CLOSED = re.compile(
    "connection.*(closed|lost|is broken)|closed the connection|terminating connection"
    "|server conn crashed|server login|SSL SYSCALL|Connection reset|unexpected connection_lost"
    "|Can't reconnect until invalid transaction"
    # asyncpg, of a connection that was ended while it was idle.
    r"|another operation \(2\) is in progress"
    # psycopg, whose executemany was cancelled.
    "|pipeline mode"
    # psycopg, of PostgreSQL's word that it ends the connection and PgBouncer's that it lost it.
    "|received 2 results from command '(BEGIN|COMMIT|ROLLBACK|SAVEPOINT)",
    re.DOTALL,
)


class Disturber:
    """Cancels statements and ends backends of the application's, as a superuser."""

    def __init__(self, site: Site) -> None:
        self._engine = site.admin.execution_options(isolation_level="AUTOCOMMIT")
        self._role = site.guard.roles.application
        self._lock = Lock()
        self.count: Counter[str] = Counter()

    def terminate(self, rng: Random) -> None:
        """End a backend, which may be anybody's or an idle one of a pool."""
        self._hit("pg_terminate_backend", rng)

    def cancel(self, rng: Random) -> None:
        """Cancel what a backend is running, if anything."""
        self._hit("pg_cancel_backend", rng)

    def _hit(self, function: str, rng: Random) -> None:
        with self._lock, self._engine.connect() as connection:
            backends = connection.scalars(_BACKENDS, {"name": self._role}).all()
            if backends:
                victim = {"pid": rng.choice(backends)}
                connection.execute(text(f"SELECT {function}(:pid)"), victim)
                self.count[function] += 1


def disturbance(error: BaseException, *, calm: bool) -> str | None:
    """Return what *error* is the consequence of; None if it should not have happened.

    Args:
        error: What was raised in a transaction.
        calm: Whether nobody disturbs connections.
    """
    code, message = sqlstate(error) or "", f"{type(error).__name__}: {error}"
    if code == _PREPARED_BY_TEXT or f"SQLSTATE {_PREPARED_BY_TEXT}" in message:
        return "connection refused as prepared by text"
    if calm:
        return None
    if isinstance(error, UnscopedStatementError | PolicyDriftError | UnsafeRoleError):
        return next((what for what, words in _REFUSED.items() if words.search(message)), None)
    if isinstance(error, NoConnectionError):
        return "no connection in time"  # whether it is for ever is for the watch to say
    if code == _CANCELLED:
        return "statement cancelled"
    invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
    lost = invalidated or _TERMINATED.fullmatch(code) or _CLOSED.search(message)
    return "connection lost" if lost else None
