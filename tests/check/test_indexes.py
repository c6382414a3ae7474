"""Indexes and predicates under row-level security: what is found, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from planting import RULE, Plant, found, planted
from sqlalchemy import (
    Column,
    Enum,
    Float,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    Uuid,
    column,
    func,
)
from sqlalchemy.dialects.postgresql import ARRAY, INT4RANGE, JSONB, TSVECTOR

from tenantguard import Roles
from tenantguard.catalog import Catalog
from tenantguard.check import Subject, examine
from tenantguard.check.trees import uses_of
from tenantguard.findings import Result

if TYPE_CHECKING:
    from locks import World

_TENANT = "(SELECT nullif(current_setting('tenantguard.tenant', true), '')::uuid)"
_ADMIN = "current_setting('app.admin', true) = 'on'"
_WITHOUT_OURS = """
    DROP POLICY tenantguard_application ON orders;
    DROP POLICY tenantguard_application_floor ON orders;
    CREATE TABLE members (tenant_id uuid, who text);"""


def _unusable(definition: str, column: str | None, fine: str, label: str) -> Plant:
    """Return an index that no query can use under row-level security, and one that it can."""
    return Plant(
        "index-not-leakproof", definition, "public.patients", fine, label=label, column=column
    )


def _slow(predicate: str, fine: str, label: str) -> Plant:
    policy = _WITHOUT_OURS + "CREATE POLICY own ON orders TO {application} USING (%s)"
    return Plant(
        "policy-predicate-slow",
        policy % predicate,
        "public.orders",
        policy % fine,
        label=label,
        column="tenant_id",
    )


_DROP_INDEXES = """
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT conname FROM pg_constraint
            WHERE confrelid = 'orders'::regclass AND array_length(conkey, 1) = 2 LOOP
            EXECUTE format('ALTER TABLE order_tags DROP CONSTRAINT %I', name); END LOOP;
        FOR name IN SELECT conname FROM pg_constraint
            WHERE conrelid = 'orders'::regclass AND contype = 'u' LOOP
            EXECUTE format('ALTER TABLE orders DROP CONSTRAINT %I', name); END LOOP;
    END $$;
    DROP INDEX ix_orders_tenant_id;"""
_STATE = "CREATE TYPE state AS ENUM ('open', 'closed'); ALTER TABLE patients ADD state state;"

PLANTS = (
    Plant(
        "tenant-index-missing",
        f"{_DROP_INDEXES} CREATE INDEX ON orders (patient_id, tenant_id); "
        "CREATE INDEX ON orders (tenant_id) WHERE cents > 0",
        "public.orders",
        f"{_DROP_INDEXES} CREATE INDEX ON orders (tenant_id, patient_id)",
        column="tenant_id",
    ),
    _unusable(
        f"{_STATE} CREATE INDEX ON patients (state)",
        "state",
        f"{_STATE} CREATE INDEX ON patients (tenant_id, state)",
        "enum",
    ),
    _unusable(
        "ALTER TABLE patients ADD price numeric; CREATE INDEX ON patients (price, name)",
        "price",
        "ALTER TABLE patients ADD price int; CREATE INDEX ON patients (price, name)",
        "numeric",
    ),
    _unusable(
        "CREATE INDEX ON patients (lower(name))",
        "name",
        "ALTER TABLE patients ADD lowered text GENERATED ALWAYS AS (lower(name)) STORED; "
        "CREATE INDEX ON patients (lowered)",
        "lower",
    ),
    _unusable(
        "CREATE INDEX ON patients (name text_pattern_ops)",
        "name",
        'CREATE INDEX ON patients (name COLLATE "C")',
        "LIKE",
    ),
    _unusable(
        "ALTER TABLE patients ADD doc jsonb; CREATE INDEX ON patients USING gin (doc)",
        "doc",
        "ALTER TABLE patients ADD doc jsonb",
        "jsonb",
    ),
    _unusable(
        "ALTER TABLE patients ADD doc jsonb; CREATE INDEX ON patients ((doc ->> 'name'))",
        "doc",
        "ALTER TABLE patients ADD doc jsonb; CREATE INDEX ON patients (tenant_id, (doc ->> 'n'))",
        "jsonb key",
    ),
    _unusable(
        "ALTER TABLE patients ADD doc jsonb; "
        "CREATE INDEX ON patients USING gin (doc jsonb_path_ops) WHERE name <> ''",
        "doc",
        "ALTER TABLE patients ADD n int; CREATE INDEX ON patients (n) WHERE lower(name) <> ''",
        "partial",
    ),
    _unusable(
        "ALTER TABLE patients ADD words tsvector; CREATE INDEX ON patients USING gin (words)",
        "words",
        "CREATE INDEX ON patients USING hash (name)",
        "full text",
    ),
    _unusable(
        "CREATE INDEX ON patients USING gin (to_tsvector('simple'::regconfig, name))",
        "name",
        "CREATE INDEX ON patients (born)",
        "full text of an expression",
    ),
    _unusable(
        "ALTER TABLE patients ADD tags text[]; CREATE INDEX ON patients USING gin (tags)",
        "tags",
        "ALTER TABLE patients ADD tags text[]; CREATE INDEX ON patients (tenant_id, tags)",
        "array",
    ),
    _unusable(
        "CREATE INDEX ON patients USING gin (string_to_array(name, ' '))",
        "name",
        "CREATE INDEX ON patients USING brin (born)",
        "array of an expression",
    ),
    _unusable(
        "ALTER TABLE patients ADD stay daterange; CREATE INDEX ON patients USING gist (stay)",
        "stay",
        "ALTER TABLE patients ADD stay daterange, ADD EXCLUDE USING gist (stay WITH &&)",
        "range",
    ),
    _unusable(
        "CREATE FUNCTION short(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT left($1, 3)'; "
        "CREATE INDEX ON patients (short(name))",
        "name",
        "CREATE FUNCTION short(text) RETURNS text LANGUAGE plpgsql IMMUTABLE LEAKPROOF "
        "AS 'BEGIN RETURN 1; END'; CREATE INDEX ON patients (short(name))",
        "function of one's own",
    ),
    _slow(f"tenant_id = {_TENANT} OR {_ADMIN}", f"tenant_id = {_TENANT}", "OR"),
    _slow(
        f"CASE WHEN {_ADMIN} THEN true ELSE tenant_id = {_TENANT} END",
        f"tenant_id = CASE WHEN {_ADMIN} THEN {_TENANT} END",
        "CASE",
    ),
    _slow(
        f"coalesce(tenant_id, gen_random_uuid()) = {_TENANT}",
        f"tenant_id = coalesce({_TENANT}, gen_random_uuid())",
        "coalesce",
    ),
    _slow(
        f"tenant_id IS NOT DISTINCT FROM {_TENANT}",
        f"tenant_id = {_TENANT} AND tenant_id IS NOT NULL AND cents >= 0",
        "IS NOT DISTINCT FROM",
    ),
    _slow(
        "tenant_id::text = current_setting('tenantguard.tenant', true)",
        "tenant_id = current_setting('tenantguard.tenant', true)::uuid",
        "cast",
    ),
    _slow(
        "tenant_id IN (SELECT m.tenant_id FROM members m WHERE m.who = current_user)",
        "tenant_id = ANY (ARRAY(SELECT m.tenant_id FROM members m WHERE m.who = current_user))",
        "IN",
    ),
    _slow(
        "EXISTS (SELECT FROM members m WHERE m.tenant_id = orders.tenant_id)",
        f"tenant_id = {_TENANT} AND EXISTS (SELECT FROM members m WHERE m.tenant_id IS NULL)",
        "EXISTS",
    ),
    _slow(
        f"tenant_id = {_TENANT}); CREATE POLICY more ON orders TO {{application}} "
        f"USING (NOT tenant_id <> {_TENANT}",
        f"tenant_id = {_TENANT} OR {_ADMIN}); CREATE POLICY floor ON orders AS RESTRICTIVE "
        f"USING (tenant_id = {_TENANT}",
        "two of them",
    ),
)


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_fault_is_found(world: World, plant: Plant) -> None:
    plant.is_found(world)


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_what_resembles_it_is_not_found(world: World, plant: Plant) -> None:
    plant.is_not_found(world)


# -- what a finding says ----------------------------------------------------------------------


def test_finding_quotes_the_plans(world: World) -> None:
    """The index is in the plan without row-level security, and another one is under it."""
    with planted(world, f"{_STATE} CREATE INDEX states ON patients (state)") as subject:
        [finding] = examine(subject, [RULE["index-not-leakproof"]]).findings
    assert finding.message.startswith(
        "Index states of public.patients does not serve the application: enum_eq is not leakproof. "
    )
    assert "Index Scan" in finding.message
    assert "using states, Index Cond: (state = ?); under it, " in finding.message
    assert finding.message.count("using states") == 1
    assert finding.message.endswith(", and the condition is a filter.")


def test_leakproof_operator_serves(world: World) -> None:
    """The catalogs decide, not a list of types: where a superuser marks it, nothing is found."""
    mark = "ALTER FUNCTION pg_catalog.enum_eq(anyenum, anyenum) LEAKPROOF;"
    with planted(world, f"{mark} {_STATE} CREATE INDEX ON patients (state)") as subject:
        assert examine(subject, [RULE["index-not-leakproof"]]) == Result(
            ("index-not-leakproof",), ()
        )


def test_index_serves_where_no_policy_applies(world: World) -> None:
    """The plan decides: what is slow by row-level security is not where that is off."""
    off = "ALTER TABLE patients DISABLE ROW LEVEL SECURITY;"
    with planted(world, f"{off} {_STATE} CREATE INDEX ON patients (state)") as subject:
        result = examine(subject, [RULE["index-not-leakproof"]])
    assert (result.findings, result.unseen) == ((), ())


def test_partitions_of_an_index_are_it(world: World) -> None:
    """A plan names the index of a partition, not that of the whole table."""
    script = f"""
        DROP TABLE order_tags; {_STATE}
        CREATE TABLE order_tags (tenant_id uuid, state state) PARTITION BY HASH (tenant_id);
        CREATE INDEX ON order_tags (state);
        CREATE TABLE part PARTITION OF order_tags FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        CREATE INDEX ON order_tags (tenant_id);
        ALTER TABLE order_tags ENABLE ROW LEVEL SECURITY;
        CREATE POLICY own ON order_tags USING (tenant_id = {_TENANT});
        GRANT SELECT ON order_tags TO {{application}}"""
    with planted(world, script) as subject:
        result = examine(subject, [RULE["index-not-leakproof"]])
    assert found(result) == {("index-not-leakproof", "public.order_tags")}


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("{backup}", "cannot act as"),
        ("{application}", "Policies or missing privileges hide rows"),
    ],
)
def test_who_cannot_compare_the_plans_says_so(world: World, who: str, reason: str) -> None:
    """Without a role for either plan nothing is known of the index, which is not green."""
    script = f"{_STATE} CREATE INDEX ON patients (state); SET LOCAL SESSION AUTHORIZATION {who}"
    with planted(world, script) as subject:
        result = examine(subject, [RULE["index-not-leakproof"]])
    assert (result.looked, result.findings) == ((), ())
    [unseen] = result.unseen
    assert unseen.what == "index-not-leakproof"
    assert reason in unseen.reason


def test_settings_are_as_before(world: World) -> None:
    """What a rule sets to ask its question, the next rule does not find."""
    names = ("role", "row_security", "enable_seqscan", "tenantguard.tenant")
    question = "SELECT " + ", ".join(f"current_setting('{each}', true)" for each in names)
    with planted(world, f"{_STATE} CREATE INDEX ON patients (state)") as subject:
        assert subject.run is not None
        before = [tuple(each or "" for each in row) for row in subject.run(question)]
        assert examine(subject, [RULE["index-not-leakproof"]]).findings
        after = [tuple(each or "" for each in row) for row in subject.run(question)]
    assert before == after


def test_invalid_index_does_not_count(world: World) -> None:
    """What CREATE INDEX CONCURRENTLY leaves behind when it fails serves nobody, and is named."""
    invalid = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass"
    script = f"{_DROP_INDEXES} CREATE INDEX broken ON orders (tenant_id); {invalid}"
    with planted(world, script) as subject:
        [finding] = examine(subject, [RULE["tenant-index-missing"]]).findings
    assert finding.message.endswith("broken is invalid.")


def test_policy_is_named_with_what_it_hides_the_column_in(world: World) -> None:
    script = "CREATE POLICY own ON orders TO {application} USING (tenant_id::text = '')"
    with planted(world, f"{_WITHOUT_OURS} {script}") as subject:
        [finding] = examine(subject, [RULE["policy-predicate-slow"]]).findings
    assert finding.message.startswith(
        "Policy own on public.orders has the tenant column inside a cast of the column, so"
    )


def test_trees_are_read_whatever_names_they_hold() -> None:
    """A brace in a name is a part of it; columns of other levels and numbers are not ours."""
    within = (
        r"{SUBLINK :subLinkType 0 :subselect {QUERY :rtable ({RTE :name odd\ \{name\} :x <>}) "
        "{OPEXPR :args ({VAR :varno 1 :varattno 2 :varlevelsup 1} "
        "{VAR :varno 1 :varattno 2 :varlevelsup 0})}}}"
    )
    tree = f"{{BOOLEXPR :boolop or :args ({within} {{VAR :varattno 3 :varlevelsup 0}})}}"
    assert list(uses_of(tree, 2)) == [("OR", "SUBLINK", "QUERY", "OPEXPR")]
    assert list(uses_of(tree, 3)) == [("OR",)]


# -- what the models alone show ---------------------------------------------------------------


def _models(*arguments: Any) -> Result:
    metadata = MetaData()
    Table("tenants", metadata, Column("id", Uuid, primary_key=True))
    tenant = Column("tenant_id", Uuid, nullable=False)
    Table("rows", metadata, Column("id", Integer, primary_key=True), tenant, *arguments)
    subject = Subject(Catalog(metadata, "tenants"), Roles())
    return examine(subject, [RULE["index-not-leakproof"]])


@pytest.mark.parametrize(
    ("arguments", "column"),
    [
        ((Column("c", Enum("a", "b", name="kind"), index=True),), "c"),
        ((Column("c", Numeric(10, 2), index=True),), "c"),
        ((Column("c", JSONB), Index("i", "c", postgresql_using="gin")), "c"),
        ((Column("c", ARRAY(Text)), Index("i", "c", postgresql_using="gin")), "c"),
        ((Column("c", TSVECTOR), Index("i", "c", postgresql_using="gin")), "c"),
        ((Column("c", INT4RANGE), Index("i", "c", postgresql_using="gist")), "c"),
        ((Column("c", Text, key="k"), Index("i", func.lower(column("c")))), "c"),
    ],
)
def test_models_alone_show_it(arguments: tuple[Any, ...], column: str | None) -> None:
    """Without a database the usual types are told, at the column's own line."""
    [finding] = _models(*arguments).findings
    assert (finding.object, finding.column) == ("public.rows", column)


@pytest.mark.parametrize(
    "arguments",
    [
        (Column("c", Enum("a", "b", native_enum=False), index=True),),
        (Column("c", Float, index=True),),
        (Column("c", Text, index=True),),
        (Column("c", Numeric), Index("i", "tenant_id", "c")),
        (Column("c", Numeric), Index("i", "id", "c")),
    ],
)
def test_models_with_usable_indexes_are_clean(arguments: tuple[Any, ...]) -> None:
    assert _models(*arguments).findings == ()
