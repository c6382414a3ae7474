"""The examination of an application and its database: what is wrong, and what mends it."""

from tenantguard.doctor.addresses import engine_for, engine_like
from tenantguard.doctor.checks import CHECKS, Check, examine
from tenantguard.doctor.report import Accepted, Checked, NotLookedAt, Report
from tenantguard.doctor.subject import Absence, Look, Subject
from tenantguard.doctor.written import write_json, write_text

__all__ = [
    "CHECKS",
    "Absence",
    "Accepted",
    "Check",
    "Checked",
    "Look",
    "NotLookedAt",
    "Report",
    "Subject",
    "engine_for",
    "engine_like",
    "examine",
    "write_json",
    "write_text",
]
