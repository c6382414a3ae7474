"""Functions that get past policies, or that policies cannot rely on, are found; others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from planting import RULE, Plant, planted
from practice import A
from signing_world import build_signed

from tenantguard.check import examine
from tenantguard.check.helpers import unqualified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from locks import World
    from sqlalchemy import URL

PATH = "SET search_path = pg_catalog, pg_temp"
COUNT = (
    "CREATE FUNCTION tally() RETURNS bigint LANGUAGE {language} SECURITY {security} {path} {body}; "
)
SQL_BODY = "AS 'SELECT count(*) FROM public.orders'"
PLPGSQL_BODY = "AS 'BEGIN RETURN (SELECT count(*) FROM public.orders); END'"
CLOSED = "REVOKE EXECUTE ON ROUTINE tally() FROM PUBLIC; "
NOTE = (
    "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER {path} "
    "AS 'BEGIN RETURN NEW; END'; REVOKE EXECUTE ON FUNCTION note() FROM PUBLIC; "
)
ON_ORDERS = "CREATE TRIGGER note BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note(); "
READ = "SELECT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::uuid"
HELPER = "CREATE FUNCTION mine() RETURNS uuid LANGUAGE {language} {traits} {body}; "
POLICY = "CREATE POLICY own ON orders TO {application} USING (tenant_id = (SELECT public.mine())); "
PEEK = (
    "CREATE FUNCTION peek(text) RETURNS boolean LANGUAGE plpgsql {traits} COST 0.0001 "
    "AS 'BEGIN RAISE NOTICE ''%'', $1; RETURN true; END'; "
)
ENTER = (
    "CREATE FUNCTION switch(to_ text) RETURNS text LANGUAGE sql {traits} "
    "AS 'SELECT {call}(''tenantguard.tenant'', {arguments})'; "
)
QUIET = "CREATE FUNCTION quiet() RETURNS void LANGUAGE sql SET row_security = {value} AS ''; "
REPORTS = (
    "CREATE ROLE tg_reports; GRANT SELECT ON orders TO tg_reports; "
    "CREATE POLICY reports ON orders TO tg_reports USING ({qual}); "
)
TO_REPORTS = "ALTER FUNCTION tally() OWNER TO tg_reports"
COMMAND = (
    "ALTER TABLE orders OWNER TO {owner}; "
    f"CREATE FUNCTION command(q text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER {PATH} "
    "AS 'BEGIN {body}; END'; ALTER FUNCTION command(text) OWNER TO {owner}"
)
LOOKUP = "public.tg_identity__users_by_email_f2dc28c8"


def tally(security: str = "DEFINER", path: str = PATH, language: str = "sql") -> str:
    body = SQL_BODY if language == "sql" else PLPGSQL_BODY
    script = COUNT.replace("{language}", language).replace("{security}", security)
    return script.replace("{path}", path).replace("{body}", body)


def helper(
    traits: str = "STABLE PARALLEL SAFE", body: str = f"AS $${READ}$$", language: str = "sql"
) -> str:
    script = HELPER.replace("{language}", language).replace("{traits}", traits)
    return script.replace("{body}", body)


def switch(traits: str, call: str = "set_config", arguments: str = "$1, true") -> str:
    script = ENTER.replace("{traits}", traits).replace("{call}", call)
    return script.replace("{arguments}", arguments)


UNSIGNED_PLANTS = (
    Plant("function-definer", tally(), at="public.tally", fine=tally("INVOKER")),
    Plant(
        "function-definer",
        tally(language="plpgsql")
        + "ALTER FUNCTION tally() OWNER TO {maintenance}; "
        + CLOSED
        + "GRANT EXECUTE ON FUNCTION tally() TO {support}",
        at="public.tally",
        fine=tally(language="plpgsql") + "ALTER FUNCTION tally() OWNER TO {owner}",
        label="of maintenance, for support",
    ),
    Plant(
        "function-definer",
        "CREATE PROCEDURE tally() LANGUAGE sql SECURITY DEFINER "
        + PATH
        + " AS 'DELETE FROM public.orders'",
        at="public.tally",
        fine=tally() + CLOSED,
        label="a procedure",
    ),
    Plant(
        "function-definer",
        f"CREATE FUNCTION {LOOKUP}(text, text) RETURNS text LANGUAGE sql "
        "SECURITY DEFINER AS 'SELECT $1'",
        at=LOOKUP,
        fine="CREATE SCHEMA closed; CREATE FUNCTION closed.tally() RETURNS int LANGUAGE sql "
        "SECURITY DEFINER AS 'SELECT 1'",
        label="of a generated one's name",
    ),
    Plant(
        "function-definer",
        REPORTS.replace("{qual}", "true") + tally() + TO_REPORTS,
        at="public.tally",
        fine=REPORTS.replace("{qual}", f"tenant_id = ({READ})") + tally() + TO_REPORTS,
        label="of a role with a policy of its own",
    ),
    Plant(
        "function-definer",
        COMMAND.replace("{body}", "EXECUTE q"),
        at="public.command",
        fine=COMMAND.replace("{body}", "PERFORM q"),
        label="of the tables' owner",
    ),
    Plant(
        "function-definer",
        tally().replace("tally()", "pg_catalog.tally()"),
        at="pg_catalog.tally",
        fine=tally("INVOKER").replace("tally()", "pg_catalog.tally()"),
        label="among PostgreSQL's own",
    ),
    Plant("function-search-path", tally(path=""), at="public.tally", fine=tally()),
    Plant(
        "function-search-path",
        tally(path="SET search_path = public"),
        at="public.tally",
        fine=tally(path="SET search_path = ''"),
        label="temporary tables first",
    ),
    Plant(
        "function-search-path",
        NOTE.replace("{path}", "") + ON_ORDERS,
        at="public.note",
        fine=NOTE.replace("{path}", ""),
        label="set off by a trigger",
    ),
    Plant(
        "function-leakproof",
        PEEK.replace("{traits}", "LEAKPROOF"),
        at="public.peek",
        fine=PEEK.replace("{traits}", "NOT LEAKPROOF"),
    ),
    Plant(
        "function-leakproof",
        PEEK.replace("{traits}", "LEAKPROOF")
        + "REVOKE EXECUTE ON FUNCTION peek FROM PUBLIC; "
        + "GRANT EXECUTE ON FUNCTION peek TO {support}",
        at="public.peek",
        fine=PEEK.replace("{traits}", "LEAKPROOF") + "REVOKE EXECUTE ON FUNCTION peek FROM PUBLIC",
        label="for support",
    ),
    Plant(
        "function-sets-tenant",
        switch(""),
        at="public.switch",
        fine=switch("STABLE", "current_setting", "true"),
    ),
    Plant(
        "function-sets-tenant",
        switch("SET tenantguard.tenant = ''", "current_setting", "true"),
        at="public.switch",
        fine=switch("") + "REVOKE EXECUTE ON FUNCTION switch FROM PUBLIC",
        label="as its option",
    ),
    Plant(
        "function-sets-tenant",
        "CREATE FUNCTION switch() RETURNS void LANGUAGE plpgsql AS "
        "'BEGIN SET LOCAL \"tenantguard\".tenant = ''''; END'",
        at="public.switch",
        fine="CREATE FUNCTION switch() RETURNS void LANGUAGE plpgsql AS "
        "'BEGIN SET LOCAL tenantguards.other = ''''; END'",
        label="by SET",
    ),
    Plant(
        "function-sets-tenant",
        "CREATE FUNCTION switch() RETURNS text BEGIN ATOMIC "
        "SELECT SET_CONFIG('tenantguard.tenant', '', true); END",
        at="public.switch",
        fine="CREATE FUNCTION switch() RETURNS text BEGIN ATOMIC "
        "SELECT current_setting('tenantguard.tenant', true); END",
        label="in standard SQL",
    ),
    Plant(
        "function-sets-tenant",
        "CREATE FUNCTION switch(name text, value text) RETURNS text LANGUAGE sql AS "
        "'SELECT set_config($1, $2, true)'",
        at="public.switch",
        fine="CREATE FUNCTION switch(value text) RETURNS text LANGUAGE sql AS "
        "$$SELECT set_config('app.region', $1, true)$$",
        label="by a name that it is given",
    ),
    Plant(
        "function-sets-tenant",
        "CREATE FUNCTION switch() RETURNS text RETURN "
        "set_config('tenant' || 'guard.tenant', '', true)",
        at="public.switch",
        fine="CREATE FUNCTION switch() RETURNS text RETURN set_config('app.region', '', true)",
        label="by a name that it puts together",
    ),
    Plant(
        "function-row-security",
        QUIET.replace("{value}", "off"),
        at="public.quiet",
        fine=QUIET.replace("{value}", "on"),
    ),
    Plant(
        "helper-immutable",
        helper("IMMUTABLE PARALLEL SAFE") + POLICY,
        at="public.mine",
        fine=helper() + POLICY,
    ),
    Plant(
        "helper-immutable",
        helper("IMMUTABLE"),
        at="public.mine",
        fine=helper("IMMUTABLE", "AS 'SELECT pg_catalog.gen_random_uuid()'"),
        label="in queries",
    ),
    Plant(
        "helper-immutable",
        helper("IMMUTABLE", "AS 'BEGIN RETURN current_user::text::uuid; END'", "plpgsql") + POLICY,
        at="public.mine",
        fine=helper("IMMUTABLE", "AS 'BEGIN RETURN pg_catalog.uuid_in(''''); END'", "plpgsql")
        + POLICY,
        label="of the role",
    ),
    Plant(
        "helper-immutable",
        helper("IMMUTABLE", f"RETURN ({READ})") + POLICY,
        at="public.mine",
        fine=helper("STABLE", f"RETURN ({READ})") + POLICY,
        label="in standard SQL",
    ),
    Plant(
        "helper-search-path",
        "CREATE TABLE members (tenant_id uuid); "
        + helper(body="AS 'SELECT tenant_id FROM members'")
        + POLICY,
        at="public.mine",
        fine="CREATE TABLE members (tenant_id uuid); "
        + helper(body="AS 'SELECT tenant_id FROM public.members'")
        + POLICY,
    ),
    Plant(
        "helper-search-path",
        helper(body="AS $$BEGIN RETURN current_setting('a.b'); END$$", language="plpgsql") + POLICY,
        at="public.mine",
        fine=helper(f"STABLE {PATH}", "AS $$BEGIN RETURN current_setting('a.b'); END$$", "plpgsql")
        + POLICY,
        label="of functions",
    ),
    Plant(
        "helper-search-path",
        helper(
            "STABLE SECURITY DEFINER", "AS 'SELECT min(tenant_id::text)::uuid FROM public.users'"
        )
        + POLICY,
        at="public.mine",
        fine="CREATE TABLE members (tenant_id uuid); "
        + helper(body="RETURN (SELECT tenant_id FROM members)")
        + POLICY,
        label="of a definer",
    ),
    Plant(
        "helper-volatile",
        helper("VOLATILE PARALLEL SAFE") + POLICY,
        at="public.mine",
        fine=helper("VOLATILE PARALLEL SAFE"),
    ),
    Plant(
        "helper-parallel",
        helper("STABLE") + POLICY,
        at="public.mine",
        fine=helper("STABLE PARALLEL RESTRICTED") + POLICY,
    ),
    Plant(
        "helper-parallel",
        helper("STABLE")
        + "CREATE FUNCTION ours() RETURNS uuid STABLE PARALLEL SAFE RETURN public.mine(); "
        + POLICY.replace("mine", "ours"),
        at="public.mine",
        fine=helper("STABLE") + "CREATE FUNCTION ours() RETURNS uuid STABLE RETURN public.mine()",
        label="through another",
    ),
    Plant(
        "lookup-missing",
        f"DROP FUNCTION {LOOKUP}",
        at=LOOKUP,
        fine=f"COMMENT ON FUNCTION {LOOKUP} IS 'sign-in'",
    ),
    Plant(
        "lookup-changed",
        f"GRANT EXECUTE ON FUNCTION {LOOKUP} TO {{support}}",
        at=LOOKUP,
        fine=f"GRANT EXECUTE ON FUNCTION {LOOKUP} TO {{application}}",
    ),
    Plant(
        "lookup-changed",
        f"ALTER FUNCTION {LOOKUP} OWNER TO {{backup}}",
        at=LOOKUP,
        fine=f"ALTER FUNCTION {LOOKUP} COST 7",
        label="owner",
    ),
    Plant(
        "lookup-changed",
        f"ALTER FUNCTION {LOOKUP} RESET ALL",
        at=LOOKUP,
        fine=f"ALTER FUNCTION {LOOKUP} {PATH}",
        label="path",
    ),
    Plant(
        "lookup-changed",
        f"CREATE FUNCTION {LOOKUP}(key text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
        at=LOOKUP,
        fine="CREATE FUNCTION public.users_by_email(key text) RETURNS text LANGUAGE sql "
        "AS 'SELECT $1'",
        label="another beside it",
    ),
)
"""Of a database without the signed setting."""

VERIFIED = "public.tenantguard_verified"
KEYS = "public.tenantguard_signing_keys"

SIGNED_PLANTS = (
    Plant(
        "signing-missing",
        "DROP FUNCTION public.tenantguard_enter",
        at="public.tenantguard_enter",
        fine="CREATE FUNCTION public.tenantguard_enter() RETURNS void LANGUAGE sql AS ''",
    ),
    Plant(
        "signing-changed",
        f"CREATE OR REPLACE FUNCTION {VERIFIED}() RETURNS text LANGUAGE plpgsql STABLE "
        "PARALLEL RESTRICTED SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS "
        "$$BEGIN RETURN current_setting('tenantguard.tenant', true); END$$",
        at=VERIFIED,
        fine=f"ALTER FUNCTION {VERIFIED} COST 7",
    ),
    Plant(
        "signing-changed",
        f"GRANT INSERT ON {KEYS} TO {{maintenance}}",
        at=KEYS,
        fine=f"GRANT SELECT ON {KEYS} TO {{backup}}",
        label="privileges",
    ),
    Plant(
        "signing-keys-open",
        f"GRANT SELECT (id) ON {KEYS} TO {{application}}",
        at=KEYS,
        fine=f"GRANT SELECT ON {KEYS} TO {{maintenance}}",
    ),
    Plant(
        "signing-keys-open",
        f"GRANT INSERT ON {KEYS} TO PUBLIC; REVOKE ALL ON {KEYS} FROM {{application}}",
        at=KEYS,
        fine=f"REVOKE ALL ON {KEYS} FROM PUBLIC",
        label="to everybody",
    ),
)

PLANTS = (*UNSIGNED_PLANTS, *SIGNED_PLANTS)

plants = pytest.mark.parametrize("plant", UNSIGNED_PLANTS, ids=str)
signed_plants = pytest.mark.parametrize("plant", SIGNED_PLANTS, ids=str)


@pytest.fixture(scope="module")
def signed(
    new_database: Callable[[], URL], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    built = build_signed(new_database(), tmp_path_factory.mktemp("keys") / "signing.json")
    yield built
    built.dispose()


@plants
def test_a_fault_is_found(world: World, plant: Plant) -> None:
    plant.is_found(world)


@plants
def test_what_only_looks_like_it_is_not(world: World, plant: Plant) -> None:
    plant.is_not_found(world)


@signed_plants
def test_a_fault_of_the_signed_setting_is_found(signed: World, plant: Plant) -> None:
    plant.is_found(signed)


@signed_plants
def test_what_only_looks_like_one_is_not(signed: World, plant: Plant) -> None:
    plant.is_not_found(signed)


def test_the_signed_setting_as_generated_is_clean(signed: World) -> None:
    """Its functions are definers that set the tenant and are called by policies, as they must."""
    mine = [RULE[each.rule] for each in PLANTS]
    with planted(signed, "") as subject:
        result = examine(subject, mine)
    assert result.unseen == ()
    assert result.findings == ()


MEMBERS = (
    "CREATE TABLE members (tenant_id uuid); GRANT SELECT ON members TO {application}; "
    "CREATE TABLE notes AS SELECT tenant_id FROM orders; "
    "ALTER TABLE notes ENABLE ROW LEVEL SECURITY; GRANT SELECT ON notes TO {application}; "
)


@pytest.mark.parametrize(("name", "seen"), [("members", True), ("public.members", False)])
def test_a_temporary_table_takes_the_place_of_a_name(world: World, name: str, seen: bool) -> None:  # noqa: FBT001
    """Why it is a fault: whoever makes the table that a policy asks is a member of every tenant."""
    ask = helper(body=f"AS 'SELECT tenant_id FROM {name} LIMIT 1'")
    with planted(world, MEMBERS + ask + POLICY.replace("orders", "notes")) as subject:
        assert subject.run is not None
        subject.run(f"SET LOCAL ROLE {world.guard.roles.application}")
        assert subject.run("SELECT count(*) FROM public.notes")[0][0] == 0
        subject.run(f"CREATE TEMPORARY TABLE members AS SELECT '{A}'::uuid AS tenant_id")
        assert (subject.run("SELECT count(*) FROM public.notes")[0][0] > 0) is seen


def test_no_value_is_shown(world: World) -> None:
    """What a function has the tenant set to is a tenant's id."""
    script = switch("SET tenantguard.tenant = 'tenant-x'", "current_setting", "true")
    with planted(world, script) as subject:
        [finding] = examine(subject, [RULE["function-sets-tenant"]]).findings
    assert "tenant-x" not in repr(finding)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("SELECT a FROM t", ["t"]),
        ("SELECT a FROM s.t JOIN u ON true", ["u"]),
        ('SELECT a FROM "T" -- FROM x', ['"T"']),
        ("SELECT f(a), s.g(b) FROM s.t WHERE a IN (1) AND b = nullif('FROM x', h(c))", ["f", "h"]),
        ("WITH m AS (SELECT 1) SELECT * FROM m", []),
        ("SELECT extract(epoch FROM a) WHERE a IS DISTINCT FROM b", []),
        ("SELECT pg_catalog.now() /* f(1) */", []),
    ],
)
def test_names_without_a_schema(body: str, names: list[str]) -> None:
    """Comments, texts, words of the language and names of the statement itself are none."""
    assert unqualified(body) == names
