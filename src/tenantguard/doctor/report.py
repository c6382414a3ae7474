"""What an examination found, what it saw, and where it could not look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantguard.findings import Finding

__all__ = ["Accepted", "Checked", "NotLookedAt", "Report"]


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
