"""The checks, in the order in which they are reported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.doctor.engine import look_at_engines
from tenantguard.doctor.keys import look_at_keys
from tenantguard.doctor.models import look_at_mode, look_at_tables
from tenantguard.doctor.policies import look_at_policies, look_at_row_security
from tenantguard.doctor.pooler import look_at_pooler
from tenantguard.doctor.relations import look_at_relations
from tenantguard.doctor.report import Checked, NotLookedAt, Report
from tenantguard.doctor.server_log import look_at_server_log
from tenantguard.doctor.subject import CouldNotLookError, reason_of
from tenantguard.doctor.tenants import look_at_tenants
from tenantguard.doctor.transport import look_at_transport
from tenantguard.doctor.versions import look_at_version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tenantguard.doctor.subject import Look, Subject

__all__ = ["CHECKS", "Check", "examine"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at: a stable id, the group it is reported in, and how to look."""

    id: str
    group: str
    look: Callable[[Subject], Look]


CHECKS = (
    Check("mode", "models", look_at_mode),
    Check("tables", "models", look_at_tables),
    Check("engines", "engines", look_at_engines),
    Check("policies", "database", look_at_policies),
    Check("relations", "database", look_at_relations),
    Check("row-security", "database", look_at_row_security),
    Check("keys", "data", look_at_keys),
    Check("tenants", "data", look_at_tenants),
    Check("transport", "connection", look_at_transport),
    Check("pooler", "connection", look_at_pooler),
    Check("version", "server", look_at_version),
    Check("log", "server", look_at_server_log),
)


def examine(subject: Subject, acceptances: Mapping[str, str] | None = None) -> Report:
    """Make every check on *subject*; one that fails is reported as not looked at.

    Args:
        subject: The application and its database. Nothing in either is changed.
        acceptances: The codes of accepted warnings, each with the reason.
    """
    checked: list[Checked] = []
    missed: list[NotLookedAt] = []
    for check in CHECKS:
        subject.progress(check.id)
        try:
            look = check.look(subject)
        except CouldNotLookError as error:
            missed.append(NotLookedAt(check.id, str(error), chosen=error.chosen))
        except Exception as error:  # noqa: BLE001  (whatever it is, it must not look green)
            missed.append(NotLookedAt(check.id, reason_of(error)))
        else:
            checked.append(Checked(check.id, look.seen, tuple(look.findings)))
            missed.extend(NotLookedAt(check.id, reason) for reason in look.missed)
    return Report(tuple(checked), tuple(missed), acceptances or {})
