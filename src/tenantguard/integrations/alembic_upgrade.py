"""`python -m tenantguard.integrations.alembic_upgrade INI`: migrate a database, and no other.

The address comes in TENANTGUARD_EPHEMERAL_URL, which no process list shows. `env.py` finds it as
`sqlalchemy.url` of the configuration, as `-x url=…`, and in whatever environment variable the
caller has set as well. If it takes another address all the same, the connection is refused before
it is made: a check must not migrate the database that somebody works with.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, event, make_url

__all__ = ["ELSEWHERE", "URL", "main"]

URL = "TENANTGUARD_EPHEMERAL_URL"
ELSEWHERE = 3
"""The exit code if `env.py` connects to another database."""


class _ElsewhereError(BaseException):
    """Not an Exception: no `env.py` shall catch it and try the next address."""


def main(ini: str) -> int:
    """Run `alembic upgrade head` with the configuration *ini*, and return the exit code."""
    address = os.environ[URL]
    directory = str(make_url(address).query["host"])

    @event.listens_for(Engine, "do_connect")
    def only_there(_dialect: Any, _record: Any, arguments: Any, parameters: Any) -> None:
        # A host list of libpq names others besides; only the socket's directory alone will do.
        if arguments or parameters.get("host") != directory:
            raise _ElsewhereError

    config = Config(ini, cmd_opts=Namespace(x=[f"url={address}"]))
    config.set_main_option("sqlalchemy.url", address.replace("%", "%%"))
    try:
        command.upgrade(config, "head")
    except _ElsewhereError:
        return ELSEWHERE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
