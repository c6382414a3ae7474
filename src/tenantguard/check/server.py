"""The server itself: the faults of its version, and what its log shows."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from tenantguard.check.rule import Rule
from tenantguard.doctor import server_log, versions
from tenantguard.findings import Severity
from tenantguard.rls.names import literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.doctor.subject import Look
    from tenantguard.findings import Finding

__all__ = ["RULES"]

# What is set for the application's role comes after what is set for the database, and both after
# what the session that asks has of the server. Last is what holds.
_SETTINGS = """
    SELECT json_build_array(
        (SELECT json_object_agg(name, setting) FROM pg_catalog.pg_settings
            WHERE name ~ '^(log|auto_explain)[_.]'),
        (SELECT coalesce(json_object_agg(lower(split_part(c.v, '=', 1)),
                substr(c.v, strpos(c.v, '=') + 1)
                ORDER BY s.setrole <> 0, s.setdatabase <> 0), '{{}}')
            FROM pg_catalog.pg_db_role_setting s CROSS JOIN unnest(s.setconfig) c(v)
            WHERE s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles r
                    WHERE r.rolname = {application}))
                AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d
                    WHERE d.datname = current_database())))
    )::text"""


def _today() -> date:
    return datetime.now(UTC).date()


def _version(rule: Rule, subject: Subject) -> Iterator[Finding]:
    yield from _coded(rule, versions.judge(subject.version, _today()))


def _log(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what the log shows of the application, whose driver sends values beside statements."""
    question = _SETTINGS.format(application=literal(subject.roles.application))
    of_server, of_application = subject.ask(question)
    settings = {**of_server, **{name: value.lower() for name, value in of_application.items()}}
    yield from _coded(rule, server_log.judge(settings, inline=False))


def _coded(rule: Rule, look: Look) -> Iterator[Finding]:
    for each in look.findings:
        if each.code == rule.id:
            yield rule.finding(each.object, each.message, each.mend)


RULES: tuple[Rule, ...] = (
    Rule("server-cve", Severity.WARNING, _version),
    Rule("server-end-of-life", Severity.WARNING, _version),
    Rule("log-parameters", Severity.WARNING, _log),
    Rule("log-parameters-on-error", Severity.WARNING, _log),
    Rule("log-plans", Severity.WARNING, _log),
)
