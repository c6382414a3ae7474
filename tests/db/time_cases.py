"""Work that runs later, elsewhere or in turns with another tenant's: what it may do, row by row."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from threading import Thread, Timer
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from practice import A, B, Patient
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    TenantNotSetError,
    current_tenant,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from sqlalchemy import Engine

NAMES = select(Patient.name).order_by(Patient.name)
PATIENTS = select(Patient).order_by(Patient.name)
CHUNKS = {"yield_per": 2}


@dataclass(frozen=True, slots=True)
class Bench:
    """Protected engines of one database with three patients of A and three of B."""

    engine: Engine
    async_engine: AsyncEngine

    def names(self) -> list[str]:
        """The names of the patients that the active tenant sees."""
        with Session(self.engine) as session:
            return list(session.scalars(NAMES))

    async def names_in_turns(self, tenant: Any) -> list[str]:
        """The same of *tenant*, letting others run in between."""
        found: list[str] = []
        with tenant_context(tenant):
            for _ in range(2):
                found = await self.own_names()
                await asyncio.sleep(0)
        return found

    async def own_names(self) -> list[str]:
        """The names of the patients that the active tenant sees, asynchronously."""
        async with AsyncSession(self.async_engine) as session:
            return list(await session.scalars(NAMES))


@dataclass(frozen=True, slots=True)
class Case:
    """One row: *work* reads the names of *reads*'s patients, or raises *raises*."""

    topic: str
    title: str
    work: Callable[[Bench], Any]
    raises: type[Exception] | None
    reads: Any
    happens: str
    do: str

    def __str__(self) -> str:
        return self.work.__name__


CASES: list[Case] = []


def case(
    topic: str,
    title: str,
    do: str = "",
    *,
    raises: type[Exception] | None = None,
    reads: Any = A,
    happens: str = "works",
) -> Callable[[Callable[[Bench], Any]], Callable[[Bench], Any]]:
    """Add a row to the table."""

    def add(work: Any) -> Any:
        CASES.append(Case(topic, title, work, raises, reads, happens, do))
        return work

    return add


GENERATORS = "Generators and results"


@case(
    GENERATORS,
    "A generator is made in a block, and its first row is asked for after it.",
    "Enter the tenant in the generator, or read inside the block.",
    raises=TenantNotSetError,
)
def generator_read_later(bench: Bench) -> Any:
    with tenant_context(A):
        rows = _reading(bench)
    return list(rows)


@case(
    GENERATORS,
    "A generator is made in one tenant's block, and read in another's.",
    "Nothing of it ran in the first block.",
    reads=B,
    happens="works, as the tenant that reads",
)
def generator_read_by_another(bench: Bench) -> Any:
    with tenant_context(A):
        rows = _reading(bench)
    with tenant_context(B):
        return list(rows)


def _reading(bench: Bench) -> Iterator[str]:
    yield from bench.names()


def _entering(bench: Bench) -> Generator[str, None, None]:
    with tenant_context(A):
        yield from bench.names()


@case(GENERATORS, "A generator enters the tenant itself.", "See below.")
def generator_that_enters(bench: Bench) -> Any:
    return list(_entering(bench))


@case(GENERATORS, "An `async def` generator enters the tenant itself.", "See below.")
async def async_generator_that_enters(bench: Bench) -> Any:
    async def entering() -> AsyncIterator[str]:
        with tenant_context(A):
            for name in await bench.own_names():
                yield name

    return [name async for name in entering()]


@case(
    GENERATORS,
    "B's code reads with a new session between two steps of a generator that entered A.",
    "See below.",
    happens="**runs as A**",
)
def between_the_steps(bench: Bench) -> Any:
    with tenant_context(B):
        for _ in (rows := _entering(bench)):
            found = bench.names()
            rows.close()
    return found


@case(
    GENERATORS,
    "The same with B's session or transaction, open already.",
    "See below.",
    raises=CrossTenantError,
)
def between_the_steps_in_a_session(bench: Bench) -> Any:
    with tenant_context(B), Session(bench.engine) as session:
        session.scalars(NAMES).all()
        for _ in (rows := _entering(bench)):
            try:
                return session.scalars(NAMES).all()
            finally:
                rows.close()
    return None


@case(GENERATORS, "The same with the steps run in a context of their own.", reads=B)
def steps_in_their_own_context(bench: Bench) -> Any:
    context, rows = copy_context(), _entering(bench)
    with tenant_context(B):
        assert context.run(next, rows).startswith("patient a")
        found = bench.names()
        context.run(rows.close)
    return found


@case(
    GENERATORS,
    "A streamed result is read on after its block.",
    "Read it inside, or fetch all rows before leaving.",
    raises=TenantNotSetError,
)
def stream_after_the_block(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            rows = session.scalars(PATIENTS, execution_options=CHUNKS)
            next(rows)
        with rows:
            return list(rows)


@case(
    GENERATORS,
    "A streamed result is read on in another tenant's block.",
    "Do not share results between tenants.",
    raises=CrossTenantError,
)
def stream_of_another(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            rows = session.scalars(PATIENTS, execution_options=CHUNKS)
            next(rows)
        with tenant_context(B), rows:
            return list(rows)


@case(GENERATORS, "A streamed result is read on in another block of the same tenant.")
def stream_in_another_block(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            rows = session.scalars(PATIENTS, execution_options=CHUNKS)
            found = [next(rows).name]
        with tenant_context(A):
            return [*found, *(row.name for row in rows)]


@case(
    GENERATORS,
    "A result that was fetched whole is read after its block.",
    "They are values in memory; treat them as such.",
)
def whole_result_later(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            rows = session.scalars(NAMES)
        return list(rows)


SESSIONS = "Sessions, transactions and objects"


@case(
    SESSIONS,
    "The tenant changes inside an open transaction.",
    "Commit or roll back first.",
    raises=CrossTenantError,
)
def switch_in_a_transaction(bench: Bench) -> Any:
    with tenant_context(A), bench.engine.connect() as connection:
        connection.scalars(NAMES).all()
        with tenant_context(B):
            return connection.scalars(NAMES).all()


@case(
    SESSIONS,
    "A session that served one tenant is used by another, after commit too.",
    "Use one session a tenant, or `session.close()` in between.",
    raises=CrossTenantError,
)
def session_of_another(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            held = session.scalars(PATIENTS).all()
            session.commit()
        with tenant_context(B):
            return held and session.scalars(NAMES).all()


@case(SESSIONS, "A session is closed, and then used by another tenant.", reads=B)
def session_closed_between(bench: Bench) -> Any:
    session = Session(bench.engine)
    with tenant_context(A):
        session.scalars(PATIENTS).all()
        session.close()
    with tenant_context(B), session:
        return session.scalars(NAMES).all()


@case(
    SESSIONS,
    "An attribute is loaded lazily after the block.",
    "Load it inside (`selectinload`), or enter the tenant.",
    raises=TenantNotSetError,
)
def lazy_after_the_block(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            patient = session.scalars(PATIENTS).first()
        return patient and patient.orders


@case(
    SESSIONS,
    "An attribute is loaded lazily in another tenant's block.",
    "Do not share objects between tenants.",
    raises=CrossTenantError,
)
def lazy_for_another(bench: Bench) -> Any:
    with Session(bench.engine) as session:
        with tenant_context(A):
            patient = session.scalars(PATIENTS).first()
            session.commit()
        with tenant_context(B):
            return patient and patient.name


@case(
    SESSIONS,
    "A pickled object is added to another tenant's session, and changed.",
    "Load the object for the tenant instead.",
    raises=CrossTenantError,
)
def pickled_for_another(bench: Bench) -> Any:
    with tenant_context(A), Session(bench.engine) as session:
        data = pickle.dumps(session.scalars(PATIENTS).first())
    patient = pickle.loads(data)
    with tenant_context(B), Session(bench.engine) as session:
        session.add(patient)
        patient.name = "changed"
        session.flush()


@case(
    SESSIONS,
    "A block is entered in one context, and left in another.",
    "Enter and leave it in the same function.",
    raises=ConfigurationError,
)
def block_left_elsewhere(_bench: Bench) -> Any:
    block = tenant_context(A)
    copy_context().run(block.__enter__)
    block.__exit__(None, None, None)


THREADS = "Threads and processes"
HAND_OVER = "Run it in `contextvars.copy_context()`, or hand over the tenant and enter it there."


def _outcome_of(bench: Bench, start: Callable[[Callable[[], None]], Thread]) -> Any:
    """What work comes to in the thread that *start* makes."""
    found: list[Any] = []

    def work() -> None:
        try:
            found.append(bench.names())
        except TenantNotSetError as error:
            found.append(error)

    with tenant_context(A):
        thread = start(work)
        thread.start()
        thread.join()
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@case(THREADS, "`threading.Thread`", HAND_OVER, raises=TenantNotSetError)
def plain_thread(bench: Bench) -> Any:
    return _outcome_of(bench, lambda work: Thread(target=work))


@case(THREADS, "`threading.Timer`", HAND_OVER, raises=TenantNotSetError)
def timer(bench: Bench) -> Any:
    return _outcome_of(bench, lambda work: Timer(0, work))


@case(THREADS, "`ThreadPoolExecutor.submit` and `.map`", HAND_OVER, raises=TenantNotSetError)
def thread_pool(bench: Bench) -> Any:
    with tenant_context(A), ThreadPoolExecutor(1) as pool:
        return pool.submit(bench.names).result()


@case(THREADS, "`pool.submit(copy_context().run, …)`")
def thread_pool_with_a_context(bench: Bench) -> Any:
    with tenant_context(A), ThreadPoolExecutor(1) as pool:
        return pool.submit(copy_context().run, bench.names).result()


@case(THREADS, "`copy_context().run`, called after the block or in another tenant's.")
def copied_context(bench: Bench) -> Any:
    with tenant_context(A):
        context = copy_context()
    with tenant_context(B):
        return context.run(bench.names)


@case(
    THREADS,
    "A process that is spawned, such as a worker of `ProcessPoolExecutor`.",
    "Hand over the tenant, and enter it there.",
    raises=TenantNotSetError,
)
def spawned_process(_bench: Bench) -> Any:
    spawning = multiprocessing.get_context("spawn")
    with tenant_context(A), ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(current_tenant).result()


_FORKING = """
import os, sys
from tenantguard import current_tenant, tenant_context
with tenant_context(7):
    child = os.fork()
    if child == 0:
        os._exit(0 if current_tenant() == 7 else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@case(
    THREADS,
    "A process that is forked inside a block.",
    "It inherits the tenant. Call `engine.dispose(close=False)` in it: connections are not shared.",
)
def forked_process(bench: Bench) -> Any:
    subprocess.run([sys.executable, "-c", _FORKING], check=True)
    with tenant_context(A):
        return bench.names()


TASKS = "asyncio and AnyIO"


@case(TASKS, "`asyncio.gather` of coroutines of several tenants, in turns.")
async def gathered(bench: Bench) -> Any:
    found = await asyncio.gather(*(bench.names_in_turns(tenant) for tenant in (A, B, A, B)))
    assert found[0] == found[2] != found[1] == found[3]
    return found[0]


@case(TASKS, "`asyncio.TaskGroup` with tasks of several tenants, in turns.")
async def task_group(bench: Bench) -> Any:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(bench.names_in_turns(tenant)) for tenant in (A, B, A, B)]
    assert tasks[1].result() == tasks[3].result() != tasks[0].result()
    return tasks[2].result()


@case(TASKS, "An AnyIO task group's task, started in a block.")
async def anyio_group(bench: Bench) -> Any:
    found: list[str] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        found.extend(await bench.own_names())

    async with anyio.create_task_group() as group:
        with tenant_context(A):
            group.start_soon(work)
        with tenant_context(B):
            await bench.own_names()
    return found


@case(TASKS, "`create_task` in a block, after which the task lives on.", "It stays its tenant's.")
async def task_that_outlives_its_block(bench: Bench) -> Any:
    left = asyncio.Event()

    async def work() -> list[str]:
        await left.wait()
        return await bench.own_names()

    with tenant_context(A):
        task = asyncio.create_task(work())
    with tenant_context(B):
        left.set()
        return await task


@case(
    TASKS,
    "A coroutine is made in a block, and awaited after it.",
    "Await it inside, or make it a task there.",
    raises=TenantNotSetError,
)
async def coroutine_awaited_later(bench: Bench) -> Any:
    with tenant_context(A):
        coroutine = bench.own_names()
    return await coroutine


@case(
    TASKS,
    "Work is put into a queue, for a task that was started outside.",
    "Put the tenant into the queue as well, and enter it there.",
    raises=TenantNotSetError,
)
async def queued(bench: Bench) -> Any:
    queue: asyncio.Queue[Callable[[], Any]] = asyncio.Queue()

    async def worker() -> list[str]:
        return list(await (await queue.get())())

    task = asyncio.create_task(worker())
    with tenant_context(A):
        await queue.put(bench.own_names)
        return await task


@case(TASKS, "`loop.call_soon` and `loop.call_later`, called in a block.")
async def callbacks(bench: Bench) -> Any:
    loop = asyncio.get_running_loop()
    soon, later = loop.create_future(), loop.create_future()
    with tenant_context(A):
        loop.call_soon(lambda: soon.set_result(bench.names()))
        loop.call_later(0, lambda: later.set_result(bench.names()))
    assert await soon == await later
    return await soon


@case(TASKS, "`asyncio.to_thread` and `anyio.to_thread.run_sync`")
async def to_thread(bench: Bench) -> Any:
    with tenant_context(A):
        assert await anyio.to_thread.run_sync(bench.names) == await asyncio.to_thread(bench.names)
        return await asyncio.to_thread(bench.names)


@case(TASKS, "`loop.run_in_executor`", HAND_OVER, raises=TenantNotSetError)
async def in_executor(bench: Bench) -> Any:
    with tenant_context(A):
        return await asyncio.get_running_loop().run_in_executor(None, bench.names)


@case(TASKS, "`loop.run_in_executor(None, copy_context().run, …)`")
async def in_executor_with_a_context(bench: Bench) -> Any:
    with tenant_context(A):
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, copy_context().run, bench.names)
