"""Cases: bodies that are produced while they are sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from practice import A, B
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from conformance.bench import NAMES
from conformance.forms import ASGI, DEPENDENCY, FLASK, LEFT_EARLY, case, waiting
from tenantguard import ConfigurationError, TenantNotSetError, current_tenant, tenant_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from conformance.forms import Outcome

TOPIC = "Streamed bodies"
BIT_BY_BIT = NAMES.execution_options(yield_per=1)


async def _streamed(bench: Any, produce: Any) -> list[Outcome]:
    """Judge the bodies of *produce*, which returns a generator; both tenants' at once."""

    async def view() -> Any:
        return bench.stream(await produce())

    bench.view("/patients", view)
    outcomes = []
    # Starlette streams in a task of its own, or, since ASGI 2.4, in the request's.
    for bench.spec_version in ("2.3", "2.4"):
        answers = await asyncio.gather(*(bench.get("/patients", tenant) for tenant in (A, B)))
        outcomes += [bench.judge(*pair) for pair in zip(answers, (A, B), strict=True)]
    return outcomes


@case(TOPIC, works=ASGI, raises={TenantNotSetError: FLASK}, before=LEFT_EARLY)
async def generator(bench: Any) -> list[Outcome]:
    """A generator opens a session, and reads as the body is sent."""

    def lines() -> Iterator[str]:
        with Session(bench.engine) as session:
            yield from (f"{name}\n" for name in session.scalars(BIT_BY_BIT))

    async def produce() -> Iterator[str]:
        return lines()

    return await _streamed(bench, produce)


@case(TOPIC, works=waiting(ASGI), before={TenantNotSetError: waiting(DEPENDENCY)})
async def async_generator(bench: Any) -> list[Outcome]:
    """An asynchronous generator opens a session, and reads as the body is sent."""

    async def produce() -> AsyncIterator[str]:
        return _lines(AsyncSession(bench.async_engine))

    return await _streamed(bench, produce)


async def _lines(session: AsyncSession) -> AsyncIterator[str]:
    async with session:
        found = await session.stream_scalars(BIT_BY_BIT)
        try:
            async for name in found:
                yield f"{name}\n"
        finally:
            await found.close()


@case(TOPIC, works=ASGI, raises={TenantNotSetError: FLASK}, before=LEFT_EARLY)
async def generator_with_an_open_session(bench: Any) -> list[Outcome]:
    """A generator goes on with the session, and the transaction, that the view has opened."""

    async def produce() -> Iterator[str]:
        session = Session(bench.engine)
        session.scalars(NAMES).first()
        return _rest(session)

    return await _streamed(bench, produce)


def _rest(session: Session) -> Iterator[str]:
    try:
        yield from (f"{name}\n" for name in session.scalars(BIT_BY_BIT))
    finally:
        session.close()


@case(TOPIC, works=waiting(ASGI), before={TenantNotSetError: waiting(DEPENDENCY)})
async def async_generator_with_an_open_session(bench: Any) -> list[Outcome]:
    """An asynchronous generator goes on with the session that the view has opened."""

    async def produce() -> AsyncIterator[str]:
        session = AsyncSession(bench.async_engine)
        (await session.scalars(NAMES)).first()
        return _lines(session)

    return await _streamed(bench, produce)


@case(TOPIC, works=FLASK, raises={ConfigurationError: ASGI})
async def generator_that_enters(bench: Any) -> list[Outcome]:
    """A generator enters the tenant itself; Starlette runs each of its steps in another context."""

    async def produce() -> Iterator[str]:
        return _entered(bench, current_tenant())

    return await _streamed(bench, produce)


def _entered(bench: Any, tenant: Any) -> Iterator[str]:
    with (
        tenant_context(tenant),
        Session(bench.engine) as session,
        session.scalars(BIT_BY_BIT) as rows,
    ):
        yield from (f"{name}\n" for name in rows)


@case(TOPIC, works=waiting(ASGI))
async def async_generator_that_enters(bench: Any) -> list[Outcome]:
    """An asynchronous generator enters the tenant itself."""

    async def lines(tenant: Any) -> AsyncIterator[str]:
        with tenant_context(tenant):
            async for line in _lines(AsyncSession(bench.async_engine)):
                yield line

    async def produce() -> AsyncIterator[str]:
        return lines(current_tenant())

    return await _streamed(bench, produce)


@case(TOPIC, works=FLASK, raises={ConfigurationError: ASGI})
async def generator_that_enters_another(bench: Any) -> list[Outcome]:
    """A generator enters another tenant than the request's, and reads in several steps."""

    async def view() -> Any:
        return bench.stream(_entered(bench, B))

    bench.view("/others", view)
    bench.view("/patients", bench.names)
    answer = await bench.get("/others", A)
    assert await bench.reads("/patients", A) is None
    return [bench.judge(answer, B)]
