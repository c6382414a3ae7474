"""Services on the loopback interface: real HTTP, and what a network does to it."""

from __future__ import annotations

import json
import socket
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    Answer = Callable[["Asked"], tuple[int, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the service got it."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Service:
    """A running service.

    Attributes:
        answer: Returns status and document for a request; a test may replace it.
        asked: The requests so far.
        breaks: How many of the next requests get no answer, only the end of the connection.
        held: Set unless answers have to wait.
        arrived: Set when a request has come.
    """

    answer: Answer
    asked: list[Asked] = field(default_factory=list)
    breaks: int = 0
    held: Event = field(default_factory=Event)
    arrived: Event = field(default_factory=Event)
    address: str = ""


@contextmanager
def serving(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[Service]:
    """Run a service for the block, over TLS if *tls* is given."""
    service = Service(answer)
    service.held.set()
    server = _Server(("127.0.0.1", 0), _handler(service))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    service.address = f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield service
    finally:
        service.held.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_address() -> str:
    """Return an address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """Say nothing of clients that go away: they are meant to."""


def _handler(service: Service) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and content in one packet: TCP holds the second back until the first is confirmed.
        wbufsize = -1

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Asked(self.path, headers, json.loads(content or b"null"))
            service.asked.append(request)
            service.arrived.set()
            service.held.wait()
            if service.breaks:
                service.breaks -= 1
                self.close_connection = True
                return
            self._send(*service.answer(request))

        def _send(self, status: int, document: Any) -> None:
            content = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status == HTTPStatus.TEMPORARY_REDIRECT:
                self.send_header("Location", document["location"])
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler
