"""What is examined, and how its checks reach it."""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.errors import LOCK_NOT_AVAILABLE, LOST, TenantGuardError, sqlstate
from tenantguard.rls.generate import LOCK_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Engine

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.findings import Finding

__all__ = [
    "Absence",
    "CouldNotLookError",
    "Look",
    "Subject",
    "is_lost",
    "is_refused",
    "present",
    "reason_of",
    "unreachable",
]


_CONNECTING = {"08", "28", "3D", "53", "57"}
"""Classes of errors that say that a connection was refused."""


class CouldNotLookError(TenantGuardError):
    """A check could not look. *chosen*: because it was asked not to."""

    def __init__(self, reason: str, *, chosen: bool = False) -> None:
        super().__init__(reason)
        self.chosen = chosen


@dataclass(frozen=True, slots=True)
class Absence:
    """Why an address or an engine is not there. *chosen*: because it was not wanted."""

    reason: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """What a check saw in one line, its findings, and what it could not look at."""

    seen: str
    findings: Sequence[Finding] = ()
    missed: Sequence[str] = ()


def _nothing(_what: str) -> None:
    """Show no progress."""


@dataclass(slots=True)
class Subject:
    """An application and its database.

    Attributes:
        catalog: The application's tables.
        roles: The roles the policies speak of.
        mode: The guard's.
        application: A plain engine for the application's own address.
        admin: One for an address that sees all rows.
        engines: The application's own engines by name.
        is_protected: Whether the guard protects an engine.
        address_given: Whether *application* was given apart from the engines.
        progress: Told what is being looked at.
    """

    catalog: Catalog
    roles: Roles
    mode: str
    application: Engine | Absence
    admin: Engine | Absence
    engines: dict[str, Engine] | Absence
    is_protected: Callable[[Engine], bool]
    address_given: bool = False
    progress: Callable[[str], None] = field(default=_nothing)

    @contextmanager
    def application_connection(self) -> Iterator[Any]:
        """Yield a driver's connection as the application.

        Its first transaction waits no longer than `LOCK_TIMEOUT` for a lock: policies of a locked
        table cannot be read. A setting of the session would stay on the server connection of a
        pooler.

        Raises:
            CouldNotLookError: If there is none.
        """
        engine = present(self.application)
        try:
            connection = engine.raw_connection()
        except Exception as error:  # noqa: BLE001  (a driver's error, not always SQLAlchemy's)
            # Not tried again for each check: a host that is silent takes long to give up on.
            self.application = Absence(unreachable(error, "application's"))
            raise CouldNotLookError(self.application.reason) from None
        try:
            with closing(connection.cursor()) as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            yield connection.driver_connection
        finally:
            connection.close()


def present(there: Engine | Absence) -> Engine:
    """Return *there*, or raise a `CouldNotLookError` with the reason of its absence."""
    if isinstance(there, Absence):
        raise CouldNotLookError(there.reason, chosen=there.chosen)
    return there


def unreachable(error: Exception, whose: str) -> str:
    """Return one line on a failed connection. The driver's text can hold the address."""
    if not is_refused(error):
        return reason_of(error)
    code = sqlstate(error)
    refused = f" (PostgreSQL refused: {code})" if code else ""
    return (
        f"The {whose} address cannot be reached{refused}. Check host, port, user and password, "
        "and that the server runs."
    )


def is_refused(error: Exception) -> bool:
    """Return whether *error* says that there is no connection, rather than what happened on it."""
    code = sqlstate(error)
    return code is None or code[:2] in _CONNECTING


def is_lost(error: Exception) -> bool:
    """Return whether *error* is SQLAlchemy's and says that the connection has ended."""
    return isinstance(error, DBAPIError) and (
        error.connection_invalidated or (sqlstate(error) or "").startswith(LOST)
    )


def reason_of(error: Exception) -> str:
    """Return one line on *error* without its text, which can hold values."""
    if isinstance(error, TenantGuardError):
        return str(error)
    code = sqlstate(error)
    name = type(getattr(error, "orig", None) or error).__name__
    if code == LOCK_NOT_AVAILABLE:
        return (
            f"PostgreSQL refused ({code}, {name}): another session holds a lock. pg_locks shows "
            "which; run again when it has ended."
        )
    return f"PostgreSQL refused ({code}, {name})." if code else f"Looking failed ({name})."
