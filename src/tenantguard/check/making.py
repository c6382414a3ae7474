"""What the application may make or change beside rows, and what is opened before it is there."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.names import literal, qualified, quote, target_of
from tenantguard.rls.role_question import presets
from tenantguard.rls.state import OWN_SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]

_OPENED = {"r": "TABLES", "S": "SEQUENCES", "n": "SCHEMAS"}


def _defaults(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for maker, schema, kind, grantee, privileges in subject.ask(f"""
    WITH {reach.confined(subject)}
    SELECT coalesce(json_agg(json_build_array(f.maker, f.schema, f.kind, f.grantee, f.privileges)
        ORDER BY f.maker, f.schema, f.kind, f.grantee), '[]')::text
    FROM (SELECT m.rolname AS maker, n.nspname AS schema, d.defaclobjtype::text AS kind,
            coalesce(c.role, 'PUBLIC') AS grantee, json_agg(e.privilege_type) AS privileges
        FROM pg_catalog.pg_default_acl d JOIN pg_catalog.pg_roles m ON m.oid = d.defaclrole
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = d.defaclnamespace
        CROSS JOIN pg_catalog.aclexplode(d.defaclacl) e
        LEFT JOIN confined c ON c.oid = e.grantee
        WHERE (e.grantee = 0 OR c.oid IS NOT NULL) AND e.grantee <> d.defaclrole
            AND (d.defaclobjtype, e.privilege_type) NOT IN (('S', 'USAGE'), ('S', 'SELECT'),
                ('n', 'USAGE'))
            AND d.defaclobjtype IN ('r', 'S', 'n')
        GROUP BY 1, 2, 3, 4) f"""):
        whose = f"FOR ROLE {quote(maker)}" + (f" IN SCHEMA {quote(schema)}" if schema else "")
        to = grantee if grantee == "PUBLIC" else quote(grantee)
        yield rule.finding(
            schema,
            f"Whatever {maker!r} makes next among {_OPENED[kind].lower()}"
            f"{f' in {schema}' if schema else ''} is open to {grantee} ({', '.join(privileges)}), "
            "before there are policies.",
            f"ALTER DEFAULT PRIVILEGES {whose} REVOKE ALL ON {_OPENED[kind]} FROM {to}; "
            "`tenantguard rls apply` grants what each table needs.",
        )


def _create(rule: Rule, subject: Subject) -> Iterator[Finding]:
    # Who owns the schema of guarded tables, or the database, is found among the roles.
    for role, schema, database in subject.ask(f"""
    WITH {reach.confined(subject)}, {reach.guarded(subject)}
    SELECT coalesce(json_agg(json_build_array(f.role, f.schema, f.database)
        ORDER BY f.role, f.schema), '[]')::text
    FROM (SELECT c.role, n.nspname AS schema, NULL AS database
        FROM confined c CROSS JOIN pg_catalog.pg_namespace n
        WHERE {OWN_SCHEMAS} AND pg_catalog.has_schema_privilege(c.oid, n.oid, 'CREATE')
            AND NOT (pg_catalog.pg_has_role(c.oid, n.nspowner, 'USAGE')
                AND n.oid IN (SELECT k.relnamespace FROM guarded g
                    JOIN pg_catalog.pg_class k ON k.oid = g.oid))
        UNION ALL
        SELECT c.role, NULL, d.datname
        FROM confined c CROSS JOIN pg_catalog.pg_database d
        WHERE d.datname = pg_catalog.current_database()
            AND pg_catalog.has_database_privilege(c.oid, d.oid, 'CREATE')
            AND NOT pg_catalog.pg_has_role(c.oid, d.datdba, 'USAGE')) f"""):
        where = f"SCHEMA {quote(schema)}" if schema else f"DATABASE {quote(database)}"
        yield rule.finding(
            schema,
            f"Role {role!r} may create in {where}: injected SQL can put its own table or function "
            "where others look for theirs, and copy rows into a table without policies.",
            f"REVOKE CREATE ON {where} FROM PUBLIC, {quote(role)}; migrations run as the owner.",
        )


def _sequences(rule: Rule, subject: Subject) -> Iterator[Finding]:
    schemas = ", ".join(map(literal, sorted({target_of(each)[0] for each in subject.entries})))
    for role, schema, name in subject.ask(f"""
    WITH {reach.confined(subject)}
    SELECT coalesce(json_agg(json_build_array(c.role, n.nspname, k.relname)
        ORDER BY n.nspname, k.relname, c.role), '[]')::text
    FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    CROSS JOIN confined c
    WHERE k.relkind = 'S' AND n.nspname IN ({schemas})
        AND pg_catalog.has_sequence_privilege(c.oid, k.oid, 'UPDATE')
        AND NOT pg_catalog.pg_has_role(c.oid, k.relowner, 'USAGE')"""):
        yield rule.finding(
            f"{schema}.{name}",
            f"Role {role!r} may UPDATE the sequence {schema}.{name}: one setval(), and inserts of "
            "all tenants fail on keys that are taken.",
            f"REVOKE UPDATE ON SEQUENCE {qualified((schema, name))} FROM PUBLIC, {quote(role)}",
        )


def _large_objects(rule: Rule, subject: Subject) -> Iterator[Finding]:
    yield from _unprotected_objects(rule, subject)
    for role, count in subject.ask(f"""
    WITH {reach.confined(subject)}
    SELECT coalesce(json_agg(json_build_array(f.role, f.count) ORDER BY f.role), '[]')::text
    FROM (SELECT c.role, count(*) FROM pg_catalog.pg_largeobject_metadata l
        JOIN confined c ON pg_catalog.pg_has_role(c.oid, l.lomowner, 'USAGE')
            OR EXISTS (SELECT FROM pg_catalog.aclexplode(l.lomacl) e WHERE e.grantee = 0
                OR CASE WHEN e.grantee <> 0
                    THEN pg_catalog.pg_has_role(c.oid, e.grantee, 'USAGE') END)
        GROUP BY c.role) f"""):
        yield rule.finding(
            None,
            f"Role {role!r} reaches {count:,} large objects, which have no tenant and no policies: "
            "each tenant's session can read them all.",
            "Keep such data in a bytea column of a table of tenants, or outside of the database "
            "under a name that holds the tenant; then lo_unlink() them.",
        )


def _unprotected_objects(rule: Rule, subject: Subject) -> Iterator[Finding]:
    starts = ", ".join(map(literal, (subject.roles.application, subject.roles.support)))
    is_on = "lower(c) ~ '^lo_compat_privileges=(on|true|yes|1)$'"
    [everywhere, somewhere] = subject.ask(f"""
    SELECT json_build_array(
        (SELECT reset_val = 'on' FROM pg_catalog.pg_settings WHERE name = 'lo_compat_privileges'),
        EXISTS (SELECT FROM {presets(starts, is_on)}))::text""")
    if everywhere or somewhere:
        yield rule.finding(
            None,
            "Sessions start with lo_compat_privileges = on, under which everybody reads and writes "
            "every large object.",
            "ALTER ROLE … or ALTER DATABASE … RESET lo_compat_privileges, and take it out of "
            "postgresql.conf.",
        )


RULES: tuple[Rule, ...] = (
    Rule("schema-create", Severity.ERROR, _create),
    Rule("default-privileges", Severity.WARNING, _defaults),
    Rule("sequence-excess", Severity.WARNING, _sequences),
    Rule("large-object-open", Severity.ERROR, _large_objects),
)
