"""Benches with a Starlette and with a FastAPI application."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from threading import Barrier
from typing import TYPE_CHECKING, Any

import uvicorn
from anyio import from_thread
from fastapi import Depends, FastAPI
from httpx import ASGITransport, AsyncClient
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request  # noqa: TC002  (FastAPI reads it)
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket  # noqa: TC002  (FastAPI reads it)

from conformance.bench import HEADER, Answer, Bench, finished
from tenantguard.integrations.starlette import TenantMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.background import BackgroundTask
    from starlette.types import Receive, Scope, Send

    from tenantguard.resolvers import RequestView


def by_header(view: RequestView) -> str | None:
    return view.headers.get(HEADER)


class AsgiBench(Bench):
    """Paths below /public are public."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.app = self.application()
        self.root_path = ""
        self.state: dict[str, Any] = {}
        self.spec_version = "2.3"
        self.protect(self.app)

    def application(self, **options: Any) -> Any:
        return Starlette(**options)

    def protect(self, app: Any) -> None:
        resolver = None if self.form.by_dependency else by_header
        app.add_middleware(
            TenantMiddleware, guard=self.guard, resolver=resolver, public={"/public/*"}
        )

    # -- what the application does ---------------------------------------------------------

    def view(
        self, path: str, function: Any, methods: tuple[str, ...] = ("GET",), app: Any = None
    ) -> None:
        endpoint = _waiting(function) if self.form.waits else _plain(function)
        (app or self.app).add_route(path, endpoint, list(methods))

    def mounted_view(self, prefix: str, path: str, function: Any) -> None:
        """Add a view of an application that is mounted at *prefix*."""
        part = self.application()
        self.view(path, function, app=part)
        self.app.mount(prefix, part)

    def socket(self, path: str, function: Callable[[WebSocket], Awaitable[None]]) -> None:
        self.app.router.routes.append(WebSocketRoute(path, function))

    def on_error(self, error: Any, page: str, status: int) -> None:
        """Let the application answer *error*, an exception or a status, with *page*."""

        async def handler(_request: Request, _error: Exception) -> Response:
            return PlainTextResponse(page, status)

        self.app.add_exception_handler(error, handler)

    def stream(self, chunks: Any) -> Response:
        return StreamingResponse(chunks)

    def respond(self, result: Any, background: BackgroundTask) -> Response:
        return JSONResponse(result, background=background)

    def not_found(self) -> None:
        raise HTTPException(404)

    def meeting(self, parties: int) -> Callable[[], Awaitable[Any]]:
        """Return where so many views wait for each other."""
        if self.form.waits:
            return asyncio.Barrier(parties).wait
        barrier = Barrier(parties)

        async def meet() -> None:
            barrier.wait(10)

        return meet

    async def nested(self, path: str, tenant: Any) -> Answer:
        """Send a request from inside a view."""
        if self.form.waits:
            return await self.get(path, tenant)
        return from_thread.run(self.get, path, tenant)

    # -- the client ------------------------------------------------------------------------

    async def send(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        errors: list[Exception] = []

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = dict(self.state)
            scope["asgi"] = {"version": "3.0", "spec_version": self.spec_version}
            try:
                await self.app(scope, receive, send)
            except Exception as error:
                errors.append(error)
                raise

        transport = ASGITransport(watched, raise_app_exceptions=False, root_path=self.root_path)
        async with AsyncClient(transport=transport, base_url="http://lab") as client:
            response = await client.request(method, path, headers=headers)
        return Answer(response.status_code, response.text, errors[0] if errors else None)

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Start the application as a server does, and shut it down at the end of the block."""
        sent: asyncio.Queue[Any] = asyncio.Queue()
        got: asyncio.Queue[Any] = asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": self.state}
        running = asyncio.create_task(self.app(scope, sent.get, got.put))
        await sent.put({"type": "lifespan.startup"})
        assert (await got.get())["type"] == "lifespan.startup.complete"
        yield
        await sent.put({"type": "lifespan.shutdown"})
        assert (await got.get())["type"] == "lifespan.shutdown.complete"
        await running

    @asynccontextmanager
    async def connected(self, path: str, tenant: Any) -> AsyncIterator[Socket]:
        """Open a WebSocket; it is closed at the end of the block."""
        socket = Socket(self.app, path, {HEADER: str(tenant)} if tenant else {})
        yield socket
        await socket.leave()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[int]:
        """Serve on a port of the loopback address, in this event loop."""
        config = uvicorn.Config(self.app, port=0, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  (uvicorn has no event)
            await asyncio.sleep(0.005)
        try:
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            await running


class FastApiBench(AsgiBench):
    """The tenant comes from the middleware's resolver, or from a dependency."""

    def application(self, **options: Any) -> Any:
        return FastAPI(openapi_url=None, **options)

    async def tenant(self, connection: HTTPConnection) -> AsyncIterator[None]:
        """Enter the tenant: the dependency of an application that has no resolver."""
        with self.guard.tenant_context(connection.headers.get(HEADER, "")):
            yield

    @property
    def dependencies(self) -> list[Any]:
        return [Depends(self.tenant)] if self.form.by_dependency else []

    def view(
        self, path: str, function: Any, methods: tuple[str, ...] = ("GET",), app: Any = None
    ) -> None:
        endpoint = _waiting(function) if self.form.waits else _plain(function)
        self.route(path, endpoint, methods, app)

    def route(
        self, path: str, endpoint: Any, methods: tuple[str, ...] = ("GET",), app: Any = None
    ) -> None:
        """Add *endpoint* as it is, which may have dependencies of its own."""
        (app or self.app).add_api_route(
            path,
            endpoint,
            methods=list(methods),
            response_model=None,
            dependencies=[] if path.startswith("/public") else self.dependencies,
        )

    def socket(self, path: str, function: Callable[[WebSocket], Awaitable[None]]) -> None:
        async def endpoint(socket: WebSocket) -> None:
            await function(socket)

        self.app.add_api_websocket_route(path, endpoint, dependencies=self.dependencies)


class Socket:
    """A client on a WebSocket, at the level of ASGI."""

    def __init__(self, app: Any, path: str, headers: dict[str, str]) -> None:
        self._sent: asyncio.Queue[Any] = asyncio.Queue()
        self._got: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": path,
            "query_string": b"",
            "headers": [(key.encode(), value.encode()) for key, value in headers.items()],
            "subprotocols": [],
        }
        self.running = asyncio.create_task(app(scope, self._sent.get, self._got.put))

    async def open(self) -> str:
        """Return the application's answer: accepted, or closed."""
        await self._sent.put({"type": "websocket.connect"})
        return str((await self._got.get())["type"])

    async def ask(self, text: str) -> str:
        """Send *text* and return the answer; raise what the application raises."""
        await self._sent.put({"type": "websocket.receive", "text": text})
        answer = asyncio.create_task(self._got.get())
        await asyncio.wait([answer, self.running], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await self.running
        return str((await answer).get("text"))

    async def leave(self) -> None:
        if not self.running.done():
            await self._sent.put({"type": "websocket.disconnect", "code": 1000})
            await self.running


def _plain(function: Any) -> Any:
    def endpoint(request: Request) -> Response:
        return _response(finished(function(**request.path_params)))

    return endpoint


def _waiting(function: Any) -> Any:
    async def endpoint(request: Request) -> Response:
        return _response(await function(**request.path_params))

    return endpoint


def _response(result: Any) -> Response:
    return result if isinstance(result, Response) else JSONResponse(result)
