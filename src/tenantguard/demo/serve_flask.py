"""Serve the Flask example."""

import logging
import secrets
from collections.abc import Callable
from socket import socket

from werkzeug.serving import make_server

from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage

__all__ = ["serve"]


def serve(stage: Stage, listener: socket, tell: Callable[[str], None]) -> None:
    """Serve on *listener* until Ctrl-C; *tell* gets what to try."""
    host, port = listener.getsockname()
    app = stage.app(SECRET_KEY=secrets.token_hex())
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    web = make_server(host, port, app, threaded=True, fd=listener.fileno())
    tell(_invitation(f"http://{host}:{port}/", stage.first(stage.models.Patient)))
    try:
        web.serve_forever()
    finally:
        web.server_close()
        app.extensions["engine"].dispose()


def _invitation(address: str, patients: list[int]) -> str:
    own, foreign = patients
    logins = "\n".join(
        f"    {practice.email:26} {practice.password:12} {practice.name}" for practice in PRACTICES
    )
    return f"""
Open {address} and sign in:

{logins}

What to try:
  1. Sign in as the first. Patients, orders, the overview: one practice, and yet there is no tenant
     condition anywhere in the example's code.
  2. Open {address}patients/{foreign}, a patient of the second practice: 404, the same page as for
     {address}patients/999999, which nobody has. {address}patients/{own} is your own.
  3. Sign in as the second in a private window: the other half.
  4. Search for koch: names are stored encrypted, and found by the whole name in any case.
  5. The price list is shared: both see it.

Ctrl-C stops it. Only a `kill -9` would leave the server and its directory behind."""
