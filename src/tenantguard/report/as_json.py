"""A report for programs, as `report-1.schema.json` describes it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Place, Report

__all__ = ["VERSION", "json_text"]

VERSION = 1
"""Of the document's form; a program need not look further if it knows another one."""


def json_text(report: Report) -> str:
    """Return *report* as JSON."""
    result = report.result
    marks = report.fingerprints

    def entry(finding: Finding) -> dict[str, Any]:
        return _entry(finding, report.place(finding), marks[finding])

    document = {
        "version": VERSION,
        "command": report.command,
        "complete": report.complete,
        "looked": list(result.looked),
        "findings": [entry(each) for each in result.findings],
        "accepted": [
            {
                **entry(each.finding),
                "by": each.by,
                "reason": each.reason or None,
                "until": each.until.isoformat() if each.until else None,
            }
            for each in report.accepted
        ],
        "lapsed": [
            {"code": each.code, "object": each.object, "by": each.by, "why": each.why}
            for each in report.lapsed
        ],
        "unseen": [{"what": each.what, "reason": each.reason} for each in result.unseen],
    }
    return json.dumps(document, indent=2) + "\n"


def _entry(finding: Finding, place: Place | None, mark: str) -> dict[str, Any]:
    return {
        "code": finding.code,
        "severity": finding.severity.value,
        "object": finding.object,
        "column": finding.column,
        "message": finding.message,
        "mend": finding.mend,
        "place": None if place is None else {"file": place.file, "line": place.line},
        "fingerprint": mark,
    }
