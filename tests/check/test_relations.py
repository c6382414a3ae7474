"""What shows rows beside the policies, and what a write sets off, is found; its like is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from planting import RULE, Plant, planted

from tenantguard.check import examine

if TYPE_CHECKING:
    from locks import World

LIST = "CREATE VIEW reading_list AS SELECT name FROM patients; "
COPY = "CREATE MATERIALIZED VIEW totals AS SELECT sum(cents) FROM orders; "
CHILD = "CREATE TABLE old_orders () INHERITS (orders); "
LOCKED = (
    "ALTER TABLE old_orders ENABLE ROW LEVEL SECURITY; "
    "ALTER TABLE old_orders FORCE ROW LEVEL SECURITY; "
    "CREATE POLICY own ON old_orders TO {application} USING ({qual}); "
    "GRANT SELECT ON old_orders TO {application}"
)
TOTAL = (
    "CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql "
    "AS 'BEGIN RETURN (SELECT sum(cents) FROM public.orders); END'; "
    "CREATE MATERIALIZED VIEW totals AS SELECT total(); "
)
PARENT = "CREATE TABLE people (tenant_id uuid NOT NULL); ALTER TABLE patients INHERIT people; "
FAR = (
    "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; "
    "CREATE FOREIGN TABLE far_orders ({columns}) SERVER far; GRANT SELECT ON far_orders TO {role}; "
)
FUNCTION = (
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY {security} "
    "SET search_path = pg_catalog, pg_temp AS 'BEGIN RETURN NEW; END'; "
)
TRIGGER = "CREATE TRIGGER note BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION note(); "
INBOX = (
    FUNCTION + "CREATE VIEW inbox AS SELECT 1 AS letter; GRANT INSERT ON inbox TO {application}; "
    "CREATE TRIGGER note INSTEAD OF INSERT ON inbox FOR EACH ROW EXECUTE FUNCTION note(); "
)
EVENT = (
    "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql SECURITY {security} "
    "SET search_path = pg_catalog, pg_temp AS 'BEGIN END'; "
    "CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION note(); "
)
RULE_TO = "CREATE RULE note AS ON INSERT TO {table} DO ALSO NOTIFY note; "
INVOKER_SINCE = 150000


def far(columns: str, role: str) -> str:
    return FAR.replace("{columns}", columns).replace("{role}", role)


def trigger(table: str, security: str) -> str:
    return FUNCTION.replace("{security}", security) + TRIGGER.replace("{table}", table)


PLANTS = (
    Plant(
        "view-of-owner",
        LIST + "GRANT SELECT ON reading_list TO {application}",
        at="public.reading_list",
        fine=LIST + "GRANT SELECT ON reading_list TO {maintenance}",
    ),
    Plant(
        "view-of-owner",
        LIST + "ALTER VIEW reading_list OWNER TO {owner}; "
        "GRANT SELECT ON reading_list TO {application}",
        at="public.reading_list",
        fine="CREATE VIEW prices AS SELECT name FROM materials; "
        "GRANT SELECT ON prices TO {application}",
        label="of an owner without BYPASSRLS",
    ),
    Plant(
        "view-of-owner",
        LIST + "CREATE VIEW names AS SELECT * FROM reading_list; GRANT SELECT ON names TO PUBLIC",
        at="public.names",
        fine=LIST,
        label="through another view",
    ),
    Plant(
        "view-of-owner",
        LIST + "GRANT SELECT (name) ON reading_list TO {support}",
        at="public.reading_list",
        fine="CREATE SCHEMA closed; CREATE VIEW closed.names AS SELECT name FROM patients; "
        "GRANT SELECT ON closed.names TO {application}",
        label="one column for support",
    ),
    Plant(
        "view-materialised",
        COPY + "GRANT SELECT ON totals TO {application}",
        at="public.totals",
        fine=COPY + "GRANT SELECT ON totals TO {maintenance}, {backup}",
    ),
    Plant(
        "view-materialised",
        LIST + "CREATE MATERIALIZED VIEW names AS SELECT * FROM reading_list; "
        "GRANT SELECT ON names TO {support}",
        at="public.names",
        fine="CREATE MATERIALIZED VIEW prices AS SELECT * FROM materials; "
        "GRANT SELECT ON prices TO PUBLIC",
        label="through a view",
    ),
    Plant(
        "view-materialised",
        TOTAL + "GRANT SELECT ON totals TO {application}",
        at="public.totals",
        fine=TOTAL,
        label="through a function",
    ),
    Plant(
        "partition-open",
        CHILD + "GRANT SELECT ON old_orders TO {application}",
        at="public.old_orders",
        fine=CHILD + "ALTER TABLE old_orders ENABLE ROW LEVEL SECURITY; "
        "ALTER TABLE old_orders FORCE ROW LEVEL SECURITY; "
        "GRANT SELECT ON old_orders TO {application}",
    ),
    Plant(
        "partition-open",
        CHILD + "CREATE TABLE oldest () INHERITS (old_orders); "
        "ALTER TABLE oldest ENABLE ROW LEVEL SECURITY; GRANT DELETE ON oldest TO PUBLIC",
        at="public.oldest",
        fine=CHILD + "CREATE TABLE oldest () INHERITS (old_orders)",
        label="not forced, of a child",
    ),
    Plant(
        "partition-open",
        CHILD + LOCKED.replace("{qual}", "true"),
        at="public.old_orders",
        fine=CHILD
        + LOCKED.replace("{qual}", "tenant_id::text = current_setting('tenantguard.tenant', true)"),
        label="with a policy that shows every row",
    ),
    Plant(
        "parent-open",
        PARENT + "GRANT SELECT ON people TO {application}",
        at="public.people",
        fine=PARENT,
    ),
    Plant(
        "foreign-table-open",
        far("id int, tenant_id uuid", "{application}"),
        at="public.far_orders",
        fine=far("id int, tenant_id uuid", "{maintenance}"),
    ),
    Plant(
        "foreign-table-open",
        far("tenant_id text", "PUBLIC"),
        at="public.far_orders",
        fine=far("id int, price int", "PUBLIC"),
        label="for everybody",
    ),
    Plant(
        "rule-rewrites",
        RULE_TO.replace("{table}", "orders"),
        at="public.orders",
        fine=RULE_TO.replace("{table}", "materials"),
    ),
    Plant(
        "rule-rewrites",
        CHILD + RULE_TO.replace("{table}", "old_orders"),
        at="public.old_orders",
        fine=RULE_TO.replace("{table}", "orders") + "ALTER TABLE orders DISABLE RULE note",
        label="on a part",
    ),
    Plant(
        "trigger-definer",
        trigger("orders", "DEFINER"),
        at="public.orders",
        fine=trigger("orders", "INVOKER"),
    ),
    Plant(
        "trigger-definer",
        trigger("orders", "DEFINER") + "ALTER FUNCTION note() OWNER TO {maintenance}",
        at="public.orders",
        fine=trigger("orders", "DEFINER") + "ALTER FUNCTION note() OWNER TO {owner}",
        label="of maintenance",
    ),
    Plant(
        "trigger-definer",
        CHILD + trigger("old_orders", "DEFINER") + "ALTER FUNCTION note() OWNER TO {backup}",
        at="public.old_orders",
        fine=trigger("materials", "DEFINER"),
        label="on a part",
    ),
    Plant(
        "trigger-definer",
        INBOX.replace("{security}", "DEFINER"),
        at="public.inbox",
        fine=INBOX.replace("{security}", "INVOKER"),
        label="on a view",
    ),
    Plant(
        "trigger-definer",
        EVENT.replace("{security}", "DEFINER"),
        at="note",
        fine=EVENT.replace("{security}", "INVOKER"),
        label="on events",
    ),
    Plant(
        "trigger-definer",
        trigger("orders", "DEFINER").replace("RETURN NEW", "EXECUTE NEW.what; RETURN NEW")
        + "ALTER TABLE orders OWNER TO {owner}; ALTER FUNCTION note() OWNER TO {owner}",
        at="public.orders",
        fine=trigger("orders", "DEFINER")
        + "ALTER TABLE orders OWNER TO {owner}; ALTER FUNCTION note() OWNER TO {owner}",
        label="of the table's owner",
    ),
    Plant(
        "replication-role",
        "ALTER ROLE {application} SET session_replication_role = replica",
        at=None,
        fine="ALTER ROLE {application} SET session_replication_role = local; "
        "ALTER ROLE {owner} SET session_replication_role = replica",
    ),
    Plant(
        "publication-open",
        "CREATE PUBLICATION out FOR TABLE orders, materials",
        at="out",
        fine="CREATE PUBLICATION out FOR TABLE materials",
    ),
    Plant(
        "publication-open",
        "CREATE PUBLICATION out FOR ALL TABLES",
        at="out",
        fine="CREATE PUBLICATION out",
        label="of all tables",
    ),
    Plant(
        "publication-open",
        CHILD + "CREATE PUBLICATION out FOR TABLE old_orders",
        at="out",
        fine="CREATE TABLE loose (); CREATE PUBLICATION out FOR TABLE loose",
        label="of a part",
    ),
)

NEWER = (
    (
        INVOKER_SINCE,
        Plant(
            "view-of-owner",
            LIST + "ALTER VIEW reading_list SET (security_invoker = false); "
            "GRANT SELECT ON reading_list TO {application}",
            at="public.reading_list",
            fine=LIST + "ALTER VIEW reading_list SET (security_invoker = true); "
            "GRANT SELECT ON reading_list TO {application}",
            label="said so",
        ),
    ),
    (
        INVOKER_SINCE,
        Plant(
            "replication-role",
            "GRANT SET ON PARAMETER session_replication_role TO {application}",
            at=None,
            fine="GRANT SET ON PARAMETER session_replication_role TO {owner}",
            label="granted",
        ),
    ),
    (
        INVOKER_SINCE,
        Plant(
            "publication-open",
            "CREATE PUBLICATION out FOR TABLES IN SCHEMA public",
            at="out",
            fine="CREATE SCHEMA loose; CREATE PUBLICATION out FOR TABLES IN SCHEMA loose",
            label="of a schema",
        ),
    ),
    (
        INVOKER_SINCE,
        Plant(
            "publication-open",
            "CREATE PUBLICATION out FOR TABLE orders (id, tenant_id) WHERE (cents > 0)",
            at="out",
            fine="CREATE PUBLICATION out FOR TABLE materials (id) WHERE (id > 0)",
            label="of some rows",
        ),
    ),
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
    for since, plant in NEWER:
        if server_version >= since:
            plant.is_found(world)
            plant.is_not_found(world)


def test_who_reaches_it_is_named(world: World) -> None:
    with planted(world, LIST + "GRANT SELECT ON reading_list TO {support}") as subject:
        [finding] = examine(subject, [RULE["view-of-owner"]]).findings
    assert "not as support" in finding.message


def test_a_parent_shows_what_policies_hide(world: World) -> None:
    """Why it is a fault: without a tenant no patient is seen, and by the other name all are."""
    with planted(world, PARENT + "GRANT SELECT ON people TO {application}") as subject:
        assert subject.run is not None
        subject.run(f"SET LOCAL ROLE {world.guard.roles.application}")
        assert subject.run("SELECT count(*) FROM public.patients")[0][0] == 0
        assert subject.run("SELECT count(*) FROM public.people")[0][0] > 0
