"""Each adapter says who acts and why, so that restricted columns know for whom they are read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID  # noqa: TC003  (SQLAlchemy evaluates the annotations)

import pytest
from flask import Flask, request
from httpx import ASGITransport, AsyncClient
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tenantguard import TenantGuard, current_actor, current_purpose
from tenantguard.context import active_tenant
from tenantguard.integrations.flask import FlaskGuard
from tenantguard.integrations.starlette import TenantMiddleware
from tenantguard.resolvers import header

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

A = "00000000-0000-4000-8000-00000000000a"
RESOLVER = header("x-practice", trusted=True)


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[UUID] = mapped_column(primary_key=True)


def said() -> str:
    return f"{current_actor()} {current_purpose()}"


def asked(headers: Any) -> dict[str, str | None]:
    """What the application answers, which knows no tenant yet."""
    assert active_tenant() is None
    return {"actor": headers.get("x-user"), "purpose": headers.get("x-purpose")}


def in_flask(headers: dict[str, str], *, silent: bool) -> tuple[int, str]:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=said)
    options: Any = {
        each: lambda each=each: asked(request.headers)[each] for each in ("actor", "purpose")
    }
    guard = TenantGuard(Base.metadata, tenants="practices")
    FlaskGuard(app, guard, resolver=RESOLVER, **({} if silent else options))
    answer = app.test_client().get("/", headers=headers)
    return answer.status_code, answer.text


def in_starlette(headers: dict[str, str], *, silent: bool) -> tuple[int, str]:
    async def view(_request: Request) -> PlainTextResponse:
        return PlainTextResponse(said())

    options: Any = {
        each: lambda connection, each=each: asked(connection.headers)[each]
        for each in ("actor", "purpose")
    }
    guard = TenantGuard(Base.metadata, tenants="practices")
    ours = Middleware(
        TenantMiddleware, guard=guard, resolver=RESOLVER, **({} if silent else options)
    )
    app = Starlette(routes=[Route("/", view)], middleware=[ours])

    async def get() -> tuple[int, str]:
        transport = ASGITransport(app, raise_app_exceptions=False)
        async with AsyncClient(transport=transport, base_url="http://lab.example") as client:
            answer = await client.get("/", headers=headers)
        return answer.status_code, answer.text

    return asyncio.run(get())


@pytest.mark.parametrize("ask", [in_flask, in_starlette])
def test_the_request_says_who_acts_and_why(ask: Callable[..., tuple[int, str]]) -> None:
    """Where the adapter was told how to find out; otherwise nobody, for no purpose."""
    headers = {"x-practice": A, "x-user": "user 7", "x-purpose": "billing"}
    assert ask(headers, silent=False) == (200, "user 7 billing")
    assert ask({"x-practice": A}, silent=False) == (200, "None None")
    assert ask(headers, silent=True) == (200, "None None")


@pytest.mark.parametrize("ask", [in_flask, in_starlette])
def test_an_empty_purpose_is_an_error(ask: Callable[..., tuple[int, str]]) -> None:
    """It is none, and no view runs: the application meant to say something."""
    status, text = ask({"x-practice": A, "x-purpose": ""}, silent=False)
    assert status == 500
    assert "None" not in text
