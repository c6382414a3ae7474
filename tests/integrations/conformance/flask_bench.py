"""A bench with a Flask application."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from functools import partial
from threading import Barrier, Thread
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Flask, Response, abort
from werkzeug.serving import make_server

from conformance.bench import HEADER, Answer, Bench, finished
from tenantguard.context import active_tenant
from tenantguard.integrations.flask import FlaskGuard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from wsgiref.types import WSGIApplication

    from tenantguard.resolvers import RequestView


def by_header(view: RequestView) -> str | None:
    return view.headers.get(HEADER)


class FlaskBench(Bench):
    """Paths below /public are public."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.app = Flask("bench")
        self.flask_guard = FlaskGuard(self.app, self.guard, resolver=by_header)
        self.root_path = ""

    def view(self, path: str, function: Any, methods: tuple[str, ...] = ("GET",)) -> None:
        endpoint = self._endpoint(function)
        if path.startswith("/public"):
            endpoint = self.flask_guard.public(endpoint)
        rule = path.replace("{id_:int}", "<int:id_>")
        self.app.add_url_rule(rule, path, endpoint, methods=list(methods))

    def _endpoint(self, function: Any) -> Any:
        return _waiting(function) if self.form.waits else _plain(function)

    def mounted_view(self, prefix: str, path: str, function: Any) -> None:
        """Add a view of a part of the application that is mounted at *prefix*."""
        blueprint = Blueprint("part", __name__)
        blueprint.add_url_rule(path, "view", self._endpoint(function))
        self.app.register_blueprint(blueprint, url_prefix=prefix)

    def on_error(self, error: Any, page: str, status: int) -> None:
        """Let the application answer *error*, an exception or a status, with *page*."""
        self.app.register_error_handler(error, lambda _error: (page, status))

    def stream(self, chunks: Iterable[str]) -> Response:
        return Response(chunks)

    def not_found(self) -> None:
        abort(404)

    def meeting(self, parties: int) -> Callable[[], Awaitable[None]]:
        """Return where so many views wait for each other."""
        barrier = Barrier(parties)

        async def meet() -> None:
            barrier.wait(10)

        return meet

    async def nested(self, path: str, tenant: Any) -> Answer:
        """Send a request from inside a view."""
        if self.form.waits:
            return await self.get(path, tenant)
        return self._send("GET", path, {HEADER: str(tenant)})

    async def send(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        # A server's thread, but with the caller's context: it must not matter.
        return await asyncio.to_thread(self._send, method, path, headers)

    def _send(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        before = active_tenant()
        answer = Answer(0)
        environ = {"SCRIPT_NAME": self.root_path}
        try:
            with self.app.test_client().open(
                path, method=method, headers=headers, environ_overrides=environ, buffered=False
            ) as response:
                answer.status = response.status_code
                for chunk in response.iter_encoded():
                    answer.text += chunk.decode()
        except Exception as error:  # noqa: BLE001  (it is judged)
            answer.error = error
        assert active_tenant() is before
        return answer

    @asynccontextmanager
    async def served(self) -> AsyncIterator[int]:
        """Serve on a port of the loopback address."""
        app: WSGIApplication = self.app
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            await asyncio.to_thread(thread.join)
            server.server_close()


def _plain(function: Any) -> Any:
    def endpoint(**params: Any) -> Response:
        return _response(finished(function(**params)))

    return endpoint


def _waiting(function: Any) -> Any:
    async def endpoint(**params: Any) -> Response:
        return _response(await function(**params))

    return endpoint


def _response(result: Any) -> Response:
    return result if isinstance(result, Response) else Response(json.dumps(result))
