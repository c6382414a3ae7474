"""What came of proving: table by table, and as the result that reports are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal

from tenantguard.findings import Finding, Result, Unseen

if TYPE_CHECKING:
    from tenantguard.prove.trial import Tried

__all__ = ["Proof", "Samples", "State", "TableProof", "summed"]

Samples = Literal["invent", "existing"]


class State(Enum):
    """What is known of a table."""

    PROVEN = "proven"
    BROKEN = "broken"
    NOT_PROVEN = "not proven"
    APPLICATION_ONLY = "application only"


@dataclass(frozen=True, slots=True)
class TableProof:
    """What came of one table.

    Attributes:
        table: Its name with its schema.
        state: What is known of it.
        held: The probes that held, each with a negative control that went red.
        left_out: The probes that cannot be tried there, with the reason.
        findings: What the application could do.
        reasons: Why it is not proven, or application only.
        seconds: How long it took.
    """

    table: str
    state: State
    held: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Proof:
    """Every table that was asked for, and what is wrong with the connections themselves."""

    tables: tuple[TableProof, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def result(self) -> Result:
        """The same as what every report is made of."""
        return Result(
            tuple(each.table for each in self.tables if each.held or each.findings),
            self.findings + tuple(found for each in self.tables for found in each.findings),
            tuple(
                Unseen(each.table, reason)
                for each in self.tables
                if each.state is not State.APPLICATION_ONLY
                for reason in each.reasons
            ),
        )


def summed(table: str, tried: Tried | None, reasons: tuple[str, ...], seconds: float) -> TableProof:
    """Return what follows from the probes of *table*; one doubt is enough not to be proven."""
    if tried is None:
        return TableProof(table, State.NOT_PROVEN, reasons=reasons, seconds=seconds)
    doubts = (*reasons, *tried.doubts)
    if not (tried.held or tried.findings or doubts):
        doubts = ("The application can do nothing with it, so nothing was tried.",)
    state = State.NOT_PROVEN if doubts else State.PROVEN
    return TableProof(
        table,
        State.BROKEN if tried.findings else state,
        tuple(tried.held),
        tried.left_out,
        tuple(tried.findings),
        doubts,
        seconds,
    )
