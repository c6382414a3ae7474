"""Counting rows table by table: what was counted, what was found, what could not be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.doctor.subject import Look, reason_of
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tenantguard.doctor.eyes import Eyes
    from tenantguard.doctor.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.step import Target

__all__ = ["Count", "tally"]


@dataclass(frozen=True, slots=True)
class Count:
    """One question that answers with numbers, the first of which is how many rows it saw.

    Attributes:
        what: What is counted, for progress and messages.
        targets: The tables that have to be seen whole.
        question: SQL that answers with a JSON array of numbers.
        judge: Returns the findings that the other numbers give.
    """

    what: str
    targets: frozenset[Target]
    question: str
    judge: Callable[..., Iterable[Finding]]


def tally(subject: Subject, eyes: Eyes, counts: Sequence[Count], *, unit: str, holds: str) -> Look:
    """Ask each of *counts* in a transaction of its own, and return what that gave together."""
    looked_at, rows, missed = 0, 0, eyes.missed()
    findings: list[Finding] = []
    for count in counts:
        if eyes.hidden & count.targets:
            continue
        subject.progress(f"rows of {count.what}")
        try:
            with eyes.transaction() as run:
                seen, *numbers = ask(run, count.question)
        except Exception as error:  # noqa: BLE001  (any driver's error, named by its class)
            missed.append(f"{count.what}: {reason_of(error)}")
            continue
        looked_at += 1
        rows += seen
        findings += count.judge(*numbers)
    praise = "" if findings or missed else f", {holds}"
    return Look(f"{looked_at} of {len(counts)} {unit}, {rows:,} rows{praise}", findings, missed)
