"""The question for what lets a role get past row-level security."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.rls.forms import SEARCH_PATH
from tenantguard.rls.generate import LOCK_TIMEOUT, entries
from tenantguard.rls.names import literal, target_of
from tenantguard.rls.state import INVOKER, as_recordset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.state import Facts

__all__ = ["presets", "role_question"]

# Membership counts however it was granted: a role that does not inherit can still SET ROLE, and one
# that only administers can grant itself the rest.
_REACH = """
    WITH RECURSIVE reach(oid, start) AS (
        SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r
        WHERE r.rolname IN ({starts})
        UNION
        SELECT m.roleid, e.start
        FROM pg_catalog.pg_auth_members m JOIN reach e ON e.oid = m.member)"""

_SESSION = "current_user, session_user"

# Roles of PostgreSQL that can become superuser through the server's files and programs.
_SERVER_ROLES = "('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')"

_OWNERS = """coalesce(json_agg(json_build_object('start', e.start, 'role', r.rolname,
                'name', {owned}) ORDER BY e.start, r.rolname, {owned}), '[]')"""


def role_question(catalog: Catalog, roles: Roles, starts: Sequence[str] = ()) -> str:
    """Return the question for what makes a role unsafe; `judge_roles` reads the answer.

    *starts* are the roles by their names. Without them they are the session's, and the transaction
    is prepared as `role_findings` says.
    """
    guarded = [
        {"s": target_of(entry)[0], "t": target_of(entry)[1]}
        for entry in entries(catalog)
        if entry.guarded
    ]
    return _question(guarded, roles, starts)


def _question(guarded: list[Facts], roles: Roles, named: Sequence[str]) -> str:
    starts = ", ".join(map(literal, named)) or _SESSION
    return f"""{_REACH.format(starts=starts)}
    SELECT json_build_object({"" if named else _preparing()}
        'named', {str(bool(named)).lower()},
        'version', pg_catalog.current_setting('server_version_num')::int,
        'current', current_user, 'session', session_user,
        'bound', coalesce(pg_catalog.current_setting('{SETTING}', true), '') <> '',
        'is_application', (SELECT coalesce(bool_or(pg_catalog.pg_has_role(a.oid, 'USAGE')), false)
            FROM pg_catalog.pg_roles a WHERE a.rolname = {literal(roles.application)}),
        'reach', (SELECT coalesce(json_agg(json_build_object('role', r.rolname, 'start', e.start,
                'super', r.rolsuper, 'bypass', r.rolbypassrls, 'create', r.rolcreaterole,
                'replication', r.rolreplication,
                'server', r.rolname IN {_SERVER_ROLES})), '[]')
            FROM reach e JOIN pg_catalog.pg_roles r ON r.oid = e.oid),
        'owned', (SELECT coalesce(json_agg(json_build_object('s', w.s, 't', w.t, 'role', r.rolname,
                'start', e.start)), '[]')
            FROM {as_recordset(guarded, "s text, t text")}
            JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
            JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            JOIN reach e ON e.oid = k.relowner JOIN pg_catalog.pg_roles r ON r.oid = e.oid),
        'databases', (SELECT {_OWNERS.format(owned="d.datname")}
            FROM pg_catalog.pg_database d JOIN reach e ON e.oid = d.datdba
            JOIN pg_catalog.pg_roles r ON r.oid = e.oid WHERE d.datname = current_database()),
        'schemas', (SELECT {_OWNERS.format(owned="n.nspname")}
            FROM pg_catalog.pg_namespace n JOIN reach e ON e.oid = n.nspowner
            JOIN pg_catalog.pg_roles r ON r.oid = e.oid
            WHERE n.nspname IN (SELECT w.s FROM {as_recordset(guarded, "s text, t text")})),
        'open', (SELECT coalesce(json_agg(w.s || '.' || w.t ORDER BY 1), '[]')
            FROM {as_recordset(guarded, "s text, t text")}
            JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
            JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            WHERE NOT CASE k.relkind WHEN 'v' THEN {INVOKER.format(relation="k")}
                ELSE k.relrowsecurity AND k.relforcerowsecurity END),
        'defaults', (SELECT coalesce(json_agg(json_build_object(
                'role', r.rolname, 'database', d.datname)), '[]')
            FROM {presets(starts, f"lower(split_part(c, '=', 1)) = '{SETTING}'")})
    )::text"""


def presets(starts: str, condition: str) -> str:
    """Return what follows FROM: defaults for the roles *starts* here, `s`, with role and database.

    *condition* is what an option `c` of them is, such as "row_security=off".
    """
    return f"""pg_catalog.pg_db_role_setting s
            LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
            LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
            WHERE (s.setrole = 0 OR r.rolname IN ({starts}))
                AND (s.setdatabase = 0 OR d.datname = pg_catalog.current_database())
                AND EXISTS (SELECT FROM unnest(s.setconfig) c WHERE {condition})"""


def _preparing() -> str:
    """Return what sets up the transaction for the questions after this one."""
    return f"""
        'path', pg_catalog.set_config('search_path', '{SEARCH_PATH}', true),
        'jit', pg_catalog.set_config('jit', 'off', true),
        'wait', pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true),"""
