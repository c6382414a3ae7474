"""`python -m tenantguard.integrations.alembic_upgrade INI`: migrate a database, and no other.

The address comes in TENANTGUARD_EPHEMERAL_URL, which no process list shows. `env.py` finds it as
`sqlalchemy.url` of the configuration, as `-x url=…`, and in whatever environment variable the
caller has set as well. If it takes another address all the same, the connection is refused before
it is made, or, where SQLAlchemy does not make it, before anything is sent on it: a check must not
migrate the database that somebody works with. What a script connects to past SQLAlchemy is not
seen.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, make_url
from sqlalchemy.pool import Pool

__all__ = ["ELSEWHERE", "URL", "is_elsewhere", "leads_elsewhere", "main"]

URL = "TENANTGUARD_EPHEMERAL_URL"
ELSEWHERE = 3
"""The exit code if `env.py` connects to another database."""


class _ElsewhereError(BaseException):
    """Not an Exception: no `env.py` shall catch it and try the next address."""


# Each would lead elsewhere, whatever the host says.
_OTHER_WAYS = {"conninfo", "dsn", "hostaddr", "service", "servicefile"}


def main(ini: str) -> int:
    """Run `alembic upgrade head` with the configuration *ini*, and return the exit code."""
    address = os.environ[URL]
    directory = str(make_url(address).query["host"])

    @event.listens_for(Engine, "do_connect")
    def before(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> None:
        if leads_elsewhere(directory, arguments, parameters):
            raise _ElsewhereError

    @event.listens_for(Pool, "connect")
    def after(connection: Any, _record: Any) -> None:
        if is_elsewhere(directory, connection):
            raise _ElsewhereError

    config = Config(ini, cmd_opts=Namespace(x=[f"url={address}"]))
    config.set_main_option("sqlalchemy.url", address.replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except _ElsewhereError:
        return ELSEWHERE
    return 0


def leads_elsewhere(directory: str, arguments: Any, parameters: Any) -> bool:
    """Return whether a driver's arguments name anything but the socket in *directory*."""
    # A host list of libpq names others besides; only the directory alone will do.
    return bool(arguments or _OTHER_WAYS & set(parameters) or parameters.get("host") != directory)


def is_elsewhere(directory: str, connection: Any) -> bool:
    """Return whether *connection* is not to the server whose socket is in *directory*."""
    try:
        cursor = connection.cursor()
        cursor.execute("SHOW unix_socket_directories")
        [answer] = cursor.fetchone()
        connection.rollback()
    except Exception:  # noqa: BLE001  (who may not ask is not the superuser of our server)
        return True
    return bool(answer != directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
