"""A worker: its random programs, its own rows, and the history that it writes."""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager
from itertools import count
from traceback import extract_tb
from typing import TYPE_CHECKING, Any

from acts import act
from desk import Abandoned, Desk, rows_of
from disturbing import disturbance
from entries import TENANTS
from ledger import ENTRIES, Failure, History, Outcome, Read, Refusal, Transaction
from reading import driven
from sqlalchemy.orm import Session

from tenantguard import tenant_context
from tenantguard.errors import TenantNotSetError

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator
    from threading import Event

    from desk import Entries
    from disturbing import Disturber
    from ledger import Fault
    from sqlalchemy import Connection

COLUMNS = "SELECT id, tenant_id, owner, writer, seq FROM entries"
_ENDS = {"commit": 72, "rollback": 12, "raise": 8, "leave": 8}

_ATTEMPTS = 10

_PLACES = 12
"""How many of the innermost calls to write down of an error that should not have happened."""


class Stop(Exception):  # noqa: N818  (it is no error of the test's)
    """The turn is over before its end."""


class Worker:
    """One client; *disturber* is None for one that nobody disturbs, *over* set to send it home."""

    def __init__(self, number: int, seed: str, disturber: Disturber | None, over: Event) -> None:
        self.number = number
        self.rng = random.Random(f"{seed}/{number}")
        self.disturber = disturber
        self.over = over
        self.history: History = []
        self.done = 0
        self._entries: dict[uuid.UUID, Entries] = {tenant: {} for tenant in TENANTS}
        self._versions = count(1)
        self._numbers = count()

    def tenant(self) -> uuid.UUID:
        return self.rng.choice(TENANTS)

    def attempts(self) -> Iterator[uuid.UUID]:
        """Yield each tenant until it has committed something, ten times at most."""
        for tenant in TENANTS:
            for _ in range(_ATTEMPTS):
                if self._entries[tenant] or self.over.is_set():
                    break
                yield tenant

    # -- transactions ---------------------------------------------------------------------------

    @contextmanager
    def transaction(self, tenant: uuid.UUID, shape: str, *, first: bool = True) -> Iterator[Desk]:
        """Act for *tenant* and keep the record of one transaction.

        Raises:
            Stop: If the turn cannot go on on the same connection.
        """
        record = self._record(tenant, shape)
        self.done += 1
        desk = self._desk(tenant, record, first=first)
        try:
            with tenant_context(tenant):
                yield desk
        except Abandoned:
            raise Stop from None
        except Exception as error:  # noqa: BLE001  (whatever it is has to be written down)
            self.note(record, error)
            raise Stop from None
        except asyncio.CancelledError:
            record.ended = "task cancelled"
            raise
        finally:
            self._settle(desk)
        if desk.soiled:
            raise Stop

    def _record(self, tenant: uuid.UUID | None, shape: str) -> Transaction:
        name = str(tenant) if tenant else None
        record = Transaction(self.number, next(self._numbers), name, shape)
        self.history.append(record)
        return record

    def _desk(self, tenant: uuid.UUID, record: Transaction, *, first: bool) -> Desk:
        own = {entry: list(marks) for entry, marks in self._entries[tenant].items()}
        others = [e for each in TENANTS if each != tenant for e in self._entries[each]]
        return Desk(
            rng=self.rng,
            record=record,
            tenant=tenant,
            entries=own,
            others=others,
            sequence=lambda: next(self._versions),
            disturber=self.disturber,
            first=first,
        )

    def _settle(self, desk: Desk) -> None:
        if desk.record.outcome is Outcome.COMMITTED:
            self._entries[desk.tenant] = desk.entries
        elif desk.record.outcome is Outcome.UNKNOWN:
            for entry in desk.touched:
                self._entries[desk.tenant].pop(entry, None)

    def note(self, record: Transaction, error: BaseException) -> None:
        """Write down why the transaction failed."""
        explained = disturbance(error, calm=self.disturber is None)
        if explained:
            record.ended = explained
        else:
            kind = f"{type(error).__module__}.{type(error).__name__}"
            places = [f"{each.filename}:{each.lineno}" for each in extract_tb(error.__traceback__)]
            way = " > ".join(places[-_PLACES:])
            record.ops.append(Failure(f"{record.shape}: {kind}: {error} ({way})"))

    def stray(self, error: BaseException) -> None:
        """Write down an error from between two transactions."""
        self.note(self._record(None, "between transactions"), error)

    def found(self, fault: Fault) -> None:
        """Write down what is wrong with the crew."""
        self._record(None, "between transactions").ops.append(fault)

    def end(self) -> str:
        return self.rng.choices(list(_ENDS), weights=list(_ENDS.values()))[0]

    # -- without a tenant -----------------------------------------------------------------------

    @contextmanager
    def idle(self) -> Iterator[Transaction]:
        """Keep the record of work that has no tenant."""
        record = self._record(None, "no tenant")
        try:
            yield record
        except Exception as error:  # noqa: BLE001
            self.note(record, error)
            raise Stop from None

    def must_fail(self, record: Transaction, work: Callable[[], Any], attempt: str) -> None:
        """Note whether *work* was refused for want of a tenant."""
        try:
            work()
        except TenantNotSetError:
            record.ops.append(Refusal(attempt, refused=True))
        else:
            record.ops.append(Refusal(attempt, refused=False))

    def nothing(self, connection: Connection, record: Transaction) -> None:
        """Ask on a driver's cursor, where the database alone answers: with nothing."""
        with driven(connection) as cursor:
            cursor.execute(COLUMNS)
            rows = rows_of(ENTRIES, cursor.fetchall())
        record.ops.append(Read(rows, by="cursor without a tenant"))


def perform(target: Session | Connection, desk: Desk) -> None:
    """Run the steps on *target*, a session or a connection."""
    if isinstance(target, Session):
        desk.session = target
    else:
        desk.bare = target
    act(desk)


def committed(desk: Desk, commit: Callable[[], Any]) -> None:
    """Commit, and note how far it came."""
    desk.record.committing = True
    commit()
    desk.record.committed = True


def raw_steps(desk: Desk, execute: Callable[[str], list[Any]]) -> None:
    """Work with SQL text alone, by *execute*, which returns the rows."""
    rng, writer = desk.rng, desk.record.worker
    for _ in range(rng.randint(1, 3)):
        if rng.random() < 0.5:
            found = execute(f"{COLUMNS} WHERE writer = {writer}")
            desk.read(ENTRIES, found, whole=True, by="driver")
        elif desk.entries and (rng.random() < 0.5 or len(desk.entries) > 5):
            entry = rng.choice(sorted(desk.entries))
            desk.deleted(entry)
            execute(f"DELETE FROM entries WHERE id = '{entry}'")
        else:
            row = desk.added(desk.new_id())
            execute(
                "INSERT INTO entries (id, tenant_id, owner, writer, seq) VALUES "
                f"('{row['id']}', '{desk.tenant}', '{row['owner']}', {writer}, {row['seq']})"
            )
