"""FlaskGuard on small apps: the tenant of a request, and of nothing else."""

from __future__ import annotations

import asyncio
import logging
import sys
from functools import partial
from threading import Barrier, Thread
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    copy_current_request_context,
    g,
    request,
    session,
    stream_with_context,
)
from flask.views import MethodView
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from werkzeug.local import LocalProxy
from werkzeug.test import EnvironBuilder

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    TenantGuard,
    TenantNotSetError,
    TenantSuspendedError,
    UnknownTenantError,
    current_tenant,
    tenant_context,
)
from tenantguard.context import active_tenant
from tenantguard.integrations.flask import FlaskGuard
from tenantguard.resolvers import (
    checked,
    first_of,
    header,
    path_prefix,
    session_key,
    subdomain,
    user_attribute,
    user_tenants,
    verified_claim,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from werkzeug.test import TestResponse

    from tenantguard.resolvers import RequestView, Resolver

A = UUID("00000000-0000-4000-8000-00000000000a")
B = UUID("00000000-0000-4000-8000-00000000000b")
NOT_FOUND = "Nothing here."


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[UUID] = mapped_column(primary_key=True)


@pytest.fixture
def guard() -> TenantGuard:
    return TenantGuard(Base.metadata, tenants="practices")


def by_header(view: RequestView) -> str | None:
    return view.headers.get("x-practice")


@pytest.fixture
def app(guard: TenantGuard) -> Flask:
    app = Flask(__name__)
    app.secret_key = "test"
    flask_guard = FlaskGuard(app, guard, resolver=by_header, public={"static", "open"})
    _add_views(app, flask_guard)
    _add_streams(app)
    app.register_error_handler(404, lambda _error: (NOT_FOUND, 404))
    return app


def _add_views(app: Flask, flask_guard: FlaskGuard) -> None:
    @app.get("/tenant")
    def tenant() -> str:
        return str(current_tenant())

    @app.get("/open", endpoint="open")
    @app.get("/decorated", endpoint="decorated")
    @flask_guard.public
    def public() -> str:
        return "none" if active_tenant() is None else "some"

    @app.get("/fails")
    def fails() -> str:
        raise RuntimeError("broken")

    @app.get("/foreign")
    def foreign() -> str:
        raise CrossTenantError("The row belongs to another tenant.")

    @app.get("/unknown")
    def unknown() -> str:
        abort(404)


def _add_streams(app: Flask) -> None:
    @app.get("/stream")
    def stream() -> Response:
        return Response(str(current_tenant()) for _ in range(2))

    @app.get("/stream-with-context")
    def stream_context() -> Response:
        return Response(stream_with_context(str(current_tenant()) for _ in range(2)))

    @app.get("/stream-entered")
    def stream_entered() -> Response:
        tenant = current_tenant()

        def chunks() -> Iterator[str]:
            with tenant_context(tenant):
                for _ in range(3):
                    yield str(current_tenant())

        return Response(stream_with_context(chunks()))


def _get(app: Flask, path: str, tenant: UUID | str | None = None) -> Any:
    return app.test_client().get(path, headers={"X-Practice": str(tenant)} if tenant else {})


# -- who the request acts for -----------------------------------------------------------------


def test_the_request_runs_as_the_resolved_tenant(app: Flask) -> None:
    """Each request acts for the tenant that the resolver names, and only while it runs."""
    assert _get(app, "/tenant", A).text == str(A)
    assert _get(app, "/tenant", B).text == str(B)
    assert active_tenant() is None


def test_resolver_none_is_403(app: Flask) -> None:
    """A request that names no tenant is refused before its view runs."""
    assert _get(app, "/tenant").status_code == 403


@pytest.mark.parametrize("tenant", ["nonsense", "' OR 1=1 --", "7", "0" * 4000])
def test_malformed_tenant_is_403(app: Flask, tenant: str) -> None:
    """An id that is not of the registry's type is refused before any view runs."""
    response = _get(app, "/tenant", tenant)
    assert response.status_code == 403
    assert tenant not in response.text


@pytest.mark.parametrize("error", [UnknownTenantError, TenantSuspendedError, TenantNotSetError])
def test_refused_or_missing_tenant_in_a_view_is_403(app: Flask, error: type[Exception]) -> None:
    """What the guard finds out only while the view runs has the same answer."""

    def raises() -> str:
        raise error("The registry says so.")

    app.add_url_rule("/raises", "raises", raises)
    assert _get(app, "/raises", A).status_code == 403


def test_resolver_that_raises_is_500_and_leaves_no_tenant(guard: TenantGuard) -> None:
    """A broken resolver never lets a request run without a tenant."""
    reached: list[str] = []

    def resolver(_view: RequestView) -> str:
        raise RuntimeError("broken")

    def view() -> str:
        reached.append("reached")
        return ""

    app = Flask(__name__)
    FlaskGuard(app, guard, resolver=resolver)
    app.add_url_rule("/", "index", view)
    assert _get(app, "/").status_code == 500
    assert reached == []
    assert active_tenant() is None


def test_public_endpoints_run_without_a_tenant(app: Flask) -> None:
    """A public endpoint has no tenant, even when the request names one."""
    for path in ("/open", "/decorated"):
        assert _get(app, path).text == "none"
        assert _get(app, path, A).text == "none"
        assert _get(app, path, "nonsense").text == "none"


def test_public_takes_one_name_and_marks_class_views(guard: TenantGuard) -> None:
    """`public="health"` means that endpoint, not its letters; class views can be marked."""

    class Status(MethodView):
        def get(self) -> str:
            return "ok"

    app = Flask(__name__)
    flask_guard = FlaskGuard(app, guard, resolver=lambda _view: None, public="health")
    app.add_url_rule("/health", "health", lambda: "ok")
    app.add_url_rule("/h", "h", lambda: "reached")
    app.add_url_rule("/status", view_func=flask_guard.public(Status.as_view("status")))
    assert [_get(app, path).status_code for path in ("/health", "/h", "/status")] == [200, 403, 200]


def test_unknown_url_is_404_with_and_without_a_tenant(app: Flask) -> None:
    """An address that no view answers is 404 for everybody, with the app's own page."""
    for tenant in (None, A):
        response = _get(app, "/nowhere", tenant)
        assert (response.status_code, response.text) == (404, NOT_FOUND)


def test_unknown_url_knows_the_tenant_for_the_app_own_page(guard: TenantGuard) -> None:
    """A 404 page may show the practice's name to somebody who is signed in."""
    app = Flask(__name__)
    FlaskGuard(app, guard, resolver=by_header)
    app.register_error_handler(404, lambda _error: (str(current_tenant()), 404))
    assert _get(app, "/nowhere", A).text == str(A)


def test_automatic_options_needs_no_tenant(app: Flask) -> None:
    """The browser's preflight carries no cookie, and runs no view."""
    assert app.test_client().options("/tenant").status_code == 200


def test_before_request_functions_run_in_order(guard: TenantGuard) -> None:
    """A redirect that is registered earlier comes first; what is registered later has a tenant."""
    seen: list[object] = []
    app = Flask(__name__)
    app.before_request(lambda: seen.append(active_tenant() is None))
    FlaskGuard(app, guard, resolver=by_header)
    app.before_request(lambda: seen.append(current_tenant()))
    app.teardown_request(lambda _error: seen.append(current_tenant()))
    app.add_url_rule("/", "index", lambda: "")
    _get(app, "/", A)
    assert seen == [True, A, A]


def test_resolver_sees_host_path_headers_and_session(guard: TenantGuard) -> None:
    """The resolver gets the framework's neutral view of the request."""
    facts: dict[str, object] = {}

    def resolver(view: RequestView) -> UUID:
        facts.update(
            host=view.host,
            path=view.path,
            session=view.session.get("key"),
            header=view.headers["ACCEPT-language"],
            missing=view.headers.get("X-None"),
            named="Accept-Language" in set(view.headers),
            counted=len(view.headers) == len(list(view.headers)),
        )
        return A

    app = Flask(__name__)
    app.secret_key = "test"
    FlaskGuard(app, guard, resolver=resolver)
    app.add_url_rule("/x/<name>", "x", lambda name: name)
    client = app.test_client()
    with client.session_transaction(base_url="http://a.example:8080") as writable:
        writable["key"] = "value"
    client.get("/x/y", base_url="http://a.example:8080", headers={"Accept-Language": "de"})
    assert facts == {
        "host": "a.example",
        "path": "/x/y",
        "session": "value",
        "header": "de",
        "missing": None,
        "named": True,
        "counted": True,
    }


def test_session_key_resolver(guard: TenantGuard) -> None:
    """The session's tenant is used; without one the answer is 403."""
    app = Flask(__name__)
    app.secret_key = "test"
    FlaskGuard(app, guard, resolver=session_key("practice"), public={"enter"})
    app.add_url_rule("/enter/<id_>", "enter", lambda id_: session.update(practice=id_) or "")
    app.add_url_rule("/tenant", "tenant", lambda: str(current_tenant()))
    client = app.test_client()
    assert client.get("/tenant").status_code == 403
    client.get(f"/enter/{A}")
    assert client.get("/tenant").text == str(A)


# -- resolvers --------------------------------------------------------------------------------


def _resolving(
    guard: TenantGuard, resolver: Resolver, signed_in: Any = None, **options: Any
) -> Flask:
    """An app whose own sign-in has found *signed_in*, and the claims of the request's token."""
    app = Flask(__name__)
    app.secret_key = "test"

    @app.before_request
    def sign_in() -> None:
        g.user = signed_in
        if "Authorization" in request.headers:
            g.claims = {"tenant_id": request.headers["Authorization"]}

    FlaskGuard(app, guard, resolver=resolver, **options)
    app.add_url_rule("/", "index", lambda: str(current_tenant()))
    app.add_url_rule("/t/<name>/", "named", lambda name: name and str(current_tenant()))
    return app


def _same(value: Any) -> Any:
    return value


def _of(**attributes: Any) -> Any:
    return SimpleNamespace(**attributes)


def test_verified_claim_resolver(guard: TenantGuard) -> None:
    """The claims are what the app has put into `g`; without a token the answer is 403."""
    client = _resolving(guard, verified_claim()).test_client()
    assert client.get("/", headers={"Authorization": str(A)}).text == str(A)
    assert client.get("/").status_code == 403


def test_claims_of_an_extension(guard: TenantGuard) -> None:
    """`claims=` reads them from wherever the app's extension keeps them."""
    app = _resolving(guard, verified_claim("org"), claims=lambda: {"org": request.args["org"]})
    assert app.test_client().get("/", query_string={"org": str(B)}).text == str(B)


def test_user_attribute_resolver(guard: TenantGuard) -> None:
    """The user is what the app has put into `g`; without one the answer is 403."""
    app = _resolving(guard, user_attribute(), _of(tenant_id=A))
    assert app.test_client().get("/").text == str(A)
    assert _resolving(guard, user_attribute()).test_client().get("/").status_code == 403


@pytest.mark.parametrize(
    ("user", "status"),
    [
        (_of(tenant_id=A, is_authenticated=True), 200),
        (_of(tenant_id=A, is_authenticated=False), 403),
        (_of(is_authenticated=False), 403),
        (None, 403),
    ],
)
def test_user_of_an_extension(guard: TenantGuard, user: Any, status: int) -> None:
    """`user=` takes a proxy such as flask_login.current_user; an anonymous user is nobody."""
    for given in (user, LocalProxy(lambda: user)):
        app = _resolving(guard, user_attribute(), user=partial(_same, given))
        assert app.test_client().get("/").status_code == status


def test_path_resolver(guard: TenantGuard) -> None:
    """The path names the tenant, as the route sees it, below the app's own root."""
    app = _resolving(guard, path_prefix())
    client = app.test_client()
    assert client.get(f"/t/{A}/").text == str(A)
    assert client.get(f"/t/{A}/", base_url="http://x/root").text == str(A)
    assert client.get(f"/t/%30{str(A)[1:]}/").text == str(A)
    assert client.get(f"/t/%2530{str(A)[1:]}/").status_code == 403
    assert client.get("/").status_code == 403


@pytest.mark.parametrize("path", ["/t//x/", "//t/x/", "/t/../t/x/", f"/t/x/../{A}/"])
def test_odd_paths_reach_no_view(guard: TenantGuard, path: str) -> None:
    """Slashes and dots lead to Flask's redirect, its 404 or to 403, and never to a view."""
    response = _resolving(guard, path_prefix()).test_client().get(path)
    assert response.status_code in (308, 403, 404)


def test_header_resolver(guard: TenantGuard) -> None:
    """A header that arrives twice, or under a second spelling, is refused."""
    client = _resolving(guard, header("X-Practice", trusted=True)).test_client()
    assert client.get("/", headers={"X-Practice": str(A)}).text == str(A)
    twice = [("X-Practice", str(A)), ("X-Practice", str(B))]
    assert client.get("/", headers=twice).status_code == 403
    assert client.get("/", headers={"X-Other": str(A)}).status_code == 403


def test_subdomain_resolver(guard: TenantGuard) -> None:
    """The label leads to the tenant; bare domain, look-alikes and nonsense lead to 403."""
    ids = {"north": A, "south": B}
    resolver = subdomain("portal.example", lookup=ids.get)
    client = _resolving(guard, resolver).test_client()
    for host, tenant in (("north.portal.example:8000", A), ("SOUTH.Portal.Example.", B)):
        assert client.get("/", headers={"Host": host}).text == str(tenant)
    for host in ("portal.example", "x.portal.example", "north.evilportal.example", "a b", ""):
        assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["[", "]", "[::1", "a]", "[north.portal.example]"])
def test_a_host_that_is_none_has_no_tenant(guard: TenantGuard, host: str) -> None:
    """Brackets that lead nowhere are refused like any unknown host, and break nothing."""
    # Not through the test client, which reads the host itself.
    environ = {**EnvironBuilder("/").get_environ(), "HTTP_HOST": host}
    statuses: list[str] = []

    def start_response(status: str, *_: Any) -> Callable[[bytes], object]:
        statuses.append(status)
        return bytearray().extend

    app = _resolving(guard, subdomain("portal.example"))
    list(app.wsgi_app(environ, start_response))
    assert statuses == ["403 FORBIDDEN"]


def test_checked_resolver_in_both_directions(guard: TenantGuard) -> None:
    """Each user gets the own tenant by its subdomain, and 403 by the other's."""
    ids = {"a": A, "b": B}
    resolver = checked(subdomain("portal.example", lookup=ids.get), against=user_attribute())
    for own, other in (("a", "b"), ("b", "a")):
        client = _resolving(guard, resolver, _of(tenant_id=str(ids[own]))).test_client()
        assert client.get("/", base_url=f"http://{own}.portal.example").text == str(ids[own])
        refused = client.get("/", base_url=f"http://{other}.portal.example")
        assert refused.status_code == 403
        assert "another" not in refused.text
    nobody = _resolving(guard, resolver).test_client()
    assert nobody.get("/", base_url="http://a.portal.example").status_code == 403


def test_public_pages_of_a_tenant(guard: TenantGuard) -> None:
    """`anonymous=True` serves visitors of any tenant, and users only of their own."""
    resolver = checked(path_prefix(), against=user_tenants(), anonymous=True)
    visitor = _resolving(guard, resolver).test_client()
    assert [visitor.get(f"/t/{tenant}/").text for tenant in (A, B)] == [str(A), str(B)]
    user = _resolving(guard, resolver, _of(tenant_ids=[B])).test_client()
    assert [user.get(f"/t/{tenant}/").status_code for tenant in (A, B)] == [403, 200]


def test_a_refusal_is_logged_and_names_no_tenant(
    guard: TenantGuard, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says why a request was refused; an unknown address is 404 as for everybody."""
    resolver = first_of(checked(path_prefix(), against=user_attribute()), user_attribute())
    client = _resolving(guard, resolver, _of(tenant_id=A)).test_client()
    with caplog.at_level(logging.WARNING):
        assert client.get(f"/t/{B}/").status_code == 403
    assert "Refused: The request names a tenant that is not the signed-in user's" in caplog.text
    assert str(B) not in caplog.text
    assert client.get(f"/t/{B}/nowhere").status_code == 404


def test_observing_lets_a_refused_request_pass() -> None:
    """Observe counts what a resolver refuses, and runs the request without a tenant."""
    guard = TenantGuard(Base.metadata, tenants="practices", mode="observe")
    app = Flask(__name__)
    resolver = checked(path_prefix(), against=user_attribute())
    FlaskGuard(app, guard, resolver=resolver, user=lambda: _of(tenant_id=A))
    app.add_url_rule("/t/<name>/", "named", lambda name: f"{active_tenant()}{len(name)}")
    assert app.test_client().get(f"/t/{B}/").text == "None36"
    assert guard.observations.counts == {"refused": 1}


async def _later(tenant: UUID | None) -> UUID | None:
    await asyncio.sleep(0)
    return tenant if request.path == "/" else None


def test_asynchronous_resolver(guard: TenantGuard) -> None:
    """Flask waits for it; None is 403 as ever, and the request is at hand inside."""
    app = _resolving(guard, lambda view: _later(A if view.host == "a.example" else None))
    client = app.test_client()
    assert client.get("/", base_url="http://a.example").text == str(A)
    assert client.get("/", base_url="http://b.example").status_code == 403
    assert client.get("/t/x/", base_url="http://a.example").status_code == 403
    assert active_tenant() is None


def test_asynchronous_lookup_and_check(guard: TenantGuard) -> None:
    """A part that is asynchronous makes the whole so, and refuses alike."""
    resolver = checked(
        subdomain("portal.example", lookup=lambda label: _later({"a": A, "b": B}.get(label))),
        against=user_attribute(),
    )
    client = _resolving(guard, resolver, _of(tenant_id=A)).test_client()
    assert client.get("/", base_url="http://a.portal.example").text == str(A)
    assert client.get("/", base_url="http://b.portal.example").status_code == 403


def test_asynchronous_resolver_without_asgiref(
    guard: TenantGuard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the package, no view runs, and nothing is left waiting."""
    monkeypatch.setitem(sys.modules, "asgiref.sync", None)
    app = _resolving(guard, lambda _view: _later(A))
    app.testing = True
    with pytest.raises(ConfigurationError, match=r'install "flask\[async\]"'):
        app.test_client().get("/")
    assert active_tenant() is None


# -- nothing stays ----------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/tenant", "/fails", "/foreign", "/unknown", "/nowhere"])
def test_nothing_stays_in_the_thread(app: Flask, path: str) -> None:
    """However a request ends, the next one in the same thread starts without its tenant."""
    _get(app, path, A)
    assert active_tenant() is None
    assert _get(app, "/open").text == "none"


def test_nothing_stays_when_teardown_fails(guard: TenantGuard) -> None:
    """An app's teardown that raises does not leave its tenant to the next request."""

    def teardown(_error: BaseException | None) -> None:
        raise RuntimeError("teardown")

    app = Flask(__name__)
    FlaskGuard(app, guard, resolver=by_header)
    app.add_url_rule("/", "index", lambda: "")
    app.teardown_request(teardown)
    with pytest.raises(RuntimeError, match="teardown"):
        _get(app, "/", A)
    assert active_tenant() is None


def test_nested_requests_have_their_own_tenant(app: Flask) -> None:
    """A request made inside another has its own tenant, or none; the outer keeps its own."""

    def nested() -> str:
        inner = [_get(app, "/tenant", B).text, _get(app, "/open").text]
        return f"{inner} {current_tenant()}"

    app.add_url_rule("/nested", "nested", nested)
    assert _get(app, "/nested", A).text == f"{[str(B), 'none']} {A}"


def test_a_request_does_not_inherit_the_block_around_it(app: Flask) -> None:
    """A tenant that is active where the request is sent from is not the request's."""
    with tenant_context(A):
        assert _get(app, "/tenant").status_code == 403
        assert _get(app, "/open").text == "none"
        assert current_tenant() == A


def test_request_contexts_without_a_server(app: Flask) -> None:
    """`test_request_context` enters with `preprocess_request` and leaves at its end."""
    with app.test_request_context("/tenant", headers={"X-Practice": str(A)}):
        app.preprocess_request()
        assert current_tenant() == A
        with app.test_request_context("/tenant", headers={"X-Practice": str(B)}):
            app.preprocess_request()
            assert current_tenant() == B
        assert current_tenant() == A
        with app.test_request_context("/open"):
            app.preprocess_request()
        assert current_tenant() == A
    assert active_tenant() is None


def test_preserved_contexts_keep_flask_own_state_only(app: Flask) -> None:
    """`with client:` keeps the request for the test to look at, but not the tenant."""
    with app.test_client() as client:
        client.get("/tenant", headers={"X-Practice": str(A)})
        assert request.path == "/tenant"
        assert active_tenant() is None
    assert active_tenant() is None


def test_copied_request_context_has_no_tenant(app: Flask) -> None:
    """A thread with a copied request context has no tenant, and its end takes none away."""
    seen: list[object] = []

    def starts_thread() -> str:
        @copy_current_request_context
        def work() -> None:
            seen.append((request.path, active_tenant()))

        thread = Thread(target=work)
        thread.start()
        thread.join()
        return str(current_tenant())

    app.add_url_rule("/thread", "thread", starts_thread)
    assert _get(app, "/thread", A).text == str(A)
    assert seen == [("/thread", None)]


def test_concurrent_threads_have_their_own_tenants(app: Flask) -> None:
    """Requests of different tenants that run at the same time do not mix."""
    barrier = Barrier(8)
    seen: list[bool] = []

    def meet() -> str:
        before = current_tenant()
        barrier.wait(10)
        return str(before == current_tenant()) + str(current_tenant())

    app.add_url_rule("/meet", "meet", meet)

    def ask(tenant: UUID) -> None:
        seen.extend(_get(app, "/meet", tenant).text == f"True{tenant}" for _ in range(5))

    threads = [Thread(target=ask, args=[A if number % 2 else B]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 40


# -- bodies that are produced late ------------------------------------------------------------


def test_streamed_body_has_no_tenant(app: Flask) -> None:
    """A generator that runs after the request has ended raises instead of going on."""
    with pytest.raises(TenantNotSetError, match="No tenant is active"):
        _get(app, "/stream", A)
    assert active_tenant() is None


def _stream(app: Flask, path: str, tenant: UUID) -> TestResponse:
    """Ask for *path*; the first chunk is produced at once, the others by reading on."""
    return app.test_client().get(path, headers={"X-Practice": str(tenant)}, buffered=False)


def test_streamed_body_that_enters_the_tenant(app: Flask) -> None:
    """A generator that enters the tenant itself has it to its end, and the thread does not."""
    response = _stream(app, "/stream-entered", A)
    chunks = response.iter_encoded()
    assert next(chunks) == str(A).encode()
    assert active_tenant() is None
    assert _get(app, "/tenant", B).text == str(B)
    assert b"".join(chunks) == str(A).encode() * 2
    response.close()
    assert active_tenant() is None


def test_streamed_body_that_nobody_reads(app: Flask) -> None:
    """A client that goes away leaves no tenant behind."""
    response = _stream(app, "/stream-entered", A)
    response.close()
    assert active_tenant() is None
    assert _get(app, "/open").text == "none"


def test_stream_with_context_alone_is_never_another_tenant(app: Flask) -> None:
    """Flask brings back the request, and in its newer versions not what `before_request` did."""
    try:
        response = _stream(app, "/stream-with-context", A)
        assert response.data == str(A).encode() * 2
    except TenantNotSetError:
        pass
    assert active_tenant() is None
    assert _get(app, "/open").text == "none"


def test_file_wrapper_passes_through(app: Flask, tmp_path: Any) -> None:
    """The server recognises a file by its wrapper's class, and may send it by descriptor."""

    class Wrapper:
        def __init__(self, file: Any, _size: int = 0) -> None:
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            yield self.file.read()

        def close(self) -> None:
            self.file.close()

    def send() -> Response:
        (tmp_path / "x.txt").write_text("content")
        file = Wrapper((tmp_path / "x.txt").open("rb"))
        return Response(file, direct_passthrough=True)

    app.add_url_rule("/file", "file", send)
    environ = EnvironBuilder("/file", headers=[("X-Practice", str(A))]).get_environ()
    environ["wsgi.file_wrapper"] = Wrapper
    body = app.wsgi_app(environ, lambda *_: lambda _: None)
    assert isinstance(body, Wrapper)
    body.close()


# -- errors -----------------------------------------------------------------------------------


def test_cross_tenant_is_the_app_own_404(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """What belongs to another tenant looks exactly like what nobody has; the log knows."""
    with caplog.at_level(logging.WARNING):
        foreign = _get(app, "/foreign", A)
    unknown = _get(app, "/unknown", A)
    assert (foreign.status_code, foreign.data) == (unknown.status_code, unknown.data)
    assert foreign.headers == unknown.headers
    assert foreign.status_code == 404
    assert "belongs to another tenant" in caplog.text


def test_cross_tenant_uses_the_blueprint_own_404(guard: TenantGuard) -> None:
    """Flask's own search for the handler decides, blueprints included."""

    def foreign() -> str:
        raise CrossTenantError("The row belongs to another tenant.")

    app = Flask(__name__)
    FlaskGuard(app, guard, resolver=lambda _view: A)
    blueprint = Blueprint("shop", __name__)
    blueprint.add_url_rule("/foreign", "foreign", foreign)
    blueprint.register_error_handler(404, lambda _error: ("shop", 404))
    app.register_blueprint(blueprint)
    assert _get(app, "/foreign").text == "shop"


def test_default_pages_are_flask_own(guard: TenantGuard) -> None:
    """An app without error pages gets Flask's."""

    def foreign() -> str:
        raise CrossTenantError("The row belongs to another tenant.")

    app = Flask(__name__)
    FlaskGuard(app, guard, resolver=by_header)
    app.add_url_rule("/foreign", "foreign", foreign)
    app.add_url_rule("/unknown", "unknown", lambda: abort(404))
    assert _get(app, "/foreign", A).data == _get(app, "/unknown", A).data
    assert "Forbidden" in _get(app, "/foreign").text


def test_error_pages_and_logs_name_no_tenant(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, the tenant's id is neither shown nor logged."""
    for path in ("/fails", "/foreign", "/unknown", "/nowhere"):
        assert str(A) not in _get(app, path, A).text
    assert str(A) not in caplog.text


# -- setting up -------------------------------------------------------------------------------


def test_init_app_in_a_factory(guard: TenantGuard) -> None:
    """One `FlaskGuard` serves the apps of a factory; the guard may come with the app."""
    flask_guard = FlaskGuard(resolver=by_header)
    for _ in range(2):
        app = Flask(__name__)
        app.add_url_rule("/tenant", "tenant", lambda: str(current_tenant()))
        flask_guard.init_app(app, guard)
        assert app.extensions["tenantguard"] is flask_guard
        assert _get(app, "/tenant", A).text == str(A)


def test_second_flask_guard_is_refused(app: Flask, guard: TenantGuard) -> None:
    """Two adapters on one app would ask two resolvers."""
    with pytest.raises(ConfigurationError, match="already has a FlaskGuard"):
        FlaskGuard(app, guard, resolver=by_header)


def test_missing_guard_is_refused() -> None:
    """Without a guard there is nothing to enter."""
    with pytest.raises(ConfigurationError, match="FlaskGuard needs the guard"):
        FlaskGuard(Flask(__name__), resolver=by_header)
