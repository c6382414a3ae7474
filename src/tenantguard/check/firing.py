"""What a write sets off, or does not: rules, triggers, replication."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.signed import signing_target
from tenantguard.rls.state import OWN_SCHEMAS, not_of_an_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]

_NAMED = 3

# Triggers of what the application writes run for it, whatever table or view they are on.
_WRITTEN = f"""written(oid) AS (
        SELECT k.oid FROM pg_catalog.pg_class k
        JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace CROSS JOIN confined c
        WHERE k.relkind IN ('r', 'p', 'v', 'f') AND {OWN_SCHEMAS} AND k.relhastriggers
            AND (pg_catalog.has_any_column_privilege(c.oid, k.oid, 'INSERT, UPDATE')
                OR pg_catalog.has_table_privilege(c.oid, k.oid, 'DELETE, TRUNCATE')))"""


def _rules(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for schema, table, name in subject.ask(f"""
    WITH RECURSIVE {_watched(subject)}
    SELECT coalesce(json_agg(json_build_array(n.nspname, k.relname, r.rulename)
        ORDER BY n.nspname, k.relname, r.rulename), '[]')::text
    FROM pg_catalog.pg_rewrite r JOIN watched w ON w.oid = r.ev_class
    JOIN pg_catalog.pg_class k ON k.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'D'"""):
        yield rule.finding(
            f"{schema}.{table}",
            f"Rule {name!r} on {schema}.{table} rewrites statements, and does what it adds with "
            "the rights of the table's owner, wherever that leads.",
            f"DROP RULE {quote(name)} ON {qualified((schema, table))}; a trigger that runs as its "
            "caller can do the same work.",
        )


def _triggers(rule: Rule, subject: Subject) -> Iterator[Finding]:
    yield from _event_triggers(rule, subject)
    for schema, table, name, function, owner in subject.ask(f"""
    WITH RECURSIVE {_watched(subject)}, {reach.confined(subject)}, {_WRITTEN}
    SELECT coalesce(json_agg(json_build_array(n.nspname, k.relname, t.tgname,
        p.oid::pg_catalog.regprocedure, o.rolname)
        ORDER BY n.nspname, k.relname, t.tgname), '[]')::text
    FROM pg_catalog.pg_trigger t
    JOIN (SELECT oid FROM watched UNION SELECT oid FROM written) w ON w.oid = t.tgrelid
    JOIN pg_catalog.pg_class k ON k.oid = t.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
    JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled <> 'D' AND p.prosecdef
        AND {_unheld(subject)}"""):
        yield rule.finding(
            f"{schema}.{table}",
            f"Trigger {name!r} on {schema}.{table} runs {function} as {owner!r}, whom no policy "
            "restricts, at the application's writes.",
            f"Read it; then ALTER FUNCTION {function} SECURITY INVOKER, or OWNER TO a role that "
            "can do just what it has to.",
        )


def _event_triggers(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for name, function, owner in subject.ask(f"""
    SELECT coalesce(json_agg(json_build_array(e.evtname, p.oid::pg_catalog.regprocedure, o.rolname)
        ORDER BY e.evtname), '[]')::text
    FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
    JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
    WHERE e.evtenabled <> 'D' AND p.prosecdef AND {_unheld(subject)}
        AND {not_of_an_extension("e", "pg_event_trigger")}"""):
        yield rule.finding(
            name,
            f"Event trigger {name!r} runs {function} as {owner!r}, whom no policy restricts, and "
            "the application sets it off, by a temporary table if by nothing else.",
            f"Read it; then ALTER FUNCTION {function} SECURITY INVOKER, or OWNER TO a role that "
            "can do just what it has to.",
        )


def _unheld(subject: Subject) -> str:
    rules_over = reach.rules_over("o", "coalesce(p.prosrc, '')", subject)
    return f"({reach.unheld('o', subject)} OR {rules_over})"


def _replication_role(rule: Rule, subject: Subject) -> Iterator[Finding]:
    may_set = (
        "pg_catalog.has_parameter_privilege(c.oid, 'session_replication_role', 'SET')"
        if subject.version >= reach.PARAMETER_PRIVILEGES
        else "false"
    )
    for role, preset, settable in subject.ask(f"""
    WITH {reach.confined(subject)},
    found(role, preset, settable) AS (
        SELECT c.role, EXISTS (SELECT FROM pg_catalog.pg_db_role_setting s
            LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
            WHERE s.setrole IN (0, c.oid)
                AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
                AND 'session_replication_role=replica' = ANY (s.setconfig)), {may_set}
        FROM confined c)
    SELECT coalesce(json_agg(json_build_array(f.role, f.preset, f.settable)
        ORDER BY f.role), '[]')::text
    FROM found f WHERE f.preset OR f.settable"""):
        reset = "ALTER ROLE … or ALTER DATABASE … RESET session_replication_role"
        revoke = f"REVOKE SET ON PARAMETER session_replication_role FROM {quote(role)}, PUBLIC"
        yield rule.finding(
            None,
            f"Sessions of {role!r} {'start with' if preset else 'may set'} "
            "session_replication_role = replica, under which foreign keys and triggers do nothing.",
            "; ".join([reset] * preset + [revoke] * settable),
        )


def _publications(rule: Rule, subject: Subject) -> Iterator[Finding]:
    secret = {signing_target(subject.catalog)} if subject.catalog.signed else set()
    targets = {target_of(each) for each in subject.entries if each.guarded}
    for name, tables in subject.ask(f"""
    WITH RECURSIVE {reach.relations("guarded", targets | secret)}, {reach.parts()}
    SELECT coalesce(json_agg(json_build_array(f.name, f.tables) ORDER BY f.name), '[]')::text
    FROM (SELECT p.pubname AS name, json_agg(p.schemaname || '.' || p.tablename
            ORDER BY p.schemaname, p.tablename) AS tables
        FROM pg_catalog.pg_publication_tables p
        JOIN pg_catalog.pg_namespace n ON n.nspname = p.schemaname
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = p.tablename
        WHERE k.oid IN (SELECT oid FROM guarded UNION SELECT oid FROM parts)
        GROUP BY p.pubname) f"""):
        yield rule.finding(
            name,
            f"Publication {name!r} carries rows of all tenants: {_listed(tables)}. Policies do not "
            "hold for who subscribes, nor for the tables there.",
            "Protect the subscriber like this database, and accept the finding with that reason; "
            f"or ALTER PUBLICATION {quote(name)} to tables that all may read.",
        )


def _watched(subject: Subject) -> str:
    return f"""{reach.guarded(subject)}, {reach.parts()},
    watched(oid) AS (SELECT oid FROM guarded UNION SELECT oid FROM parts)"""


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


RULES: tuple[Rule, ...] = (
    Rule("rule-rewrites", Severity.ERROR, _rules),
    Rule("trigger-definer", Severity.WARNING, _triggers),
    Rule("replication-role", Severity.ERROR, _replication_role),
    Rule("publication-open", Severity.WARNING, _publications),
)
