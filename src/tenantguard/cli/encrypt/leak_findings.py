"""What is wrong, or worth knowing, about what indexes and lengths of encrypted columns tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.telling import FEW, Telling
from tenantguard.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column

    from tenantguard.encrypt.leaks import Leak, Lengths

__all__ = ["FREQUENT", "LENGTHS", "Report", "findings", "name_of", "notes"]

FREQUENT = "frequencies-tell"
LENGTHS = "lengths-tell"


@dataclass(slots=True, repr=False)
class Report:
    """What was looked at.

    Attributes:
        exact: Whether rows were counted, or statistics asked.
        leaks: By search of a column.
        lengths: By column.
        unknown: Columns of which nothing is known, and why.
    """

    exact: bool
    leaks: list[Leak] = field(default_factory=list)
    lengths: list[Lengths] = field(default_factory=list)
    unknown: list[tuple[Column[Any], str]] = field(default_factory=list)


def findings(report: Report) -> list[Finding]:
    """Return what lacks a reason: searches whose values are told by their frequencies."""
    return [
        Finding(
            FREQUENT,
            name_of(leak.of.column),
            _frequent(leak),
            "Leave search= out; search by something with more different values; store NULL where a "
            "placeholder is the most frequent value; or say in "
            f"{type(leak.of.search).__name__}(few_values='…') why it is searched all the same.",
        )
        for leak in report.leaks
        if leak.telling is Telling.FREQUENCIES and leak.of.reason is None
    ]


def notes(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield code, column and text of what is known to leak, or could be hidden easily."""
    for leak in report.leaks:
        if leak.telling is Telling.FREQUENCIES and leak.of.reason is not None:
            text = f"{_frequent(leak)} The stated reason: {leak.of.reason}"
            yield FREQUENT, name_of(leak.of.column), text
    for each in report.lengths:
        if each.tell:
            yield LENGTHS, name_of(each.column), _told_by_length(each)


def _frequent(leak: Leak) -> str:
    which = "The blind index" if leak.of.name is None else f"The blind index {leak.of.name!r}"
    about, whose = "", f"the values of {leak.told or 0:,} of {leak.tenants:,} tenants"
    if leak.told is None:
        about, whose = "about ", "values"
    return (
        f"{which} has {about}{leak.groups:,} different values in {about}{leak.rows:,} rows, the "
        f"most frequent in {about}{leak.share:.1%} of its tenant's. How often they occur tells "
        f"{whose} to whoever reads the database."
    )


def _told_by_length(each: Lengths) -> str:
    if each.number is not None and each.number <= FEW:
        return (
            f"Its values are stored in {each.number:,} different lengths, which can stand for "
            "values. padding=16 stores texts of up to 14 bytes alike; then run `tenantguard "
            "encrypt rewrite`."
        )
    return (
        f"Its rarest stored length has {each.rarest:,} rows, which whoever knows about how long a "
        "value is can tell. padding='pow2' leaves the order of magnitude; then run `tenantguard "
        "encrypt rewrite`."
    )


def name_of(column: Column[Any]) -> str:
    """Return the table's and the column's name."""
    return f"{column.table.fullname}.{column.name}"
