"""Privileges that reach further than policies do are found; those that are needed are not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from planting import RULE, Plant, planted

from tenantguard.check import examine

if TYPE_CHECKING:
    from locks import World

DEFAULTS = "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} "
MAINTAIN_SINCE = 170000

PLANTS = (
    Plant(
        "privilege-excess",
        "GRANT TRUNCATE ON orders TO {application}",
        at="public.orders",
        fine="GRANT DELETE ON orders TO {application}",
    ),
    Plant(
        "privilege-excess",
        "GRANT REFERENCES, TRIGGER ON patients TO {application}",
        at="public.patients",
        fine="GRANT TRUNCATE ON patients TO {owner}",
        label="to build on it",
    ),
    Plant(
        "privilege-excess",
        "GRANT UPDATE (name) ON materials TO {application}",
        at="public.materials",
        fine="GRANT SELECT (name) ON materials TO {application}",
        label="one column of a shared table",
    ),
    Plant(
        "privilege-excess",
        "GRANT SELECT ON schema_versions TO {application}",
        at="public.schema_versions",
        fine="GRANT SELECT ON schema_versions TO {maintenance}",
        label="an untenanted table",
    ),
    Plant(
        "privilege-excess",
        "GRANT INSERT ON practices TO {application}",
        at="public.practices",
        fine="GRANT INSERT ON practices TO {maintenance}",
        label="the registry",
    ),
    Plant(
        "privilege-excess",
        "GRANT UPDATE ON orders TO {support}",
        at="public.orders",
        fine="GRANT SELECT ON orders TO {support}",
        label="support writes",
    ),
    Plant(
        "privilege-excess",
        "GRANT DELETE ON orders TO {backup}",
        at="public.orders",
        fine="GRANT SELECT ON orders TO {backup}",
        label="backup writes",
    ),
    Plant(
        "privilege-excess",
        "CREATE ROLE tg_check_group; GRANT TRUNCATE ON tags TO tg_check_group; "
        "GRANT tg_check_group TO {application}",
        at="public.tags",
        fine="CREATE ROLE tg_check_group; GRANT TRUNCATE ON tags TO tg_check_group",
        label="through a group",
    ),
    Plant(
        "privilege-public",
        "GRANT SELECT ON orders TO PUBLIC",
        at="public.orders",
        fine="GRANT SELECT ON orders TO {application}",
    ),
    Plant(
        "privilege-public",
        "GRANT SELECT (version) ON schema_versions TO PUBLIC",
        at="public.schema_versions",
        fine="CREATE TABLE loose (); GRANT SELECT ON loose TO PUBLIC",
        label="one column",
    ),
    Plant(
        "privilege-public",
        "CREATE TABLE old_orders () INHERITS (orders); GRANT INSERT ON old_orders TO PUBLIC",
        at="public.old_orders",
        fine="CREATE TABLE old_orders () INHERITS (orders)",
        label="a part",
    ),
    Plant(
        "privilege-grantable",
        "GRANT SELECT ON orders TO {application} WITH GRANT OPTION",
        at="public.orders",
        fine="GRANT SELECT ON orders TO {owner} WITH GRANT OPTION",
    ),
    Plant(
        "privilege-grantable",
        "GRANT SELECT (what) ON orders TO {support} WITH GRANT OPTION",
        at="public.orders",
        fine="GRANT SELECT (what) ON orders TO {support}",
        label="one column",
    ),
    Plant(
        "privilege-grantable",
        "GRANT USAGE ON SCHEMA public TO {application} WITH GRANT OPTION",
        at="public",
        fine="GRANT USAGE ON SCHEMA public TO {application}",
        label="a schema",
    ),
    Plant(
        "schema-create",
        "GRANT CREATE ON SCHEMA public TO {application}",
        at="public",
        fine="GRANT CREATE ON SCHEMA public TO {owner}",
    ),
    Plant(
        "schema-create",
        "CREATE SCHEMA tools; GRANT CREATE ON SCHEMA tools TO PUBLIC; "
        "REVOKE CREATE ON SCHEMA tools FROM {support}",
        at="tools",
        fine="CREATE SCHEMA tools; GRANT USAGE ON SCHEMA tools TO PUBLIC",
        label="for everybody",
    ),
    Plant(
        "schema-create",
        "DO $$BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {application}', "
        "current_database()); END$$",
        at=None,
        fine="DO $$BEGIN EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO {application}', "
        "current_database()); END$$",
        label="a schema of its own",
    ),
    Plant(
        "default-privileges",
        DEFAULTS + "IN SCHEMA public GRANT SELECT ON TABLES TO {application}",
        at="public",
        fine=DEFAULTS + "IN SCHEMA public GRANT SELECT ON TABLES TO {maintenance}, {backup}",
    ),
    Plant(
        "default-privileges",
        DEFAULTS + "GRANT INSERT ON TABLES TO PUBLIC",
        at=None,
        fine=DEFAULTS
        + "GRANT USAGE, SELECT ON SEQUENCES TO {application}; "
        + DEFAULTS
        + "GRANT USAGE ON SCHEMAS TO {application}",
        label="for everybody, anywhere",
    ),
    Plant(
        "default-privileges",
        DEFAULTS + "GRANT CREATE ON SCHEMAS TO {support}",
        at=None,
        fine=DEFAULTS + "GRANT EXECUTE ON FUNCTIONS TO {application}",
        label="of schemas",
    ),
    Plant(
        "sequence-excess",
        "GRANT UPDATE ON SEQUENCE orders_id_seq TO {application}",
        at="public.orders_id_seq",
        fine="GRANT USAGE, SELECT ON SEQUENCE orders_id_seq TO {application}; "
        "GRANT UPDATE ON SEQUENCE orders_id_seq TO {maintenance}",
    ),
    Plant(
        "sequence-excess",
        "GRANT ALL ON SEQUENCE orders_id_seq TO PUBLIC; "
        "REVOKE ALL ON SEQUENCE orders_id_seq FROM {application}",
        at="public.orders_id_seq",
        fine="CREATE SCHEMA tools; CREATE SEQUENCE tools.numbers; "
        "GRANT ALL ON SEQUENCE tools.numbers TO PUBLIC",
        label="for everybody",
    ),
    Plant(
        "large-object-open",
        "SELECT lo_create(424242); GRANT SELECT ON LARGE OBJECT 424242 TO PUBLIC",
        at=None,
        fine="SELECT lo_create(424242); GRANT SELECT ON LARGE OBJECT 424242 TO {maintenance}",
    ),
    Plant(
        "large-object-open",
        "ALTER ROLE {application} SET lo_compat_privileges = on",
        at=None,
        fine="ALTER ROLE {owner} SET lo_compat_privileges = on; "
        "ALTER ROLE {application} SET lo_compat_privileges = off",
        label="without privileges",
    ),
    Plant(
        "large-object-open",
        "SELECT lo_create(424242); ALTER LARGE OBJECT 424242 OWNER TO {application}",
        at=None,
        fine="SELECT lo_create(424242)",
        label="of its own",
    ),
)

MAINTAIN = Plant(
    "privilege-excess",
    "GRANT MAINTAIN ON orders TO {application}",
    at="public.orders",
    fine="GRANT MAINTAIN ON orders TO {owner}",
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


@plants
def test_a_fault_is_found(world: World, plant: Plant) -> None:
    plant.is_found(world)


@plants
def test_what_only_looks_like_it_is_not(world: World, plant: Plant) -> None:
    plant.is_not_found(world)


def test_faults_of_newer_servers_are_found(world: World, server_version: int) -> None:
    """What an older server does not have cannot be planted there."""
    if server_version >= MAINTAIN_SINCE:
        MAINTAIN.is_found(world)
        MAINTAIN.is_not_found(world)


def test_what_everybody_may_is_said_once(world: World) -> None:
    """Each of our roles may do what PUBLIC may; that is one fault, not four."""
    rules = [RULE["privilege-excess"], RULE["privilege-public"]]
    with planted(world, "GRANT TRUNCATE ON orders TO PUBLIC") as subject:
        result = examine(subject, rules)
    assert [each.code for each in result.findings] == ["privilege-public"]


def test_a_role_is_named(world: World) -> None:
    with planted(world, "GRANT DELETE ON orders TO {support}") as subject:
        [finding] = examine(subject, [RULE["privilege-excess"]]).findings
    assert f"Role {world.guard.roles.support!r} may DELETE on public.orders" in finding.message


def test_an_undecided_table_is_out_of_reach(world: World) -> None:
    """Until somebody decides whose it is, the application may not even read it."""
    with planted(world, "") as subject:
        subject.catalog = replace(world.guard.catalog, shared={}, _entries={})
        result = examine(subject, [RULE["privilege-excess"]])
    assert {each.object for each in result.findings} == {"public.materials"}
    assert "The application may SELECT on public.materials, which is unclassified." in [
        each.message for each in result.findings
    ]
