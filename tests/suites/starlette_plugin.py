"""A pytest plugin that puts `TenantMiddleware` into every application of Starlette's own suite.

    python -m pytest -p starlette_plugin --tenantguard inside …

`inside` adds the middleware to each `Starlette`, as `add_middleware` does; `outside` puts it around
whatever `TestClient` is given, applications of plain ASGI functions too.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

import starlette.testclient
from standins import TENANT, make_guard
from starlette.applications import Starlette
from starlette.middleware import Middleware

from tenantguard.context import current_tenant
from tenantguard.integrations.starlette import TenantMiddleware

if TYPE_CHECKING:
    import pytest
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tenantguard import TenantGuard


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--tenantguard", choices=("inside", "outside"), default=None)


def pytest_configure(config: pytest.Config) -> None:
    place = config.getoption("--tenantguard")
    if place is None:
        return
    guard = make_guard("bare")
    served: list[None] = []
    if place == "inside":
        _add_to_applications(guard, served)
    else:
        _put_around(guard, served)
    config.add_cleanup(lambda: print(f"\nserved as the tenant: {len(served)}"))  # noqa: T201


class _Counting:
    """Notes that a connection has the tenant, so that a run shows that it was protected."""

    def __init__(self, app: ASGIApp, *, served: list[None]) -> None:
        self._app = app
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            assert current_tenant() == TENANT
            self._served.append(None)
        await self._app(scope, receive, send)


def _add_to_applications(guard: TenantGuard, served: list[None]) -> None:
    construct = Starlette.__init__

    @wraps(construct)
    def construct_guarded(self: Starlette, *args: Any, **options: Any) -> None:
        construct(self, *args, **options)
        self.user_middleware[:0] = [
            Middleware(TenantMiddleware, guard=guard, resolver=lambda _: TENANT),
            Middleware(_Counting, served=served),
        ]

    Starlette.__init__ = construct_guarded  # type: ignore[method-assign]


def _put_around(guard: TenantGuard, served: list[None]) -> None:
    client = starlette.testclient.TestClient
    construct = client.__init__

    @wraps(construct)
    def construct_guarded(self: Any, app: Any, *args: Any, **options: Any) -> None:
        construct(self, app, *args, **options)
        counting = _Counting(self.app, served=served)
        guarded = TenantMiddleware(counting, guard=guard, resolver=lambda _: TENANT)
        self.app = self._transport.app = guarded

    client.__init__ = construct_guarded  # type: ignore[method-assign]
