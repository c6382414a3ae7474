"""Cases: the application's own error pages, and its parts."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from practice import A, B
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse

from conformance.bench import names, tried_async
from conformance.forms import ASGI, DEPENDENCY, FLASK, FORMS, NO_TENANT, case
from tenantguard import CrossTenantError, TenantNotSetError, tenant_context
from tenantguard.context import active_tenant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from conformance.forms import Outcome

TOPIC = "Error pages"
PARTS = "Middleware and parts"


def _crossing(bench: Any) -> Callable[[], Any]:
    async def view() -> None:
        async with bench.session() as session:
            await bench.within(session, names)
            with tenant_context(B):
                await bench.within(session, names)

    return view


@case(TOPIC, works=FORMS)
async def own_pages(bench: Any) -> Outcome:
    """The application has pages for 403 and 404: they answer what is refused."""

    async def unknown() -> None:
        bench.not_found()

    bench.on_error(403, "Not yours.", 403)
    bench.on_error(404, "Nothing here.", 404)
    bench.view("/crossing", _crossing(bench))
    bench.view("/unknown", unknown)
    refused = await bench.get("/unknown")
    assert (refused.status, refused.text) == (403, "Not yours.")
    for path in ("/crossing", "/unknown"):
        answer = await bench.get(path, A)
        assert (answer.status, answer.text) == (404, "Nothing here.")
    return None


@case(TOPIC, works=FORMS)
async def own_handler(bench: Any) -> Outcome:
    """The application handles `CrossTenantError` itself: its handler wins."""
    bench.on_error(CrossTenantError, "Reported.", 409)
    bench.view("/crossing", _crossing(bench))
    answer = await bench.get("/crossing", A)
    assert (answer.status, answer.text, answer.raised) == (409, "Reported.", None)
    return None


@case(PARTS, works=FORMS)
async def mounted(bench: Any) -> list[Outcome]:
    """A mounted application, or a blueprint, reads as the tenant."""
    bench.mounted_view("/part", "/patients", bench.names)
    return [await bench.reads("/part/patients", tenant) for tenant in (A, B)]


@case(PARTS, raises=NO_TENANT)
async def mounted_without_a_tenant(bench: Any) -> Outcome:
    """A request to a mounted application names no tenant: 403, or the part's own 500."""
    bench.mounted_view("/part", "/patients", bench.names)
    answer = await bench.get("/part/patients")
    assert answer.status == (500 if bench.form in DEPENDENCY else 403)
    return bench.judge(answer, A)  # type: ignore[no-any-return]


@case(PARTS, raises={CrossTenantError: FORMS})
async def mounted_that_crosses(bench: Any) -> Outcome:
    """A mounted application touches another tenant's: 404, or the part's own 500."""
    bench.mounted_view("/part", "/crossing", _crossing(bench))
    answer = await bench.get("/part/crossing", A)
    assert answer.status == (500 if bench.form in ASGI else 404)
    return bench.judge(answer, A)  # type: ignore[no-any-return]


class _NotingBase(BaseHTTPMiddleware):
    """Notes whether a tenant is active, before and after."""

    def __init__(self, app: ASGIApp, notes: list[bool]) -> None:
        super().__init__(app)
        self._notes = notes

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        self._notes.append(active_tenant() is not None)
        response: Response = await call_next(request)
        self._notes.append(active_tenant() is not None)
        return response


class _NotingPure:
    """The same in pure ASGI."""

    def __init__(self, app: ASGIApp, notes: list[bool]) -> None:
        self._app = app
        self._notes = notes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._notes.append(active_tenant() is not None)
        await self._app(scope, receive, send)
        self._notes.append(active_tenant() is not None)


@case(PARTS, works=ASGI)
async def base_middleware(bench: Any) -> list[Outcome]:
    """`BaseHTTPMiddleware` around ours has no tenant; inside ours it has the resolver's."""
    return await _between(bench, _NotingBase)


@case(PARTS, works=ASGI)
async def pure_middleware(bench: Any) -> list[Outcome]:
    """Pure ASGI middleware around ours has no tenant; inside ours it has the resolver's."""
    return await _between(bench, _NotingPure)


async def _between(bench: Any, kind: Any) -> list[Outcome]:
    outside: list[bool] = []
    inside: list[bool] = []
    bench.app.add_middleware(kind, notes=outside)
    # Starlette's list begins with the outermost.
    bench.app.user_middleware.append(Middleware(kind, notes=inside))
    bench.view("/patients", bench.names)
    bench.view("/streamed", _streaming(bench))
    paths = ("/patients", "/streamed")
    outcomes = [await bench.reads(path, tenant) for path in paths for tenant in (A, B)]
    assert outside == [False] * 8
    assert inside == [not bench.form.by_dependency] * 8
    return outcomes


def _streaming(bench: Any) -> Callable[[], Any]:
    async def view() -> Any:
        found = await bench.names()
        return bench.stream(f"{name}\n" for name in found)

    return view


@case(PARTS, works=FLASK)
async def before_and_after_request(bench: Any) -> list[Outcome]:
    """`before_request`, `after_request` and `teardown_request` functions have the tenant."""
    notes: list[Any] = []

    def note(given: Any = None) -> Any:
        notes.append(bench.names_here())
        return given

    bench.app.before_request(note)
    bench.app.after_request(note)
    bench.app.teardown_request(lambda error: note(error) and None)
    bench.view("/patients", bench.names)
    outcome = await bench.reads("/patients", A)
    assert len(notes) == 3
    return [outcome, *(bench.judge_shown(shown, A) for shown in notes)]


@case(PARTS, raises={TenantNotSetError: ASGI})
async def lifespan(bench: Any) -> list[Outcome]:
    """Start-up and shutdown code runs a query: there is no tenant; its state reaches requests."""

    async def span(_app: Any) -> AsyncIterator[dict[str, str]]:
        bench.reached.append(await _tried(bench))
        yield {"word": "ready"}
        bench.reached.append(await _tried(bench))

    async def word(request: Request) -> Response:
        return JSONResponse([request.state.word])

    bench.app = bench.application(lifespan=asynccontextmanager(span))
    bench.protect(bench.app)
    bench.app.add_route("/public/word", word)
    bench.view("/patients", bench.names)
    async with bench.living():
        assert (await bench.get("/public/word")).text == '["ready"]'
        assert await bench.reads("/patients", A) is None
    return [bench.judge_shown(shown, A) for shown in bench.reached]


async def _tried(bench: Any) -> Any:
    return await tried_async(bench.names())
