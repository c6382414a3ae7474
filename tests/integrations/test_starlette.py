"""TenantMiddleware on small apps: whom a request acts for, and what the client sees."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tenantguard import (
    CrossTenantError,
    TenantGuard,
    TenantNotSetError,
    TenantSuspendedError,
    UnknownTenantError,
    current_tenant,
    tenant_context,
)
from tenantguard.context import active_tenant
from tenantguard.integrations.starlette import TenantMiddleware
from tenantguard.resolvers import (
    checked,
    header,
    path_prefix,
    session_key,
    subdomain,
    user_attribute,
    verified_claim,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from httpx import Response as Answer
    from starlette.requests import HTTPConnection, Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tenantguard.guard import Mode
    from tenantguard.resolvers import RequestView, Resolver

pytestmark = pytest.mark.anyio

A = UUID("00000000-0000-4000-8000-00000000000a")
B = UUID("00000000-0000-4000-8000-00000000000b")


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[UUID] = mapped_column(primary_key=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def guard() -> TenantGuard:
    return _guard()


def _guard(mode: Mode = "enforce") -> TenantGuard:
    return TenantGuard(Base.metadata, tenants="practices", mode=mode)


by_header = header("x-practice", trusted=True)


async def _tenant(_request: Request) -> Response:
    active = active_tenant()
    return PlainTextResponse("none" if active is None else str(active.given))


def make_app(
    guard: TenantGuard,
    resolver: Resolver | None = by_header,
    *outside: Middleware,
    view: Any = _tenant,
    handlers: Any = None,
    **options: Any,
) -> Starlette:
    """An app with one view everywhere; *outside* is the middleware around ours."""
    ours = Middleware(TenantMiddleware, guard=guard, resolver=resolver, **options)
    routes = [Route("/{path:path}", view, methods=["GET", "POST"])]
    return Starlette(routes=routes, middleware=[*outside, ours], exception_handlers=handlers)


async def get(
    app: ASGIApp, path: str = "/", tenant: UUID | str | None = None, **options: Any
) -> Answer:
    root_path = options.pop("root_path", "")
    headers = {**({"x-practice": str(tenant)} if tenant else {}), **options}
    transport = ASGITransport(app, raise_app_exceptions=False, root_path=root_path)
    async with AsyncClient(transport=transport, base_url="http://lab.example") as client:
        answer = await client.get(path, headers=headers)
    assert active_tenant() is None
    return answer


def raising(error: Exception) -> Any:
    async def view(_request: Request) -> Response:
        raise error

    return view


# -- who the request acts for -----------------------------------------------------------------


async def test_each_request_has_its_own_tenant(guard: TenantGuard) -> None:
    """A request acts for the tenant that the resolver names, and only while it runs."""
    app = make_app(guard)
    assert [(await get(app, "/", tenant)).text for tenant in (A, B)] == [str(A), str(B)]


@pytest.mark.parametrize("tenant", [None, "nonsense", "' OR 1=1 --", "0" * 4000])
async def test_refused_before_any_view(guard: TenantGuard, tenant: str | None) -> None:
    """No tenant, or what is none: 403, no view runs, and what was sent is not repeated."""
    reached: list[str] = []

    async def view(_request: Request) -> Response:
        reached.append("view")
        return Response()

    answer = await get(make_app(guard, view=view), "/", tenant)
    assert (answer.status_code, reached) == (403, [])
    assert tenant is None or tenant not in answer.text


async def test_a_request_starts_without_a_tenant(guard: TenantGuard) -> None:
    """What is active around the application is not the request's, with a resolver or without."""
    for resolver, status, text in ((by_header, 403, "Forbidden"), (None, 200, "none")):
        app = make_app(guard, resolver)

        async def around(scope: Scope, receive: Receive, send: Send, app: ASGIApp = app) -> None:
            with tenant_context(B):
                await app(scope, receive, send)
                assert current_tenant() == B

        answer = await get(around)
        assert (answer.status_code, answer.text) == (status, text)


async def test_without_a_resolver_the_application_enters_the_tenant(guard: TenantGuard) -> None:
    """The middleware alone refuses nothing; what the guard raises is answered as ever."""

    async def view(request: Request) -> Response:
        with guard.tenant_context(request.headers.get("x-practice", "")):
            return await _tenant(request)

    app = make_app(guard, None, view=view)
    assert (await get(app, "/", A)).text == str(A)
    assert (await get(app, "/")).status_code == 403


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_resolvers_of_both_kinds(guard: TenantGuard, asynchronous: bool) -> None:  # noqa: FBT001
    """A resolver may be `def` or `async def`; None is 403 either way."""

    def plain(view: RequestView) -> UUID | None:
        return {"/a": A, "/b": B}.get(view.path)

    async def waits(view: RequestView) -> UUID | None:
        await asyncio.sleep(0)
        return plain(view)

    app = make_app(guard, waits if asynchronous else plain)
    answers = [await get(app, path) for path in ("/a", "/b", "/c")]
    assert [answer.text for answer in answers] == [str(A), str(B), "Forbidden"]


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_resolver_that_raises(guard: TenantGuard, asynchronous: bool) -> None:  # noqa: FBT001
    """A broken resolver is 500 and no view runs; it never means "without a tenant"."""
    reached: list[str] = []

    def plain(_view: RequestView) -> str:
        raise RuntimeError("broken")

    async def waits(view: RequestView) -> str:
        return plain(view)

    async def view(_request: Request) -> Response:
        reached.append("view")
        return Response()

    answer = await get(make_app(guard, waits if asynchronous else plain, view=view), "/", A)
    assert (answer.status_code, reached) == (500, [])


# -- public paths -----------------------------------------------------------------------------


async def test_public_paths(guard: TenantGuard) -> None:
    """A public path has no tenant, even where the request names one, or nonsense."""
    app = make_app(guard, public={"/health", "/static/*"})
    for path in ("/health", "/static/a.css", "/static/deep/b.css", "/static/"):
        for tenant in (None, A, "nonsense"):
            assert (await get(app, path, tenant)).text == "none"


@pytest.mark.parametrize(
    "path", ["/", "/healthy", "/health/", "/static", "/staticx", "/x/static/a", "//health"]
)
async def test_what_only_looks_public(guard: TenantGuard, path: str) -> None:
    """Only the path itself is public, and what is below `/static/`."""
    app = make_app(guard, public={"/health", "/static/*"})
    assert (await get(app, f"http://lab.example{path}")).status_code == 403


async def test_public_takes_one_path(guard: TenantGuard) -> None:
    """`public="/health"` means that path, not its letters."""
    app = make_app(guard, public="/health")
    assert [(await get(app, path)).status_code for path in ("/health", "/")] == [200, 403]


async def test_paths_below_a_root_path(guard: TenantGuard) -> None:
    """Public paths and resolvers see what the routes see, with whatever root path."""
    app = make_app(guard, path_prefix(), public={"/health"})
    for root_path, prefix in (("", ""), ("/lab", "/lab"), ("/lab", "")):
        assert (await get(app, f"{prefix}/health", root_path=root_path)).text == "none"
        assert (await get(app, f"{prefix}/t/{A}/x", root_path=root_path)).text == str(A)
        assert (await get(app, f"{prefix}/x", root_path=root_path)).status_code == 403
    # Starlette does not take the root path off here either.
    assert (await get(app, "/labor/health", root_path="/lab")).status_code == 403
    assert (await get(app, f"/t/{A}/x", root_path="/t")).status_code == 403
    assert (await get(app, f"/tt/{A}/x", root_path="/t")).status_code == 403
    assert (await get(app, f"/t/{A}/x", root_path="/")).text == str(A)


# -- what a resolver sees ---------------------------------------------------------------------


async def test_the_view_of_a_request(guard: TenantGuard) -> None:
    """Host without the port, path, headers in any case; the rest is empty where there is none."""
    seen: dict[str, Any] = {}

    def resolver(view: RequestView) -> UUID:
        seen.update(
            host=view.host,
            path=view.path,
            header=view.headers.get("ACCEPT-language"),
            session=dict(view.session),
            claims=dict(view.claims),
            user=view.user,
        )
        return A

    given = {"host": "A.example:8080", "accept-language": "de"}
    await get(make_app(guard, resolver), "/x%20y", **given)
    assert seen == {
        "host": "a.example",
        "path": "/x y",
        "header": "de",
        "session": {},
        "claims": {},
        "user": None,
    }


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]", "[north.portal.example]", "", "a b"])
async def test_a_host_that_is_none(guard: TenantGuard, host: str) -> None:
    """A Host header that leads nowhere is refused like any unknown host."""
    app = make_app(guard, subdomain("portal.example"))
    assert (await get(app, host=host)).status_code == 403


async def test_subdomain(guard: TenantGuard) -> None:
    """The label leads to the tenant; the bare domain and look-alikes lead to 403."""
    app = make_app(guard, subdomain("portal.example", lookup={"north": A, "south": B}.get))
    for host, tenant in (("north.portal.example:8000", A), ("SOUTH.Portal.Example.", B)):
        assert (await get(app, host=host)).text == str(tenant)
    for host in ("portal.example", "x.portal.example", "north.evilportal.example"):
        assert (await get(app, host=host)).status_code == 403


async def test_a_header_sent_twice(guard: TenantGuard) -> None:
    """Two values of a header name no tenant, whichever comes first."""
    app = make_app(guard)
    transport = ASGITransport(app)
    async with AsyncClient(transport=transport, base_url="http://lab.example") as client:
        for tenants in ((A, B), (A, A)):
            sent = [("x-practice", str(tenant)) for tenant in tenants]
            assert (await client.get("/", headers=sent)).status_code == 403


async def test_session(guard: TenantGuard) -> None:
    """Starlette's signed session names the tenant; an altered cookie does not."""

    async def view(request: Request) -> Response:
        if request.url.path == "/enter":
            request.session["tenant_id"] = str(A)
        return await _tenant(request)

    sessions = Middleware(SessionMiddleware, secret_key="test")
    app = make_app(guard, session_key(), sessions, view=view, public={"/enter"})
    cookie = (await get(app, "/enter")).cookies["session"]
    assert (await get(app, cookie=f"session={cookie}")).text == str(A)
    assert (await get(app, cookie=f"session=x{cookie}")).status_code == 403
    assert (await get(app)).status_code == 403


class _Signing:
    """An application's middleware: it puts verified claims where the middleware looks."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = dict(scope.get("headers", ())).get(b"authorization")
        if token:
            scope.setdefault("state", {})["claims"] = {"tenant_id": token.decode()}
        await self._app(scope, receive, send)


async def test_claims(guard: TenantGuard) -> None:
    """By default they are `request.state.claims`; without a token the answer is 403."""
    app = make_app(guard, verified_claim(), Middleware(_Signing))
    assert (await get(app, authorization=str(A))).text == str(A)
    assert (await get(app)).status_code == 403


async def test_claims_of_an_extension(guard: TenantGuard) -> None:
    """`claims=` reads them from wherever the application keeps them."""

    def claims(connection: HTTPConnection) -> dict[str, str]:
        return {"org": connection.query_params["org"]}

    app = make_app(guard, verified_claim("org"), claims=claims)
    assert (await get(app, f"/?org={B}")).text == str(B)


class _User(BaseUser):
    def __init__(self, tenant: str) -> None:
        self.tenant_id = tenant

    @property
    def is_authenticated(self) -> bool:
        return True


class _ByHeader(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        tenant = conn.headers.get("x-user-of")
        return (AuthCredentials(), _User(tenant)) if tenant else None


AUTHENTICATION = Middleware(AuthenticationMiddleware, backend=_ByHeader())


async def test_user(guard: TenantGuard) -> None:
    """By default it is AuthenticationMiddleware's; its unauthenticated user is nobody."""
    app = make_app(guard, user_attribute(), AUTHENTICATION)
    assert (await get(app, **{"x-user-of": str(A)})).text == str(A)
    assert (await get(app)).status_code == 403
    assert (await get(make_app(guard, user_attribute()))).status_code == 403


@pytest.mark.parametrize(("authenticated", "status"), [(True, 200), (False, 403)])
async def test_user_of_an_extension(
    guard: TenantGuard,
    authenticated: bool,  # noqa: FBT001
    status: int,
) -> None:
    """`user=` says who has signed in; one who is not authenticated is nobody there too."""
    user = SimpleNamespace(tenant_id=A, is_authenticated=authenticated)
    app = make_app(guard, user_attribute(), user=lambda _connection: user)
    assert (await get(app)).status_code == status


async def test_checked_against_the_user(
    guard: TenantGuard, caplog: pytest.LogCaptureFixture
) -> None:
    """A path that names another tenant than the user's is 403; the log names no tenant."""
    app = make_app(guard, checked(path_prefix(), against=user_attribute()), AUTHENTICATION)
    for own, other in ((A, B), (B, A)):
        assert (await get(app, f"/t/{own}/", **{"x-user-of": str(own)})).text == str(own)
        refused = await get(app, f"/t/{other}/", **{"x-user-of": str(own)})
        assert (refused.status_code, refused.text) == (403, "Forbidden")
    logged = [each.getMessage() for each in caplog.records if each.name.startswith("tenantguard")]
    assert any("names a tenant that is not the signed-in user's" in each for each in logged)
    assert not any(str(A) in each for each in logged)


# -- modes ------------------------------------------------------------------------------------


async def test_observing_refuses_nothing() -> None:
    """What would be refused is counted, and the request runs without a tenant."""
    guard = _guard("observe")
    app = make_app(guard)
    assert (await get(app)).text == "none"
    assert (await get(app, "/", A)).text == str(A)
    assert guard.observations.counts == {"refused": 1}


async def test_observing_lets_a_resolver_refuse_nothing() -> None:
    """A resolver that refuses is counted, with its own words, and the request runs."""
    guard = _guard("observe")
    app = make_app(guard, checked(path_prefix(), against=user_attribute()), AUTHENTICATION)
    assert (await get(app, f"/t/{B}/", **{"x-user-of": str(A)})).text == "none"
    assert guard.observations.counts == {"refused": 1}


async def test_off_asks_no_resolver() -> None:
    """A guard that is off changes nothing, whatever the resolver would do."""

    def resolver(_view: RequestView) -> UUID:
        raise RuntimeError("asked")

    assert (await get(make_app(_guard("off"), resolver))).text == "none"


# -- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (CrossTenantError("The row is another tenant's."), 404),
        (TenantNotSetError("No tenant."), 403),
        (UnknownTenantError("Unknown."), 403),
        (TenantSuspendedError("Suspended."), 403),
        (RuntimeError("broken"), 500),
    ],
)
async def test_errors_become_answers(
    guard: TenantGuard, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The guard's errors have the answer of what nobody has; the log says why, and no tenant."""
    with caplog.at_level(logging.WARNING):
        answer = await get(make_app(guard, view=raising(error)), "/", A)
    assert answer.status_code == status
    assert str(error) not in answer.text
    assert (f"Refused: {error}" in caplog.text) is (status != 500)
    assert str(A) not in answer.text + caplog.text


async def test_pages_are_the_application_own(guard: TenantGuard) -> None:
    """The pages for 403 and 404 answer what is refused, with the same body and headers."""

    def page(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({"own": error.status_code}, error.status_code)

    handlers = {403: page, HTTPException: page}
    foreign = make_app(guard, view=raising(CrossTenantError("x")), handlers=handlers)
    unknown = make_app(guard, view=raising(HTTPException(404)), handlers=handlers)
    assert (await get(foreign)).json() == {"own": 403}
    answers = [await get(app, "/", A) for app in (foreign, unknown)]
    assert [answer.json() for answer in answers] == [{"own": 404}] * 2
    assert answers[0].headers == answers[1].headers


async def test_default_pages_are_starlette_own(guard: TenantGuard) -> None:
    """An application without pages of its own gets Starlette's."""
    foreign = await get(make_app(guard, view=raising(CrossTenantError("x"))), "/", A)
    unknown = await get(make_app(guard, view=raising(HTTPException(404))), "/", A)
    assert (foreign.text, foreign.headers) == (unknown.text, unknown.headers)


async def test_an_application_that_is_not_starlette(guard: TenantGuard) -> None:
    """Around any other ASGI application, the pages are Starlette's."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(str(current_tenant()))(scope, receive, send)

    app = TenantMiddleware(plain, guard=guard, resolver=by_header)
    assert (await get(app, "/", A)).text == str(A)
    assert (await get(app)).text == "Forbidden"


async def test_an_answer_that_has_begun(guard: TenantGuard) -> None:
    """An error after the first bytes reaches the server: no second answer follows."""

    async def lines() -> AsyncIterator[str]:
        yield "first"
        raise CrossTenantError("The row is another tenant's.")

    async def view(_request: Request) -> Response:
        return StreamingResponse(lines())

    sent: list[str] = []

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.4"},
        "method": "GET",
        "path": "/",
        "headers": [(b"x-practice", str(A).encode())],
    }
    # Older versions of Starlette raise what happens in a body as a group.
    with pytest.raises((CrossTenantError, ExceptionGroup), match=r"another|unhandled") as raised:
        await make_app(guard, view=view)(scope, receive, send)
    error: Any = raised.value
    [error] = getattr(error, "exceptions", [error])
    assert type(error) is CrossTenantError
    assert sent == ["http.response.start", "http.response.body"]
    assert active_tenant() is None
