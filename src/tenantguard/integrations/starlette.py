"""Starlette and FastAPI: each request and WebSocket runs as the tenant that the resolver names."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection

from tenantguard.context import no_tenant
from tenantguard.errors import (
    CrossTenantError,
    TenantNotSetError,
    TenantSuspendedError,
    UnknownTenantError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from contextlib import AbstractContextManager

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from tenantguard.context import TenantId
    from tenantguard.guard import TenantGuard
    from tenantguard.resolvers import Resolver

__all__ = ["TenantMiddleware"]

_LOG = logging.getLogger("tenantguard")
_FORBIDDEN = (TenantNotSetError, TenantSuspendedError, UnknownTenantError)
_POLICY_VIOLATION = 1008


def _nobody(_connection: HTTPConnection) -> None:
    """Say neither who acts nor why."""


class TenantMiddleware:
    """Run each HTTP request and WebSocket as the tenant that *resolver* names.

    Streaming bodies and background tasks belong to the request and run as its tenant.

    Args:
        app: The application, given by `add_middleware`.
        guard: The application's guard.
        resolver: Turns the request into a tenant id; None is answered with 403. Ready ones are in
            `tenantguard.resolvers`. Without a resolver, each request starts without a tenant, and
            the application enters one itself, such as in a FastAPI dependency.
        public: Paths that run before a tenant is known, without one; `/static/*` stands for all
            paths below. Paths are those that the application's routes have.
        claims: Returns the claims of the token that the application has verified; by default
            `request.state.claims`.
        user: Returns the user whom the application has signed in; by default what Starlette's
            AuthenticationMiddleware found. One whose `is_authenticated` is False counts as none.
        actor: Returns who acts, as `tenant_context(actor=…)` takes it; asked before the tenant is
            active.
        purpose: Returns the purpose, likewise.
    """

    # Pure ASGI: under BaseHTTPMiddleware, context variables set by the app do not travel back up.
    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: TenantGuard,
        resolver: Resolver | None = None,
        public: Collection[str] = (),
        claims: Callable[[HTTPConnection], Mapping[str, Any]] | None = None,
        user: Callable[[HTTPConnection], Any] | None = None,
        actor: Callable[[HTTPConnection], str | None] = _nobody,
        purpose: Callable[[HTTPConnection], str | None] = _nobody,
    ) -> None:
        self._app = app
        self._guard = guard
        self._resolve = resolver
        self._public = frozenset([public] if isinstance(public, str) else public)
        self._claims = claims or _claims
        self._user = user or _user
        self._actor, self._purpose = actor, purpose

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one connection."""
        if scope["type"] not in ("http", "websocket") or self._guard.mode == "off":
            await self._app(scope, receive, send)
            return
        # A mounted application puts itself here while it runs.
        application = scope.get("app")
        answering = _Answering(send)
        with no_tenant(), ExitStack() as entered:
            try:
                tenant = await self._tenant(scope)
                if tenant is not None:
                    entered.enter_context(self._entering(tenant, HTTPConnection(scope)))
                await self._app(scope, receive, answering)
            except (CrossTenantError, *_FORBIDDEN) as error:
                _LOG.warning("Refused: %s", error)
                if answering.began:
                    raise
                status = 403 if isinstance(error, _FORBIDDEN) else 404
                await _refuse(status, application, scope, receive, send)

    def _entering(
        self, tenant: TenantId, connection: HTTPConnection
    ) -> AbstractContextManager[None]:
        actor, purpose = self._actor(connection), self._purpose(connection)
        return self._guard.tenant_context(tenant, actor=actor, purpose=purpose)

    async def _tenant(self, scope: Scope) -> TenantId | None:
        if self._resolve is None or self._is_public(scope):
            return None
        tenant, refusal = None, TenantNotSetError("The resolver names no tenant for this request.")
        try:
            answer = self._resolve(_RequestView(HTTPConnection(scope), self._claims, self._user))
            tenant = (await answer) if isawaitable(answer) else answer
        except TenantNotSetError as error:
            refusal = error
        if tenant is None and self._guard.refuses(str(refusal)):
            raise refusal
        return tenant

    def _is_public(self, scope: Scope) -> bool:
        path = _path(scope)
        return path in self._public or any(
            path.startswith(each[:-1]) for each in self._public if each.endswith("/*")
        )


class _Answering:
    """Passes messages on, and notes whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.began = False

    async def __call__(self, message: Message) -> None:
        self.began = True
        await self._send(message)


async def _refuse(
    status: int, application: Any, scope: Scope, receive: Receive, send: Send
) -> None:
    """Answer with the application's own page for *status*; close a WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        return

    async def raises(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise HTTPException(status)

    handlers = getattr(application, "exception_handlers", {})
    await ExceptionMiddleware(raises, handlers)(scope, receive, send)


def _path(scope: Scope) -> str:
    """Return the path as the application's routes have it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    below = path.removeprefix(root)
    return (below or "/") if below.startswith("/") or not below else path


def _claims(connection: HTTPConnection) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", getattr(connection.state, "claims", {}))


def _user(connection: HTTPConnection) -> Any:
    return connection.scope.get("user")


class _RequestView:
    """What a resolver may look at."""

    def __init__(
        self,
        connection: HTTPConnection,
        claims: Callable[[HTTPConnection], Mapping[str, Any]],
        user: Callable[[HTTPConnection], Any],
    ) -> None:
        self._connection = connection
        self._claims = claims
        self._user = user

    @property
    def host(self) -> str:
        # Older versions of Starlette pass on what is no host, such as an open bracket.
        try:
            return self._connection.url.hostname or ""
        except ValueError:
            return ""

    @property
    def path(self) -> str:
        return _path(self._connection.scope)

    @property
    def headers(self) -> Mapping[str, str]:
        return self._connection.headers

    @property
    def session(self) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._connection.scope.get("session", {}))

    @property
    def claims(self) -> Mapping[str, Any]:
        return self._claims(self._connection)

    @property
    def user(self) -> Any:
        user = self._user(self._connection)
        return user if getattr(user, "is_authenticated", True) else None
