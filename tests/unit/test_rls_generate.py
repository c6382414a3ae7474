"""The generated steps: deterministic, quoted, least privilege, and undone exactly."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Sequence,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.schema import CreateTable, conv
from sqlalchemy.types import CHAR

from tenantguard import rls
from tenantguard.catalog import Catalog, IdentityLookup, Roles
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import ENCRYPTED, SEARCHES
from tenantguard.rls.names import object_name, plain_literal, quote
from tenantguard.rls.step import Key, Kind, Phase

ROLES = Roles()
DIALECT = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]


def catalog(*tables: tuple[Any, ...], key: Any = Uuid, **options: Any) -> Catalog:
    """A catalog of a registry and *tables*, each a name, columns and constraints."""
    metadata = MetaData()
    Table("practices", metadata, Column("id", key, primary_key=True))
    for name, *parts in tables:
        Table(name, metadata, Column("id", Integer, primary_key=True), *parts)
    return Catalog(metadata, "practices", **options)


def tenant(type_: Any = Uuid, **options: Any) -> Column[Any]:
    return Column("tenant_id", type_, nullable=False, **options)


def steps(found: Catalog, kind: Kind, table: str | None = None) -> list[rls.Step]:
    return [
        step
        for step in rls.generate(found, ROLES)
        if step.kind is kind and table in (None, step.target[1])
    ]


def test_policies_are_exactly_these() -> None:
    """A permissive and a restrictive policy for each bound role, and one for maintenance."""
    found = steps(catalog(("order", tenant())), Kind.POLICY, "order")
    expression = (
        '"tenant_id" = '
        "(SELECT nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')::UUID)"
    )
    create = (
        'CREATE POLICY "tenantguard_application_floor" ON "public"."order" AS RESTRICTIVE FOR ALL\n'
        '    TO "tenantguard_app"\n'
        f"    USING ({expression})\n"
        f"    WITH CHECK ({expression})"
    )
    assert found[1].up[:2] == (
        'DROP POLICY IF EXISTS "tenantguard_application_floor" ON "public"."order"',
        create,
    )
    assert [re.findall(r'AS (\w+) FOR ALL\n    TO "(\w+)"', step.up[1])[0] for step in found] == [
        ("PERMISSIVE", "tenantguard_app"),
        ("RESTRICTIVE", "tenantguard_app"),
        ("PERMISSIVE", "tenantguard_support"),
        ("RESTRICTIVE", "tenantguard_support"),
        ("PERMISSIVE", "tenantguard_maintenance"),
    ]
    assert "USING (true)" in found[4].up[1]
    marks = {step.up[2].rpartition(", ")[2] for step in found}
    assert len(marks) == 5


@pytest.mark.parametrize(
    ("type_", "cast"),
    [
        (Uuid, "::UUID"),
        (Integer, "::INTEGER"),
        (BigInteger, "::BIGINT"),
        (String, ""),
        (String(5), ""),
        (CHAR(5), "::pg_catalog.bpchar"),
        (Uuid(native_uuid=False), "::pg_catalog.bpchar"),
    ],
)
def test_setting_is_cast_and_the_column_never(type_: Any, cast: str) -> None:
    """The cast fits the column's own type, and never cuts a text to the column's length."""
    found = steps(catalog(("a", tenant(type_)), key=type_), Kind.POLICY, "a")
    assert 'USING ("tenant_id" = (SELECT nullif(pg_catalog.current_setting(' in found[0].up[1]
    assert f"true), ''){cast}))" in found[0].up[1]


def test_same_models_give_the_same_text() -> None:
    """The order in which models are defined does not matter."""

    def one() -> tuple[Any, ...]:
        return ("one", tenant(), Column("two_id", ForeignKey("two.id")))

    def two() -> tuple[Any, ...]:
        return ("two", tenant(), Column("up_id", ForeignKey("two.id")))

    first = rls.sql(catalog(one(), two()), ROLES, create_roles=True)
    assert first == rls.sql(catalog(two(), one()), ROLES, create_roles=True)
    assert first.count("CREATE POLICY") == 15


def test_mutual_references_are_sorted_without_a_warning() -> None:
    """Tables that refer to each other have an order too."""
    found = catalog(
        ("a", tenant(), Column("b_id", ForeignKey("b.id"))),
        ("b", tenant(), Column("a_id", ForeignKey("a.id"))),
    )
    phases = [step.phase for step in rls.generate(found, ROLES)]
    assert phases == sorted(phases)
    assert Phase.KEYS < Phase.PROTECTION


@pytest.mark.parametrize("name", ["order", "Mixed", 'qu"ote', "per%cent", "sp ace", "a.b"])
def test_names_are_always_quoted(name: str) -> None:
    """Whatever a table is called, each statement has its name quoted, per cent signs single."""
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    table = Table(name, metadata, Column("id", Integer, primary_key=True), schema='s"x')
    table.append_column(tenant())
    script = rls.sql(Catalog(metadata, "practices"), ROLES)
    quoted = '"s""x"."' + name.replace('"', '""') + '"'
    assert f'CREATE POLICY "tenantguard_application" ON {quoted} AS' in script
    assert f"ALTER TABLE {quoted} FORCE ROW LEVEL SECURITY" in script
    assert "%%" not in script


def test_unclassified_table_is_refused() -> None:
    """A table nobody classified is an error that names it and the ways to classify it."""
    found = catalog(("loose", Column("x", Integer)), ("lost", Column("x", Integer)))
    with pytest.raises(ConfigurationError, match=r"Unclassified tables: loose, lost\. .*shared="):
        rls.generate(found, ROLES)


def grants(found: Catalog, table: str) -> str:
    [step] = steps(found, Kind.GRANTS, table)
    return "\n".join(step.up)


def test_privileges_are_the_least_for_each_kind() -> None:
    """Scoped tables are written, the registry and shared ones read, untenanted ones closed."""
    found = catalog(
        ("mine", tenant()),
        ("list", Column("x", Integer)),
        ("jobs", Column("x", Integer)),
        shared={"list": "price list"},
        untenanted={"jobs": "queue", "alembic_version": "migrations"},
    )
    write = 'GRANT DELETE, INSERT, SELECT, UPDATE ON TABLE "public"."mine" TO "tenantguard_app"'
    assert write in grants(found, "mine")
    for table in ("practices", "list"):
        text = grants(found, table)
        assert f'GRANT SELECT ON TABLE "public"."{table}" TO "tenantguard_app"' in text
        assert len(re.findall(r'TO "tenantguard_app"', text)) == 1
    for table in ("jobs", "alembic_version"):
        text = grants(found, table)
        assert not re.search(r'TO "tenantguard_(app|support)"', text)
        assert f'REVOKE ALL ON TABLE "public"."{table}" FROM PUBLIC, "tenantguard_app"' in text
    assert "to_regclass" in grants(found, "alembic_version")
    script = rls.sql(found, ROLES, create_roles=True)
    for word in ("TRUNCATE", "REFERENCES, ", "TRIGGER", "GRANT ALL", "PASSWORD"):
        assert word not in script
    assert not re.search(r'GRANT "tenantguard_\w+" TO', script)


def test_roles_are_made_on_request_only() -> None:
    """Without the option no role is created; with it, the application alone may log in."""
    found = catalog(("mine", tenant()))
    assert "CREATE ROLE" not in rls.sql(found, ROLES)
    made = re.findall(r'CREATE ROLE "(\w+)" (.*);', rls.sql(found, ROLES, create_roles=True))
    assert made == [
        ("tenantguard_owner", "NOLOGIN"),
        ("tenantguard_app", "LOGIN"),
        ("tenantguard_maintenance", "NOLOGIN"),
        ("tenantguard_support", "NOLOGIN"),
        ("tenantguard_backup", "NOLOGIN BYPASSRLS"),
    ]


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([], True),
        ([Index("i", "tenant_id", "id")], False),
        ([Index("i", "id", "tenant_id")], True),
        ([Index("i", "tenant_id", postgresql_where="id > 0")], True),
        ([UniqueConstraint("tenant_id", "id")], False),
    ],
)
def test_index_unless_one_leads_with_the_tenant(parts: list[Any], wanted: bool) -> None:  # noqa: FBT001
    """Only a whole index that begins with the tenant column makes ours needless."""
    found = catalog(("mine", tenant(), *parts))
    assert bool(steps(found, Kind.INDEX, "mine")) is wanted


def test_default_of_the_models_is_left_alone() -> None:
    """A server default of the model's own is not replaced."""
    assert steps(catalog(("mine", tenant())), Kind.DEFAULT, "mine")
    assert not steps(catalog(("mine", tenant(server_default="x"))), Kind.DEFAULT, "mine")


def keys(found: Catalog, table: str) -> list[Key]:
    return [
        step.wanted
        for step in steps(found, Kind.FOREIGN_KEY, table)
        if isinstance(step.wanted, Key)
    ]


def test_composite_key_copies_the_action_and_spares_the_tenant() -> None:
    """ON DELETE SET NULL names the child's columns; the parent gets the unique key it needs."""
    found = catalog(
        ("parent", tenant()),
        ("child", tenant(), Column("up", ForeignKey("parent.id", ondelete="SET NULL"))),
    )
    registry, composite = steps(found, Kind.FOREIGN_KEY, "child")
    assert 'REFERENCES "public"."practices" ("id")' in registry.up[0]
    assert (
        'FOREIGN KEY ("tenant_id", "up")\n    REFERENCES "public"."parent" ("tenant_id", "id") '
        'ON DELETE SET NULL ("up") NOT VALID'
    ) in composite.up[0]
    assert "VALIDATE CONSTRAINT" in composite.up[1]
    assert [step.wanted for step in steps(found, Kind.UNIQUE, "parent")] == [
        Key(("tenant_id", "id"))
    ]
    order = [step.kind for step in rls.generate(found, ROLES)]
    assert max(i for i, kind in enumerate(order) if kind is Kind.FOREIGN_KEY) < order.index(
        Kind.FORCE
    )


def test_key_that_has_the_tenant_already_gets_no_other() -> None:
    """Models with composite keys of their own are left as they are."""
    found = catalog(
        ("parent", tenant(), UniqueConstraint("tenant_id", "id")),
        (
            "child",
            Column("tenant_id", ForeignKey("practices.id")),
            Column("up", Integer),
            ForeignKeyConstraint(["tenant_id", "up"], ["parent.tenant_id", "parent.id"]),
        ),
    )
    assert keys(found, "child") == []
    assert steps(found, Kind.UNIQUE) == []


def test_options_of_the_key_are_copied() -> None:
    """ON UPDATE and deferral of the model's key hold for the composite one as well."""
    key = ForeignKey("parent.id", onupdate="cascade", deferrable=True, initially="DEFERRED")
    found = catalog(("parent", tenant()), ("child", tenant(), Column("up", key)))
    text = steps(found, Kind.FOREIGN_KEY, "child")[1].up[0]
    assert "ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED NOT VALID" in text


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (Column("up", ForeignKey("parent.id", onupdate="SET NULL")), "ON UPDATE SET NULL"),
        (Column("up", ForeignKey("parent.tenant_id")), "on one side only"),
        (Column("up", ForeignKey("nowhere.id")), "the MetaData does not have"),
    ],
)
def test_key_that_cannot_carry_the_tenant_is_refused(part: Any, message: str) -> None:
    """A foreign key that no composite key can follow is an error, not a gap."""
    found = catalog(("parent", tenant(unique=True)), ("child", tenant(), part))
    with pytest.raises(ConfigurationError, match=message):
        rls.generate(found, ROLES)


def test_metadata_is_not_changed() -> None:
    """Composite keys exist in the database only."""
    found = catalog(
        ("parent", tenant()), ("child", tenant(), Column("up", ForeignKey("parent.id")))
    )
    child = found.metadata.tables["child"]
    before = (set(child.constraints), set(child.indexes), list(child.columns))
    rls.sql(found, ROLES)
    assert (set(child.constraints), set(child.indexes), list(child.columns)) == before


def test_names_fit_and_do_not_collide() -> None:
    """Generated names have at most 63 bytes, also of long and of wide characters."""
    assert object_name("a_b", "c") != object_name("a", "b_c")
    for parts in [("t" * 63, "c" * 63, "idx"), ("ü" * 40, "x"), ("a",)]:
        assert len(object_name(*parts).encode()) <= 63
        assert object_name(*parts) == object_name(*parts)
    assert quote('a"b%') == '"a""b%"'
    assert plain_literal("it's") == "'it''s'"
    assert plain_literal("a\\'b") == "E'a\\\\''b'"


def test_lookup_is_a_closed_definer_function() -> None:
    """It fixes its search path, belongs to maintenance, and the application alone may call it."""
    found = catalog(("users", tenant(), Column("email", String), Column("secret", String)))
    users = found.metadata.tables["users"]
    columns = users.c
    found.lookups.append(
        IdentityLookup(
            users, columns.email, columns.id, columns.tenant_id, columns.secret, "by_email"
        )
    )
    [step] = steps(found, Kind.LOOKUP)
    text = ";\n".join(step.up)
    signature = '"public"."by_email"(VARCHAR)'
    for line in (
        "LANGUAGE sql STABLE SECURITY DEFINER",
        "SET search_path = pg_catalog, pg_temp",
        'FROM "public"."users" AS t WHERE t."email" = $1',
        f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC",
        f'GRANT EXECUTE ON FUNCTION {signature} TO "tenantguard_app"',
        f'ALTER FUNCTION {signature} OWNER TO "tenantguard_maintenance"',
        'REVOKE CREATE ON SCHEMA "public" FROM "tenantguard_maintenance"',
    ):
        assert line in text


def test_down_names_everything_that_up_made() -> None:
    """Each thing up creates, down drops, and it drops no table, column or role."""
    found = catalog(
        ("parent", tenant()),
        ("child", tenant(), Column("up", ForeignKey("parent.id")), Column("n", Integer)),
    )
    up, down = rls.sql(found, ROLES, create_roles=True), rls.down_sql(found, ROLES)
    for made in re.findall(r"CREATE POLICY (\S+) ON (\S+)", up):
        assert "DROP POLICY IF EXISTS {} ON {}".format(*made) in down
    for made in re.findall(r"ADD CONSTRAINT (\S+)", up):
        assert f"DROP CONSTRAINT IF EXISTS {made}" in down
    for made in re.findall(r"CREATE INDEX (\S+)", up):
        assert f'DROP INDEX IF EXISTS "public".{made}' in down
    assert up.count("ENABLE ROW LEVEL SECURITY;") == down.count("DISABLE ROW LEVEL SECURITY;") == 3
    assert down.count("DROP DEFAULT;") == 2
    for word in ("DROP TABLE", "DROP COLUMN", "DROP ROLE", "DROP SCHEMA"):
        assert word not in down


def test_named_sequences_are_granted() -> None:
    """A sequence that a column names is granted, though it is not the column's own."""
    found = catalog(("mine", tenant(), Column("n", Integer, Sequence("numb'ers", schema="s"))))
    assert "to_regclass('\"s\".\"numb''ers\"')" in grants(found, "mine")


def encrypted(name: str, *, check: str | None = None, search: Any = None) -> list[Any]:
    """An encrypted column with its format check, and the column that is searched for it."""
    form = rf"substring({name}, 1, 2) = '\x9e54'::bytea"
    parts: list[Any] = [
        Column(name, LargeBinary, info={ENCRYPTED: f"patients.{name}"}),
        CheckConstraint(form, name=check, info={ENCRYPTED: name}),
    ]
    if search is not None:
        info = {SEARCHES: name}
        parts += [
            Column(f"{name}_bidx", LargeBinary, search, info=info),
            Index(f"ix_{name}", "tenant_id", f"{name}_bidx"),
        ]
    return parts


def searchable(name: str, *, check: str | None = None) -> list[Any]:
    found = Computed(f"substring({name}, 5, 16)", persisted=True)
    return encrypted(name, check=check, search=found)


def test_models_without_encrypted_columns_get_nothing_for_them() -> None:
    """The table of keys, and what is derived, is there for those who encrypt, and nobody else."""
    script = rls.sql(catalog(("mine", tenant())), ROLES)
    down = rls.down_sql(catalog(("mine", tenant())), ROLES)
    for word in ("CREATE TABLE", "tenantguard_keys", "GENERATED", "CHECK (", "TABLES"):
        assert word not in re.sub("WITH CHECK [(]", "", script)
    assert not re.search("^--.*keys.*dropped", down, re.MULTILINE)


def test_keys_are_made_before_anything_needs_them() -> None:
    """The table of keys is created in the registry's schema, handed over, and never dropped."""
    found = catalog(("patients", tenant(String(36)), *encrypted("name")), key=String(36))
    generated = rls.generate(found, ROLES)
    first = next(index for index, step in enumerate(generated) if step.kind is Kind.TABLE)
    assert generated[first - 1].phase < generated[first].phase < generated[first + 1].phase
    create, hand_over = generated[first].up
    assert create.startswith("CREATE TABLE IF NOT EXISTS public.tenantguard_keys (\n    tenant_id")
    assert "tenant_id VARCHAR(36) NOT NULL" in create
    assert "PRIMARY KEY (tenant_id, purpose)" in create
    assert not re.search(r"\t| $", create, re.MULTILINE)
    assert "OWNER TO" in hand_over
    down = rls.down_sql(found, ROLES)
    assert down.startswith("-- public.tenantguard_keys is not dropped: without the keys in it")
    for word in ("DROP TABLE", "DROP COLUMN", "DROP INDEX IF EXISTS ix_", "name_bidx"):
        assert word not in down


def test_keys_follow_the_registrys_schema() -> None:
    """A registry in a schema, whatever its name, has its keys there too."""
    metadata = MetaData(schema='Sch "x%')
    Table("practices", metadata, Column("id", Integer, primary_key=True))
    Table(
        "patients",
        metadata,
        Column("id", Integer, primary_key=True),
        tenant(Integer),
        *encrypted("name"),
    )
    script = rls.sql(Catalog(metadata, 'Sch "x%.practices'), ROLES)
    assert (
        'CREATE TABLE IF NOT EXISTS "Sch ""x%".tenantguard_keys (\n    tenant_id INTEGER' in script
    )
    assert 'ALTER TABLE "Sch ""x%"."tenantguard_keys" FORCE ROW LEVEL SECURITY' in script


def test_keys_are_added_by_the_application_and_seen_by_no_support() -> None:
    """Least privilege for wrapped keys: no change by the application, nothing for support."""
    found = catalog(("patients", tenant(), *encrypted("name")))
    text = grants(found, "tenantguard_keys")
    table = '"public"."tenantguard_keys"'
    assert re.findall(rf"GRANT (.*) ON TABLE {table} TO (.*)", text) == [
        ("INSERT, SELECT", '"tenantguard_app"'),
        ("DELETE, INSERT, SELECT, UPDATE", '"tenantguard_maintenance"'),
        ("SELECT", '"tenantguard_backup"'),
    ]
    assert 'FROM PUBLIC, "tenantguard_app", "tenantguard_support"' in text
    policies = steps(found, Kind.POLICY, "tenantguard_keys")
    assert [step.name for step in policies] == [
        "tenantguard_application",
        "tenantguard_application_floor",
        "tenantguard_maintenance",
    ]
    assert keys(found, "tenantguard_keys") == [
        Key(("tenant_id",), ("public", "practices"), ("id",))
    ]


def test_encrypted_columns_give_the_same_text() -> None:
    """Neither the tables' order nor that of a table's constraints decides the script."""

    def table(name: str) -> tuple[Any, ...]:
        columns = [f"{name}_{number}" for number in range(8)]
        return (name, tenant(), *(part for column in columns for part in searchable(column)))

    first = rls.sql(catalog(table("one"), table("two")), ROLES)
    assert first == rls.sql(catalog(table("two"), table("one")), ROLES)
    checks = re.findall(r"CHECK \(substring\((\w+), 1, 2\)", first)
    assert checks == [f"{name}_{number}" for name in ("one", "two") for number in range(8)]


def test_searched_column_and_its_index_are_steps() -> None:
    """Column, index and check are made with the models' names and expressions."""
    found = catalog(("patients", tenant(), *searchable("name", check="sealed")))
    [column] = steps(found, Kind.SEARCH_COLUMN)
    assert column.up == (
        (
            'ALTER TABLE "public"."patients" ADD COLUMN IF NOT EXISTS "name_bidx" BYTEA\n'
            "    GENERATED ALWAYS AS (substring(name, 5, 16)) STORED"
        ),
    )
    [index] = steps(found, Kind.SEARCH_INDEX)
    assert index.name == "ix_name"
    create = 'CREATE INDEX "ix_name" ON "public"."patients" ("tenant_id", "name_bidx")'
    assert create in index.up[0]
    [check] = steps(found, Kind.FORMAT)
    assert check.up[1] == (
        'ALTER TABLE "public"."patients" ADD CONSTRAINT "sealed" '
        r"CHECK (substring(name, 1, 2) = '\x9e54'::bytea) NOT VALID"
    )
    assert [step.down for step in (column, index, check)] == [(), (), ()]


def test_long_and_odd_names_of_the_models_are_the_databases() -> None:
    """A name is cut and quoted as SQLAlchemy does it, so that what create_all made is found."""
    name = 'Na"me%' + "x" * 60
    found = catalog(("patients", tenant(), *encrypted("name", check=conv(name))))
    [check] = steps(found, Kind.FORMAT)
    assert len(check.name) <= 63
    assert check.name.startswith('Na"me%xxx')
    assert 'DROP CONSTRAINT IF EXISTS "Na""me%xxx' in check.up[0]
    table = found.metadata.tables["patients"]
    assert quote(check.name) in str(CreateTable(table).compile(dialect=DIALECT))


def test_search_column_that_is_not_generated_is_refused() -> None:
    """A plain column could drift from the encrypted one, and searches would miss rows."""
    parts = encrypted("name")
    parts.append(Column("name_bidx", LargeBinary, info={SEARCHES: "name"}))
    with pytest.raises(ConfigurationError, match=r"patients\.name_bidx .* not generated"):
        rls.generate(catalog(("patients", tenant(), *parts)), ROLES)
