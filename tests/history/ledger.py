"""What a worker writes down: each transaction, what it read and wrote, and how it ended."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

ENTRIES = "entries"
MARKS = "marks"
TABLES = (ENTRIES, MARKS)


class Outcome(Enum):
    COMMITTED = "committed"
    ROLLED_BACK = "rolled back"
    UNKNOWN = "unknown"  # the connection was lost while COMMIT was under way


class Row(NamedTuple):
    """A row as it was read. *owner* is a plain value: the writer's own word for its tenant."""

    table: str
    id: str
    tenant: str
    owner: str
    writer: int
    seq: int


class Write(NamedTuple):
    """A row was given the version *seq*, or deleted: None."""

    table: str
    id: str
    seq: int | None


class Read(NamedTuple):
    """Rows were read; those of the table *whole* are all that the worker has for the tenant."""

    rows: tuple[Row, ...]
    whole: str | None = None
    by: str = ""


class Look(NamedTuple):
    """What the transaction found on its connection that an earlier check-out had left there."""

    leftovers: tuple[str, ...]


class Refusal(NamedTuple):
    """Something had to be refused, and was or was not."""

    attempt: str
    refused: bool


class Failure(NamedTuple):
    """An error that nobody's disturbance explains."""

    text: str


class Fault(NamedTuple):
    """What is wrong with the crew, not with a transaction of its own."""

    kind: str
    text: str


class Mark(Enum):
    """A savepoint's life."""

    SET = "set"
    RELEASED = "released"
    UNDONE = "undone"


Op = Write | Read | Look | Refusal | Failure | Fault | Mark


@dataclass(slots=True)
class Transaction:
    """One transaction of one worker; without a *tenant* it is work that must come to nothing.

    Attributes:
        ended: The disturbance or the decision that ended it; empty for a plain end.
    """

    worker: int
    number: int
    tenant: str | None
    shape: str = ""
    ops: list[Op] = field(default_factory=list)
    committing: bool = False
    committed: bool = False
    ended: str = ""

    @property
    def outcome(self) -> Outcome:
        if self.committed:
            return Outcome.COMMITTED
        return Outcome.UNKNOWN if self.committing else Outcome.ROLLED_BACK

    def reads(self) -> list[Row]:
        return [row for op in self.ops if isinstance(op, Read) for row in op.rows]

    def writes(self) -> list[Write]:
        return [op for op in self.ops if isinstance(op, Write)]


History = list[Transaction]
"""One worker's transactions, in their order."""


def totals(histories: list[History]) -> Counter[str]:
    """Count what the transactions of tenants did and how they ended."""
    count: Counter[str] = Counter()
    for transaction in (each for history in histories for each in history if each.tenant):
        count["transactions"] += 1
        count[transaction.outcome.value] += 1
        count[transaction.ended] += bool(transaction.ended)
        count["rows read"] += len(transaction.reads())
        count["rows written"] += len(transaction.writes())
        count["refusals"] += sum(isinstance(op, Refusal) for op in transaction.ops)
    return count
