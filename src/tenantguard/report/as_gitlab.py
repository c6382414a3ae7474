"""A report as GitLab's Code Quality document, which marks a merge request's lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tenantguard.findings import Severity
from tenantguard.report.report import ANYWHERE

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Report

__all__ = ["gitlab_text"]

_SEVERITIES = {Severity.ERROR: "critical", Severity.WARNING: "major"}


def gitlab_text(report: Report) -> str:
    """Return *report* as JSON; what could not be looked at is a blocker."""
    marks = report.fingerprints
    listed = [_entry(report, each, marks[each]) for each in report.result.findings]
    listed += [
        _issue(each.what, f"Not looked at. {each.reason}", "blocker", f"unseen:{each.what}")
        for each in report.result.unseen
    ]
    return json.dumps(listed, indent=2) + "\n"


def _entry(report: Report, finding: Finding, mark: str) -> dict[str, Any]:
    place = report.place(finding) or ANYWHERE
    severity = _SEVERITIES[finding.severity]
    return _issue(finding.code, str(finding), severity, mark, place.file, place.line)


def _issue(  # noqa: PLR0917  (one form, two callers)
    name: str,
    description: str,
    severity: str,
    mark: str,
    file: str = ANYWHERE.file,
    line: int = ANYWHERE.line,
) -> dict[str, Any]:
    return {
        "description": description,
        "check_name": name,
        "fingerprint": mark,
        "severity": severity,
        "location": {"path": file, "lines": {"begin": line}},
    }
