"""A report as Markdown, for a comment on a pull request or a job's summary."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Report

__all__ = ["escaped", "markdown_text", "within"]

_LIMIT = 60_000
"""Characters; GitHub refuses a comment of more than 65,536."""

_MARKS = re.compile(r"([\\`*_\[\]<>|~#&])")


def markdown_text(report: Report) -> str:
    """Return *report* as Markdown; the first line says of what, so that a comment can be found."""
    lines = [
        *(_finding(report, each) for each in report.result.findings),
        *(
            f"- **not looked at** {escaped(each.what)}: {escaped(each.reason)}"
            for each in report.result.unseen
        ),
        *(
            f"- accepted {escaped(each.finding.code)}: {escaped(each.finding.message)} "
            f"({escaped(each.reason or each.by)})"
            for each in report.accepted
        ),
        *(f"- note: {escaped(str(each))}" for each in report.lapsed),
    ]
    return within(f"### tenantguard {report.command}", lines, escaped(report.counts))


def within(title: str, lines: list[str], end: str) -> str:
    """Return a document that fits into a comment, and says how many of *lines* it leaves out."""
    taken: list[str] = []
    room = _LIMIT - len(title) - len(end)
    for number, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            taken.append(f"- and {len(lines) - number} more, which the command's text shows")
            break
        taken.append(line)
    body = "\n".join(taken)
    return "\n\n".join(filter(None, (title, body, end))) + "\n"


def escaped(text: str) -> str:
    """Return *text* as what it is: no marks, no links, no mention of a user."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _MARKS.sub(r"\\\1", line).replace("@", "@\N{ZERO WIDTH SPACE}")


def _finding(report: Report, finding: Finding) -> str:
    place = report.place(finding)
    at = f" in {escaped(str(place))}" if place else ""
    return (
        f"- **{finding.severity.value}** {escaped(finding.code)}{at}: {escaped(finding.message)}\n"
        f"  Mend: {escaped(finding.mend)}"
    )
