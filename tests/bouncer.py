"""PgBouncer in transaction mode on the loopback interface, between the application and a server."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from tenantguard import TenantGuard

_PROGRAM = "pgbouncer"
_UNPRIVILEGED = "nobody"
_START_SECONDS = 10.0
_SERVER_CONNECTIONS = 3


class Site(Protocol):
    """A guarded database: its guard, and a superuser's engine."""

    @property
    def guard(self) -> TenantGuard: ...

    @property
    def admin(self) -> Engine: ...


@contextmanager
def pgbouncer(site: Site) -> Iterator[URL]:
    """Run PgBouncer before *site*'s server for the block; yield its address.

    Its few connections to the server are shared by all clients, so that transactions of all
    tenants and drivers follow each other on each.
    """
    program = shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise FileNotFoundError("PgBouncer is not installed: apt-get install pgbouncer")
    with tempfile.TemporaryDirectory(prefix="tenantguard-pgbouncer-") as name:
        directory, port = Path(name), _free_port()
        log = directory / "log"
        (directory / "users.txt").write_text(f'"{site.guard.roles.application}" ""\n', "utf-8")
        (directory / "pgbouncer.ini").write_text(_settings(site, directory, port), "utf-8")
        user = _hand_over(directory)
        command = [program, str(directory / "pgbouncer.ini")]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=user
            )
        try:
            _wait_until_ready(process, port, log)
            yield URL.create(
                "postgresql", host="127.0.0.1", port=port, query={"sslmode": "disable"}
            )
        finally:
            process.terminate()
            process.wait()


def _settings(site: Site, directory: Path, port: int) -> str:
    url = site.admin.url
    host = url.query.get("host") or url.host or "127.0.0.1"
    return "\n".join(
        [
            "[databases]",
            f"* = host={host} port={url.port or 5432}",
            "[pgbouncer]",
            "pool_mode = transaction",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = trust",
            f"auth_file = {directory / 'users.txt'}",
            f"default_pool_size = {_SERVER_CONNECTIONS}",
            "max_client_conn = 200",
            "",
        ]
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _hand_over(directory: Path) -> str | None:
    """Give *directory* to the user that may run PgBouncer, which refuses root; return its name."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam(_UNPRIVILEGED)
    for path in (directory, *directory.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    return _UNPRIVILEGED


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"PgBouncer did not start: {log.read_text('utf-8', 'replace')[-1000:]}")
