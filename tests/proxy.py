"""A loopback proxy in front of PostgreSQL that counts round trips and can add delay."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

_CHUNK = 65536


class Proxy:
    """Counts how often the client speaks after it has listened: each time is a round trip."""

    def __init__(self, target: URL, delay: float) -> None:
        host = target.query.get("host")
        self.round_trips = 0
        self._delay = delay
        self._directory = host if isinstance(host, str) and host.startswith("/") else None
        self._address = (target.host or "127.0.0.1", target.port or 5432)
        self._port = target.port or 5432
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, target: URL) -> URL:
        """Return *target* with this proxy in between; *delay* applies each way."""
        port = self._listener.getsockname()[1]
        query = {key: value for key, value in target.query.items() if key != "host"}
        return target.set(host="127.0.0.1", port=port, query={**query, "sslmode": "disable"})

    def close(self) -> None:
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            self._sockets += [client, server]
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            speaking = threading.Event()
            for source, sink, outward in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, speaking, outward), daemon=True
                ).start()

    def _connect(self) -> socket.socket:
        if self._directory is None:
            return socket.create_connection(self._address)
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{self._directory}/.s.PGSQL.{self._port}")
        return server

    def _pump(
        self,
        source: socket.socket,
        sink: socket.socket,
        speaking: threading.Event,
        outward: bool,  # noqa: FBT001
    ) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if outward and not speaking.is_set():
                    speaking.set()
                    self.round_trips += 1
                elif not outward:
                    speaking.clear()
                if self._delay:
                    time.sleep(self._delay)
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: URL, *, delay: float = 0.0) -> Iterator[Proxy]:
    """Run a proxy in front of *target*; *delay* is in seconds, each way."""
    running = Proxy(target, delay)
    try:
        yield running
    finally:
        running.close()
