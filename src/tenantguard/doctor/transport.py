"""Whether the way to the server is encrypted, and whether it leads to that server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from tenantguard.doctor.subject import Look, present
from tenantguard.findings import Finding, Severity
from tenantguard.rls.session import rolled_back
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from sqlalchemy import URL

    from tenantguard.doctor.subject import Subject

__all__ = ["Way", "judge", "look_at_transport"]

_QUESTION = """
    SELECT json_build_object(
        'peer', pg_catalog.host(pg_catalog.inet_client_addr()),
        'server', pg_catalog.host(pg_catalog.inet_server_addr()),
        'encrypted', coalesce((SELECT s.ssl FROM pg_catalog.pg_stat_ssl s
                WHERE s.pid = pg_catalog.pg_backend_pid()), false)
            OR coalesce((SELECT g.encrypted FROM pg_catalog.pg_stat_gssapi g
                WHERE g.pid = pg_catalog.pg_backend_pid()), false))::text"""

_MEND = (
    "Add ?sslmode=verify-full&sslrootcert=… to the application's address (hostssl in pg_hba.conf "
    "keeps others from going without)."
)


@dataclass(frozen=True, slots=True)
class Way:
    """The way from the application to the server, as either end sees it.

    Attributes:
        host: Whom the driver connected to; None or a path is a local socket.
        encrypted: Whether the driver's end is encrypted; None if the driver does not say.
        peer: Whom the server sees; None is a local socket.
        server: The server's own address.
        peer_encrypted: Whether the server's end is encrypted.
        sslmode: As the address or the environment gives it.
    """

    host: str | None
    encrypted: bool | None
    peer: str | None
    server: str | None
    peer_encrypted: bool
    sslmode: str


def look_at_transport(subject: Subject) -> Look:
    """Find a connection that others on the network can read, or stand in the middle of."""
    with subject.application_connection() as connection, rolled_back(connection) as run:
        facts = ask(run, _QUESTION)
        url = present(subject.application).url
        return judge(
            Way(
                host=getattr(connection.info, "host", None) or url.host,
                encrypted=_encrypted(connection),
                peer=facts["peer"],
                server=facts["server"],
                peer_encrypted=facts["encrypted"],
                sslmode=_sslmode(url),
            )
        )


def judge(way: Way) -> Look:
    """Return what *way* is worth."""
    here, there = _is_local(way.host), _is_local(way.peer) or way.peer == way.server
    if here and there:
        return Look("local socket or loopback")
    if (not here and way.encrypted is False) or (not there and not way.peer_encrypted):
        message = "The application's connection crosses a network and is not encrypted."
        return Look("not encrypted", [Finding("tls-off", None, message, _MEND, Severity.WARNING)])
    if not here and way.sslmode != "verify-full":
        message = (
            f"sslmode is {way.sslmode!r}: the connection is encrypted, and the application does "
            "not check whom it talks to."
        )
        return Look(
            "encrypted", [Finding("tls-unverified", None, message, _MEND, Severity.WARNING)]
        )
    return Look(f"encrypted, sslmode {way.sslmode}")


def _is_local(host: str | None) -> bool:
    if not host or host.startswith(("/", "@")) or host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _encrypted(connection: Any) -> bool | None:
    for place in (getattr(connection, "pgconn", None), connection.info):
        found = getattr(place, "ssl_in_use", None)
        if found is not None:
            return bool(found)
    return None


def _sslmode(url: URL) -> str:
    given = url.query.get("sslmode") or os.environ.get("PGSSLMODE")
    # libpq takes no less with the system's certificates.
    roots = url.query.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    return str(given or ("verify-full" if roots == "system" else "prefer"))
