"""Words of the questions: what is guarded, what shows it, and who reaches it.

Roles are named, because who asks is not the application. A superuser reaches everything; that is
one finding of its own, so it is left out here.
"""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.rls.names import literal, target_of
from tenantguard.rls.policies import POLICY_NAMES
from tenantguard.rls.state import as_recordset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.check.subject import Subject
    from tenantguard.rls.step import Target

__all__ = [
    "FIRST_OWN",
    "PARAMETER_PRIVILEGES",
    "confined",
    "guarded",
    "parts",
    "relations",
    "rules_over",
    "unheld",
]

FIRST_OWN = 16384
"""The lowest number of what is no part of PostgreSQL itself."""

PARAMETER_PRIVILEGES = 150000
"""The version from which on settings have privileges."""


def relations(name: str, targets: Iterable[Target]) -> str:
    """Return a common table expression *name*(oid) of those of *targets* that are there."""
    wanted = as_recordset(({"s": s, "t": t} for s, t in sorted(targets)), "s text, t text")
    return f"""{name}(oid) AS (
        SELECT k.oid FROM {wanted}
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            AND k.relkind IN ('r', 'p', 'v', 'm', 'f'))"""


def guarded(subject: Subject) -> str:
    """Return `guarded(oid)`: the tables whose rows name their tenant."""
    return relations("guarded", (target_of(each) for each in subject.entries if each.guarded))


def parts(of: str = "guarded") -> str:
    """Return `parts(oid)`: the partitions and children of *of*, and theirs. It is recursive."""
    return f"""parts(oid) AS (
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN {of} g ON g.oid = i.inhparent
        UNION
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent)"""


def confined(subject: Subject) -> str:
    """Return `confined(oid, role)`: the roles that act for one tenant at a time."""
    named = ", ".join(map(literal, (subject.roles.application, subject.roles.support)))
    return f"""confined(oid, role) AS (
        SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
        WHERE r.rolname IN ({named}) AND NOT r.rolsuper)"""


def unheld(role: str, subject: Subject) -> str:
    """Return whether policies show all rows to *role*, a row of pg_roles."""
    names = ", ".join(map(literal, POLICY_NAMES))
    # A policy of its own that does not ask for the tenant is as good as the maintenance role's.
    return f"""({role}.rolsuper OR {role}.rolbypassrls OR EXISTS (
        SELECT FROM pg_catalog.pg_roles m WHERE m.rolname = {literal(subject.roles.maintenance)}
            AND pg_catalog.pg_has_role({role}.oid, m.oid, 'USAGE'))
        OR {role}.oid IN (SELECT x.oid
            FROM pg_catalog.pg_policy l CROSS JOIN unnest(l.polroles) h(oid)
            JOIN pg_catalog.pg_roles x ON CASE WHEN h.oid <> 0
                THEN pg_catalog.pg_has_role(x.oid, h.oid, 'USAGE') END
            WHERE l.polpermissive AND l.polname NOT IN ({names})
                AND l.polrelid IN (WITH {guarded(subject)} SELECT g.oid FROM guarded g)
                AND strpos(pg_catalog.pg_get_expr(l.polqual, l.polrelid), '{SETTING}') = 0))"""


def rules_over(role: str, body: str, subject: Subject) -> str:
    """Return whether *body* runs as the owner of guarded tables and commands or puts SQL together.

    The owner sees no rows under FORCE, and can turn that off.
    """
    return f"""({body} ~* '\\m(execute|alter|grant|drop|disable)\\M' AND {role}.oid IN (
        SELECT x.oid FROM (SELECT DISTINCT k.relowner FROM pg_catalog.pg_class k
            WHERE k.oid IN (WITH {guarded(subject)} SELECT g.oid FROM guarded g)) w
        JOIN pg_catalog.pg_roles x ON pg_catalog.pg_has_role(x.oid, w.relowner, 'USAGE')))"""
