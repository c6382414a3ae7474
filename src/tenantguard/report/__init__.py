"""Results as text, JSON, SARIF, annotations, JUnit and Markdown, at the lines of the models."""

from tenantguard.report.places import Places
from tenantguard.report.report import Accepted, Lapsed, Place, Report
from tenantguard.report.write import FORMATS, rendered, write, write_file

__all__ = [
    "FORMATS",
    "Accepted",
    "Lapsed",
    "Place",
    "Places",
    "Report",
    "rendered",
    "write",
    "write_file",
]
