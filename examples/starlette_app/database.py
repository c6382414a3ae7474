"""One engine for the app, one session for each request."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import URL, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm.interfaces import ORMOption
from starlette.requests import HTTPConnection

from tenantguard import KeyFile, TenantGuard

from .models import Base

guard = TenantGuard(
    Base.metadata,
    tenants="practices",
    shared={"materials": "price list"},
    keys=KeyFile(
        os.environ.get("TENANTGUARD_KEY_FILE", "tenantguard-key.json"),
        environment=os.environ.get("APP_ENV", "development"),
    ),
)
Model = TypeVar("Model", bound=Base)
PAGE_SIZE = 20


def init_app(app: FastAPI, url: str | URL) -> None:
    engine = create_async_engine(url)
    guard.protect(engine)
    app.state.engine = engine
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await app.state.engine.dispose()


async def _sessions(connection: HTTPConnection) -> Any:
    return connection.app.state.sessions


Sessions = Annotated[async_sessionmaker[AsyncSession], Depends(_sessions)]


async def _session(sessions: Sessions) -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Db = Annotated[AsyncSession, Depends(_session)]


async def get_or_404(db: AsyncSession, model: type[Model], id_: int, *options: ORMOption) -> Model:
    found = await db.get(model, id_, options=options)
    if found is None:
        raise HTTPException(404)
    return found


async def page_of(db: AsyncSession, query: Select[Any], number: int) -> dict[str, Any]:
    """Return the rows of page *number*, and what a pager shows."""
    total = await db.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    pages = max(1, -(-total // PAGE_SIZE))
    number = min(number, pages)
    rows = await db.scalars(query.limit(PAGE_SIZE).offset((number - 1) * PAGE_SIZE))
    return {"rows": rows.all(), "total": total, "page": number, "pages": pages}
