"""How many requests a second the examples answer, protected and with a WHERE by hand.

Run: python benchmarks/request.py [flask|starlette-psycopg|starlette-asyncpg …] [--clients N]
Needs: pip install 'tenantguard[bench]'; Linux, for the processor time of the servers.

Both versions are served at the same time, each by its own process, from one PostgreSQL server on a
local socket: the protected one from a database with policies, the other from one without, as the
owner of its tables. Neither encrypts, so that isolation alone is compared. In turns, users of both
practices page through the list of patients; each answer is checked to be a full page of the own
practice's patients.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.request import HTTPCookieProcessor, Request, build_opener

from before import loaded, protected, written_by_hand
from bench import machine, report
from sqlalchemy import URL, create_engine, text

from tenantguard.demo.data import PRACTICES, Practice, fill
from tenantguard.demo.server import embedded_server
from tenantguard.demo.stage import Stage, stage_with

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench import Samples

    from tenantguard.demo.server import EmbeddedServer

HERE = Path(__file__).parent
PATIENTS, PAGE = 1_000, 20
BY_HAND, PROTECTED = "unprotected, WHERE by hand", "protected"
FIGURES = (
    ("requests a second", "/s"),
    ("processor time of the server for one", "ms"),
    ("processor time of the load for one", "ms"),
)
RUNS = {
    "flask": ("flask", "psycopg"),
    "starlette-psycopg": ("starlette", "psycopg"),
    "starlette-asyncpg": ("starlette", "asyncpg"),
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running example, and the cookies of a signed-in user of each practice."""

    process: subprocess.Popen[str]
    port: int
    path: str
    cookies: list[str]

    def load(self, clients: int, seconds: float) -> list[float]:
        """Return answers a second, and the milliseconds of the processor for one: here, there."""
        task = {
            "port": self.port,
            "path": self.path,
            "pages": PATIENTS // PAGE,
            "cookies": self.cookies,
            "clients": clients,
            "seconds": seconds,
        }
        before = self._processor_seconds()
        done = subprocess.run(
            [sys.executable, str(HERE / "load.py")],
            input=json.dumps(task),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        answers, rate, there = json.loads(done.stdout)
        here = (self._processor_seconds() - before) / answers
        return [rate, here * 1000, there * 1000]

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(package: Path, app: str, url: URL) -> Iterator[Server]:
    address = url.render_as_string(hide_password=False)
    command = [sys.executable, str(HERE / "serve.py"), str(package), address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline() if process.stdout else "")
            path = "/patients/" if app == "flask" else "/patients"
            yield Server(process, port, path, [_sign_in(app, port, who) for who in PRACTICES])
        finally:
            process.terminate()


def _sign_in(app: str, port: int, who: Practice) -> str:
    """Return the cookie that *who* gets."""
    jar = HTTPCookieProcessor()
    opener, address = build_opener(jar), f"http://127.0.0.1:{port}/sign-in"
    login = {"email": who.email, "password": who.password}
    if app == "flask":
        with opener.open(address) as page:
            token = re.search(r'name="csrf" value="([^"]+)"', page.read().decode())
        body = "&".join(f"{k}={v}" for k, v in {**login, "csrf": token and token[1]}.items())
        request = Request(address, body.encode())
    else:
        request = Request(address, json.dumps(login).encode(), {"Content-Type": "application/json"})
    with opener.open(request):
        return "; ".join(f"{each.name}={each.value}" for each in jar.cookiejar)


def as_a_team_has_it(server: EmbeddedServer, models: Any) -> URL:
    """Make a database without policies and return the address of the owner of its tables."""
    admin = create_engine(server.url(), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE ROLE team LOGIN"))
        connection.execute(text("CREATE DATABASE team OWNER team"))
    admin.dispose()
    url = server.url("team", "team")
    owner = create_engine(url)
    models.Base.metadata.create_all(owner)
    with owner.begin() as connection:
        fill(connection, models, patients=PATIENTS)
    owner.dispose()
    return url


def vacuum(*urls: URL) -> None:
    for url in urls:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        engine.dispose()


@contextmanager
def as_protected(server: EmbeddedServer, package: Path, app: str, driver: str) -> Iterator[Stage]:
    """Make a database with policies for the example in *package*."""
    with (
        loaded(package) as example,
        stage_with(
            example, server.url(), patients=PATIENTS, tell=_silently, app=app, driver=driver
        ) as stage,
    ):
        yield stage


@contextmanager
def both(app: str, driver: str) -> Iterator[dict[str, Server]]:
    """Serve both versions from one PostgreSQL server."""
    with ExitStack() as stack:
        # Otherwise VACUUM may come too early to mark the latest rows as visible to all.
        postgres = stack.enter_context(embedded_server({"synchronous_commit": "on"}))
        directory = Path(stack.enter_context(TemporaryDirectory()))
        package = protected(app, directory / "protected")
        stage = stack.enter_context(as_protected(postgres, package, app, driver))
        team = as_a_team_has_it(postgres, stage.models)
        vacuum(postgres.url(), postgres.url(database=team.database or ""))
        team = team.set(drivername=stage.application.drivername)
        by_hand = serving(written_by_hand(app, directory / "before"), app, team)
        yield {
            BY_HAND: stack.enter_context(by_hand),
            PROTECTED: stack.enter_context(serving(package, app, stage.application)),
        }


def _silently(_text: str) -> nullcontext[None]:
    return nullcontext()


def measure(servers: dict[str, Server], options: argparse.Namespace) -> list[Samples]:
    """Return the samples of each figure; the turn goes back and forth (ABBA)."""
    for server in servers.values():
        server.load(options.clients, 1.0)
    taken: dict[str, list[list[float]]] = {name: [] for name in servers}
    there = list(servers)
    for names in islice(cycle([there, there[::-1]]), options.rounds):
        for name in names:
            taken[name].append(servers[name].load(options.clients, options.seconds))
    figures = range(len(FIGURES))
    return [{name: [one[n] for one in rounds] for name, rounds in taken.items()} for n in figures]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="*", default=list(RUNS), metavar="|".join(RUNS))
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=40, help="of each version")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    options = parser.parse_args()
    machine("flask", "waitress", "fastapi", "uvicorn")
    for name in options.runs:
        with both(*RUNS[name]) as servers:
            for (figure, unit), samples in zip(FIGURES, measure(servers, options), strict=True):
                title = f"{name}, {options.clients} clients: {figure}"
                report(title, samples, base=BY_HAND, unit=unit, most=unit == "/s")
        print(f"  load of the machine: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
