"""The watch: notices a crew that stands still, tells what everybody was doing, and ends the run."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from dataclasses import dataclass
from threading import Thread
from traceback import extract_stack
from typing import TYPE_CHECKING, Any

from ledger import Fault, History, Outcome, Transaction
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from shifts import Run, Shift

_PLACES = 12
"""How many of the innermost calls to tell of each thread and each task."""

_BRIEFLY = 0.1
_GRACE = 10.0
"""How long, in seconds, a run that is ended may take to end."""

_BACKENDS = text(
    "SELECT pid, state, wait_event_type, wait_event, pg_blocking_pids(pid), left(query, 80) "
    "FROM pg_stat_activity WHERE usename = :name AND datname = current_database()"
)
_END_ALL = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE usename = :name AND datname = current_database()"
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait, in seconds.

    Attributes:
        connection: For a connection of the pool. A pool does not wake who waits when another's
            attempt to connect has failed, so this is also how long a free place may be overlooked.
        crew: For a crew to commit something.
        whole: For all crews to end.
    """

    connection: float = 5.0
    crew: float = 30.0
    whole: float = 240.0


class Labour(Thread):
    """A thread that nobody has to wait for; *error* is what its work raised."""

    def __init__(self, work: Callable[[], Any], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  (for the thread that waits)
            self.error = error


class Watch:
    """Waits for *shifts* to end, but not for ever."""

    def __init__(self, run: Run, shifts: list[Shift]) -> None:
        self._run = run
        self._shifts = shifts
        self._name = {"name": run.site.guard.roles.application}
        self._until = time.monotonic() + run.patience.whole
        self._seen: dict[Shift, tuple[int, float]] = {}

    def wait(self) -> History:
        """Return when all have ended; what is returned tells of those that had to be made to."""
        while any(shift.labour.is_alive() for shift in self._shifts):
            for shift in self._shifts:
                shift.labour.join(_BRIEFLY)
            reason = self._reason()
            if reason:
                story = "\n".join([reason, *self._doing()])
                self._end()
                return [Transaction(-1, 0, None, ops=[Fault("stalled", story)])]
        return []

    def _reason(self) -> str | None:
        """Return why the run has to end now."""
        now, patience = time.monotonic(), self._run.patience
        for shift in self._shifts:
            committed = _committed(shift)
            before, since = self._seen.get(shift, (-1, 0.0))
            if committed != before or shift.resting or not shift.labour.is_alive():
                self._seen[shift] = (committed, now)
            elif now - since > patience.crew:
                return f"{shift.crew} has not committed anything for {patience.crew} s"
        return f"not ended in {patience.whole} s" if now > self._until else None

    def _doing(self) -> Iterator[str]:
        """Tell what the backends, the crews, their threads and their tasks are doing."""
        with self._run.site.admin.connect() as connection:
            for row in connection.execute(_BACKENDS, self._name):
                yield f"backend {tuple(row)}"
        for shift in self._shifts:
            yield f"{shift.crew}: {shift.status()}"
            if shift.loop:
                yield from map(_of_task, asyncio.all_tasks(shift.loop))
        frames = sys._current_frames()
        for each in gc.get_objects():
            if isinstance(each, Labour) and each.is_alive():
                yield f"thread {each.name}: {_places(frames.get(each.ident or 0))}"
            # What SQLAlchemy has under way for a task waits in one.
            elif type(each).__name__ == "_AsyncIoGreenlet":
                yield f"greenlet: {_places(each.gr_frame)}"

    def _end(self) -> None:
        """Let no worker begin anything, and take away what those wait for that do not end."""
        self._run.over.set()
        self._run.ended.abort()
        deadline = time.monotonic() + _GRACE
        while time.monotonic() < deadline and any(
            shift.labour.is_alive() for shift in self._shifts
        ):
            with self._run.site.admin.begin() as connection:
                connection.execute(_END_ALL, self._name)
            time.sleep(_BRIEFLY)


def _committed(shift: Shift) -> int:
    """Return how many transactions of *shift* have been committed so far."""
    records = [record for worker in list(shift.workers) for record in list(worker.history)]
    return sum(record.outcome is Outcome.COMMITTED for record in records)


def _of_task(task: asyncio.Task[Any]) -> str:
    """Tell where *task* waits, down through what it awaits."""
    frames: list[str] = []
    awaited: Any = task.get_coro()
    while frame := getattr(awaited, "cr_frame", None):
        frames.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        awaited = getattr(awaited, "cr_await", None)
    return f"task {task.get_name()}: {' > '.join(frames[-_PLACES:])} > {awaited!r}"


def _places(frame: FrameType | None) -> str:
    places = [f"{each.filename}:{each.lineno}" for each in extract_stack(frame)] if frame else []
    return " > ".join(places[-_PLACES:])
