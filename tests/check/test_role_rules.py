"""Roles that policies do not hold, and defaults that open an unbound session."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from planting import RULE, Plant, planted, subject_of
from sqlalchemy import create_engine

from tenantguard.check import Subject, examine, roles
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from locks import World

APPLICATION = "{application}"
SUPPORT = "{support}"
BETWEEN = "CREATE ROLE tg_between; GRANT {maintenance} TO tg_between;"
WITHOUT_LOGIN = "ALTER ROLE {application} NOLOGIN;"
LOGIN = f"{WITHOUT_LOGIN} CREATE ROLE tg_login LOGIN IN ROLE {{application}};"
MEMBER = "CREATE ROLE tg_reports IN ROLE {maintenance}"


@dataclass(frozen=True, slots=True)
class OnVersion(Plant):
    """A fault that servers of some versions have: they are asked of a server said to be of it."""

    version: int = 0
    fine_version: int = 0

    def is_found(self, world: World) -> None:
        assert self.look(world, self.fault, self.version) == ["role-createrole"]

    def is_not_found(self, world: World) -> None:
        assert self.look(world, self.fine, self.fine_version) == []

    def look(self, world: World, script: str, version: int) -> list[str]:
        with planted(world, script) as subject:
            said = _Said(subject.catalog, subject.roles, subject.run)
            said.said = version
            return [each.code for each in examine(said, [RULE[self.rule]]).findings]


class _Said(Subject):
    said = 0

    def ask(self, question: str) -> Any:
        answer = super().ask(question)
        return {**answer, "version": self.said} if "version" in answer else answer


PLANTS = (
    Plant(
        "role-missing",
        "ALTER ROLE {support} RENAME TO tg_former",
        SUPPORT,
        "ALTER ROLE {owner} RENAME TO tg_former",
    ),
    Plant("role-no-login", WITHOUT_LOGIN, APPLICATION, LOGIN, "no login"),
    Plant(
        "role-no-login",
        f"{WITHOUT_LOGIN} CREATE ROLE tg_login LOGIN NOINHERIT; GRANT {{application}} TO tg_login",
        APPLICATION,
        f"{WITHOUT_LOGIN} CREATE ROLE tg_group IN ROLE {{application}};"
        "CREATE ROLE tg_login LOGIN IN ROLE tg_group",
        "no login that inherits",
    ),
    Plant(
        "role-superuser",
        "ALTER ROLE {application} SUPERUSER",
        APPLICATION,
        "ALTER ROLE {owner} SUPERUSER",
        "application",
    ),
    Plant("role-superuser", "ALTER ROLE {support} SUPERUSER", SUPPORT, MEMBER, "support"),
    Plant(
        "role-superuser",
        f"{LOGIN} ALTER ROLE tg_login SUPERUSER",
        "tg_login",
        "CREATE ROLE tg_person LOGIN SUPERUSER IN ROLE {application}",
        "login of the application",
    ),
    Plant(
        "role-bypassrls",
        "ALTER ROLE {application} BYPASSRLS",
        APPLICATION,
        "ALTER ROLE {owner} BYPASSRLS",
    ),
    OnVersion(
        "role-createrole",
        "ALTER ROLE {application} CREATEROLE",
        APPLICATION,
        "ALTER ROLE {owner} CREATEROLE",
        version=150_000,
        fine_version=150_000,
    ),
    OnVersion(
        "role-createrole",
        "ALTER ROLE {support} CREATEROLE",
        SUPPORT,
        "ALTER ROLE {application} CREATEROLE",
        "from PostgreSQL 16 on",
        version=140_000,
        fine_version=160_000,
    ),
    Plant(
        "role-replication",
        "ALTER ROLE {application} REPLICATION",
        APPLICATION,
        "ALTER ROLE {backup} REPLICATION",
        "itself",
    ),
    Plant(
        "role-replication",
        "CREATE ROLE tg_copy REPLICATION; GRANT tg_copy TO {application}",
        APPLICATION,
        "CREATE ROLE tg_copy REPLICATION",
        "through a role",
    ),
    *(
        Plant(
            "role-reaches",
            f"GRANT {role} TO {{application}}",
            APPLICATION,
            f"CREATE ROLE tg_job; GRANT {role} TO tg_job",
            label,
        )
        for role, label in (
            ("{maintenance}", "maintenance"),
            ("{owner}", "owner"),
            ("{backup}", "backup"),
            ("{support}", "support"),
            ("pg_execute_server_program", "server's programs"),
        )
    ),
    Plant(
        "role-reaches",
        "ALTER ROLE {application} NOINHERIT; GRANT {maintenance} TO {application}",
        APPLICATION,
        "ALTER ROLE {application} NOINHERIT; GRANT pg_read_all_stats TO {application}",
        "without INHERIT",
    ),
    Plant(
        "role-reaches",
        f"{BETWEEN} GRANT tg_between TO {{application}}",
        APPLICATION,
        f"{BETWEEN} GRANT {{application}} TO tg_between",
        "through a role",
    ),
    Plant(
        "role-reaches",
        "CREATE ROLE tg_root SUPERUSER; GRANT tg_root TO {application}",
        APPLICATION,
        "CREATE ROLE tg_root SUPERUSER; GRANT {application} TO tg_root",
        "superuser",
    ),
    Plant("role-reaches", "GRANT {maintenance} TO {support}", SUPPORT, MEMBER, "from support"),
    Plant(
        "role-reaches",
        f"{LOGIN} GRANT {{maintenance}} TO tg_login",
        "tg_login",
        "CREATE ROLE tg_job LOGIN IN ROLE {application}, {maintenance}",
        "from the application's login",
    ),
    Plant(
        "role-owns-table",
        "ALTER TABLE orders OWNER TO {application}",
        "public.orders",
        "ALTER TABLE orders OWNER TO {owner}",
        "itself",
    ),
    Plant(
        "role-owns-table",
        "CREATE ROLE tg_group; ALTER TABLE orders OWNER TO tg_group; GRANT tg_group TO {support}",
        "public.orders",
        "CREATE ROLE tg_group; GRANT tg_group TO {support};ALTER TABLE materials OWNER TO tg_group",
        "through a role",
    ),
    Plant(
        "role-owns-schema",
        "ALTER SCHEMA public OWNER TO {application}",
        APPLICATION,
        "ALTER SCHEMA public OWNER TO {owner}; CREATE SCHEMA own AUTHORIZATION {application}",
    ),
    Plant(
        "role-owns-database",
        "ALTER DATABASE {database} OWNER TO {application}",
        APPLICATION,
        "ALTER DATABASE {database} OWNER TO {owner}",
    ),
    *(
        Plant(rule, f"ALTER {where} SET {setting}", at, f"ALTER {elsewhere} SET {setting}", label)
        for rule, setting in (
            ("setting-default", "tenantguard.tenant = 'x'"),
            ("row-security-off", "row_security = off"),
        )
        for label, where, at, elsewhere in (
            ("role", "ROLE {application}", APPLICATION, "ROLE {owner}"),
            ("database", "DATABASE {database}", None, "DATABASE template1"),
            (
                "role in the database",
                "ROLE {support} IN DATABASE {database}",
                SUPPORT,
                "ROLE {support} IN DATABASE template1",
            ),
            (
                "everybody in the database",
                "ROLE ALL IN DATABASE {database}",
                None,
                "ROLE ALL IN DATABASE template1",
            ),
        )
    ),
    Plant(
        "setting-bound",
        "SET LOCAL tenantguard.tenant = 'x'",
        None,
        "SET LOCAL tenantguard.tenant = ''",
    ),
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


def of(world: World, plant: Plant) -> Plant:
    """Put the names of *world* into *plant*."""
    names = {"database": str(world.admin.url.database), **vars_of(world)}

    def named(text: str) -> str:
        for name, value in names.items():
            text = text.replace(f"{{{name}}}", value)
        return text

    return replace(
        plant,
        fault=named(plant.fault),
        fine=named(plant.fine),
        at=None if plant.at is None else named(plant.at),
    )


def vars_of(world: World) -> dict[str, str]:
    named = world.guard.roles
    return {"application": named.application, "support": named.support}


@plants
def test_a_planted_fault_is_found(world: World, plant: Plant) -> None:
    """Each way past the policies is found by the role's name, whoever asks."""
    of(world, plant).is_found(world)


@plants
def test_what_only_looks_like_it_is_not_found(world: World, plant: Plant) -> None:
    of(world, plant).is_not_found(world)


@plants
def test_the_owner_finds_it_too(world: World, plant: Plant) -> None:
    """No superuser is needed: the catalogs are enough."""
    named = of(world, plant)
    replace(named, fault=f"{named.fault}; SET LOCAL ROLE {{owner}}").is_found(world)


@pytest.mark.parametrize("options", ["", "INHERIT FALSE, SET FALSE", "INHERIT FALSE, SET TRUE"])
def test_a_membership_counts_however_it_was_granted(
    world: World, server_version: int, options: str
) -> None:
    """PostgreSQL 16 has options for it, which the member may be able to change."""
    granted = "GRANT {maintenance} TO {application}"
    if server_version >= 160_000 and options:
        granted += f" WITH {options}"
    with planted(world, granted) as subject:
        found = examine(subject, [RULE["role-reaches"]]).findings
    assert [each.object for each in found] == [world.guard.roles.application]


def test_the_server_turns_row_security_off(world: World) -> None:
    """A default of the whole server is seen in what the session would be reset to."""
    options = {"options": "-c row_security=off"}
    admin = create_engine(world.admin.url, connect_args=options)
    with admin.connect() as connection:
        [found] = examine(subject_of(world, connection), [RULE["row-security-off"]]).findings
    admin.dispose()
    assert "postgresql.conf" in found.mend


def test_findings_are_named_and_mended(world: World) -> None:
    """Nothing speaks of the connection's role, which is the administrator's; no value is shown."""
    script = (
        "ALTER ROLE {application} BYPASSRLS REPLICATION; GRANT {maintenance} TO {application};"
        "ALTER TABLE orders OWNER TO {application};"
        "ALTER ROLE {application} SET tenantguard.tenant = 'somebody'"
    )
    with planted(world, script) as subject:
        found = examine(subject, roles.RULES).findings
    assert {each.code for each in found} == {
        "role-bypassrls",
        "role-replication",
        "role-reaches",
        "role-owns-table",
        "setting-default",
    }
    assert all(each.severity is Severity.ERROR and each.mend for each in found)
    assert not any("connection's" in str(each) or "somebody" in str(each) for each in found)
