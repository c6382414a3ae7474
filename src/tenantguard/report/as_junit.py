"""A report as JUnit XML: a test case a rule or table."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from tenantguard.findings import Finding
    from tenantguard.report.report import Report

__all__ = ["junit_text"]


def junit_text(report: Report) -> str:
    """Return *report* as XML. A finding is a failure, what could not be looked at an error."""
    cases = _cases(report)
    unseen = report.result.unseen
    counts = {
        "tests": str(len(cases) + len(unseen)),
        "failures": str(sum(bool(found) for found in cases.values())),
        "errors": str(len(unseen)),
    }
    root = ET.Element("testsuites", counts)
    suite = ET.SubElement(root, "testsuite", {"name": f"tenantguard {report.command}", **counts})
    for name, findings in cases.items():
        _case(suite, report, name, findings)
    for each in unseen:
        case = ET.SubElement(suite, "testcase", _names(report, each.what))
        ET.SubElement(case, "error", {"message": _clean(each.reason)})
    ET.SubElement(suite, "system-out").text = _clean(_said(report))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _cases(report: Report) -> dict[str, list[Finding]]:
    """Return the findings by what was looked at: their rule, or else their table."""
    cases: dict[str, list[Finding]] = {name: [] for name in report.result.looked}
    for finding in report.result.findings:
        name = finding.code
        if name not in cases and finding.object in cases:
            name = finding.object
        cases.setdefault(name, []).append(finding)
    return cases


def _case(suite: ET.Element, report: Report, name: str, findings: list[Finding]) -> None:
    attributes = _names(report, name)
    place = report.place(findings[0]) if findings else None
    if place is not None:
        attributes |= {"file": place.file, "line": str(place.line)}
    case = ET.SubElement(suite, "testcase", attributes)
    if findings:
        # Readers take one failure of a case, whatever else stands there.
        message = findings[0].message if len(findings) == 1 else f"{len(findings)} findings"
        worst = min(each.severity.value for each in findings)
        failure = ET.SubElement(case, "failure", {"message": _clean(message), "type": worst})
        failure.text = _clean("\n".join(_told(report, each) for each in findings))


def _names(report: Report, name: str) -> dict[str, str]:
    return {"classname": f"tenantguard.{report.command.replace(' ', '.')}", "name": _clean(name)}


def _told(report: Report, finding: Finding) -> str:
    place = report.place(finding)
    at = f"{place}: " if place else ""
    return f"{at}{finding.severity.value} {finding.code}: {finding}"


def _said(report: Report) -> str:
    accepted = [
        f"accepted {each.finding.code}: {each.finding.message} ({each.reason or each.by})"
        for each in report.accepted
    ]
    return "\n".join([*accepted, *map(str, report.lapsed), report.counts])


def _clean(text: str) -> str:
    """Return *text* without what XML cannot hold."""
    return "".join(c for c in text if c in "\t\n" or (c >= " " and c.isprintable()))
