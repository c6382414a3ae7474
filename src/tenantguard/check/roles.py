"""Roles that policies do not hold, and defaults that open an unbound session.

Who asks is an administrator, so the roles are asked for by name: the application's, support's, and
the logins of an application's role that cannot log in itself.
"""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.grants import granted_roles
from tenantguard.rls.names import literal, quote
from tenantguard.rls.role import judge_roles
from tenantguard.rls.role_question import presets, role_question

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts

__all__ = ["RULES"]

_OFF = "('off', 'false', 'no', '0')"

# inherit_option exists from PostgreSQL 16 on; before, the member says whether it inherits.
_LOGINS = """
    WITH RECURSIVE heirs(oid) AS (
        SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = {application}
        UNION
        SELECT r.oid FROM pg_catalog.pg_auth_members m JOIN heirs h ON h.oid = m.roleid
        JOIN pg_catalog.pg_roles r ON r.oid = m.member
        WHERE coalesce((to_jsonb(m.*) ->> 'inherit_option')::boolean, r.rolinherit))
    SELECT json_build_object(
        'there', (SELECT coalesce(json_agg(r.rolname), '[]')
            FROM pg_catalog.pg_roles r WHERE r.rolname IN ({roles})),
        'logins', (SELECT coalesce(json_agg(r.rolname ORDER BY r.rolname), '[]')
            FROM heirs h JOIN pg_catalog.pg_roles r ON r.oid = h.oid
            WHERE r.rolcanlogin))::text"""


def _judged(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what goes by the code of *rule* of what `rls.verify` finds of its own role."""
    question = role_question(subject.catalog, subject.roles, _starts(subject))
    for each in judge_roles(subject.ask(question), subject.roles):
        if each.code == rule.id:
            yield rule.finding(each.object, each.message, each.mend)


def _missing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for role in granted_roles(subject.roles):
        if role not in _existing(subject)["there"]:
            yield rule.finding(
                role,
                f"The server has no role {role!r}, which policies and privileges are for.",
                "`tenantguard rls roles --apply` with a superuser's address, or name the one that "
                "there is in Roles(…).",
            )


def _no_login(rule: Rule, subject: Subject) -> Iterator[Finding]:
    application, found = subject.roles.application, _existing(subject)
    if application in found["there"] and not found["logins"]:
        yield rule.finding(
            application,
            f"The role {application!r} cannot log in, and no login inherits from it: whoever the "
            "application connects as is not held by its policies.",
            f"ALTER ROLE {quote(application)} LOGIN, or grant it to the application's login; then "
            "`tenantguard doctor` with the application's own address.",
        )


def _row_security(rule: Rule, subject: Subject) -> Iterator[Finding]:
    found = _preset(subject)
    message = (
        "Sessions start with row_security = off, under which every statement of the application "
        "on a guarded table fails."
    )
    for each in found["off"]:
        where = f"ROLE {quote(each['role'])}" if each["role"] else "ROLE ALL"
        where += f" IN DATABASE {quote(each['database'])}" if each["database"] else ""
        yield rule.finding(each["role"], message, f"ALTER {where} RESET row_security")
    if found["everywhere"] and not found["off"]:
        yield rule.finding(
            None,
            message,
            "Take row_security out of postgresql.conf, and out of the options of the address that "
            "the check was given.",
        )


def _existing(subject: Subject) -> Facts:
    """Return which of the roles exist, and the logins that are the application."""
    question = _LOGINS.format(
        application=literal(subject.roles.application),
        roles=", ".join(map(literal, granted_roles(subject.roles))),
    )
    found: Facts = subject.ask(question)
    return found


def _starts(subject: Subject) -> list[str]:
    """Return the roles that act for one tenant at a time.

    Where the application's role logs in itself, who else inherits from it may be a person or a
    job that is meant to reach further; that is not known here.
    """
    application, logins = subject.roles.application, _existing(subject)["logins"]
    own = [] if application in logins else logins
    return [application, subject.roles.support, *own]


def _preset(subject: Subject) -> Facts:
    starts = ", ".join(map(literal, _starts(subject)))
    is_off = (
        f"lower(split_part(c, '=', 1)) = 'row_security' AND lower(split_part(c, '=', 2)) IN {_OFF}"
    )
    found: Facts = subject.ask(f"""
    SELECT json_build_object(
        'everywhere', (SELECT reset_val = 'off'
            FROM pg_catalog.pg_settings WHERE name = 'row_security'),
        'off', (SELECT coalesce(json_agg(json_build_object(
                'role', r.rolname, 'database', d.datname)), '[]')
            FROM {presets(starts, is_off)}))::text""")
    return found


RULES: tuple[Rule, ...] = (
    Rule("role-missing", Severity.ERROR, _missing),
    Rule("role-no-login", Severity.WARNING, _no_login),
    Rule("role-superuser", Severity.ERROR, _judged),
    Rule("role-bypassrls", Severity.ERROR, _judged),
    Rule("role-createrole", Severity.ERROR, _judged),
    Rule("role-replication", Severity.ERROR, _judged),
    Rule("role-reaches", Severity.ERROR, _judged),
    Rule("role-owns-table", Severity.ERROR, _judged),
    Rule("role-owns-schema", Severity.ERROR, _judged),
    Rule("role-owns-database", Severity.ERROR, _judged),
    Rule("setting-default", Severity.ERROR, _judged),
    Rule("setting-bound", Severity.ERROR, _judged),
    Rule("row-security-off", Severity.ERROR, _row_security),
)
