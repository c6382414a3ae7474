"""Whether something between the application and PostgreSQL hands server connections around.

A pooler answers the driver with a process id of its own making, so it differs from the one that
PostgreSQL knows itself by. If two open connections are served by the same process one after the
other, server connections change with the transaction. Both were measured with PgBouncer 1.18.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tenantguard.doctor.subject import Look, present
from tenantguard.findings import Finding, Severity
from tenantguard.rls.session import rolled_back

if TYPE_CHECKING:
    from tenantguard.doctor.subject import Subject

__all__ = ["look_at_pooler"]

_USUAL_PORTS = {6432, 6543}
"""PgBouncer's and Supavisor's."""

_QUESTION = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('server_version')"
_SEE = 'See "PgBouncer and other poolers" in the page Drivers.'
_SETTINGS = (
    "What `connect` listeners set does not hold behind it: set it on the role (ALTER ROLE … SET)."
)
_STATEMENTS = (
    "Turn off prepared statements (psycopg's prepare_threshold=None; asyncpg's "
    "statement_cache_size=0 and SQLAlchemy's prepared_statement_cache_size=0)."
)


def look_at_pooler(subject: Subject) -> Look:
    """Find a pooler, and whether it changes the server connection between transactions."""
    with ExitStack() as stack:
        first = stack.enter_context(subject.application_connection())
        process, version = _ask(first)
        if _answered_by(first, process, version):
            return Look("PostgreSQL answers the driver itself")
        if _claimed(first) is None:
            return _by_port(present(subject.application).url.port)
        # Not before the first one's transaction has ended: that would keep its server connection.
        second = stack.enter_context(subject.application_connection())
        if _ask(second)[0] == process:
            return Look("a pooler, by transaction", [_transaction_pooling()])
    return Look("a pooler", [_between()])


def _ask(connection: Any) -> tuple[int, str]:
    with rolled_back(connection) as run:
        [[process, version]] = run(_QUESTION)
    return int(process), str(version)


def _answered_by(connection: Any, process: int, version: str) -> bool:
    told = getattr(connection.info, "parameter_status", lambda _: None)("server_version")
    return _claimed(connection) == process and told in (None, version)


def _claimed(connection: Any) -> int | None:
    return getattr(connection.info, "backend_pid", None)


def _by_port(port: int | None) -> Look:
    if port not in _USUAL_PORTS:
        return Look("the driver does not tell; the port is not a pooler's")
    return Look(f"port {port}", [_between()])


def _between() -> Finding:
    return Finding(
        "pooler-between",
        None,
        "Something between the application and PostgreSQL answers the driver: a pooler such as "
        "PgBouncer.",
        f"{_SETTINGS} {_SEE} Or connect the application directly.",
        Severity.WARNING,
    )


def _transaction_pooling() -> Finding:
    return Finding(
        "pooler-transaction",
        None,
        "A pooler gives each transaction another server connection. The guard scrubs it at each "
        "BEGIN; what else relies on one connection does not hold.",
        f"{_STATEMENTS} {_SETTINGS} {_SEE} Then accept this.",
        Severity.WARNING,
    )
