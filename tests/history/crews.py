"""Crews: workers that share one engine, in threads or in the tasks of one thread's loop."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from threading import BrokenBarrierError, Event, Thread
from typing import TYPE_CHECKING

from ledger import Fault
from shifts import Crew, Run, Shift
from verdict import Finding, check
from watch import Patience, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from disturbing import Disturber
    from entries import Site
    from ledger import History

__all__ = ["Crew", "crews", "judge", "run"]

_COLLECTED = 5.0
"""How often, in seconds, garbage is collected."""


def crews(drivers: tuple[str, ...]) -> list[Crew]:
    """Return a crew of each driver for each pool size from 1 to 3."""
    pairs = [(driver, size) for driver in drivers for size in (1, 2, 3)]
    return [Crew(number, *pair) for number, pair in enumerate(pairs)]


def run(
    site: Site,
    members: list[Crew],
    *,
    transactions: int,
    seed: str,
    disturber: Disturber | None,
    patience: Patience = Patience(),  # noqa: B008  (it cannot be changed)
) -> list[History]:
    """Let all crews work at once; return what their workers wrote down.

    When all have ended and nobody is disturbed any more, one more worker of each crew commits an
    entry for each tenant, with what the others have left of the pool. A crew that stands still ends
    the run.
    """
    each = -(-transactions // sum(crew.workers for crew in members))
    work = Run(site, each, seed, disturber, patience, len(members))
    shifts = [Shift(work, crew) for crew in members]
    with _collecting():
        for shift in shifts:
            shift.labour.start()
        told = Watch(work, shifts).wait()
    errors = [shift.labour.error for shift in shifts if shift.labour.error]
    for error in sorted(errors, key=lambda error: isinstance(error, BrokenBarrierError)):
        if not told:
            raise error
    return [worker.history for shift in shifts for worker in shift.workers] + [told]


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
    """Return what is wrong with *histories*, given what the database holds now.

    A run that had to be ended is not compared with the database, where it may still be under way.
    """
    faults = [op for history in histories for each in history for op in each.ops]
    stalled = [op for op in faults if isinstance(op, Fault) and op.kind == "stalled"]
    if stalled:
        return [Finding(op.kind, None, op.text) for op in stalled]
    return check(histories, site.rows())
