"""The guard's mode, and tables whose tenant nobody named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.doctor.subject import Look
from tenantguard.findings import Finding, Severity
from tenantguard.rls.generate import entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Entry
    from tenantguard.doctor.subject import Subject

__all__ = ["application_only", "look_at_mode", "look_at_tables", "unclassified"]

_MODES = {
    "off": "The guard's mode is 'off': no statement is scoped and no tenant is bound.",
    "observe": "The guard's mode is 'observe': the first lock counts and refuses nothing.",
}


def look_at_mode(subject: Subject) -> Look:
    """Find a guard that does not enforce."""
    message = _MODES.get(subject.mode)
    if message is None:
        return Look(subject.mode)
    mend = "TenantGuard(mode='enforce'), which is the default."
    return Look(
        subject.mode, [Finding(f"mode-{subject.mode}", None, message, mend, Severity.WARNING)]
    )


def look_at_tables(subject: Subject) -> Look:
    """Find tables of the models that nobody classified, or that policies cannot hold."""
    catalog = subject.catalog
    catalog.check()
    known = entries(catalog)
    findings = [*unclassified(known), *application_only(catalog.application_only)]
    counts = {kind: sum(entry.kind is kind for entry in known) for kind in Kind}
    listed = ", ".join(f"{count} {kind.value}" for kind, count in counts.items() if count)
    return Look(f"{len(known)} tables: {listed}", findings)


def unclassified(known: list[Entry]) -> Iterator[Finding]:
    """Yield the tables of which nobody said whose rows they have."""
    for entry in known:
        if entry.kind is Kind.UNCLASSIFIED:
            yield Finding(
                "table-unclassified",
                entry.fullname,
                f"Table {entry.fullname} is unclassified, so its use is an error.",
                f"`tenantguard tables` says how; `tenantguard migrate sql {entry.fullname}` gives "
                "it a tenant column.",
            )


def application_only(children: list[Entry]) -> Iterator[Finding]:
    """Yield the tables that the first lock holds alone."""
    for entry in children:
        yield Finding(
            "table-application-only",
            entry.fullname,
            f"Table {entry.fullname} has no tenant column of its own: statements are scoped "
            "through its parent, and row-level security does not hold it.",
            f"`tenantguard migrate sql {entry.fullname}` gives it the column.",
            Severity.WARNING,
        )
