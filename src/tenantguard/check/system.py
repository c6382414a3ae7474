"""Parts of PostgreSQL itself that lead past policies: opened, or not what they were."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.names import quote
from tenantguard.rls.state import not_of_an_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]

_INITIAL = "'1'"
"""Which transaction made what a server begins with; whatever is changed has another."""

_FILES = (
    "'pg_read_file', 'pg_read_binary_file', 'lo_import', 'lo_export', 'pg_get_wal_block_info', "
    "'pg_get_wal_records_info', 'get_raw_page', 'dblink_connect_u'"
)
_COMPARING = (
    "'uuid_eq', 'texteq', 'bpchareq', 'int2eq', 'int4eq', 'int8eq', 'int24eq', 'int42eq', "
    "'int48eq', 'int84eq', 'uuid_in', 'int2in', 'int4in', 'int8in', 'current_setting', "
    "'set_config', 'uuid_cmp', 'uuid_hash', 'bttextcmp', 'btint4cmp', 'btint8cmp'"
)
_SOURCES = "'show_config_by_name', 'show_config_by_name_missing_ok', 'set_config_by_name'"
"""What those are made of whose source has another name."""

_LOADING = (
    "'session_preload_libraries', 'dynamic_library_path', 'jit_provider', 'lo_compat_privileges', "
    "'allow_system_table_mods', 'log_min_error_statement', 'local_preload_libraries'"
)

_SECRETS = (
    "'pg_statistic', 'pg_statistic_ext_data', 'pg_authid', 'pg_shadow', 'pg_largeobject', "
    "'pg_user_mapping', 'pg_subscription'"
)

# Of subscriptions everybody may read some columns. What is no part of PostgreSQL and stands among
# its tables is somebody's, whom the rules about tables and views do not look at there.
_CATALOGS = f"""
        SELECT c.role, n.nspname || '.' || k.relname, 'TABLE'
        FROM confined c CROSS JOIN pg_catalog.pg_class k
        JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
        WHERE n.nspname IN ('pg_catalog', 'pg_toast', 'information_schema')
            AND k.relkind IN ('r', 'v', 'm', 't')
            AND CASE WHEN k.oid < {reach.FIRST_OWN} THEN k.relname IN ({_SECRETS})
                ELSE k.relacl IS NOT NULL END
            AND pg_catalog.has_schema_privilege(c.oid, n.oid, 'USAGE')
            AND (pg_catalog.has_table_privilege(c.oid, k.oid, 'SELECT')
                OR (k.relname <> 'pg_subscription'
                    AND pg_catalog.has_any_column_privilege(c.oid, k.oid, 'SELECT')))
            AND {not_of_an_extension("k", "pg_class")}"""

_FUNCTIONS = f"""
        SELECT c.role, p.oid::pg_catalog.regprocedure::text, 'FUNCTION'
        FROM confined c CROSS JOIN pg_catalog.pg_proc p
        WHERE p.proname IN ({_FILES})
            AND NOT pg_catalog.pg_has_role(c.oid, p.proowner, 'USAGE')
            AND pg_catalog.has_function_privilege(c.oid, p.oid, 'EXECUTE')
            AND (p.oid < {reach.FIRST_OWN} OR NOT {not_of_an_extension("p", "pg_proc")})"""

_LANGUAGES = """
        SELECT c.role, l.lanname::text, 'LANGUAGE'
        FROM confined c CROSS JOIN pg_catalog.pg_language l
        WHERE l.lanpltrusted AND l.lanname IN ('internal', 'c')
            AND pg_catalog.has_language_privilege(c.oid, l.oid, 'USAGE')"""


def _open(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for role, name, kind in subject.ask(f"""
    WITH {reach.confined(subject)},
    found(role, name, kind) AS ({_CATALOGS}
        UNION ALL{_FUNCTIONS}
        UNION ALL{_LANGUAGES})
    SELECT coalesce(json_agg(json_build_array(f.role, f.name, f.kind)
        ORDER BY f.name, f.role), '[]')::text
    FROM found f"""):
        yield rule.finding(
            name,
            f"Role {role!r} may use the {kind.lower()} {name} of PostgreSQL itself, which shows "
            "what policies hide, or runs what nothing restricts.",
            f"REVOKE ALL ON {kind} {name} FROM {quote(role)}, PUBLIC, and revoke the roles from "
            f"{quote(role)} that bring it, such as pg_read_all_data.",
        )


def _changed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for name, leakproof in subject.ask(f"""
    SELECT coalesce(json_agg(json_build_array(p.oid::pg_catalog.regprocedure::text, p.proleakproof)
        ORDER BY p.oid), '[]')::text
    FROM pg_catalog.pg_proc p
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE p.oid < {reach.FIRST_OWN} AND CASE WHEN p.proname IN ({_COMPARING})
        THEN l.lanname <> 'internal' OR p.prosrc NOT IN (p.proname, {_SOURCES})
        ELSE p.proleakproof AND p.xmin::text <> {_INITIAL} END"""):
        yield rule.finding(
            name,
            f"PostgreSQL's own function {name} is not as the server came, and policies are "
            f"{'not applied before it' if leakproof else 'made of it'}.",
            f"Where it was only marked: ALTER FUNCTION {name} NOT LEAKPROOF. Where it was "
            "replaced, dump into a new server. If it is known why it was changed, accept it.",
        )


def _parameters(rule: Rule, subject: Subject) -> Iterator[Finding]:
    if subject.version < reach.PARAMETER_PRIVILEGES:
        return
    for role, name, system in subject.ask(f"""
    WITH {reach.confined(subject)}
    SELECT coalesce(json_agg(json_build_array(f.role, f.name, f.system)
        ORDER BY f.name, f.role), '[]')::text
    FROM (SELECT c.role, p.parname AS name,
            pg_catalog.has_parameter_privilege(c.oid, p.parname, 'ALTER SYSTEM') AS system
        FROM confined c CROSS JOIN pg_catalog.pg_parameter_acl p
        WHERE pg_catalog.has_parameter_privilege(c.oid, p.parname, 'ALTER SYSTEM')
            OR (pg_catalog.has_parameter_privilege(c.oid, p.parname, 'SET')
                AND p.parname IN ({_LOADING}))) f"""):
        yield rule.finding(
            name,
            f"Role {role!r} may {'ALTER SYSTEM SET' if system else 'SET'} {name}: injected SQL has "
            "the server run a program or load a library, which no policy restricts.",
            f"REVOKE ALL ON PARAMETER {name} FROM {quote(role)}, PUBLIC",
        )


def _servers(rule: Rule, subject: Subject) -> Iterator[Finding]:
    for role, name in subject.ask(f"""
    WITH {reach.confined(subject)}
    SELECT coalesce(json_agg(json_build_array(c.role, s.srvname)
        ORDER BY s.srvname, c.role), '[]')::text
    FROM pg_catalog.pg_foreign_server s CROSS JOIN confined c
    WHERE pg_catalog.has_server_privilege(c.oid, s.oid, 'USAGE')
        AND EXISTS (SELECT FROM pg_catalog.pg_user_mappings m
            WHERE m.srvid = s.oid AND (m.umuser = 0
                OR CASE WHEN m.umuser <> 0 THEN m.umuser = c.oid END))"""):
        yield rule.finding(
            name,
            f"Role {role!r} has USAGE on the foreign server {name}, and connects there as whoever "
            "the user mapping says: back into this database, that can be one that sees all.",
            f"REVOKE USAGE ON FOREIGN SERVER {quote(name)} FROM PUBLIC, {quote(role)}; foreign "
            "tables do not need it.",
        )


RULES: tuple[Rule, ...] = (
    Rule("system-open", Severity.ERROR, _open),
    Rule("system-changed", Severity.ERROR, _changed),
    Rule("parameter-open", Severity.ERROR, _parameters),
    Rule("foreign-server-open", Severity.WARNING, _servers),
)
