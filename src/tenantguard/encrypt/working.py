"""Working through the rows of many tenants with several workers."""

from __future__ import annotations

from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import TYPE_CHECKING

from tenantguard.encrypt.passes import Passed, Passes
from tenantguard.errors import EncryptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tenantguard.encrypt.entering import Access
    from tenantguard.encrypt.passes import Unit

    Progress = Callable[[int, int, str], None]

__all__ = ["Done", "Pace", "work"]

_PASSES = 5
"""So often a tenant's rows are gone through, for those that were locked before."""
_WORTH = 2
"""For so many batches another worker is worth its while."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to go.

    Attributes:
        size: Rows a batch, which is a transaction.
        workers: How many work at once.
        pause: Seconds that a worker waits after each batch.
    """

    size: int = 1000
    workers: int = 1
    pause: float = 0.0


@dataclass(slots=True, repr=False)
class Done:
    """What became of it.

    Attributes:
        values: How many values were written, by table.
        failed: How many rows could not be done, by table and the class of the error.
        shut: How many tenants' keys could not be had, likewise.
        left: How many rows are still to be done: others kept them locked, or wrote them meanwhile.
    """

    values: Counter[str] = field(default_factory=Counter)
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    shut: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing was left."""
        return not (self.failed or self.shut or self.left)


def work(
    access: Access,
    units: Iterable[Unit],
    *,
    pace: Pace,
    progress: Progress,
    create: bool = False,
) -> Done:
    """Do *units*; what others change meanwhile is theirs, and what they lock is tried again.

    Args:
        access: How a tenant's rows are reached.
        units: What is to be done.
        pace: How fast.
        progress: Told how many values are done, of how many, and which table is being worked on.
        create: Whether to make the keys of tenants that have none.

    Raises:
        ConfigurationError: If policies do not hold on a table, or it has no primary key.
        DBAPIError: If the database ends it; what was done stays, and a second run does the rest.
    """
    listed = list(units)
    queue: deque[Passes] = deque()
    for unit in listed:
        # Each takes rows that no other has locked.
        hands = max(1, min(pace.workers, unit.values // (_WORTH * pace.size)))
        if unit.compared:
            hands = 1
        passes = Passes(access, unit, size=pace.size, hands=hands, create=create)
        queue.extend([passes] * hands)
    return _Crew(queue, pace, progress, sum(unit.values for unit in listed)).run()


class _Crew:
    def __init__(self, queue: deque[Passes], pace: Pace, progress: Progress, total: int) -> None:
        self._queue = queue
        self._pace = pace
        self._progress = progress
        self._total = total
        self._stop = Event()
        self._lock = Lock()
        self._done = Done()

    def run(self) -> Done:
        with ThreadPoolExecutor(self._pace.workers) as pool:
            working = [pool.submit(self._work) for _ in range(self._pace.workers)]
            try:
                for each in working:
                    each.result()
            finally:
                # Also when the user interrupts it: a worker ends with its batch.
                self._stop.set()
        return self._done

    def _work(self) -> None:
        try:
            while self._queue and not self._stop.is_set():
                try:
                    passes = self._queue.popleft()
                except IndexError:
                    return
                self._unit(passes)
        except BaseException:
            self._stop.set()
            raise

    def _unit(self, passes: Passes) -> None:
        failed, left = Counter[str](), None
        # What is left then is counted, or meets the same error, at the end.
        with suppress(EncryptionError):
            _, failed, left = self._pass(passes)
        if not passes.add(failed) or self._stop.is_set():
            return
        try:
            self._finish(passes, left)
        except EncryptionError as error:
            with self._lock:
                self._done.shut[passes.table, type(error).__name__] += 1

    def _finish(self, passes: Passes, left: int | None) -> None:
        """Go through the rows again while there are any left; then note how many are, and why."""
        failed = passes.failed
        left = passes.left() if left is None else left
        for _ in range(1, _PASSES):
            if not left or self._stop.is_set():
                break
            changed, failed, left = self._pass(passes)
            if not changed:
                break
        with self._lock:
            self._done.left += max(0, (left or 0) - failed.total())
            for reason, number in failed.items():
                self._done.failed[passes.table, reason] += number

    def _pass(self, passes: Passes) -> tuple[int, Counter[str], int | None]:
        """Go through the rows once; return values written, what failed, and the rows left."""
        values, locked, failed = 0, 0, Counter[str]()
        passed = Passed()
        while not self._stop.is_set():
            passed = passes.batch(passed.last)
            values += passed.values
            failed += passed.failed
            locked += passed.locked
            self._note(passes.table, passed.values)
            if passed.last is None:
                break
            self._stop.wait(self._pace.pause)
        if passes.unit.compared:
            return values, failed, locked and locked + failed.total()
        return values, failed, passed.left

    def _note(self, table: str, values: int) -> None:
        with self._lock:
            self._done.values[table] += values
            done = self._done.values.total()
            self._progress(done, max(done, self._total), table)
