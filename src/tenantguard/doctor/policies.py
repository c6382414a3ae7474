"""Roles, policies, privileges and the setting: what `rls.verify` finds as the application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.doctor.subject import Look
from tenantguard.findings import Finding
from tenantguard.rls import verify
from tenantguard.rls.generate import entries
from tenantguard.rls.session import rolled_back
from tenantguard.rls.verify import LOCKED

if TYPE_CHECKING:
    from tenantguard.doctor.subject import Subject

__all__ = ["look_at_policies", "look_at_row_security"]

_OF_RELATIONS = {"partition-open", "view-materialised", "view-of-owner"}
"""What `look_at_relations` finds as well, whatever the models know; it is said once."""


def look_at_policies(subject: Subject) -> Look:
    """Find what keeps the second lock from holding."""
    with subject.application_connection() as connection:
        found = verify(connection, subject.catalog, subject.roles)
    guarded = sum(entry.guarded for entry in entries(subject.catalog))
    return Look(
        f"{guarded} tables, as the application's role",
        [each for each in found if each != LOCKED and each.code not in _OF_RELATIONS],
        [f"{LOCKED.message} {LOCKED.mend}"] if LOCKED in found else [],
    )


def look_at_row_security(subject: Subject) -> Look:
    """Find a default under which guarded tables cannot be read at all."""
    with subject.application_connection() as connection, rolled_back(connection) as run:
        [[value]] = run("SELECT pg_catalog.current_setting('row_security')")
    if value == "on":
        return Look("row_security is on")
    return Look(
        "row_security is off",
        [
            Finding(
                "row-security-off",
                None,
                "The application's sessions start with row_security = off, under which every "
                "statement on a guarded table fails.",
                "ALTER ROLE … RESET row_security; ALTER DATABASE … RESET row_security; and take "
                "it out of postgresql.conf and of the connection's options.",
            )
        ],
    )
