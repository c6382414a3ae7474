"""Crews: workers that share one engine, in threads or in the tasks of one thread's loop."""

from __future__ import annotations

import asyncio
import gc
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier, Event, Thread
from typing import TYPE_CHECKING, Any

from drivers import ASYNC, address
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from tasks import TaskWorker
from threads import ThreadWorker
from verdict import Finding, check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disturbing import Disturber
    from entries import Site
    from ledger import History
    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncEngine

_PATIENCE = 300.0
"""How long to wait, in seconds, for a connection or for the other crews."""

_COLLECTED = 5.0
"""How often, in seconds, garbage is collected."""

_UNPREPARED: dict[str, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "psycopg-async": {"prepare_threshold": None},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__{uuid.uuid4()}__",
    },
}


@dataclass(frozen=True, slots=True)
class Crew:
    """*workers* that share an engine; *number* tells them from other crews'."""

    number: int
    driver: str
    pool_size: int
    workers: int = 4

    def numbers(self) -> range:
        return range(self.number * 100, self.number * 100 + self.workers)

    def last(self) -> int:
        """The number of the worker that comes when the others have gone."""
        return self.number * 100 + 99


@dataclass(frozen=True, slots=True)
class Task:
    """What one crew has to do: *each* of its workers so many transactions.

    Attributes:
        ended: Passed when all crews' workers have ended.
    """

    site: Site
    crew: Crew
    each: int
    seed: str
    disturber: Disturber | None
    ended: Barrier

    def workers(self) -> list[tuple[int, str, Disturber | None]]:
        """Return what each worker is made of, besides the engine."""
        return [(number, self.seed, self.disturber) for number in self.crew.numbers()]

    def last(self) -> tuple[int, str, Disturber | None]:
        """Return what the worker is made of that comes when the others have gone."""
        return (self.crew.last(), self.seed, self.disturber)

    def address(self) -> URL:
        return address(self.site.address(), self.crew.driver)

    def options(self) -> dict[str, Any]:
        """Return the engine's options; behind a pooler, those that docs/drivers.md names."""
        size = self.crew.pool_size
        common = {"pool_size": size, "max_overflow": 0, "pool_timeout": _PATIENCE}
        if self.site.pooler is None or self.crew.driver == "psycopg2":
            return common
        return {**common, "connect_args": _UNPREPARED[self.crew.driver]}


def crews(drivers: tuple[str, ...]) -> list[Crew]:
    """Return a crew of each driver for each pool size from 1 to 3."""
    pairs = [(driver, size) for driver in drivers for size in (1, 2, 3)]
    return [Crew(number, *pair) for number, pair in enumerate(pairs)]


def run(
    site: Site, members: list[Crew], *, transactions: int, seed: str, disturber: Disturber | None
) -> list[History]:
    """Let all crews work at once; return what their workers wrote down.

    When all have ended and nobody is disturbed any more, one more worker of each crew commits an
    entry for each tenant, with what the others have left of the pool.
    """
    each = -(-transactions // sum(crew.workers for crew in members))
    ended = Barrier(len(members))

    def work(crew: Crew) -> list[History]:
        runs = _in_loop if crew.driver in ASYNC else _in_threads
        try:
            return runs(Task(site, crew, each, seed, disturber, ended))
        except BaseException:
            ended.abort()
            raise

    with _collecting(), ThreadPoolExecutor(len(members)) as pool:
        return [history for histories in pool.map(work, members) for history in histories]


@contextmanager
def _collecting() -> Iterator[None]:
    """Collect garbage while the block runs.

    A connection that SQLAlchemy loses when a task is cancelled is the pool's again only then, which
    does not happen by itself where the crew waits for that pool and all others have ended.
    """
    ended = Event()

    def collect() -> None:
        while not ended.wait(_COLLECTED):
            gc.collect()

    collector = Thread(target=collect)
    collector.start()
    try:
        yield
    finally:
        ended.set()
        collector.join()


def judge(site: Site, histories: list[History]) -> list[Finding]:
    """Return what is wrong with *histories*, given what the database holds now."""
    return check(histories, site.rows())


def _in_threads(task: Task) -> list[History]:
    engine = create_engine(task.address(), **task.options())
    task.site.protect(engine)
    workers = [ThreadWorker(*arguments, engine) for arguments in task.workers()]
    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(lambda worker: worker.run(task.each), workers))
    task.ended.wait(_PATIENCE)
    workers.append(ThreadWorker(*task.last(), engine))
    workers[-1].commit_for_each_tenant()
    engine.dispose()
    return [worker.history for worker in workers]


def _in_loop(task: Task) -> list[History]:
    return asyncio.run(_in_tasks(task))


async def _in_tasks(task: Task) -> list[History]:
    engine: AsyncEngine = create_async_engine(task.address(), **task.options())
    task.site.protect(engine)
    workers = [TaskWorker(*arguments, engine) for arguments in task.workers()]
    await asyncio.gather(*(worker.run(task.each) for worker in workers))
    # Nothing else is left to run in this thread's loop.
    task.ended.wait(_PATIENCE)
    workers.append(TaskWorker(*task.last(), engine))
    await workers[-1].commit_for_each_tenant()
    await engine.dispose()
    return [worker.history for worker in workers]
