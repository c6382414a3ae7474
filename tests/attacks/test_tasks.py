"""Where Python goes on elsewhere: generators, executors, tasks and asynchronous generators."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from attacking import LOCKS, SCOPING, Stage
from drivers import ASYNC, SYNC
from practice import A, B, Patient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from tenantguard import CrossTenantError, TenantNotSetError, tenant_context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from locks import Locks
    from sqlalchemy import Engine

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
NAMES = select(patients.c.name).order_by(patients.c.name)
OWN = {A: ["patient a0", "patient a1", "patient a2"], B: ["patient b0", "patient b1", "patient b2"]}
asynchronous = pytest.mark.parametrize("driver", ASYNC)
synchronous = pytest.mark.drivers(*SYNC)


def _read(engine: Engine) -> list[str]:
    with Session(engine) as session:
        return list(session.scalars(NAMES))


def _steps(engine: Engine) -> Any:
    """A generator with one session: each step reads in it."""
    with Session(engine) as session:
        while True:
            yield list(session.scalars(NAMES))


def _fresh(engine: Engine) -> Any:
    """A generator with a session a step."""
    while True:
        yield _read(engine)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_generators_session_does_not_change_hands(stage: Stage, lock: str) -> None:
    """A generator that was begun for A, with a transaction open, is refused when B goes on."""
    with tenant_context(A):
        steps = _steps(stage.engine(lock))
        assert next(steps) == OWN[A]
        with tenant_context(B), pytest.raises(CrossTenantError):
            next(steps)
        steps.close()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_generator_reads_for_who_asks(stage: Stage, lock: str) -> None:
    """A generator that opens a session each time works for whoever takes the next step."""
    steps = _fresh(stage.engine(lock))
    for tenant in (A, B, A):
        with tenant_context(tenant):
            assert next(steps) == OWN[tenant]
    steps.close()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_generator_that_goes_on_without_a_tenant_is_refused(stage: Stage, lock: str) -> None:
    """What is left of a generator when its block has ended reads nothing."""
    with tenant_context(A):
        steps = _fresh(stage.engine(lock))
        assert next(steps) == OWN[A]
    with pytest.raises(TenantNotSetError):
        next(steps)


@synchronous
@pytest.mark.parametrize("lock", SCOPING)
def test_an_executors_thread_keeps_no_tenant(stage: Stage, lock: str) -> None:
    """A thread that has worked for A has no tenant for the next job, and B's context brings B."""
    engine = stage.engine(lock)

    def for_a() -> list[str]:
        with tenant_context(A):
            return _read(engine)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(for_a).result() == OWN[A]
        with pytest.raises(TenantNotSetError):
            pool.submit(_read, engine).result()
        with tenant_context(B):
            context = contextvars.copy_context()
            assert pool.submit(context.run, _read, engine).result() == OWN[B]


@synchronous
@pytest.mark.parametrize("lock", SCOPING)
def test_run_in_executor_has_no_tenant_and_to_thread_has(stage: Stage, lock: str) -> None:
    """`loop.run_in_executor` copies no context, so it is refused; `asyncio.to_thread` copies it."""
    engine = stage.engine(lock)

    async def work() -> None:
        with tenant_context(A):
            with pytest.raises(TenantNotSetError):
                await asyncio.get_running_loop().run_in_executor(None, _read, engine)
            assert await asyncio.to_thread(_read, engine) == OWN[A]

    asyncio.run(work())


async def _rows(engine: AsyncEngine) -> list[str]:
    async with AsyncSession(engine) as session:
        return list(await session.scalars(NAMES))


async def _interleaved(engine: AsyncEngine) -> None:
    """Eight tasks of two tenants, each of which lets the others go on between its statements."""

    async def one(tenant: Any) -> None:
        with tenant_context(tenant):
            async with AsyncSession(engine) as session:
                for _ in range(3):
                    assert list(await session.scalars(NAMES)) == OWN[tenant]
                    await asyncio.sleep(0)

    await asyncio.gather(*(one(tenant) for tenant in (A, B) * 4))


async def _grouped(engine: AsyncEngine) -> None:
    """Tasks of a group have the tenant of who made them; one that enters another disturbs none."""
    with tenant_context(A):
        async with asyncio.TaskGroup() as group:
            own = [group.create_task(_rows(engine)) for _ in range(2)]
            other = group.create_task(_as(B, engine))
        assert [task.result() for task in own] == [OWN[A], OWN[A]]
        assert other.result() == OWN[B]
        assert await _rows(engine) == OWN[A]


async def _as(tenant: Any, engine: AsyncEngine) -> list[str]:
    with tenant_context(tenant):
        return await _rows(engine)


async def _steps_of(engine: AsyncEngine) -> AsyncIterator[list[str]]:
    async with AsyncSession(engine) as session:
        while True:
            yield list(await session.scalars(NAMES))


async def _handed_on(engine: AsyncEngine) -> None:
    """An asynchronous generator's session is refused when another tenant takes the next step."""
    with tenant_context(A):
        steps: Any = _steps_of(engine)
        assert await anext(steps) == OWN[A]
        with tenant_context(B), pytest.raises(CrossTenantError):
            await anext(steps)
        await steps.aclose()


async def _streamed(engine: AsyncEngine) -> None:
    """A stream that was opened for A gives B nothing, and goes on for A."""
    with tenant_context(A):
        async with engine.connect() as connection, connection.stream(NAMES) as rows:
            assert (await anext(rows))[0] == OWN[A][0]
            with tenant_context(B), pytest.raises(CrossTenantError):
                await connection.execute(NAMES)
            assert [row[0] async for row in rows] == OWN[A][1:]


async def _shared(engine: AsyncEngine) -> None:
    """A task that takes another tenant's open connection is refused."""
    with tenant_context(A):
        async with engine.connect() as connection:
            assert list(await connection.scalars(NAMES)) == OWN[A]

            async def steal() -> None:
                with tenant_context(B):
                    await connection.execute(NAMES)

            with pytest.raises(CrossTenantError):
                await asyncio.create_task(steal())


async def _cancelled(engine: AsyncEngine) -> None:
    """A task that is cancelled while it waits leaves nothing to the next tenant's."""
    started = asyncio.Event()

    async def waits() -> None:
        with tenant_context(A):
            async with engine.connect() as connection:
                await connection.execute(NAMES)
                started.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(waits())
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await _as(B, engine) == OWN[B]


TASKS: dict[str, Callable[[AsyncEngine], Awaitable[None]]] = {
    "gather, interleaved": _interleaved,
    "task group": _grouped,
    "asynchronous generator": _handed_on,
    "stream": _streamed,
    "shared connection": _shared,
    "cancelled": _cancelled,
}


@asynchronous
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("case", TASKS)
def test_a_task_works_for_its_tenant_or_is_refused(locks: Locks, case: str, lock: str) -> None:
    """Tasks, groups and asynchronous generators of two tenants on two connections do not mix."""
    engine = getattr(locks, lock)(pool_size=2, max_overflow=0)
    await_only(TASKS[case](AsyncEngine(engine)))
