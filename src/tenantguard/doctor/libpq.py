"""A driver's arguments in libpq's words, so that psycopg and psycopg2 connect where it does.

What has a meaning is kept, what has none for libpq is left out by name, and everything else is
refused: the doctor would look at another server, or as another role, and find it in order.
"""

from __future__ import annotations

import re
from enum import Enum
from ssl import CERT_NONE, SSLContext
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HARMLESS", "UntranslatableError", "as_url", "from_asyncpg", "from_libpq"]

_OF_PYTHON = {
    "autocommit",
    "connection_factory",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
}
"""Arguments of psycopg and psycopg2 that are about Python, and not about the connection."""

_OF_ASYNCPG = {
    "command_timeout",
    "connection_class",
    "loop",
    "max_cacheable_statement_size",
    "max_cached_statement_lifetime",
    "prepared_statement_cache_size",
    "prepared_statement_name_func",
    "record_class",
    "statement_cache_size",
    "timeout",
}
"""Arguments of asyncpg and its dialect that libpq has no word for and that change no session."""

_WAITING = {
    "application_name",
    "client_encoding",
    "connect_timeout",
    "fallback_application_name",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
}

HARMLESS = frozenset(_OF_PYTHON | _OF_ASYNCPG | _WAITING)
"""What changes neither where and as whom a driver connects, nor what its session may do."""

_REFUSED = {"async", "async_", "conninfo", "dsn"}
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.$]*")
_OF_THE_STARTUP = {"user", "database", "replication", "options"}
"""Names that are no settings, but parts of the startup message that asyncpg puts them into."""


class UntranslatableError(ValueError):
    """An argument that libpq cannot be given; *name* is the argument's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    @property
    def named(self) -> str:
        """The name in brackets, if it is a driver's and so no part of a mistyped address."""
        return f" ({self.name})" if self.name in {*_OF_PYTHON, *_FROM_ASYNCPG, *_REFUSED} else ""


def from_libpq(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what psycopg or psycopg2 is *given* as text, without what is Python's alone."""
    return {
        name: _text(name, value)
        for name, value in given.items()
        if value is not None and name not in _OF_PYTHON
    }


def from_asyncpg(given: Mapping[str, Any]) -> dict[str, str]:
    """Return what asyncpg is *given* in libpq's words."""
    found: dict[str, str] = {}
    for name, value in given.items():
        # asyncpg takes an empty text for none, and then the environment.
        if name in _OF_ASYNCPG or value is None or value in ("", {}):
            continue
        if name not in _FROM_ASYNCPG:
            raise UntranslatableError(name)
        translate = _FROM_ASYNCPG[name]
        found |= translate(value) if translate else {name: _text(name, value)}
    return found


def as_url(driver: str, arguments: Mapping[str, str]) -> URL:
    """Return the address that gives *driver* exactly *arguments*, which are libpq's."""
    rest = dict(arguments)
    host, port = rest.pop("host", None), rest.pop("port", None)
    user, password, database = (rest.pop(name, None) for name in ("user", "password", "dbname"))
    if host and "," in host:
        ports = port.split(",") if port else []
        # SQLAlchemy wants a port for each host; libpq takes one port for all of them.
        ports *= len(host.split(",")) if len(ports) == 1 else 1
        rest |= {"host": host, "port": ",".join(ports)} if ports else {"host": host}
        host = port = None
    return URL.create(
        f"postgresql+{driver}",
        user,
        password,
        host,
        int(port) if port else None,
        database,
        rest,
    )


def _text(name: str, value: object) -> str:
    if name in _REFUSED or not isinstance(value, str | int | float):
        raise UntranslatableError(name)
    return str(value)


def _listed(name: str, value: object) -> dict[str, str]:
    values = value if isinstance(value, list | tuple) else [value]
    return {name: ",".join(_text(name, each) for each in values)}


def _host(value: object) -> dict[str, str]:
    return _listed("host", value)


def _port(value: object) -> dict[str, str]:
    return _listed("port", value)


def _database(value: object) -> dict[str, str]:
    return {"dbname": _text("database", value)}


def _ssl(value: object) -> dict[str, str]:
    """Return libpq's words for asyncpg's `ssl`.

    The authorities that a context trusts cannot be taken out of it again, so one that verifies is
    refused; one that does not is what libpq calls `require`.
    """
    if value is False:
        return {"sslmode": "disable"}
    if value is True:
        return {"sslmode": "verify-full", "sslrootcert": "system"}
    if isinstance(value, SSLContext) and value.verify_mode == CERT_NONE:
        return {"sslmode": "require"}
    mode = value.name if isinstance(value, Enum) else value
    if not isinstance(mode, str) or mode.replace("_", "-") not in _SSL_MODES:
        raise UntranslatableError("ssl")
    return {"sslmode": mode.replace("_", "-")}


def _settings(value: object) -> dict[str, str]:
    # In an address it is a text, which asyncpg refuses.
    if isinstance(value, str):
        return {}
    if not isinstance(value, dict):
        raise UntranslatableError("server_settings")
    return {"options": " ".join(_option(name, each) for name, each in value.items())}


def _option(name: object, value: object) -> str:
    known = isinstance(name, str) and _SETTING.fullmatch(name) and name not in _OF_THE_STARTUP
    if not known or not isinstance(value, str):
        raise UntranslatableError("server_settings")
    return f"-c {name}=" + re.sub(r"([\\\s])", r"\\\1", value)


_FROM_ASYNCPG: dict[str, Any] = {
    "database": _database,
    "gsslib": None,
    "host": _host,
    "krbsrvname": None,
    "passfile": None,
    "password": None,
    "port": _port,
    "server_settings": _settings,
    "service": None,
    "ssl": _ssl,
    "target_session_attrs": None,
    "user": None,
}
"""asyncpg's arguments that libpq has too, and how each is translated; None: as it is."""
