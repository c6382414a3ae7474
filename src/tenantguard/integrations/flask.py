"""Flask: each request runs as the tenant that the resolver names."""

from __future__ import annotations

from contextlib import ExitStack
from contextvars import Context, ContextVar, copy_context
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flask import Flask, current_app, request
from werkzeug.exceptions import Forbidden, NotFound

from tenantguard.context import ActiveTenant
from tenantguard.errors import (
    ConfigurationError,
    CrossTenantError,
    TenantGuardError,
    TenantNotSetError,
    TenantSuspendedError,
    UnknownTenantError,
)
from tenantguard.integrations.flask_view import FlaskRequestView

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from flask.typing import ResponseReturnValue

    from tenantguard.context import TenantId
    from tenantguard.guard import TenantGuard
    from tenantguard.resolvers import Resolver

__all__ = ["FlaskGuard"]

_View = TypeVar("_View", bound="Callable[..., Any]")
_MARK = "_tenantguard_public"

# The request that entered a tenant, by its WSGI environment, and how to leave it again.
_entered: ContextVar[tuple[WSGIEnvironment, ExitStack] | None] = ContextVar(
    "tenantguard_flask", default=None
)


def _nobody() -> None:
    """Say neither who acts nor why."""


class FlaskGuard:
    """Run each request of *app* as the tenant that *resolver* names.

    It acts as a `before_request` function, in Flask's order: set it up after a redirect to the
    sign-in page and before anything that reads tenant data.

    Args:
        app: The application; later with `init_app` in an application factory.
        guard: The application's guard.
        resolver: Turns the request into a tenant id; None is answered with 403. Ready ones are in
            `tenantguard.resolvers`. An asynchronous one needs `pip install "flask[async]"`.
        public: Endpoints that run before a tenant is known, without one. See also `public()`.
        claims: Returns the claims of the token that the application has verified; by default
            `g.claims`.
        user: Returns the user whom the application has signed in; by default `g.user`. One whose
            `is_authenticated` is False counts as none.
        actor: Returns who acts, as `tenant_context(actor=…)` takes it; asked before the tenant is
            active.
        purpose: Returns the purpose, likewise.

    Raises:
        ConfigurationError: If *app* already has a `FlaskGuard`, or no guard was given.
    """

    def __init__(
        self,
        app: Flask | None = None,
        guard: TenantGuard | None = None,
        *,
        resolver: Resolver,
        public: Collection[str] = ("static",),
        claims: Callable[[], Mapping[str, Any]] | None = None,
        user: Callable[[], Any] | None = None,
        actor: Callable[[], str | None] = _nobody,
        purpose: Callable[[], str | None] = _nobody,
    ) -> None:
        self._guard = guard
        self._resolve = resolver
        self._public = frozenset([public] if isinstance(public, str) else public)
        self._view = FlaskRequestView(claims, user)
        self._actor, self._purpose = actor, purpose
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, guard: TenantGuard | None = None) -> None:
        """Attach to *app*; *guard* may be given here instead of at construction."""
        guard = guard or self._guard
        if guard is None:
            raise ConfigurationError("FlaskGuard needs the guard: FlaskGuard(app, guard, …).")
        if "tenantguard" in app.extensions:
            raise ConfigurationError("The app already has a FlaskGuard; one app has one tenant.")
        app.extensions["tenantguard"] = self
        app.before_request(partial(self._enter, guard))
        # Flask runs these in reverse order: the app's own still see the tenant.
        app.teardown_request_funcs.setdefault(None, []).insert(0, _leave)
        app.register_error_handler(CrossTenantError, _not_found)
        for error in (TenantNotSetError, TenantSuspendedError, UnknownTenantError):
            app.register_error_handler(error, _forbidden)
        app.wsgi_app = _own_context(app.wsgi_app)  # type: ignore[assignment, method-assign]

    def public(self, view: _View) -> _View:
        """Declare that *view* runs before a tenant is known, without one."""
        setattr(view, _MARK, True)
        return view

    def _enter(self, guard: TenantGuard) -> None:
        if guard.mode == "off" or self._needs_none():
            return
        tenant = self._tenant(guard)
        if tenant is None:
            return
        scope, said = ExitStack(), {"actor": self._actor(), "purpose": self._purpose()}
        scope.enter_context(guard.tenant_context(tenant, **said))
        scope.callback(_entered.reset, _entered.set((request.environ, scope)))

    def _tenant(self, guard: TenantGuard) -> TenantId | None:
        refusal = TenantNotSetError("The resolver names no tenant for this request.")
        try:
            tenant = _waited_for(self._resolve(self._view))
        except TenantNotSetError as error:
            tenant, refusal = None, error
        # No view runs for an unknown URL; its 404 may be shown to anybody.
        if tenant is None and request.routing_exception is None and guard.refuses(str(refusal)):
            raise refusal
        return tenant

    def _needs_none(self) -> bool:
        rule = request.url_rule
        view = current_app.view_functions.get(rule.endpoint) if rule else None
        return rule is not None and (
            rule.endpoint in self._public
            or getattr(view, _MARK, False)
            or (request.method == "OPTIONS" and getattr(rule, "provide_automatic_options", False))
        )


def _leave(_error: BaseException | None) -> None:
    entered = _entered.get()
    # A copied request context, in a thread or nested, ends without ending the request itself.
    if entered is not None and entered[0] is request.environ:
        entered[1].close()


def _abandon() -> None:
    entered = _entered.get()
    if entered is not None:
        entered[1].close()


def _not_found(error: TenantGuardError) -> ResponseReturnValue:
    current_app.logger.warning("Refused: %s", error)
    return current_app.handle_http_exception(NotFound())


def _forbidden(error: TenantGuardError) -> ResponseReturnValue:
    current_app.logger.warning("Refused: %s", error)
    return current_app.handle_http_exception(Forbidden())


def _waited_for(answer: TenantId | Awaitable[TenantId | None] | None) -> TenantId | None:
    if not isawaitable(answer):
        return answer

    async def wait() -> TenantId | None:
        return await answer

    try:
        run = current_app.ensure_sync(wait)
    except RuntimeError:
        getattr(answer, "close", bool)()
        raise ConfigurationError(
            'The resolver is asynchronous: install "flask[async]", or use a synchronous one.'
        ) from None
    return cast("TenantId | None", run())


def _own_context(app: WSGIApplication) -> WSGIApplication:
    """Give each request a context of its own that starts without a tenant.

    Whatever goes wrong at teardown, the worker's thread keeps nothing. The body is produced in the
    same context: what a generator enters there cannot reach the thread either.
    """

    def run(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        context = Context()
        for variable, value in copy_context().items():
            if variable is not _entered and not isinstance(value, ActiveTenant):
                context.run(variable.set, value)
        try:
            body = context.run(app, environ, start_response)
        except BaseException:
            context.run(_abandon)
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        # The server sends a file by its descriptor, and recognises it by its class.
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return body
        return _Body(body, context)

    return run


class _Body:
    """A response's body, produced in the request's own context."""

    def __init__(self, body: Iterable[bytes], context: Context) -> None:
        self._body = body
        self._context = context
        self._chunks = context.run(iter, body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._chunks)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)
