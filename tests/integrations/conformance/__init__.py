"""What each form of an application does with the tenant, case by case."""

from conformance import (
    bodies,
    cut_off,
    dependencies,
    later,
    overlap,
    pages,
    requests,
    sockets,
    threads,
)
from conformance.forms import CASES, FORMS, Case, Form

__all__ = [
    "CASES",
    "FORMS",
    "Case",
    "Form",
    "bodies",
    "cut_off",
    "dependencies",
    "later",
    "overlap",
    "pages",
    "requests",
    "sockets",
    "threads",
]
