"""Going through one tenant's rows of a table, batch after batch, perhaps by several at once."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError

from tenantguard.encrypt.batches import Batch, Change
from tenantguard.errors import LOCK_NOT_AVAILABLE, EncryptionError, sqlstate
from tenantguard.keystore import is_fresh

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.batches import Job, Row, Work
    from tenantguard.encrypt.entering import Access

__all__ = ["Passed", "Passes", "Unit"]

_T = TypeVar("_T")

_ATTEMPTS = 5
_AGAIN = "40"
"""Class of SQLSTATE of a transaction that would succeed if it were run again."""


@dataclass(frozen=True, slots=True, repr=False)
class Unit:
    """A job for one tenant's rows, of which about so many *values* are to be done.

    With *compared*, a row has to be opened to see whether there is anything to do, and stays among
    those that are asked for when there is nothing: each row is looked at once, and locked only to
    be written.
    """

    job: Job
    tenant: str
    values: int
    compared: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Passed:
    """What became of a batch.

    Attributes:
        last: The key of its last row; None if no row comes after it.
        values: How many values were written.
        failed: How many rows could not be done, by the class of the error.
        left: How many rows are still to be done, also those that others have locked; counted after
            the last batch, but not of rows that are compared.
        locked: How many of those could not be written, because others had locked them.
    """

    last: tuple[str, ...] | None = None
    values: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    left: int | None = None
    locked: int = 0


class Passes:
    """Passes over *unit*'s rows.

    Attributes:
        unit: What is done.
        failed: How many rows could not be done, by the class of the error.
        hands: How many workers are, or will be, on their first pass.
    """

    def __init__(
        self, access: Access, unit: Unit, *, size: int, hands: int, create: bool = False
    ) -> None:
        self.unit = unit
        self.failed: Counter[str] = Counter()
        self.hands = hands
        self._access = access
        self._create = create
        self._batch = Batch(unit.job, size=size)
        self._lock = Lock()
        self._opened: Work | EncryptionError | None = None
        self._keys: TenantKeys | None = None

    @property
    def table(self) -> str:
        """The table's name."""
        return self.unit.job.entry.fullname

    def add(self, failed: Counter[str]) -> bool:
        """Note what a first pass could not do; return whether it was the last of them."""
        with self._lock:
            self.failed += failed
            self.hands -= 1
            return not self.hands

    def batch(self, after: tuple[str, ...] | None) -> Passed:
        """Do the next rows after the key *after*, in a transaction of their own.

        Raises:
            EncryptionError: If the tenant's keys cannot be had.
        """
        work = self._open()
        return _again(lambda: self._run(work, after))

    def left(self) -> int:
        """Return how many rows are still to be done, also those that others have locked."""
        work, tenant = self._open(), self.unit.tenant

        def count() -> int:
            with self._access.transaction(tenant) as run:
                return self._batch.count(run, tenant, work.wanted)

        return _again(count)

    def _open(self) -> Work:
        with self._lock:
            # A key may have been retired or destroyed since; everybody looks again in time.
            if self._opened is None or (self._keys is not None and not is_fresh(self._keys)):
                self._opened = _again(self._with_keys)
            if isinstance(self._opened, EncryptionError):
                raise self._opened
            return self._opened

    def _with_keys(self) -> Work | EncryptionError:
        job = self.unit.job
        try:
            keys = self._access.keys_of(job.entry, self.unit.tenant, create=self._create)
            self._keys = keys
            return job.with_keys(keys)
        except EncryptionError as error:
            return error

    def _run(self, work: Work, after: tuple[str, ...] | None) -> Passed:
        failed, tenant, left = Counter[str](), self.unit.tenant, None
        compared = self.unit.compared
        with self._access.transaction(tenant) as run:
            read = self._batch.read(run, tenant, work.wanted, after, locked=not compared)
            made = [_change(work, each, failed) for each in read]
            found = changes = [each for each in made if each is not None and each.values]
            if compared and found:
                # None of them is waited for; what has changed meanwhile is not written.
                free = {each.key for each in self._batch.read(run, tenant, work.wanted, after)}
                changes = [each for each in found if each.key in free]
            written = self._batch.write(run, tenant, changes) if changes else 0
            whole = len(read) == self._batch.size
            if not whole and not compared:
                # Here, because a transaction of its own is worth a batch where tenants are small.
                left = self._batch.count(run, tenant, work.wanted)
        # What was not written any more is another's.
        values = sum(each.values for each in changes) if written == len(changes) else written
        last = read[-1].key if whole else None
        return Passed(last, values, failed, left, len(found) - len(changes))


def _change(work: Work, row: Row, failed: Counter[str]) -> Change | None:
    try:
        values, written = work.made(row.key, row.cells)
    except EncryptionError as error:
        # The other rows are not worse for it.
        failed[type(error).__name__] += 1
        return None
    return Change(row.key, row.cells, written, values)


def _again(attempt: Callable[[], _T]) -> _T:
    """Return what *attempt* does; try again what a lock or another transaction has kept from it."""
    for number in range(1, _ATTEMPTS):
        try:
            return attempt()
        except DBAPIError as error:
            code = sqlstate(error) or ""
            if code != LOCK_NOT_AVAILABLE and not code.startswith(_AGAIN):
                raise
            time.sleep(0.1 * 2**number)
    return attempt()
