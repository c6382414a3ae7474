"""A report as SARIF 2.1.0, for GitHub's code scanning and other consumers.

GitHub refuses the whole file if one result has no file, so that what no model is about points at
the project's own file. It takes no notice of suppressions: what is accepted is left out. It refuses
a run that says it was not successful, and so leaves the alerts of the last complete one as they
are.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tenantguard.findings import Severity
from tenantguard.report.pages import documentation, page
from tenantguard.report.report import ANYWHERE

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Report

__all__ = ["sarif_text"]

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"

_SECURITY_SEVERITY = {Severity.ERROR: "8.0", Severity.WARNING: "5.0"}
"""What GitHub shows as high and medium; on the scale of CVSS, though no CVE's score."""


def sarif_text(report: Report) -> str:
    """Return *report* as one run of SARIF."""
    rules = _rules(report)
    numbers = {rule: number for number, rule in enumerate(rules)}
    marks = report.fingerprints
    run = {
        "tool": {
            "driver": {
                "name": "tenantguard",
                "semanticVersion": version("tenantguard"),
                "rules": [_described(rule, severity) for rule, severity in rules.items()],
            }
        },
        "automationDetails": {"id": f"tenantguard/{report.command.replace(' ', '-')}/"},
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(report, each, numbers[each.code], marks[each])
            for each in report.result.findings
        ],
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rules(report: Report) -> dict[str, Severity]:
    rules = dict(report.rules)
    for each in report.result.findings:
        if rules.get(each.code) is not Severity.ERROR:
            rules[each.code] = each.severity
    return rules


def _described(rule: str, severity: Severity) -> dict[str, Any]:
    about, docs = page(rule), documentation()
    described: dict[str, Any] = {
        "id": rule,
        "defaultConfiguration": {"level": severity.value},
        "properties": {
            "tags": ["security", "tenant-isolation"],
            "security-severity": _SECURITY_SEVERITY[severity],
        },
    }
    summary = about.summary if about else rule
    described["shortDescription"] = described["fullDescription"] = {"text": summary}
    if about:
        described["help"] = {"text": about.text, "markdown": about.markdown}
    if docs and about:
        described["helpUri"] = f"{docs}/rules/{rule}/"
    return described


def _invocation(report: Report) -> dict[str, Any]:
    notifications = [
        {"level": "error", "message": {"text": f"{each.what}: not looked at. {each.reason}"}}
        for each in report.result.unseen
    ]
    notifications += [
        {"level": "note", "message": {"text": f"accepted {each.finding.code}: {each.reason}"}}
        for each in report.accepted
    ]
    notifications += [
        {"level": "warning", "message": {"text": str(each)}} for each in report.lapsed
    ]
    return {
        "executionSuccessful": report.complete,
        "exitCode": report.exit_code,
        "toolExecutionNotifications": notifications,
    }


def _result(report: Report, finding: Finding, number: int, mark: str) -> dict[str, Any]:
    place = report.place(finding) or ANYWHERE
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": quote(place.file), "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": place.line},
        }
    }
    name = ".".join(filter(None, (finding.object, finding.column)))
    if name:
        location["logicalLocations"] = [{"fullyQualifiedName": name}]
    return {
        "ruleId": finding.code,
        "ruleIndex": number,
        "level": finding.severity.value,
        "message": {"text": str(finding)},
        "locations": [location],
        # GitHub tells alerts apart by the first of them, rule and file.
        "partialFingerprints": {"primaryLocationLineHash": mark, "tenantguard/v1": mark},
    }
