"""Privileges that reach further than policies do."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.check import making, reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.grants import grant_steps, granted_roles
from tenantguard.rls.names import literal, qualified, quote, target_of
from tenantguard.rls.signed import signing_target
from tenantguard.rls.state import OWN_SCHEMAS, as_recordset
from tenantguard.rls.step import Grants
from tenantguard.rls.verify import privilege_excess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Entry
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts

__all__ = ["RULES"]

_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
_OF_COLUMNS = "('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')"
_MAINTAIN = 170000

# Privileges on tables and on their columns, with who has them.
_GRANTED = """granted(oid, owner, grantee, privilege, grantable) AS (
        SELECT k.oid, k.relowner, e.grantee, e.privilege_type, e.is_grantable
        FROM tables t JOIN pg_catalog.pg_class k ON k.oid = t.oid
        CROSS JOIN pg_catalog.aclexplode(k.relacl) e
        UNION
        SELECT k.oid, k.relowner, e.grantee, e.privilege_type, e.is_grantable
        FROM tables t JOIN pg_catalog.pg_class k ON k.oid = t.oid
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.oid AND a.attacl IS NOT NULL
        CROSS JOIN pg_catalog.aclexplode(a.attacl) e)"""


def _excess(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    for schema, table, role, privileges in subject.ask(_excess_question(subject)):
        application = role == subject.roles.application
        yield privilege_excess(
            subject.by_target[schema, table],
            sorted(privileges),
            "The application" if application else f"Role {role!r}",
        )


def _excess_question(subject: Subject) -> str:
    """Ask which of our roles may do more with a table than it was given, apart from PUBLIC."""
    rows = [row for entry in subject.entries for row in _wanted(entry, subject)]
    every = (*_PRIVILEGES, *(("MAINTAIN",) if subject.version >= _MAINTAIN else ()))
    return f"""
    WITH found AS (
        SELECT w.s, w.t, w.r, ARRAY(SELECT v.p FROM unnest(ARRAY[{_texts(every)}]) v(p)
            WHERE NOT v.p = ANY (w.p)
                AND CASE WHEN v.p IN {_OF_COLUMNS}
                    THEN pg_catalog.has_any_column_privilege(r.oid, k.oid, v.p)
                        AND NOT pg_catalog.has_any_column_privilege('public', k.oid, v.p)
                    ELSE pg_catalog.has_table_privilege(r.oid, k.oid, v.p)
                        AND NOT pg_catalog.has_table_privilege('public', k.oid, v.p) END) AS more
        FROM {as_recordset(rows, "s text, t text, r text, p text[]")}
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            AND k.relkind IN ('r', 'p', 'v', 'm', 'f')
        JOIN pg_catalog.pg_roles r ON r.rolname = w.r
        WHERE NOT r.rolsuper AND NOT pg_catalog.pg_has_role(r.oid, k.relowner, 'USAGE'))
    SELECT coalesce(json_agg(json_build_array(f.s, f.t, f.r, f.more)
        ORDER BY f.s, f.t, f.r), '[]')::text
    FROM found f WHERE f.more <> '{{}}'"""


def _wanted(entry: Entry, subject: Subject) -> Iterator[Facts]:
    """Yield what each of our roles may do with *entry*'s table."""
    # What nobody decided on is out of the application's reach until somebody does.
    decided = replace(entry, kind=Kind.UNTENANTED) if entry.kind is Kind.UNCLASSIFIED else entry
    schema, table = target_of(entry)
    for step in grant_steps(decided, subject.roles):
        if isinstance(step.wanted, Grants):
            for role in granted_roles(subject.roles):
                given = sorted(step.wanted.table.get(role, ()))
                yield {"s": schema, "t": table, "r": role, "p": given}


def _public(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for schema, table, privileges in subject.ask(f"""
    WITH RECURSIVE {_tables(subject)}, {_GRANTED}
    SELECT coalesce(json_agg(json_build_array(f.s, f.t, f.privileges)
        ORDER BY f.s, f.t), '[]')::text
    FROM (SELECT n.nspname AS s, k.relname AS t, json_agg(DISTINCT g.privilege) AS privileges
        FROM granted g JOIN pg_catalog.pg_class k ON k.oid = g.oid
        JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
        WHERE g.grantee = 0 GROUP BY n.nspname, k.relname) f"""):
        name = f"{schema}.{table}"
        yield rule.finding(
            name,
            f"PUBLIC may {', '.join(privileges)} on {name}: so may every role of this server, also "
            "those that no policy names.",
            f"REVOKE ALL ON {qualified((schema, table))} FROM PUBLIC",
        )


def _grantable(rule: Rule, subject: Subject) -> Iterator[Finding]:
    ours = _texts(granted_roles(subject.roles))
    for schema, table, role in subject.ask(f"""
    WITH RECURSIVE {_tables(subject)}, {_GRANTED},
    passed(schema, name, owner, grantee) AS (
        SELECT k.relnamespace, k.relname, g.owner, g.grantee
        FROM granted g JOIN pg_catalog.pg_class k ON k.oid = g.oid WHERE g.grantable
        UNION
        SELECT n.oid, NULL, n.nspowner, e.grantee
        FROM pg_catalog.pg_namespace n CROSS JOIN pg_catalog.aclexplode(n.nspacl) e
        WHERE e.is_grantable AND {OWN_SCHEMAS})
    SELECT coalesce(json_agg(json_build_array(n.nspname, p.name, r.rolname)
        ORDER BY n.nspname, p.name, r.rolname), '[]')::text
    FROM passed p JOIN pg_catalog.pg_roles r ON r.oid = p.grantee
    JOIN pg_catalog.pg_namespace n ON n.oid = p.schema
    WHERE r.rolname IN ({ours}) AND NOT r.rolsuper AND p.owner <> p.grantee"""):
        on = f"TABLE {qualified((schema, table))}" if table else f"SCHEMA {quote(schema)}"
        yield rule.finding(
            f"{schema}.{table}" if table else schema,
            f"Role {role!r} has privileges on {on} WITH GRANT OPTION: it can pass them on to "
            "roles that no policy names, and to PUBLIC.",
            f"REVOKE GRANT OPTION FOR ALL ON {on} FROM {quote(role)} CASCADE",
        )


def _tables(subject: Subject) -> str:
    """Return `tables(oid)`: all tables of the models, and the parts of guarded ones."""
    every = {target_of(each) for each in subject.entries}
    if subject.catalog.signed:
        every.add(signing_target(subject.catalog))
    return f"""{reach.guarded(subject)}, {reach.parts()}, {reach.relations("named", every)},
    tables(oid) AS (SELECT oid FROM named UNION SELECT oid FROM parts)"""


def _texts(names: tuple[str, ...]) -> str:
    return ", ".join(map(literal, names))


RULES: tuple[Rule, ...] = (
    Rule("privilege-excess", Severity.ERROR, _excess),
    Rule("privilege-public", Severity.ERROR, _public),
    Rule("privilege-grantable", Severity.WARNING, _grantable),
    *making.RULES,
)
