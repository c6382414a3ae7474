"""FastAPI: a dependency enters the tenant, as docs/starlette.md shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator  # noqa: TC003  (FastAPI evaluates them)
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header
from fastapi import __version__ as fastapi_version
from fastapi.responses import StreamingResponse
from httpx import ASGITransport, AsyncClient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from tenantguard.context import active_tenant
from tenantguard.demo.data import PRACTICES, Practice
from tenantguard.demo.stage import Stage, set_up
from tenantguard.errors import TenantNotSetError
from tenantguard.integrations.starlette import TenantMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(
        new_database(), patients=5, tell=lambda _text: nullcontext(), app="starlette"
    ) as stage:
        yield stage


@pytest.fixture
async def engine(stage: Stage) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(stage.application)
    stage.guard.protect(engine)
    yield engine
    await engine.dispose()


def ids(stage: Stage, practice: Practice) -> set[int]:
    patient = stage.models.Patient
    with stage.admin.connect() as connection:
        return set(connection.scalars(select(patient.id).where(patient.tenant_id == practice.id)))


def entering(stage: Stage) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The dependency that docs/starlette.md shows, and the one that it warns of."""

    async def right(practice: Annotated[int, Header()]) -> AsyncIterator[None]:
        with stage.guard.tenant_context(PRACTICES[practice].id):
            yield

    def wrong(practice: Annotated[int, Header()]) -> Iterator[None]:
        with stage.guard.tenant_context(PRACTICES[practice].id):
            yield

    return right, wrong


@asynccontextmanager
async def depending(
    stage: Stage, engine: AsyncEngine, dependency: Callable[..., Any] | None
) -> AsyncIterator[AsyncClient]:
    """A client of an app without a resolver, whose routes enter the tenant by *dependency*."""

    async def patients() -> list[int]:
        async with AsyncSession(engine) as session:
            return list(await session.scalars(select(stage.models.Patient.id)))

    async def streamed() -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            try:
                yield f"{len(await patients())}"
            except TenantNotSetError:
                yield "refused"

        return StreamingResponse(lines())

    app = FastAPI(dependencies=[Depends(dependency)] if dependency else [])
    app.add_middleware(TenantMiddleware, guard=stage.guard)
    app.add_api_route("/patients", patients)
    app.add_api_route("/streamed", streamed, response_class=StreamingResponse)
    transport = ASGITransport(app, raise_app_exceptions=False)
    async with AsyncClient(transport=transport, base_url="http://lab") as client:
        yield client


async def test_dependency_enters_the_tenant(stage: Stage, engine: AsyncEngine) -> None:
    """An `async def` dependency gives each of many requests at a time its own tenant."""
    right, _ = entering(stage)
    async with depending(stage, engine, right) as client:
        answers = await asyncio.gather(
            *(client.get("/patients", headers={"practice": str(each % 2)}) for each in range(8))
        )
    for number, answer in enumerate(answers):
        assert set(answer.json()) == ids(stage, PRACTICES[number % 2])
    assert active_tenant() is None


async def test_stream_of_a_dependency_has_its_tenant_or_none(
    stage: Stage, engine: AsyncEngine
) -> None:
    """FastAPI before 0.118 leaves dependencies before the body is sent: then it is refused."""
    right, _ = entering(stage)
    async with depending(stage, engine, right) as client:
        answer = await client.get("/streamed", headers={"practice": "0"})
    old = tuple(map(int, fastapi_version.split(".")[:2])) < (0, 118)
    assert answer.text == ("refused" if old else str(len(ids(stage, PRACTICES[0]))))


async def test_dependency_in_threads_gives_no_data(stage: Stage, engine: AsyncEngine) -> None:
    """A plain generator, which FastAPI runs in other contexts, ends in an error, not in rows."""
    _, wrong = entering(stage)
    async with depending(stage, engine, wrong) as client:
        answer = await client.get("/patients", headers={"practice": "0"})
    assert answer.status_code == 500
    assert active_tenant() is None


async def test_route_without_the_dependency_is_403(stage: Stage, engine: AsyncEngine) -> None:
    """A route that forgets to enter a tenant gets no data."""
    async with depending(stage, engine, None) as client:
        answer = await client.get("/patients")
    assert (answer.status_code, answer.json()) == (403, {"detail": "Forbidden"})
