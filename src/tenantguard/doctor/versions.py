"""Faults of PostgreSQL's own that let rows of other tenants be seen, and versions past support.

The numbers are from the pages named in `SOURCE` and `END_OF_LIFE_SOURCE`. Listed is what concerns
row-level security; a server past its end of life gets no further fixes, whatever is listed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from tenantguard.doctor.subject import Look
from tenantguard.findings import Finding, Severity
from tenantguard.rls.session import rolled_back

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.doctor.subject import Subject

__all__ = ["END_OF_LIFE", "FAULTS", "Fault", "judge", "look_at_version"]

SOURCE = "https://www.postgresql.org/support/security/{cve}/"
END_OF_LIFE_SOURCE = "https://www.postgresql.org/support/versioning/"


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the server, and the minor version that mended it in each major one."""

    cve: str
    what: str
    fixed: Mapping[int, int]


FAULTS = (
    Fault(
        "CVE-2026-14666",
        "saved plans keep the policies of a role that has changed since",
        {18: 6, 17: 11, 16: 15, 15: 19, 14: 24},
    ),
    Fault(
        "CVE-2025-8713",
        "the planner's statistics show values that policies hide",
        {17: 6, 16: 10, 15: 14, 14: 19, 13: 22},
    ),
    Fault(
        "CVE-2024-10976",
        "policies below sub-queries miss a change of the role",
        {17: 1, 16: 5, 15: 9, 14: 14, 13: 17, 12: 21},
    ),
    Fault(
        "CVE-2023-39418",
        "MERGE does not apply the policies for UPDATE and SELECT to some rows",
        {15: 4},
    ),
    Fault(
        "CVE-2023-2455",
        "policies miss a change of the role after a function was inlined",
        {15: 3, 14: 8, 13: 11, 12: 15, 11: 20},
    ),
)

END_OF_LIFE = {
    13: date(2025, 11, 13),
    14: date(2026, 11, 12),
    15: date(2027, 11, 11),
    16: date(2028, 11, 9),
    17: date(2029, 11, 8),
    18: date(2030, 11, 14),
}
"""The last release of each major version; older ones have had theirs."""


def look_at_version(subject: Subject) -> Look:
    """Find known faults of the server's version."""
    with subject.application_connection() as connection, rolled_back(connection) as run:
        [[number]] = run("SELECT pg_catalog.current_setting('server_version_num')")
    return judge(int(number), datetime.now(UTC).date())


def judge(number: int, today: date) -> Look:
    """Return what is known of the server with version *number*, such as 180004, on *today*."""
    major, minor = divmod(number, 10_000)
    name = f"PostgreSQL {major}.{minor}"
    if major > max(END_OF_LIFE):
        return Look(f"{name}, which is newer than what this version knows of")
    return Look(name, [*_faults(name, major, minor), *_support(name, major, today)])


def _faults(name: str, major: int, minor: int) -> Iterator[Finding]:
    open_faults = [fault for fault in FAULTS if minor < fault.fixed.get(major, 0)]
    if not open_faults:
        return
    needed = max(fault.fixed[major] for fault in open_faults)
    listed = "; ".join(f"{fault.cve} ({fault.what})" for fault in open_faults)
    yield Finding(
        "server-cve",
        name,
        f"{name} has faults that concern row-level security: {listed}.",
        f"Update the server to {major}.{needed} or later: a restart, no dump. "
        f"{SOURCE.format(cve=open_faults[0].cve)}",
        Severity.WARNING,
    )


def _support(name: str, major: int, today: date) -> Iterator[Finding]:
    ended = END_OF_LIFE.get(major)
    if ended is None or ended < today:
        when = f" since {ended.isoformat()}" if ended else ""
        yield Finding(
            "server-end-of-life",
            name,
            f"{name} gets no more fixes{when}, those of its security included.",
            f"Upgrade to a supported major version. {END_OF_LIFE_SOURCE}",
            Severity.WARNING,
        )
