"""Which findings count: not those that are exempt, nor those that the baseline has.

Both are always listed, and so is what accepts nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING

from tenantguard.report.fingerprints import fingerprints
from tenantguard.report.report import Accepted, Lapsed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.findings import Finding, Result
    from tenantguard.report.baseline import Known
    from tenantguard.report.exemptions import Exemption
    from tenantguard.report.report import Report

__all__ = ["Acceptance"]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What is accepted on *today*."""

    exemptions: tuple[Exemption, ...] = ()
    baseline: tuple[Known, ...] = ()
    today: date = field(default_factory=date.today)

    def of(self, report: Report) -> Report:
        """Return *report* with the findings that count, those that do not, and what lapsed."""
        result = report.result
        marks = fingerprints(result.findings)
        accepted = {
            finding: found
            for finding in result.findings
            if (found := self._accepted(finding, marks[finding]))
        }
        counting = tuple(each for each in result.findings if each not in accepted)
        return replace(
            report,
            result=replace(result, findings=counting),
            accepted=tuple(accepted.values()),
            lapsed=tuple(self._lapsed(result, marks)),
            found=result.findings,
        )

    def _accepted(self, finding: Finding, mark: str) -> Accepted | None:
        for each in self.exemptions:
            if each.fits(finding) and not each.ended(self.today):
                return Accepted(finding, "exemption", each.reason, each.until)
        if any(each.fingerprint == mark for each in self.baseline):
            return Accepted(finding, "baseline")
        return None

    def _lapsed(self, result: Result, marks: dict[Finding, str]) -> Iterator[Lapsed]:
        for each in self.exemptions:
            if not any(map(each.fits, result.findings)):
                # Where its rule could not look, nobody knows.
                if each.rule in result.looked:
                    yield Lapsed(each.rule, each.object, "exemption", "accepts nothing: remove it")
            elif each.ended(self.today):
                why = f"ended on {each.until}: what it accepted counts again"
                yield Lapsed(each.rule, each.object, "exemption", why)
        found = set(marks.values())
        for known in self.baseline:
            if known.fingerprint not in found and known.code in result.looked:
                why = "no longer occurs: write the baseline anew"
                yield Lapsed(known.code, known.object, "baseline", why)
