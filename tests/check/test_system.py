"""Parts of PostgreSQL that lead past policies are found opened or changed, by an administrator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from planting import RULE, Plant, planted
from practice import A, B

from tenantguard.check import examine

if TYPE_CHECKING:
    from locks import World

SERVER = (
    "CREATE FOREIGN DATA WRAPPER loop; CREATE SERVER back FOREIGN DATA WRAPPER loop; "
    "CREATE USER MAPPING FOR {user} SERVER back; GRANT USAGE ON FOREIGN SERVER back TO {role}; "
)
COPY = (
    "CREATE TABLE information_schema.loot AS SELECT * FROM public.orders; "
    "GRANT SELECT ON information_schema.loot TO {role}"
)
REPLACED = (
    "CREATE OR REPLACE FUNCTION pg_catalog.uuid_eq(uuid, uuid) RETURNS boolean LANGUAGE sql "
    "IMMUTABLE LEAKPROOF PARALLEL SAFE AS 'SELECT true'"
)
QUAL = "(tenant_id = (SELECT (nullif(current_setting('tenantguard.tenant', true), ''))::uuid))"
AGAIN = (
    "ALTER POLICY tenantguard_application ON orders USING {qual} WITH CHECK {qual}; "
    "ALTER POLICY tenantguard_application_floor ON orders USING {qual} WITH CHECK {qual}; "
).replace("{qual}", QUAL)
CAST = (
    "CREATE FUNCTION as_tenant(text) RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE "
    f"AS $$SELECT pg_catalog.uuid_in('{A}')$$; "
    "CREATE CAST (text AS uuid) WITH FUNCTION as_tenant(text); "
)
CLASS = (
    "CREATE FUNCTION cmp(uuid, uuid) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT 0'; "
    "CREATE OPERATOR CLASS mine FOR TYPE uuid USING btree AS OPERATOR 1 <(uuid, uuid), "
    "OPERATOR 3 =(uuid, uuid), FUNCTION 1 cmp(uuid, uuid); "
)


def foreign(user: str, role: str) -> str:
    return SERVER.replace("{user}", user).replace("{role}", role)


PLANTS = (
    Plant(
        "system-open",
        "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO {application}",
        "pg_read_binary_file(text)",
        "GRANT EXECUTE ON FUNCTION pg_read_binary_file(text) TO {backup}; "
        "GRANT pg_monitor TO {application}",
        "files",
    ),
    Plant(
        "system-open",
        "GRANT SELECT (stavalues1) ON pg_statistic TO {support}",
        "pg_catalog.pg_statistic",
        "GRANT SELECT ON pg_statistic TO {maintenance}; "
        "GRANT SELECT ON pg_stats, pg_hba_file_rules TO {support}",
        "statistics",
    ),
    Plant(
        "system-open",
        "UPDATE pg_language SET lanpltrusted = true WHERE lanname = 'internal'; "
        "GRANT USAGE ON LANGUAGE internal TO {application}",
        "internal",
        "GRANT USAGE ON LANGUAGE plpgsql TO {application}",
        "language",
    ),
    Plant(
        "system-open",
        COPY.replace("{role}", "PUBLIC"),
        "information_schema.loot",
        COPY.replace("{role}", "{maintenance}"),
        "a table among the system's",
    ),
    Plant(
        "system-changed",
        "ALTER FUNCTION pg_catalog.int4div(int, int) LEAKPROOF",
        "int4div(integer,integer)",
        "ALTER FUNCTION pg_catalog.int4div(int, int) COST 2",
        "leakproof",
    ),
    Plant(
        "system-changed",
        REPLACED,
        "uuid_eq(uuid,uuid)",
        "REVOKE EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) FROM PUBLIC",
        "replaced",
    ),
    Plant(
        "parameter-open",
        "GRANT ALTER SYSTEM ON PARAMETER archive_command TO {application}",
        "archive_command",
        "GRANT ALTER SYSTEM ON PARAMETER archive_command TO {owner}",
        "system",
    ),
    Plant(
        "parameter-open",
        "GRANT SET ON PARAMETER session_preload_libraries TO PUBLIC; "
        "REVOKE SET ON PARAMETER session_preload_libraries FROM {support}; "
        "ALTER ROLE {support} SUPERUSER",
        "session_preload_libraries",
        "GRANT SET ON PARAMETER log_min_duration_statement TO {application}",
        "session",
    ),
    Plant(
        "foreign-server-open",
        foreign("PUBLIC", "{application}; ALTER ROLE {support} SUPERUSER"),
        "back",
        foreign("{owner}", "{application}"),
    ),
    Plant(
        "foreign-server-open",
        foreign("{support}", "PUBLIC"),
        "back",
        foreign("PUBLIC", "{maintenance}"),
        "of support",
    ),
    Plant("policy-calls", CAST + AGAIN, "public.orders", CAST, "a cast"),
    Plant(
        "policy-calls",
        "CREATE FUNCTION same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'; "
        "CREATE OPERATOR public.= (FUNCTION = same, LEFTARG = uuid, RIGHTARG = uuid); "
        + AGAIN.replace("tenant_id =", "tenant_id OPERATOR(public.=)"),
        "public.orders",
        "CREATE FUNCTION same(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'; "
        "CREATE OPERATOR public.= (FUNCTION = same, LEFTARG = uuid, RIGHTARG = uuid)",
        "an operator",
    ),
    Plant(
        "index-operator-class",
        CLASS + "CREATE INDEX ON orders (tenant_id mine)",
        "public.orders",
        CLASS + "CREATE INDEX ON orders (tenant_id uuid_ops)",
    ),
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


@plants
def test_a_planted_fault_is_found(world: World, plant: Plant) -> None:
    plant.is_found(world)


@plants
def test_what_only_looks_like_it_is_not_found(world: World, plant: Plant) -> None:
    plant.is_not_found(world)


@pytest.mark.parametrize("fault", [REPLACED, CAST + AGAIN], ids=["replaced", "cast"])
def test_policies_as_generated_show_another_tenants_rows(world: World, fault: str) -> None:
    """Why they are faults: nothing else that is compared differs, and B reads what is A's."""
    with planted(world, fault) as subject:
        run = subject.run
        assert run is not None
        compared = examine(subject, [RULE["policy-changed"], RULE["policy-missing"]])
        for statement in (
            "SET LOCAL enable_indexscan = off",
            "SET LOCAL enable_bitmapscan = off",
            f"SELECT set_config('tenantguard.tenant', '{B}', true)",
            f"SET LOCAL ROLE {world.guard.roles.application}",
        ):
            run(statement)
        seen = {row[0] for row in run("SELECT tenant_id FROM public.orders")}
    assert compared.findings == ()
    assert A in seen
