"""A report as text for people and as JSON for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from tenantguard.doctor.checks import CHECKS
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from tenantguard.doctor.report import Checked, Report
    from tenantguard.findings import Finding

__all__ = ["write_json", "write_text"]

_VERSION = 1

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def write_json(report: Report) -> None:
    """Write *report* to stdout as JSON with a version."""
    document = {
        "version": _VERSION,
        "findings": [_entry(each) for each in report.findings],
        "accepted": [{**_entry(each.finding), "reason": each.reason} for each in report.accepted],
        "checked": [
            {"check": each.check, "seen": each.seen, "findings": len(each.findings)}
            for each in report.checked
        ],
        "not_looked_at": [
            {"check": each.check, "reason": each.reason, "chosen": each.chosen}
            for each in report.not_looked_at
        ],
    }
    click.echo(json.dumps(document, indent=2))


def _entry(finding: Finding) -> dict[str, str | None]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "object": finding.object,
        "message": finding.message,
        "mend": finding.mend,
    }


def write_text(report: Report) -> None:
    """Write *report* to stdout, grouped, with a closing line of counts."""
    page = _Page(report)
    for group in dict.fromkeys(check.group for check in CHECKS):
        page.line(group.capitalize(), style="bold")
        for check in CHECKS:
            if check.group == group:
                page.check(check.id)
    page.end()


class _Page:
    """The report as lines, with colour on a terminal only, and without marks where they fail."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._console = Console(highlight=False)
        if not self._console.is_terminal:
            self._console.width = _NO_TERMINAL
        self._plain = not (sys.stdout.encoding or "").lower().startswith("utf")

    def line(self, text: str, *, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)

    def check(self, name: str) -> None:
        missed = [each for each in self._report.not_looked_at if each.check == name]
        for checked in self._report.checked:
            if checked.check == name:
                self._checked(checked, holds=not (checked.findings or missed))
        for each in missed:
            style = "" if each.chosen else "red"
            self.line(f"  ? {name}: not looked at. {each.reason}", style=style)

    def _checked(self, checked: Checked, *, holds: bool) -> None:
        mark = self._mark("✓", "ok") if holds else "-"
        self.line(f"  {mark} {checked.check}: {checked.seen}", style="green" if holds else "")
        by_mend: dict[str, list[Finding]] = {}
        for finding in checked.findings:
            by_mend.setdefault(finding.mend, []).append(finding)
        for mend, findings in by_mend.items():
            self._group(mend, findings)

    def end(self) -> None:
        found = self._report.findings
        errors = sum(each.severity is Severity.ERROR for each in found)
        missed = sum(not each.chosen for each in self._report.not_looked_at)
        left = sum(each.chosen for each in self._report.not_looked_at)
        counts = f"{_count(errors, 'error')}, {_count(len(found) - errors, 'warning')}"
        counts += f", {len(self._report.accepted)} accepted" if self._report.accepted else ""
        self.line(f"{counts}; {missed} could not be looked at, {left} left out.", style="bold")

    def _group(self, mend: str, findings: list[Finding]) -> None:
        reasons = {each.finding: each.reason for each in self._report.accepted}
        for finding in findings:
            if finding in reasons:
                self.line(f"    accepted {finding.code}: {finding.message} ({reasons[finding]})")
            else:
                self._finding(finding)
        open_ones = sum(finding not in reasons for finding in findings)
        if open_ones:
            self.line(f"      mend{'' if open_ones == 1 else f' these {open_ones}'}: {mend}")

    def _finding(self, finding: Finding) -> None:
        mark = self._mark("✗", "x") if finding.severity is Severity.ERROR else "!"
        style = "red" if finding.severity is Severity.ERROR else "yellow"
        self.line(
            f"    {mark} {finding.severity.value} {finding.code}: {finding.message}", style=style
        )

    def _mark(self, mark: str, plain: str) -> str:
        return plain if self._plain else mark
