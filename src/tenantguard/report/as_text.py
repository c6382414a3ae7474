"""A report for people: with colour on a terminal only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tenantguard.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from tenantguard.findings import Finding
    from tenantguard.report.report import Accepted, Report

__all__ = ["text_lines", "write_text"]

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow"}


def write_text(report: Report, stream: IO[str] | None = None) -> None:
    """Write *report* to *stream*, by default to stdout."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        console.width = _NO_TERMINAL
    for line, style in text_lines(report):
        console.print(Text(line, style=style), soft_wrap=True)


def text_lines(report: Report) -> Iterator[tuple[str, str]]:
    """Yield each line with its style."""
    for finding in report.result.findings:
        style = _STYLES[finding.severity]
        yield f"{_head(report, finding)}", style
        yield f"    {_line(finding.message)}", style
        yield f"    mend: {_line(finding.mend)}", ""
    for accepted in report.accepted:
        yield f"accepted {_head(report, accepted.finding)}: {_why(accepted)}", ""
    for lapsed in report.lapsed:
        yield f"note: {_line(str(lapsed))}", "yellow"
    for unseen in report.result.unseen:
        yield f"? {_line(unseen.what)}: not looked at. {_line(unseen.reason)}", "red"
    yield report.counts, "bold"


def _head(report: Report, finding: Finding) -> str:
    place = report.place(finding)
    of = ".".join(filter(None, (finding.object, finding.column)))
    words = (finding.severity.value, finding.code, of and f"at {of}", place and f"({place})")
    return _line(" ".join(str(each) for each in words if each))


def _why(accepted: Accepted) -> str:
    if not accepted.reason:
        return f"in the {accepted.by}"
    until = f", until {accepted.until}" if accepted.until else ""
    return f"{_line(accepted.reason)}{until}"


def _line(text: str) -> str:
    """Return *text* as one line without control characters: a name may hold any."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
