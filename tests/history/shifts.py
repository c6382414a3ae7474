"""A shift: what one crew does in a run, from its engine's first connection to its last."""

from __future__ import annotations

import asyncio
import gc
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any, cast

from drivers import ASYNC, address
from ledger import Fault
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from tasks import TaskWorker
from threads import ThreadWorker
from watch import Labour, Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from disturbing import Disturber
    from entries import Site
    from sqlalchemy import Engine, QueuePool
    from workers import Worker

_BEAT = 0.05
"""How often, in seconds, a loop has something to do, and a pool is asked what it has lent."""

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


@dataclass(eq=False)
class Run:
    """What all crews have in common.

    Attributes:
        each: How many transactions each worker has to run.
        crews: How many crews there are.
        ended: Passed when all crews' workers have ended.
        over: Set when nobody may begin anything.
    """

    site: Site
    each: int
    seed: str
    disturber: Disturber | None
    patience: Patience
    crews: int
    over: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.ended = Barrier(self.crews)


class Shift:
    """One crew's work, done by *labour*.

    Attributes:
        workers: Those that have come so far.
        loop: Where they are tasks.
        resting: Whether the crew waits for the others.
    """

    def __init__(self, run: Run, crew: Crew) -> None:
        self.crew = crew
        self.workers: list[Worker] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self.resting = False
        self.labour = Labour(self._work, str(crew))
        self._run = run
        self._engine: Engine | None = None

    def status(self) -> str:
        """Return the pool's own words for how many connections it has and has lent."""
        return self._engine.pool.status() if self._engine else "no engine"

    def _work(self) -> None:
        try:
            if self.crew.driver in ASYNC:
                asyncio.run(self._in_tasks())
            else:
                self._in_threads()
        except BaseException:
            self._run.ended.abort()
            raise

    def _in_threads(self) -> None:
        engine = create_engine(self._address(), **self._options())
        self._protect(engine, engine)
        make = partial(self._worker, ThreadWorker, engine)
        workers = [make(number) for number in self.crew.numbers()]
        _side_by_side([partial(worker.run, self._run.each) for worker in workers])
        self._rest()
        last = make(self.crew.last())
        for _ in self._lent(last):
            time.sleep(_BEAT)
        last.commit_for_each_tenant()
        engine.dispose()

    async def _in_tasks(self) -> None:
        self.loop = asyncio.get_running_loop()
        beating = asyncio.create_task(_beat())
        engine = create_async_engine(self._address(), **self._options())
        self._protect(engine, engine.sync_engine)
        make = partial(self._worker, TaskWorker, engine)
        workers = [make(number) for number in self.crew.numbers()]
        await asyncio.gather(*(worker.run(self._run.each) for worker in workers))
        await asyncio.to_thread(self._rest)
        last = make(self.crew.last())
        for _ in self._lent(last):
            await asyncio.sleep(_BEAT)
        await last.commit_for_each_tenant()
        await engine.dispose()
        beating.cancel()

    def _address(self) -> Any:
        return address(self._run.site.address(), self.crew.driver)

    def _options(self) -> dict[str, Any]:
        """Return the engine's options; behind a pooler, those that docs/drivers.md names."""
        size, seconds = self.crew.pool_size, self._run.patience.connection
        common = {"pool_size": size, "max_overflow": 0, "pool_timeout": seconds}
        if self._run.site.pooler is None or self.crew.driver == "psycopg2":
            return common
        return {**common, "connect_args": _UNPREPARED[self.crew.driver]}

    def _protect(self, engine: Any, inside: Engine) -> None:
        self._engine = inside
        self._run.site.protect(engine)

    def _worker(self, kind: Callable[..., Any], engine: Any, number: int) -> Any:
        worker = kind(number, self._run.seed, self._run.disturber, self._run.over, engine)
        self.workers.append(worker)
        return worker

    def _rest(self) -> None:
        """Wait for the other crews."""
        self.resting = True
        self._run.ended.wait()
        self.resting = False

    def _lent(self, last: Worker) -> Iterator[int]:
        """Yield while the pool misses connections, though nobody has one, but not for ever."""
        pool = cast("QueuePool", cast("Engine", self._engine).pool)
        # Less than the watch waits for the crew to commit something.
        deadline = time.monotonic() + self._run.patience.crew / 2
        gc.collect()
        while (lent := pool.checkedout()) and time.monotonic() < deadline:
            yield lent
            gc.collect()
        if lent:
            last.found(Fault("leaked", f"{self.crew}: {self.status()}"))


async def _beat() -> None:
    """Keep the loop from sleeping.

    Garbage may be collected in any thread. Of a connection that was lost, SQLAlchemy then gives the
    place in the pool to a task that waits for it, which does not wake that task's loop.
    """
    while True:  # noqa: ASYNC110  (it waits for nothing)
        await asyncio.sleep(_BEAT)


def _side_by_side(work: list[Callable[[], None]]) -> None:
    """Do all of *work* at once, each in a thread, and wait."""
    labours = [Labour(each, f"worker {number}") for number, each in enumerate(work)]
    for labour in labours:
        labour.start()
    for labour in labours:
        labour.join()
    for error in (labour.error for labour in labours if labour.error):
        raise error
