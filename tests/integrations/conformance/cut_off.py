"""Cases: work that ends in the middle of a transaction."""

from __future__ import annotations

import asyncio
import gc
import time
import traceback
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from practice import A, B, Patient
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from conformance.bench import HEADER, OTHER, names
from conformance.forms import ASGI, FLASK, FORMS, RESOLVER, case, waiting
from tenantguard import current_tenant, tenant_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from conformance.forms import Outcome

TOPIC = "Cut off"
SETTING = text("SELECT current_setting('tenantguard.tenant')")
SLEEP = select(func.pg_sleep(3))
FILL = "." * 100_000


async def _next_is_clean(bench: Any) -> list[Outcome]:
    """Judge the next requests; an engine that pools has one connection, which they get."""
    outcomes = []
    for tenant in (B, A):
        outcomes.append(await bench.reads("/patients", tenant))
        assert (await bench.get("/setting", tenant)).text == f'"{tenant}"'
    pool = (bench.async_engine or bench.engine).pool
    assert pool.checkedout() == 0 if hasattr(pool, "checkedout") else True
    return outcomes


def _with_reading_views(bench: Any) -> None:
    async def setting() -> str:
        return await bench.work(lambda session: session.scalar(SETTING))  # type: ignore[no-any-return]

    bench.view("/patients", bench.names)
    bench.view("/setting", setting)


def _begin(session: Session) -> None:
    session.add(Patient(name=f"lost {uuid4()}"))
    session.flush()
    assert any(name.startswith("lost") for name in names(session))


async def _fails(bench: Any, fail: Callable[[Session], None]) -> list[Outcome]:
    """Judge what follows a view that writes and then fails; it shows and logs nothing of it."""

    async def view() -> None:
        async with bench.session() as session:
            await bench.within(session, _begin)
            await bench.within(session, fail)

    _with_reading_views(bench)
    bench.view("/fails", view)
    before = bench.stored(A)
    answer = await bench.get("/fails", A)
    assert answer.status == 500
    error = "".join(traceback.format_exception(answer.error)) if answer.error else ""
    for secret in (str(A), "patient a", "lost"):
        assert secret not in answer.text + answer.logged + _without_source(error)
    assert bench.stored(A) == before
    return await _next_is_clean(bench)


def _without_source(error: str) -> str:
    """Leave out the lines of this file that a traceback quotes."""
    return "\n".join(line for line in error.splitlines() if not line.startswith("    "))


@case(TOPIC, works=FORMS)
async def view_that_fails(bench: Any) -> list[Outcome]:
    """A view writes and then raises: 500, nothing is written, the next request is clean."""

    def fail(_session: Session) -> None:
        raise RuntimeError("broken")

    return await _fails(bench, fail)


@case(TOPIC, works=FORMS)
async def statement_that_fails(bench: Any) -> list[Outcome]:
    """A view writes, and then a statement with patients' names fails: nothing shows them."""

    def fail(session: Session) -> None:
        wanted = select(Patient).where(Patient.name.in_(names(session)), text("1 / 0 = 1"))
        session.scalars(wanted).all()

    return await _fails(bench, fail)


@case(TOPIC, works=waiting(ASGI))
async def cancelled(bench: Any) -> list[Outcome]:
    """A request is cancelled while a statement runs: nothing is written, the next is clean."""
    started = asyncio.Event()

    async def view() -> None:
        async with bench.session() as session:
            await bench.within(session, _begin)
            started.set()
            await session.execute(SLEEP)
            await session.commit()

    _with_reading_views(bench)
    bench.view("/sleeps", view)
    before = bench.stored(A)
    request = asyncio.create_task(bench.get("/sleeps", A))
    await started.wait()
    await asyncio.sleep(0.05)
    request.cancel()
    await asyncio.wait([request])
    assert request.cancelled()
    assert bench.stored(A) == before
    return await _next_is_clean(bench)


@case(TOPIC, works=waiting(FORMS))
async def timed_out(bench: Any) -> list[Outcome]:
    """A view gives a statement too little time: nothing is written, it goes on as its tenant."""

    async def view() -> Any:
        try:
            async with asyncio.timeout(0.2), bench.session() as session:
                await bench.within(session, _begin)
                await session.execute(SLEEP)
                await session.commit()
        except TimeoutError:
            return await bench.names()

    _with_reading_views(bench)
    bench.view("/sleeps", view)
    return [await bench.reads("/sleeps", A), *await _next_is_clean(bench)]


@case(TOPIC, works=FORMS)
async def statement_timeout(bench: Any) -> list[Outcome]:
    """PostgreSQL ends a statement that takes too long: nothing is written, the next is clean."""

    def sleep(session: Session) -> None:
        _begin(session)
        session.execute(text("SET LOCAL statement_timeout = 20"))
        session.execute(SLEEP)
        session.commit()

    async def view() -> Any:
        try:
            await bench.work(sleep)
        except DBAPIError:
            return await bench.names()

    _with_reading_views(bench)
    bench.view("/sleeps", view)
    return [await bench.reads("/sleeps", A), *await _next_is_clean(bench)]


@case(TOPIC, works=(*FLASK, *RESOLVER))
async def client_that_leaves(bench: Any) -> list[Outcome]:
    """Under a server, a client goes away in the middle of a body: the next request is clean."""

    async def view() -> Any:
        return bench.stream(_lines(bench, current_tenant()))

    await _leave_in_the_middle(bench, view)
    return await _next_is_clean(bench)


def _lines(bench: Any, tenant: Any) -> Iterator[str]:
    if bench.form not in FLASK:
        return _written(bench)
    return _entered(bench, tenant)


def _entered(bench: Any, tenant: Any) -> Iterator[str]:
    with tenant_context(tenant):
        yield from _written(bench)


def _written(bench: Any) -> Iterator[str]:
    try:
        with Session(bench.engine) as session:
            _begin(session)
            for _ in range(500):
                yield FILL
                time.sleep(0.01)
            session.commit()
    finally:
        bench.reached.append("closed")


@case(TOPIC, works=waiting(ASGI))
async def client_that_leaves_a_statement(bench: Any) -> list[Outcome]:
    """Under a server, a client goes away while a body waits for a statement."""

    async def lines(tenant: Any) -> AsyncIterator[str]:
        try:
            # Before FastAPI 0.118, the dependency's tenant has been left by now.
            with tenant_context(tenant):
                async with AsyncSession(bench.async_engine) as session:
                    await session.run_sync(_begin)
                    yield FILL
                    await session.execute(SLEEP)
                    await session.commit()
        finally:
            bench.reached.append("closed")

    async def view() -> Any:
        return bench.stream(lines(current_tenant()))

    await _leave_in_the_middle(bench, view)
    return await _next_is_clean(bench)


async def _leave_in_the_middle(bench: Any, view: Any) -> None:
    _with_reading_views(bench)
    bench.view("/stream", view)
    before = bench.stored(A)
    async with bench.served() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /stream HTTP/1.1\r\nHost: lab\r\n{HEADER}: {A}\r\n\r\n".encode())
        assert b"200" in await reader.readuntil(b"\r\n")
        await reader.readexactly(1000)
        writer.transport.abort()
        while bench.reached != ["closed"]:
            await asyncio.sleep(0.05)
            # Starlette leaves a `def` generator to the collector, which runs in anybody's context.
            with tenant_context(B):
                gc.collect()
    assert bench.stored(A) == before
    assert bench.stored(OTHER[A])
