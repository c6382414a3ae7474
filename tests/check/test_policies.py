"""Undecided tables, row-level security that is off, policies that are not the generated ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from planting import RULE, Plant, planted
from signing_world import VERIFIED, build_signed
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid

from tenantguard.catalog import Catalog, Roles
from tenantguard.check import Subject, examine, policies

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from locks import World
    from sqlalchemy import URL

    from tenantguard.findings import Finding

OWN = "tenant_id = (SELECT nullif(current_setting('tenantguard.tenant', true), '')::uuid)"
POLICY = "tenantguard_application"
FLOOR = "tenantguard_application_floor"
SUPPORT = "tenantguard_support_floor"
STANDS = "The restrictive policy still holds"
NONE_STANDS = "no restrictive policy is there unchanged"
FOREIGN = """CREATE FOREIGN DATA WRAPPER elsewhere;
    CREATE SERVER far FOREIGN DATA WRAPPER elsewhere;
    CREATE FOREIGN TABLE leads (id int) SERVER far;"""
SPLIT = """CREATE TABLE leads (id int) PARTITION BY RANGE (id);
    CREATE TABLE leads_1 PARTITION OF leads FOR VALUES FROM (0) TO (9);"""


@dataclass(frozen=True, slots=True)
class OfModels:
    """A fault that the models show without a database: *fault* and *fine* add to some of them."""

    rule: str
    fault: Callable[[MetaData], Table]
    fine: Callable[[MetaData], Table]

    def __str__(self) -> str:
        return self.rule

    def is_found(self, _world: World) -> None:
        assert [each.object for each in self.look(self.fault)] == ["public.notes"]

    def is_not_found(self, _world: World) -> None:
        assert self.look(self.fine) == ()

    def look(self, add: Callable[[MetaData], Table]) -> tuple[Finding, ...]:
        metadata = MetaData()
        Table("practices", metadata, Column("id", Uuid, primary_key=True))
        Table(
            "patients",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", ForeignKey("practices.id")),
        )
        add(metadata)
        catalog = Catalog(metadata, "practices", shared={"prices": "a list for all"})
        result = examine(Subject(catalog, Roles()), [RULE[self.rule]])
        assert result.looked == (self.rule,)
        return result.findings


def notes(metadata: MetaData, *columns: Column[Any], name: str = "notes") -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *columns)


def child(metadata: MetaData, *columns: Column[Any]) -> Table:
    return notes(
        metadata, Column("patient_id", ForeignKey("patients.id"), nullable=False), *columns
    )


def of_tenant(metadata: MetaData) -> Table:
    return child(metadata, Column("tenant_id", ForeignKey("practices.id")))


def replaced(using: str, rest: str = "", name: str = POLICY) -> str:
    """The script that puts a policy in the place of *name* on the orders."""
    return f"""DROP POLICY {name} ON orders;
        CREATE POLICY {name} ON orders {rest} TO {{application}} USING ({using})"""


def changed(label: str, fault: str, fine: str = "") -> Plant:
    rewritten = (
        f"DROP POLICY {POLICY} ON orders; CREATE POLICY {POLICY} ON orders TO {{application}}"
    )
    same = f"{rewritten} USING ({OWN}) WITH CHECK ({OWN})"
    return Plant("policy-changed", fault, "public.orders", fine or same, label)


PLANTS: tuple[Plant | OfModels, ...] = (
    # Tables nobody decided on.
    OfModels("table-unclassified", notes, partial(notes, name="prices")),
    OfModels("table-application-only", child, of_tenant),
    Plant(
        "relation-unknown",
        "CREATE TABLE leads (id int); GRANT SELECT ON leads TO {application}",
        "public.leads",
        "CREATE VIEW leads AS SELECT 1 AS id; GRANT SELECT ON leads TO {application}",
        "table",
    ),
    Plant(
        "relation-unknown",
        "CREATE SCHEMA sales; CREATE TABLE sales.leads (id int, secret int); GRANT USAGE ON SCHEMA "
        "sales TO {application}; GRANT UPDATE (secret) ON sales.leads TO PUBLIC",
        "sales.leads",
        "CREATE SCHEMA sales; CREATE TABLE sales.leads (id int);GRANT ALL ON sales.leads TO PUBLIC",
        "column in another schema",
    ),
    Plant(
        "relation-unknown",
        f"{FOREIGN} GRANT SELECT ON leads TO {{application}}",
        "public.leads",
        FOREIGN,
        "foreign table",
    ),
    Plant(
        "relation-unknown",
        f"{SPLIT} GRANT SELECT ON leads_1 TO {{application}}",
        "public.leads_1",
        SPLIT,
        "partition",
    ),
    Plant(
        "relation-unknown",
        "CREATE TABLE old_versions () INHERITS (schema_versions);"
        "GRANT SELECT ON old_versions TO {application}",
        "public.old_versions",
        "CREATE TABLE old_versions () INHERITS (schema_versions)",
        "child of an untenanted table",
    ),
    Plant(
        "relation-undecided",
        "CREATE TABLE leads (id int)",
        "public.leads",
        "CREATE TEMPORARY TABLE leads (id int); CREATE TABLE old_tags () INHERITS (tags);"
        "CREATE TABLE older_tags () INHERITS (old_tags)",
        "table",
    ),
    Plant(
        "relation-undecided",
        "CREATE SCHEMA sales; CREATE TABLE sales.leads (id int)",
        "sales.leads",
        "CREATE SCHEMA sales; CREATE TABLE sales.leads (id int);"
        "ALTER EXTENSION plpgsql ADD TABLE sales.leads",
        "in another schema",
    ),
    Plant(
        "relation-undecided",
        "CREATE TABLE alembic_version (version_num text, tenant text)",
        "public.alembic_version",
        "CREATE TABLE alembic_version (version_num text)",
        "more than Alembic's own",
    ),
    Plant(
        "relation-unknown",
        "CREATE TABLE alembic_version (version_num text);"
        "GRANT SELECT ON alembic_version TO {application}",
        "public.alembic_version",
        "CREATE TABLE alembic_version (version_num text)",
        "Alembic's own",
    ),
    Plant("relation-undecided", FOREIGN, "public.leads", "", "foreign table"),
    Plant("relation-undecided", SPLIT, "public.leads", "", "partitioned table"),
    # Row-level security.
    Plant(
        "table-missing",
        "ALTER TABLE orders RENAME TO former_orders",
        "public.orders",
        "ALTER TABLE schema_versions RENAME TO former_versions",
    ),
    Plant(
        "column-missing",
        "ALTER TABLE orders RENAME tenant_id TO practice_id",
        "public.orders",
        "ALTER TABLE orders RENAME what TO tenant",
    ),
    Plant(
        "rls-not-enabled",
        "ALTER TABLE orders DISABLE ROW LEVEL SECURITY",
        "public.orders",
        "ALTER TABLE materials DISABLE ROW LEVEL SECURITY",
    ),
    Plant(
        "rls-not-forced",
        "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY",
        "public.orders",
        "ALTER TABLE materials NO FORCE ROW LEVEL SECURITY",
    ),
    # Policies.
    Plant("policy-missing", f"DROP POLICY {POLICY} ON orders", "public.orders", "", "application"),
    Plant("policy-missing", f"DROP POLICY {FLOOR} ON orders", "public.orders", "", "floor"),
    Plant("policy-missing", f"DROP POLICY {SUPPORT} ON orders", "public.orders", "", "support"),
    Plant(
        "policy-missing",
        "DROP POLICY tenantguard_maintenance ON orders",
        "public.orders",
        "",
        "maintenance",
    ),
    changed("every row", f"ALTER POLICY {POLICY} ON orders USING (true) WITH CHECK (true)"),
    changed("every row written", f"ALTER POLICY {POLICY} ON orders WITH CHECK (true)"),
    changed("no WITH CHECK", replaced(OWN)),
    changed("SELECT alone", replaced(OWN, "FOR SELECT")),
    changed("floor of SELECT alone", replaced(OWN, "AS RESTRICTIVE FOR SELECT", FLOOR)),
    changed("permissive floor", replaced(OWN, "", FLOOR)),
    changed("wrong role", f"ALTER POLICY {FLOOR} ON orders TO {{support}}"),
    changed("every role", f"ALTER POLICY {POLICY} ON orders TO PUBLIC"),
    changed(
        "wrong column",
        "ALTER TABLE orders ADD former_id uuid;" + replaced(OWN.replace("tenant_id", "former_id")),
        "ALTER TABLE orders ADD former_id uuid",
    ),
    changed("wrong setting", replaced(OWN.replace("guard.tenant", "guard.practice"))),
    changed("cast column", replaced("tenant_id::text = current_setting('tenantguard.tenant')")),
    changed("OR", replaced(f"{OWN} OR current_setting('app.admin', true) = 'on'")),
    changed("constant", replaced("tenant_id = 'aaaaaaaa-0000-4000-8000-000000000001'")),
    changed("once a row", replaced(OWN.replace("(SELECT", "(").replace("::uuid)", ")::uuid"))),
    changed("other function", replaced(OWN.replace("nullif", "coalesce"))),
    changed("support", f"ALTER POLICY {SUPPORT} ON orders USING (true)"),
    changed("maintenance", f"ALTER POLICY tenantguard_maintenance ON orders USING ({OWN})"),
    Plant(
        "policy-extra",
        "CREATE POLICY all_rows ON orders USING (true)",
        "public.orders",
        "CREATE POLICY less ON orders AS RESTRICTIVE USING (cents >= 0)",
        "for all roles",
    ),
    Plant(
        "policy-extra",
        f"CREATE POLICY mine ON orders FOR DELETE TO {{support}} USING ({OWN})",
        "public.orders",
        "CREATE POLICY theirs ON orders TO {backup} USING (true)",
        "for support",
    ),
    Plant(
        "policy-extra",
        "CREATE ROLE tg_group; GRANT tg_group TO {application};"
        "CREATE POLICY theirs ON orders TO tg_group USING (true)",
        "public.orders",
        "CREATE ROLE tg_group; CREATE POLICY theirs ON orders TO tg_group USING (true)",
        "through a role",
    ),
    Plant(
        "policy-without-floor",
        "CREATE ROLE tg_reports; CREATE POLICY reports ON orders TO tg_reports USING (true)",
        "public.orders",
        "CREATE ROLE tg_reports; CREATE POLICY reports ON orders TO tg_reports USING (true);"
        f"CREATE POLICY floor ON orders AS RESTRICTIVE TO tg_reports USING ({OWN})",
    ),
    Plant(
        "policy-without-floor",
        "CREATE ROLE tg_reports; CREATE POLICY reports ON orders TO tg_reports USING (true);"
        f"CREATE POLICY floor ON orders AS RESTRICTIVE FOR SELECT TO tg_reports USING ({OWN})",
        "public.orders",
        "CREATE POLICY mine ON orders TO {maintenance} USING (true)",
        "for SELECT alone",
    ),
    Plant(
        "grant-without-floor",
        "CREATE ROLE tg_reports; GRANT SELECT ON orders TO tg_reports",
        "public.orders",
        "CREATE ROLE tg_reports IN ROLE {support}; GRANT SELECT ON orders TO tg_reports",
        "table",
    ),
    Plant(
        "grant-without-floor",
        "CREATE ROLE tg_reports NOINHERIT; GRANT {support} TO tg_reports;"
        "GRANT UPDATE (cents) ON orders TO tg_reports",
        "public.orders",
        "CREATE ROLE tg_reports; GRANT UPDATE (name) ON materials TO tg_reports",
        "column",
    ),
    Plant(
        "grant-without-floor",
        "CREATE ROLE tg_reports BYPASSRLS IN ROLE {support}; GRANT SELECT ON orders TO tg_reports",
        "public.orders",
        "CREATE ROLE tg_job IN ROLE {maintenance}; GRANT SELECT ON orders TO tg_job",
        "with BYPASSRLS",
    ),
    Plant(
        "could-not-compare",
        "ALTER TABLE orders DROP tenant_id CASCADE; ALTER TABLE orders ADD tenant_id text",
        "public.orders",
        "ALTER TABLE orders DROP tenant_id CASCADE; ALTER TABLE orders ADD tenant_id uuid",
    ),
)

plants = pytest.mark.parametrize("plant", PLANTS, ids=str)


@plants
def test_a_planted_fault_is_found(world: World, plant: Plant | OfModels) -> None:
    """Each fault is found where it is, by its rule."""
    plant.is_found(world)


@plants
def test_what_only_looks_like_it_is_not_found(world: World, plant: Plant | OfModels) -> None:
    plant.is_not_found(world)


@pytest.mark.parametrize("plant", [each for each in PLANTS if isinstance(each, Plant)], ids=str)
def test_the_owner_finds_it_too(world: World, plant: Plant) -> None:
    """No superuser is needed: the catalogs and a temporary table are enough."""
    replace(plant, fault=f"{plant.fault}; SET LOCAL ROLE {{owner}}").is_found(world)


def test_the_owner_finds_nothing_else(world: World) -> None:
    with planted(world, "SET LOCAL ROLE {owner}") as subject:
        result = examine(subject, policies.RULES)
    assert (result.findings, result.unseen) == ((), ())


def test_the_floor_of_a_signed_setting_believes_the_signature_alone(
    new_database: Callable[[], URL], tmp_path: Path
) -> None:
    """Put back to the unsigned setting it is changed; a function that is gone is found itself."""
    signed = build_signed(new_database(), tmp_path / "signing.keys")
    unsigned = f"ALTER POLICY {FLOOR} ON orders USING ({OWN}) WITH CHECK ({OWN})"
    gone = f"DROP FUNCTION {VERIFIED}() CASCADE"
    try:
        with planted(signed, "") as subject:
            clean = examine(subject, policies.RULES)
        with planted(signed, unsigned) as subject:
            [found] = examine(subject, [RULE["policy-changed"]]).findings
        with planted(signed, gone) as subject:
            without = examine(subject, [*policies.RULES, RULE["signing-missing"]])
    finally:
        signed.dispose()
    assert (clean.findings, clean.unseen) == ((), ())
    assert "does not ask whether the tenant is signed" in found.message
    assert [each.code for each in without.findings] == ["signing-missing"]
    assert without.unseen == ()


SAYS = {
    "every row": ["USING is (true), which holds for every row", "WITH CHECK is (true)"],
    "every row written": ["WITH CHECK is (true), which holds for every row"],
    "no WITH CHECK": ["its WITH CHECK is missing"],
    "SELECT alone": ["it is FOR SELECT alone, not FOR ALL"],
    "permissive floor": ["it is permissive, not restrictive"],
    "every role": ["it is TO public, not TO"],
    "wrong column": ["does not compare the column tenant_id"],
    "wrong setting": ["reads the setting tenantguard.practice, not tenantguard.tenant"],
    "cast column": ["casts the column tenant_id, so that no index serves"],
    "OR": ["has an OR"],
    "once a row": ["has no scalar sub-select, so the tenant is asked for once a row"],
    "constant": ["does not read the setting tenantguard.tenant"],
    "other function": ["is another expression"],
    "maintenance": ["does not hold for every row"],
}


@pytest.mark.parametrize("label", SAYS)
def test_what_differs_is_said(world: World, label: str) -> None:
    """The message says what of the policy differs, and never shows a value in it."""
    [plant] = [each for each in PLANTS if str(each) == f"policy-changed {label}"]
    assert isinstance(plant, Plant)
    with planted(world, plant.fault) as subject:
        [finding] = examine(subject, [RULE["policy-changed"]]).findings
    assert all(words in finding.message for words in SAYS[label])
    assert "aaaaaaaa" not in str(finding)


@pytest.mark.parametrize(
    ("script", "whom", "says"),
    [
        ("", "PUBLIC", STANDS),
        (f"DROP POLICY {FLOOR} ON orders;", "PUBLIC", NONE_STANDS),
        (f"ALTER POLICY {FLOOR} ON orders USING (true);", "PUBLIC", NONE_STANDS),
        (f"ALTER POLICY {FLOOR} ON orders TO {{support}};", "{application}", NONE_STANDS),
        (f"DROP POLICY {SUPPORT} ON orders;", "{application}", STANDS),
        (f"DROP POLICY {SUPPORT} ON orders;", "{support}", NONE_STANDS),
    ],
)
def test_the_floor_is_said_to_hold_only_where_it_does(
    world: World, script: str, whom: str, says: str
) -> None:
    """It is there, unchanged, for every role that the policy beside it is for."""
    more = f"CREATE POLICY all_rows ON orders TO {whom} USING (true)"
    with planted(world, script + more) as subject:
        [finding] = examine(subject, [RULE["policy-extra"]]).findings
    assert {each for each in (STANDS, NONE_STANDS) if each in finding.message} == {says}


def test_what_cannot_be_compared_is_not_green(world: World) -> None:
    """Without temporary tables no policy is compared, and every rule that asks for it says so."""
    rules = [RULE["policy-changed"], RULE["policy-extra"]]
    with planted(world, "SET LOCAL transaction_read_only = on") as subject:
        result = examine(subject, rules)
    assert result.looked == ()
    assert {each.what for each in result.unseen} == {rule.id for rule in rules}


def test_the_search_path_is_left_as_it_was(world: World) -> None:
    """What other rules are answered does not depend on which rule was first."""
    question = "SELECT to_json(current_setting('search_path'))::text"
    with planted(world, "SET LOCAL search_path = pg_catalog") as subject:
        examine(subject, [RULE["policy-changed"]])
        assert subject.ask(question) == "pg_catalog"
        temporary = "SELECT to_json(count(*))::text FROM pg_class WHERE relname ~ '^tg_clone_'"
        assert subject.ask(temporary) == 0


def test_a_declared_table_is_decided(world: World) -> None:
    """What is declared untenanted with a reason is nobody's question, models or not."""
    with planted(world, "CREATE SCHEMA sales; CREATE TABLE sales.leads (id int)") as subject:
        catalog = replace(subject.catalog, untenanted={"sales.leads": "the other team's"})
        declared = Subject(catalog, subject.roles, subject.run)
        found = examine(declared, [RULE["relation-undecided"]]).findings
    assert [each.object for each in found] == []
