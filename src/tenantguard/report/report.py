"""What a command found, what of it was accepted, and where each finding stands in the code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.findings import Severity
from tenantguard.report.fingerprints import fingerprints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date

    from tenantguard.findings import Finding, Result

__all__ = ["ANYWHERE", "Accepted", "Lapsed", "Place", "Report", "nowhere"]


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, which is named from the root of the repository, with slashes."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


ANYWHERE = Place("pyproject.toml", 1)
"""Where a finding points that is about no model and no guard, in forms that need a line."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finding that does not count, and why: an exemption's reason, or that the baseline has it.

    Attributes:
        finding: What was found.
        by: "exemption" or "baseline".
        reason: Somebody's own words, or empty for the baseline.
        until: The last day of the exemption, if it ends.
    """

    finding: Finding
    by: str
    reason: str = ""
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Lapsed:
    """An exemption or an entry of the baseline that accepts nothing any more, and why."""

    code: str
    object: str | None
    by: str
    why: str

    def __str__(self) -> str:
        at = f" at {self.object}" if self.object else ""
        return f"{self.by} of {self.code}{at} {self.why}"


def nowhere(_finding: Finding) -> Place | None:
    """Return that a finding has no place in the code."""
    return None


@dataclass(frozen=True, slots=True)
class Report:
    """What *command* looked at and found.

    Attributes:
        command: The words after `tenantguard`, such as "rls check".
        result: What was looked at, and the findings that count.
        accepted: The findings that do not, each with its reason.
        lapsed: What was accepted once and is no longer.
        unit: What the command looks at one by one.
        rules: The severity of every rule that was looked for, by its id.
        place: Returns where the model stands that a finding is about.
        found: All findings, accepted or not, in the order in which they were found.
    """

    command: str
    result: Result
    accepted: tuple[Accepted, ...] = ()
    lapsed: tuple[Lapsed, ...] = ()
    unit: str = "rule"
    rules: Mapping[str, Severity] = field(default_factory=dict)
    place: Callable[[Finding], Place | None] = nowhere
    found: tuple[Finding, ...] = ()

    @property
    def fingerprints(self) -> dict[Finding, str]:
        """What tells each finding from every other, accepted or not."""
        accepted = (each.finding for each in self.accepted)
        return fingerprints(self.found or [*self.result.findings, *accepted])

    @property
    def complete(self) -> bool:
        """Whether everything was looked at, and that was something."""
        return bool(self.result.looked) and not self.result.unseen

    @property
    def exit_code(self) -> int:
        """2 if something could not be looked at, which counts for more, 1 on findings, else 0."""
        if not self.complete:
            return 2
        return 1 if self.result.findings else 0

    def count(self, severity: Severity) -> int:
        """Return how many findings of *severity* count."""
        return sum(each.severity is severity for each in self.result.findings)

    @property
    def counts(self) -> str:
        """The closing line."""
        looked, unseen = len(self.result.looked), len(self.result.unseen)
        parts = [
            _counted(self.count(Severity.ERROR), "error"),
            _counted(self.count(Severity.WARNING), "warning"),
            *([f"{len(self.accepted)} accepted"] if self.accepted else []),
        ]
        seen = f"{_counted(looked, self.unit)} looked at"
        return f"{seen}: {', '.join(parts)}; {unseen} could not be looked at."


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
