"""A report as GitHub's workflow commands, which become annotations of a pull request's lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Report

__all__ = ["github_text"]


def github_text(report: Report) -> str:
    """Return a command a line: `::error file=…,line=…,title=…::…`, and the counts at the end."""
    lines = [_finding(report, each) for each in report.result.findings]
    lines += [
        _command("error", f"{each.what}: not looked at. {each.reason}", title="could not look")
        for each in report.result.unseen
    ]
    lines += [
        _command("notice", f"{each.finding.message} ({each.reason or each.by})", title="accepted")
        for each in report.accepted
    ]
    lines += [_command("warning", str(each), title="lapsed") for each in report.lapsed]
    return "".join(f"{line}\n" for line in [*lines, report.counts])


def _finding(report: Report, finding: Finding) -> str:
    place = report.place(finding)
    at = {} if place is None else {"file": place.file, "line": str(place.line)}
    return _command(finding.severity.value, str(finding), **at, title=finding.code)


def _command(name: str, message: str, **properties: str) -> str:
    listed = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {listed}::{_data(message)}"


def _data(text: str) -> str:
    """Escape as GitHub's own toolkit does, the per cent sign first; no other control character."""
    text = "".join(c if c.isprintable() or c in "\r\n" else " " for c in text)
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
