"""What an examination found, what it saw, and where it could not look."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantguard.rls.finding import Finding as RlsFinding

__all__ = ["Accepted", "Checked", "Finding", "NotLookedAt", "Report", "Severity", "as_error"]


class Severity(Enum):
    """An *error* keeps tenants from being apart; a *warning* weakens what stands around that."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. It names roles, tables, constraints and settings, and never a value or a tenant.

    Attributes:
        code: Stable, such as "key-crossed".
        severity: How bad it is.
        object: The table, role or engine it is about, or None.
        message: What was found.
        mend: The command, the SQL or the line of code that mends it.
    """

    code: str
    severity: Severity
    object: str | None
    message: str
    mend: str


def as_error(found: RlsFinding) -> Finding:
    """Return what keeps the second lock from holding as an error of the report."""
    return Finding(found.code, Severity.ERROR, found.table, found.message, found.mend)


@dataclass(frozen=True, slots=True)
class Checked:
    """A check that looked: what it saw, and how many findings that gave."""

    check: str
    seen: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class NotLookedAt:
    """What a check did not look at. *chosen*: because it was asked not to."""

    check: str
    reason: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """A warning that somebody has accepted, with their reason."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an examination, in the order of its checks."""

    checked: tuple[Checked, ...]
    not_looked_at: tuple[NotLookedAt, ...]
    acceptances: Mapping[str, str] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """Every finding that nobody has accepted. An error cannot be accepted."""
        return [each for each in self._all() if not self._is_accepted(each)]

    @property
    def accepted(self) -> list[Accepted]:
        """The warnings that were accepted."""
        return [
            Accepted(each, self.acceptances[each.code])
            for each in self._all()
            if self._is_accepted(each)
        ]

    @property
    def complete(self) -> bool:
        """Whether everything was looked at that was asked for."""
        return all(each.chosen for each in self.not_looked_at)

    def _all(self) -> list[Finding]:
        return [finding for each in self.checked for finding in each.findings]

    def _is_accepted(self, finding: Finding) -> bool:
        return finding.severity is Severity.WARNING and finding.code in self.acceptances
