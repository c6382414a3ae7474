"""Whether the connection's role, or a role by its name, can get past row-level security."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.findings import Finding
from tenantguard.rls.forms import SEARCH_PATH
from tenantguard.rls.generate import LOCK_TIMEOUT, entries
from tenantguard.rls.names import literal, quote, target_of
from tenantguard.rls.state import INVOKER, as_recordset, ask

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.state import Facts, Run

__all__ = ["judge_roles", "role_findings", "role_question"]

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


def role_findings(
    run: Run, catalog: Catalog, roles: Roles, *, switches: bool = False
) -> Iterator[Finding]:
    """Yield what makes the session's roles unsafe. One statement.

    With *switches*, tables whose row-level security is off or not forced are found as well.

    On the way, the transaction's search path is fixed, so that later questions are spelled alike,
    JIT is turned off, which costs more than it saves on questions asked once, and no later question
    waits long for a table that a migration has locked.
    """
    facts = ask(run, role_question(catalog, roles))
    if switches:
        yield from _switched_off(facts)
    yield from judge_roles(facts, roles)


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


def judge_roles(facts: Facts, roles: Roles) -> Iterator[Finding]:
    """Yield what the answer to `role_question` shows; of roles asked by name, with that name."""
    yield from (
        *_attributes(facts),
        *_memberships(facts, roles),
        *_ownership(facts, roles),
        *_settings(facts),
    )


def _switched_off(facts: Facts) -> Iterator[Finding]:
    for table in facts["open"]:
        yield Finding(
            "rls-off",
            table,
            f"Row-level security is off, or not forced, on {table}.",
            "Run `tenantguard rls apply` with the owner's address.",
        )


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
                'server', r.rolname IN {_SERVER_ROLES})), '[]')
            FROM reach e JOIN pg_catalog.pg_roles r ON r.oid = e.oid),
        'owned', (SELECT coalesce(json_agg(json_build_object('s', w.s, 't', w.t, 'role', r.rolname,
                'start', e.start)), '[]')
            FROM {as_recordset(guarded, "s text, t text")}
            JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
            JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            JOIN reach e ON e.oid = k.relowner JOIN pg_catalog.pg_roles r ON r.oid = e.oid),
        'open', (SELECT coalesce(json_agg(w.s || '.' || w.t ORDER BY 1), '[]')
            FROM {as_recordset(guarded, "s text, t text")}
            JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
            JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t
            WHERE NOT CASE k.relkind WHEN 'v' THEN {INVOKER.format(relation="k")}
                ELSE k.relrowsecurity AND k.relforcerowsecurity END),
        'defaults', (SELECT coalesce(json_agg(json_build_object(
                'role', r.rolname, 'database', d.datname)), '[]')
            FROM pg_catalog.pg_db_role_setting s
            LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
            LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase
            WHERE (s.setrole = 0 OR r.rolname IN ({starts}))
              AND (s.setdatabase = 0 OR d.datname = current_database())
              AND EXISTS (SELECT FROM unnest(s.setconfig) c
                  WHERE lower(split_part(c, '=', 1)) = '{SETTING}'))
    )::text"""


def _preparing() -> str:
    """Return what sets up the transaction for the questions after this one."""
    return f"""
        'path', pg_catalog.set_config('search_path', '{SEARCH_PATH}', true),
        'jit', pg_catalog.set_config('jit', 'off', true),
        'wait', pg_catalog.set_config('lock_timeout', '{LOCK_TIMEOUT}', true),"""


def _attributes(facts: Facts) -> Iterator[Finding]:
    for role in _once(facts):
        if role["role"] != role["start"]:
            continue
        name = role["role"]
        if role["super"]:
            yield Finding(
                "role-superuser",
                _at(facts, name),
                f"{_whose(facts)} role {name!r} is a superuser, which no policy restricts.",
                f"Connect as a role of its own, or: ALTER ROLE {quote(name)} NOSUPERUSER",
            )
        elif role["bypass"]:
            yield Finding(
                "role-bypassrls",
                _at(facts, name),
                f"{_whose(facts)} role {name!r} has BYPASSRLS.",
                f"ALTER ROLE {quote(name)} NOBYPASSRLS",
            )
        if role["create"] and not role["super"] and facts["version"] < 160000:  # noqa: PLR2004
            yield Finding(
                "role-createrole",
                _at(facts, name),
                f"{_whose(facts)} role {name!r} has CREATEROLE, and before PostgreSQL 16 can "
                "grant itself any role.",
                f"ALTER ROLE {quote(name)} NOCREATEROLE",
            )
    if not facts["named"] and not facts["is_application"]:
        yield Finding(
            "role-not-application",
            None,
            f"The connection's role {facts['current']!r} is not the application's role and does "
            "not inherit from it, so the policies do not apply to it.",
            "Connect as the role named in Roles(application=…), or grant that role to this one.",
        )


def _memberships(facts: Facts, roles: Roles) -> Iterator[Finding]:
    wider = {
        roles.maintenance: "the maintenance role, which sees all tenants",
        roles.backup: "the backup role, which sees all tenants",
        roles.support: "the support role, which acts for any tenant it names",
        roles.owner: "the owner's role",
    }
    start_is_super = {role["start"] for role in _once(facts) if role["super"]}
    for role in _once(facts):
        name, start = role["role"], role["start"]
        direct = name == start
        what = wider.get(name)
        if what is None and not direct:
            what = _dangerous(role)
        # Who is asked for by name may be any of these roles itself.
        excused = start in start_is_super or facts["named"]
        if what is None or (direct and excused):
            continue
        yield Finding(
            "role-reaches",
            _at(facts, start),
            f"{_whose(facts)} role {start!r} is {what}."
            if direct
            else f"{_whose(facts)} role {start!r} is a member of {name!r}: {what}. "
            "Injected SQL can SET ROLE to it.",
            "Connect as a role of its own."
            if direct
            else f"REVOKE {quote(name)} FROM {quote(start)} (or from the role in between)",
        )


def _dangerous(role: Facts) -> str | None:
    if role["super"]:
        return "a superuser"
    if role["bypass"]:
        return "a role with BYPASSRLS"
    if role["server"]:
        return "a role that can become superuser"
    return None


def _ownership(facts: Facts, roles: Roles) -> Iterator[Finding]:
    for owned in facts["owned"]:
        table = f"{owned['s']}.{owned['t']}"
        yield Finding(
            "role-owns-table",
            table,
            f"{_whose(facts)} role {owned['start']!r} owns {table}, itself or through "
            f"{owned['role']!r}, and can turn its policies off.",
            f"ALTER TABLE {quote(owned['s'])}.{quote(owned['t'])} OWNER TO {quote(roles.owner)}",
        )


def _settings(facts: Facts) -> Iterator[Finding]:
    for default in facts["defaults"]:
        role, database = default["role"], default["database"]
        where = f"ROLE {quote(role)}" if role else "ROLE ALL"
        where += f" IN DATABASE {quote(database)}" if database else ""
        yield Finding(
            "setting-default",
            _at(facts, role),
            f"The setting {SETTING} has a default, so a session that is bound to no tenant acts "
            "for one.",
            f"ALTER {where} RESET {SETTING}",
        )
    if facts["bound"]:
        yield Finding(
            "setting-bound",
            None,
            f"The setting {SETTING} is not empty at the start of the session.",
            f"Remove {SETTING} from postgresql.conf and from the connection's options.",
        )


def _at(facts: Facts, role: str | None) -> str | None:
    """Return the object of a finding: the session's role is not named, it is the one that asks."""
    return role if facts["named"] else None


def _whose(facts: Facts) -> str:
    return "The" if facts["named"] else "The connection's"


def _once(facts: Facts) -> list[Facts]:
    return sorted(facts["reach"], key=lambda role: (role["start"], role["role"]))
