"""Whether the connection's role, or a role by its name, can get past row-level security."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import SETTING
from tenantguard.findings import Finding
from tenantguard.rls.names import quote
from tenantguard.rls.role_question import role_question
from tenantguard.rls.state import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.state import Facts, Run

__all__ = ["judge_roles", "role_findings"]


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


def judge_roles(facts: Facts, roles: Roles) -> Iterator[Finding]:
    """Yield what the answer to `role_question` shows; of roles asked by name, with that name."""
    yield from (
        *_attributes(facts),
        *_memberships(facts, roles),
        *_replication(facts),
        *_ownership(facts, roles),
        *_owned_around(facts, roles),
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
    reach_superuser = {role["start"] for role in _once(facts) if role["super"]}
    for role in _once(facts):
        name, start = role["role"], role["start"]
        direct = name == start
        what = wider.get(name)
        if what is None and not direct:
            what = _dangerous(role)
        # Who is asked for by name may be any of these roles itself.
        excused = start in reach_superuser or facts["named"]
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


def _replication(facts: Facts) -> Iterator[Finding]:
    superusers = _superusers(facts)
    for role in _once(facts):
        start, name = role["start"], role["role"]
        if not role["replication"] or role["super"] or start in superusers:
            continue
        yield Finding(
            "role-replication",
            _at(facts, start),
            f"{_whose(facts)} role {start!r} has REPLICATION{_through(role)}: it can read the "
            "changes of all tenants from the write-ahead log, which has no policies.",
            f"ALTER ROLE {quote(name)} NOREPLICATION; replication gets a role of its own.",
        )


def _owned_around(facts: Facts, roles: Roles) -> Iterator[Finding]:
    """Yield the ownership of what guarded tables are in."""
    superusers, owner = _superusers(facts), quote(roles.owner)
    for each in facts["databases"]:
        if each["start"] not in superusers:
            yield Finding(
                "role-owns-database",
                _at(facts, each["start"]),
                f"{_whose(facts)} role {each['start']!r} owns the database{_through(each)}, and "
                "from PostgreSQL 15 on with it the schema public: it can drop protected tables "
                "and put its own there.",
                f"ALTER DATABASE {quote(each['name'])} OWNER TO {owner}",
            )
    for each in facts["schemas"]:
        if each["start"] not in superusers:
            yield Finding(
                "role-owns-schema",
                _at(facts, each["start"]),
                f"{_whose(facts)} role {each['start']!r} owns the schema {each['name']}"
                f"{_through(each)}: it can drop protected tables in it and put its own there.",
                f"ALTER SCHEMA {quote(each['name'])} OWNER TO {owner}",
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


def _through(facts: Facts) -> str:
    return "" if facts["role"] == facts["start"] else f" through {facts['role']!r}"


def _superusers(facts: Facts) -> set[str]:
    """Return which of the roles asked for are superusers: of those, one finding says all."""
    return {each["start"] for each in facts["reach"] if each["super"] and _is_direct(each)}


def _is_direct(role: Facts) -> bool:
    return bool(role["role"] == role["start"])


def _whose(facts: Facts) -> str:
    return "The" if facts["named"] else "The connection's"


def _once(facts: Facts) -> list[Facts]:
    return sorted(facts["reach"], key=lambda role: (role["start"], role["role"]))
