"""The checker: a history that holds passes, and each fault that is planted in it is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from ledger import (
    ENTRIES,
    Failure,
    Fault,
    History,
    Look,
    Mark,
    Op,
    Outcome,
    Read,
    Refusal,
    Row,
    Transaction,
    Write,
    totals,
)
from verdict import check

if TYPE_CHECKING:
    from collections.abc import Callable

A, B = "tenant a", "tenant b"
FIRST, SECOND = 1, 2


def row(entry: str, tenant: str, writer: int, seq: int, owner: str = "") -> Row:
    return Row(ENTRIES, entry, tenant, owner or tenant, writer, seq)


def write(entry: str, seq: int | None) -> Write:
    return Write(ENTRIES, entry, seq)


def read(*rows: Row, whole: bool = False) -> Read:
    return Read(rows, ENTRIES if whole else None, "test")


def transaction(
    worker: int, tenant: str | None, *ops: Op, outcome: Outcome = Outcome.COMMITTED
) -> Transaction:
    made = Transaction(worker, 0, tenant, ops=list(ops))
    made.committing = outcome is not Outcome.ROLLED_BACK
    made.committed = outcome is Outcome.COMMITTED
    return made


class Told:
    """A history of two workers that holds, to plant faults in."""

    def __init__(self) -> None:
        self.first: History = [
            transaction(FIRST, A, write("x", 1), write("y", 2)),
            transaction(FIRST, A, read(row("x", A, FIRST, 1), row("y", A, FIRST, 2), whole=True)),
            transaction(FIRST, A, write("x", 3), write("y", None)),
            transaction(FIRST, A, write("x", 4), outcome=Outcome.ROLLED_BACK),
            transaction(FIRST, B, write("z", 5), Mark.SET, write("z", 6), Mark.UNDONE),
        ]
        self.second: History = [
            transaction(SECOND, A, read(row("x", A, FIRST, 3))),
            transaction(SECOND, B, write("w", 1), Mark.SET, write("w", 2), Mark.RELEASED),
        ]
        self.final = [row("x", A, FIRST, 3), row("z", B, FIRST, 5), row("w", B, SECOND, 2)]

    def kinds(self) -> set[str]:
        return {finding.kind for finding in check([self.first, self.second], self.final)}

    def reads(self, *rows: Row, tenant: str | None = A) -> None:
        """Let the second worker read *rows* as *tenant*."""
        self.second.append(transaction(SECOND, tenant, read(*rows)))

    def holds(self, *rows: Row) -> None:
        """Let the database hold *rows* in the end."""
        self.final = list(rows)


def test_a_history_that_holds_has_no_findings() -> None:
    """Committed rows are there, in their last version, and rolled back ones are not."""
    assert Told().kinds() == set()


FAULTS: dict[str, tuple[str, Callable[[Told], object]]] = {
    "another tenant's row is read": ("crossing", lambda told: told.reads(row("z", B, FIRST, 5))),
    "a row is read under a wrong tenant": (
        "crossing",
        lambda told: told.reads(row("z", A, FIRST, 5, owner=B)),
    ),
    "a row is read without a tenant": (
        "crossing",
        lambda told: told.reads(row("x", A, FIRST, 3), tenant=None),
    ),
    "a row is written under a wrong tenant": (
        "written across",
        lambda told: told.holds(
            row("x", A, FIRST, 3), row("z", A, FIRST, 5, owner=B), row("w", B, SECOND, 2)
        ),
    ),
    "a row moves to another tenant, whole": (
        "written across",
        lambda told: told.holds(
            row("x", A, FIRST, 3), row("z", A, FIRST, 5), row("w", B, SECOND, 2)
        ),
    ),
    "a committed row is lost": (
        "lost",
        lambda told: told.holds(row("x", A, FIRST, 3), row("w", B, SECOND, 2)),
    ),
    "a committed change is lost": (
        "lost",
        lambda told: told.holds(
            row("x", A, FIRST, 1), row("z", B, FIRST, 5), row("w", B, SECOND, 2)
        ),
    ),
    "a committed row is not read": (
        "lost",
        lambda told: told.first.insert(1, transaction(FIRST, A, read(whole=True))),
    ),
    "a rolled back change is there": (
        "resurrected",
        lambda told: told.holds(
            row("x", A, FIRST, 4), row("z", B, FIRST, 5), row("w", B, SECOND, 2)
        ),
    ),
    "a rolled back change is read": (
        "resurrected",
        lambda told: told.reads(row("x", A, FIRST, 4)),
    ),
    "a change that a savepoint took back is there": (
        "resurrected",
        lambda told: told.holds(
            row("x", A, FIRST, 3), row("z", B, FIRST, 6), row("w", B, SECOND, 2)
        ),
    ),
    "a change that a savepoint took back is read": (
        "resurrected",
        lambda told: told.reads(row("z", B, FIRST, 6), tenant=B),
    ),
    "a deleted row is read by its writer": (
        "resurrected",
        lambda told: told.first.append(
            transaction(FIRST, A, read(row("x", A, FIRST, 3), row("y", A, FIRST, 2), whole=True))
        ),
    ),
    "a row that nobody wrote is there": (
        "never written",
        lambda told: told.final.append(row("v", A, FIRST, 9)),
    ),
    "a row that nobody wrote is read": (
        "never written",
        lambda told: told.reads(row("v", A, FIRST, 9)),
    ),
    "something was left on the connection": (
        "leftover",
        lambda told: told.second.append(transaction(SECOND, A, Look(("search_path",)))),
    ),
    "something was not refused": (
        "not refused",
        lambda told: told.second.append(transaction(SECOND, A, Refusal("nested", refused=False))),
    ),
    "an error that nothing explains": (
        "broken",
        lambda told: told.second.append(transaction(SECOND, A, Failure("error"))),
    ),
    "a crew that stands still": (
        "stalled",
        lambda told: told.second.append(transaction(SECOND, None, Fault("stalled", "pool"))),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str) -> None:
    """The checker names the fault, whatever else it says of its consequences."""
    kind, plant = FAULTS[fault]
    told = Told()
    plant(told)
    assert kind in told.kinds()


UNKNOWN = {
    "before it": ([row("x", A, FIRST, 1), row("y", A, FIRST, 2)], set[str]()),
    "after it": ([row("x", A, FIRST, 3)], set[str]()),
    "one row of it": ([row("x", A, FIRST, 3), row("y", A, FIRST, 2)], {"torn"}),
    "neither": ([row("x", A, FIRST, 1)], {"torn"}),
}


@pytest.mark.parametrize("there", UNKNOWN)
def test_an_unknown_outcome_is_all_or_nothing(there: str) -> None:
    """When COMMIT was under way at the disconnect, all of it may be there, or none."""
    final, expected = UNKNOWN[there]
    history = [
        transaction(FIRST, A, write("x", 1), write("y", 2)),
        transaction(FIRST, A, write("x", 3), write("y", None), outcome=Outcome.UNKNOWN),
    ]
    assert {finding.kind for finding in check([history], final)} == expected


def test_an_unknown_outcome_that_was_read_is_committed() -> None:
    """What others have seen of it must not go again."""
    history = [transaction(FIRST, A, write("x", 1), outcome=Outcome.UNKNOWN)]
    reader = [transaction(SECOND, A, read(row("x", A, FIRST, 1)))]
    assert [finding.kind for finding in check([history, reader], [])] == ["lost"]
    assert check([history, reader], [row("x", A, FIRST, 1)]) == []


def test_a_transaction_reads_what_it_has_written() -> None:
    """Before its end, and after a savepoint was undone what was there before."""
    ops = (
        *(write("x", 1), read(row("x", A, FIRST, 1), whole=True)),
        *(Mark.SET, write("x", 2), read(row("x", A, FIRST, 2), whole=True), Mark.UNDONE),
        read(row("x", A, FIRST, 1), whole=True),
    )
    assert check([[transaction(FIRST, A, *ops)]], [row("x", A, FIRST, 1)]) == []


def test_totals_count_the_transactions_of_tenants() -> None:
    """Work without a tenant is no transaction of anybody's."""
    told = Told()
    told.second.append(transaction(SECOND, None, read()))
    count = totals([told.first, told.second])
    assert (count["transactions"], count["committed"], count["rolled back"]) == (7, 6, 1)
    assert (count["rows written"], count["rows read"]) == (9, 3)
