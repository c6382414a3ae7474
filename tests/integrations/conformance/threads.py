"""Cases: work that a view hands to threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from practice import A, B
from starlette.concurrency import run_in_threadpool

from conformance.bench import tried
from conformance.forms import ASGI, FORMS, case, waiting
from tenantguard import TenantNotSetError, current_tenant, tenant_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from conformance.forms import Outcome

TOPIC = "Threads"


async def _read_by(bench: Any, work: Callable[[Any], Awaitable[Any]]) -> list[Outcome]:
    """Judge what *work* reads in a view, given a function that reads where it is called."""

    async def view() -> Any:
        return await work(partial(tried, bench.names_here))

    bench.view("/patients", view)
    answers = await asyncio.gather(*(bench.get("/patients", tenant) for tenant in (A, B)))
    assert [answer.status for answer in answers] == [200, 200]
    return [
        bench.judge_shown(_value(bench, answer), tenant)
        for answer, tenant in zip(answers, (A, B), strict=True)
    ]


def _value(bench: Any, answer: Any) -> Any:
    return bench.shown(answer)


@case(TOPIC, raises={TenantNotSetError: FORMS})
async def plain_thread(bench: Any) -> list[Outcome]:
    """A view reads in a plain `Thread`, which has no tenant."""

    async def work(read: Any) -> Any:
        found: list[Any] = []
        thread = Thread(target=lambda: found.append(read()))
        thread.start()
        thread.join()
        return found[0]

    return await _read_by(bench, work)


@case(TOPIC, raises={TenantNotSetError: FORMS})
async def thread_pool(bench: Any) -> list[Outcome]:
    """A view reads in a `ThreadPoolExecutor` that all requests share."""
    with ThreadPoolExecutor(1) as pool:

        async def work(read: Any) -> Any:
            return pool.submit(read).result()

        return await _read_by(bench, work)


@case(TOPIC, works=FORMS)
async def thread_pool_that_enters(bench: Any) -> list[Outcome]:
    """Work in a shared `ThreadPoolExecutor` enters the tenant that it was given."""
    with ThreadPoolExecutor(1) as pool:

        async def work(read: Any) -> Any:
            return pool.submit(_entered, current_tenant(), read).result()

        return await _read_by(bench, work)


def _entered(tenant: Any, read: Any) -> Any:
    with tenant_context(tenant):
        return read()


@case(TOPIC, works=FORMS)
async def thread_with_a_copied_context(bench: Any) -> list[Outcome]:
    """A view reads in a thread that runs in `contextvars.copy_context()`."""
    with ThreadPoolExecutor(1) as pool:

        async def work(read: Any) -> Any:
            return pool.submit(copy_context().run, read).result()

        return await _read_by(bench, work)


@case(TOPIC, works=waiting(FORMS))
async def to_thread(bench: Any) -> list[Outcome]:
    """A view reads with `asyncio.to_thread`, which copies the context."""
    return await _read_by(bench, asyncio.to_thread)


@case(TOPIC, raises={TenantNotSetError: waiting(FORMS)})
async def run_in_executor(bench: Any) -> list[Outcome]:
    """A view reads with `loop.run_in_executor`, which does not copy the context."""

    async def work(read: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, read)

    return await _read_by(bench, work)


@case(TOPIC, works=waiting(ASGI))
async def starlette_threadpool(bench: Any) -> list[Outcome]:
    """A view reads with Starlette's `run_in_threadpool`, which copies the context."""
    return await _read_by(bench, run_in_threadpool)
