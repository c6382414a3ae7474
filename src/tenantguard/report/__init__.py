"""Results as text, JSON, SARIF, annotations, JUnit and Markdown, at the lines of the models."""

from tenantguard.report.acceptance import Acceptance
from tenantguard.report.baseline import baseline_text, read_baseline
from tenantguard.report.exemptions import read_exemptions
from tenantguard.report.places import Places
from tenantguard.report.report import Accepted, Lapsed, Place, Report
from tenantguard.report.write import FORMATS, rendered, write, write_file

__all__ = [
    "FORMATS",
    "Acceptance",
    "Accepted",
    "Lapsed",
    "Place",
    "Places",
    "Report",
    "baseline_text",
    "read_baseline",
    "read_exemptions",
    "rendered",
    "write",
    "write_file",
]
