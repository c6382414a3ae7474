"""Cases: work that goes on after the answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import BackgroundTasks  # noqa: TC002  (FastAPI reads it)
from practice import A, B
from starlette.background import BackgroundTask

from conformance.bench import tried, tried_async
from conformance.forms import ASGI, FASTAPI, LEFT_EARLY, case, waiting
from tenantguard import TenantNotSetError

if TYPE_CHECKING:
    from conformance.forms import Outcome

TOPIC = "After the answer"


async def _one_by_one(bench: Any) -> list[Outcome]:
    outcomes = []
    for tenant in (A, B):
        assert (await bench.get("/patients", tenant)).status == 200
        outcomes.append(bench.judge_shown(bench.reached.pop(), tenant))
    return outcomes


async def _note_async(bench: Any) -> None:
    bench.reached.append(await tried_async(bench.names()))


def _note(bench: Any) -> None:
    bench.reached.append(tried(bench.names_here))


@case(TOPIC, works=ASGI, before=LEFT_EARLY)
async def background_coroutine(bench: Any) -> list[Outcome]:
    """A response has Starlette's `BackgroundTask` with an `async def` function."""
    return await _in_background(bench, _note_async)


@case(TOPIC, works=ASGI, before=LEFT_EARLY)
async def background_function(bench: Any) -> list[Outcome]:
    """A response has Starlette's `BackgroundTask` with a `def` function, for a thread."""
    return await _in_background(bench, _note)


async def _in_background(bench: Any, note: Any) -> list[Outcome]:
    async def view() -> Any:
        return bench.respond([], BackgroundTask(note, bench))

    bench.view("/patients", view)
    return await _one_by_one(bench)


@case(TOPIC, works=FASTAPI, before=LEFT_EARLY)
async def fastapi_background_tasks(bench: Any) -> list[Outcome]:
    """A view is given FastAPI's `BackgroundTasks`, and adds functions of both kinds."""

    def plain(tasks: BackgroundTasks) -> list[str]:
        tasks.add_task(_note, bench)
        tasks.add_task(_note_async, bench)
        return []

    async def waits(tasks: BackgroundTasks) -> list[str]:
        return plain(tasks)

    bench.route("/patients", waits if bench.form.waits else plain)
    outcomes = await _one_by_one(bench)
    return [*outcomes, *(bench.judge_shown(shown, A) for shown in bench.reached[:1])]


@case(TOPIC, works=waiting(ASGI))
async def task_that_outlives(bench: Any) -> list[Outcome]:
    """A view starts a task that reads when the request is over, and others have run since."""
    gate = asyncio.Event()
    tasks: list[asyncio.Task[Any]] = []

    async def read_later() -> Any:
        await gate.wait()
        return await bench.names()

    async def view() -> None:
        tasks.append(asyncio.create_task(read_later()))

    bench.view("/patients", view)
    for tenant in (A, B):
        assert (await bench.get("/patients", tenant)).status == 200
    gate.set()
    found = await asyncio.gather(*tasks)
    return [bench.judge_shown(*pair) for pair in zip(found, (A, B), strict=True)]


@case(TOPIC, raises={TenantNotSetError: waiting(ASGI)})
async def queue_of_a_worker(bench: Any) -> list[Outcome]:
    """A view gives work to a task that was started outside of any request."""
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def work() -> Any:
        return await tried_async((await queue.get())())

    async def view() -> None:
        await queue.put(partial(bench.names))

    bench.view("/patients", view)
    outcomes = []
    for tenant in (A, B):
        worker = asyncio.create_task(work())
        assert (await bench.get("/patients", tenant)).status == 200
        outcomes.append(bench.judge_shown(await worker, tenant))
    return outcomes
