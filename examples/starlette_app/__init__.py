"""A dental laboratory's API: its practices look after their patients and send orders."""

import os
from collections.abc import Mapping
from typing import Any

from fastapi import Depends, FastAPI
from starlette.middleware.sessions import SessionMiddleware

from tenantguard.integrations.starlette import TenantMiddleware
from tenantguard.resolvers import session_key

from . import auth, database, live, orders, patients


def create_app(config: Mapping[str, Any] | None = None) -> FastAPI:
    settings = {"DATABASE_URL": "postgresql+psycopg:///dental", **os.environ, **(config or {})}
    app = FastAPI(title="Dental laboratory", lifespan=database.lifespan)
    database.init_app(app, settings["DATABASE_URL"])
    app.add_middleware(
        TenantMiddleware, guard=database.guard, resolver=session_key(), public=auth.PUBLIC
    )
    # What is added later is further outside: the session is there before anybody asks for it.
    app.add_middleware(auth.SignInMiddleware)
    # No page of another site can send this cookie, neither with a request nor with a WebSocket.
    app.add_middleware(SessionMiddleware, secret_key=settings["SECRET_KEY"], same_site="strict")
    app.include_router(auth.router)
    app.include_router(live.router)
    for each in (patients.router, orders.router):
        app.include_router(each, dependencies=[Depends(auth.current_user)])
    return app
