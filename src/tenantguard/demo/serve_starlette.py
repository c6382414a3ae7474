"""Serve the FastAPI example, behind a first page that says what to try."""

import json
import secrets
from collections.abc import Callable
from contextlib import suppress
from html import escape
from importlib.resources import files
from socket import socket
from string import Template

import uvicorn
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tenantguard.demo.data import PRACTICES, Practice
from tenantguard.demo.stage import Stage

__all__ = ["serve"]

_GRACE_SECONDS = 3


def serve(stage: Stage, listener: socket, tell: Callable[[str], None]) -> None:
    """Serve on *listener* until Ctrl-C; *tell* gets what to try."""
    host, port = listener.getsockname()
    address = f"http://{host}:{port}/"
    commands = _commands(address, stage.first(stage.models.Patient))
    app = _FirstPage(stage.app(SECRET_KEY=secrets.token_hex()), _page(stage, commands))
    # An open WebSocket does not keep the demo from ending.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=_GRACE_SECONDS)
    tell(_invitation(address, commands))
    with suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[listener])


class _FirstPage:
    """Answers `/`, which the example leaves free."""

    def __init__(self, app: ASGIApp, page: str) -> None:
        self._app = app
        self._page = HTMLResponse(page)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = scope["type"] == "http" and scope["path"] == "/"
        await (self._page if first else self._app)(scope, receive, send)


def _commands(address: str, patients: list[int]) -> str:
    """Return what to type into a shell."""
    own, foreign = patients
    return "\n".join(
        (
            f"curl -c anna -H 'Content-Type: application/json' {address}sign-in \\",
            f"     -d '{_login(PRACTICES[0])}'",
            f"curl -b anna '{address}patients?q=koch'    # by the whole name, in any case",
            f"curl -b anna {address}patients/{own:<6}      # of your own practice",
            f"curl -b anna {address}patients/{foreign:<6}      # of the other one: 404 …",
            f"curl -b anna {address}patients/999999      # … as for a number that nobody has",
            f"curl -b anna {address}patients/export.csv  # streamed",
            f"curl         {address}patients             # not signed in: 401",
        )
    )


def _login(practice: Practice) -> str:
    return json.dumps({"email": practice.email, "password": practice.password})


def _page(stage: Stage, commands: str) -> str:
    own, foreign = stage.first(stage.models.Patient)
    first_order, second_order = stage.first(stage.models.Order)
    buttons = "\n".join(
        f"<button name=login value='{escape(_login(practice))}'>{escape(practice.user)}, "
        f"{escape(practice.name)}</button>"
        for practice in PRACTICES
    )
    template = Template(files("tenantguard.demo").joinpath("start.html").read_text("utf-8"))
    return template.substitute(
        buttons=buttons,
        own=own,
        foreign=foreign,
        first_order=first_order,
        second_order=second_order,
        commands=escape(commands),
    )


def _invitation(address: str, commands: str) -> str:
    logins = "\n".join(
        f"    {practice.email:26} {practice.password:12} {practice.name}" for practice in PRACTICES
    )
    lines = "\n".join(f"    {line}" for line in commands.splitlines())
    return f"""
Open {address} and sign in with a click; {address}docs is the API's own page.

{logins}

Or in a shell:

{lines}

There is no tenant condition anywhere in the example's code.
Ctrl-C stops it. Only a `kill -9` would leave the server and its directory behind."""
