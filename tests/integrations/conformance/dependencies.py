"""Cases: FastAPI's dependencies."""

# FastAPI reads the annotations of these nested functions, and their defaults.
# ruff: noqa: B008, TC003

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from fastapi import Depends, Request
from practice import A, B
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.responses import StreamingResponse

from conformance.bench import HEADER, NAMES, names
from conformance.forms import DEPENDENCY, FASTAPI, FASTAPI_BY_RESOLVER, case, waiting
from tenantguard import ConfigurationError, TenantNotSetError

if TYPE_CHECKING:
    from conformance.forms import Outcome

TOPIC = "FastAPI's dependencies"


def _depending(bench: Any, dependency: Any, use: Any) -> Any:
    """Return an endpoint of the form's kind that gives what *dependency* yields to *use*."""

    def plain(given: Any = Depends(dependency)) -> Any:
        return use(given)

    async def waits(given: Any = Depends(dependency)) -> Any:
        return await bench.within(given, use) if isinstance(given, AsyncSession) else use(given)

    return waits if bench.form.waits else plain


async def _both(bench: Any, path: str = "/patients") -> list[Outcome]:
    return [await bench.reads(path, tenant) for tenant in (A, B)]


@case(TOPIC, works=FASTAPI)
async def session_dependency(bench: Any) -> list[Outcome]:
    """A generator dependency of the view's own kind yields the session."""

    def plain() -> Iterator[Session]:
        with Session(bench.engine) as session:
            yield session

    async def waits() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(bench.async_engine) as session:
            yield session

    dependency = waits if bench.form.waits else plain
    bench.route("/patients", _depending(bench, dependency, names))
    return await _both(bench)


@case(TOPIC, works=FASTAPI)
async def reading_dependencies(bench: Any) -> list[Outcome]:
    """Dependencies read, as `def` and as `async def` functions; the view gets what they found."""

    def plain() -> list[str]:
        return bench.names_here()  # type: ignore[no-any-return]

    async def waits(found: Any = Depends(plain)) -> Any:
        return found if await bench.names() == found else []

    bench.route("/patients", _depending(bench, waits, lambda found: found))
    return await _both(bench)


@case(TOPIC, works=waiting(FASTAPI), before={TenantNotSetError: waiting(DEPENDENCY)})
async def session_dependency_in_a_body(bench: Any) -> list[Outcome]:
    """A streamed body reads with the session that a dependency yields."""

    async def dependency() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(bench.async_engine) as session:
            yield session

    async def lines(session: AsyncSession) -> AsyncIterator[str]:
        try:
            for name in await session.scalars(NAMES):
                yield f"{name}\n"
        finally:
            await session.close()

    async def endpoint(session: Any = Depends(dependency)) -> StreamingResponse:
        return StreamingResponse(lines(session))

    bench.route("/patients", endpoint)
    return await _both(bench)


def _plainly_entering(bench: Any) -> Any:
    """Return what must not be written: FastAPI runs its two halves in different contexts."""

    def dependency(request: Request) -> Iterator[None]:
        with bench.guard.tenant_context(request.headers[HEADER]):
            yield

    return dependency


@case(TOPIC, raises={ConfigurationError: FASTAPI})
async def generator_dependency(bench: Any) -> list[Outcome]:
    """A `def` generator dependency enters the tenant, and the view reads."""

    def read(_: Any) -> list[str]:
        return bench.names_here()  # type: ignore[no-any-return]

    path = "/public/patients" if bench.form in DEPENDENCY else "/patients"
    bench.route(path, _depending(bench, _plainly_entering(bench), read))
    return await _both(bench, path)


@case(TOPIC, raises={ConfigurationError: FASTAPI})
async def generator_dependency_unused(bench: Any) -> list[Outcome]:
    """A `def` generator dependency enters the tenant, and the view does not read."""
    path = "/public/patients" if bench.form in DEPENDENCY else "/patients"
    bench.route(path, _depending(bench, _plainly_entering(bench), lambda _: []))
    return await _both(bench, path)


@case(TOPIC, works=FASTAPI_BY_RESOLVER)
async def dependency_for_another(bench: Any) -> list[Outcome]:
    """An `async def` generator dependency enters another tenant than the request's: the view's."""

    async def dependency() -> AsyncIterator[None]:
        with bench.guard.tenant_context(B):
            yield

    def read(_: Any) -> list[str]:
        return bench.names_here()  # type: ignore[no-any-return]

    bench.route("/others", _depending(bench, dependency, read))
    bench.view("/patients", bench.names)
    answer = await bench.get("/others", A)
    return [bench.judge(answer, B), await bench.reads("/patients", A)]


@case(TOPIC, raises={ConfigurationError: FASTAPI_BY_RESOLVER})
async def generator_dependency_for_another(bench: Any) -> list[Outcome]:
    """A `def` generator dependency enters another tenant: the view runs as the request's own."""

    def dependency() -> Iterator[None]:
        with bench.guard.tenant_context(B):
            yield

    def read(_: Any) -> list[str]:
        bench.reached.append(bench.names_here())
        return []

    bench.route("/others", _depending(bench, dependency, read))
    answer = await bench.get("/others", A)
    assert [bench.judge_shown(shown, A) for shown in bench.reached] == [None]
    return [bench.judge(answer, A)]
