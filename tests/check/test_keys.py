"""Tenant columns, foreign keys and unique keys: what is found, and what is not."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from planting import RULE, Plant, found, planted
from practice import A, B
from sqlalchemy import (
    CHAR,
    Column,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    create_engine,
    func,
    text,
)
from sqlalchemy.exc import IntegrityError

from tenantguard import Roles, rls
from tenantguard.catalog import Catalog
from tenantguard.check import Subject, connected, examine

if TYPE_CHECKING:
    from locks import World
    from sqlalchemy import URL

    from tenantguard.findings import Result

_DROP_KEY = """
    DO $$ DECLARE name text := (SELECT conname FROM pg_constraint
        WHERE conrelid = 'orders'::regclass AND confrelid = 'patients'::regclass
            AND array_length(conkey, 1) = 2);
    BEGIN EXECUTE format('ALTER TABLE orders DROP CONSTRAINT %I', name); END $$;
"""
_COMPOSITE = """
    ALTER TABLE orders ADD CONSTRAINT anew FOREIGN KEY (tenant_id, patient_id)
        REFERENCES patients (tenant_id, id) ON DELETE CASCADE"""
_CROSS = f"""
    ALTER TABLE orders DISABLE TRIGGER ALL;
    UPDATE orders SET patient_id = (SELECT min(id) FROM patients WHERE tenant_id = '{B}')
        WHERE id = (SELECT min(id) FROM orders WHERE tenant_id = '{A}');
    ALTER TABLE orders ENABLE TRIGGER ALL;"""
_UNDER_FORCE = f"""
    {_DROP_KEY}
    UPDATE orders SET patient_id = (SELECT min(id) FROM patients WHERE tenant_id = 'THEIR')
        WHERE id = (SELECT min(id) FROM orders WHERE tenant_id = '{A}');
    ALTER TABLE orders OWNER TO {{owner}}; ALTER TABLE patients OWNER TO {{owner}};
    SET LOCAL ROLE {{owner}};
    {_COMPOSITE};
    RESET ROLE;"""
_COLLATED = """
    CREATE COLLATION own (provider = libc, locale = 'C');
    DROP TABLE order_tags;
    CREATE TABLE order_tags (tenant_id text COLLATE own);"""
_ROOMS = """
    CREATE TYPE rooms_range AS RANGE (subtype = int4);
    ALTER TABLE patients ADD room rooms_range, ADD EXCLUDE USING gist (room WITH &&)"""

PLANTS = (
    Plant(
        "key-switched-off",
        "UPDATE pg_trigger SET tgenabled = 'D' WHERE tgconstraint IN "
        "(SELECT oid FROM pg_constraint "
        "WHERE conrelid = 'orders'::regclass AND confrelid = 'patients'::regclass)",
        at="public.orders",
        fine="ALTER TABLE materials DISABLE TRIGGER ALL",
        column="patient_id",
    ),
    Plant(
        "tenant-nullable",
        "ALTER TABLE orders ALTER tenant_id DROP NOT NULL",
        "public.orders",
        "ALTER TABLE orders ALTER what DROP NOT NULL",
        column="tenant_id",
    ),
    Plant(
        "tenant-default-missing",
        "ALTER TABLE tags ALTER tenant_id DROP DEFAULT",
        "public.tags",
        "ALTER TABLE tags ALTER name DROP DEFAULT",
        column="tenant_id",
    ),
    Plant(
        "tenant-default-wrong",
        f"ALTER TABLE tags ALTER tenant_id SET DEFAULT '{A}'",
        "public.tags",
        """CREATE FUNCTION tenant() RETURNS uuid LANGUAGE sql STABLE AS
            $$SELECT nullif(current_setting('tenantguard.tenant', true), '')::uuid$$;
        ALTER TABLE tags ALTER tenant_id SET DEFAULT tenant()""",
        label="constant",
        column="tenant_id",
    ),
    Plant(
        "tenant-default-wrong",
        "ALTER TABLE tags ALTER tenant_id SET DEFAULT gen_random_uuid()",
        "public.tags",
        "ALTER TABLE tags ALTER tenant_id DROP DEFAULT",
        label="random",
        column="tenant_id",
    ),
    Plant(
        "tenant-type-differs",
        "ALTER TABLE materials ADD id2 int; DROP TABLE order_tags; "
        "CREATE TABLE order_tags (tenant_id text, order_id int, tag_id int)",
        "public.order_tags",
        "CREATE DOMAIN tenant AS uuid; DROP TABLE order_tags; "
        "CREATE TABLE order_tags (tenant_id tenant, order_id int, tag_id int)",
        column="tenant_id",
    ),
    Plant(
        "tenant-match-loose",
        # As CREATE COLLATION … (deterministic = false) has it, which not every build can make.
        f"{_COLLATED} UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'own'",
        "public.order_tags",
        _COLLATED,
        label="collation",
        column="tenant_id",
    ),
    Plant(
        "tenant-match-loose",
        "DROP TABLE order_tags; CREATE TABLE order_tags (tenant_id char(8))",
        "public.order_tags",
        "DROP TABLE order_tags; CREATE TABLE order_tags (tenant_id varchar(8))",
        label="blanks",
        column="tenant_id",
    ),
    Plant(
        "registry-key-missing",
        "ALTER TABLE tags DROP CONSTRAINT tags_tenant_id_fkey",
        "public.tags",
        "ALTER TABLE tags DROP CONSTRAINT tags_tenant_id_fkey, ADD CONSTRAINT other "
        "FOREIGN KEY (tenant_id) REFERENCES practices ON DELETE CASCADE",
        column="tenant_id",
    ),
    Plant(
        "key-without-tenant",
        _DROP_KEY,
        "public.orders",
        f"{_DROP_KEY} {_COMPOSITE}",
        column="patient_id",
    ),
    Plant(
        "key-without-tenant",
        "ALTER TABLE users ADD tag_id int REFERENCES tags",
        "public.users",
        "ALTER TABLE users ADD material_id int REFERENCES materials",
        label="beside the models",
        column="tag_id",
    ),
    Plant(
        "key-not-valid",
        f"{_DROP_KEY} {_COMPOSITE} NOT VALID",
        "public.orders",
        f"{_DROP_KEY} {_COMPOSITE} NOT VALID; ALTER TABLE orders VALIDATE CONSTRAINT anew",
        column="patient_id",
    ),
    Plant(
        "key-crossed",
        _CROSS,
        "public.orders",
        _CROSS.replace(str(B), str(A)),
        column="patient_id",
    ),
    Plant(
        "key-crossed",
        _UNDER_FORCE.replace("THEIR", str(B)),
        "public.orders",
        _UNDER_FORCE.replace("THEIR", str(A)),
        label="validated under FORCE",
        column="patient_id",
    ),
    Plant(
        "key-empties-tenant",
        f"{_DROP_KEY} {_COMPOSITE.replace('CASCADE', 'SET NULL')}",
        "public.orders",
        f"{_DROP_KEY} {_COMPOSITE.replace('CASCADE', 'SET NULL (patient_id)')}",
        column="tenant_id",
    ),
    Plant(
        "key-empties-tenant",
        f"{_DROP_KEY} {_COMPOSITE} ON UPDATE SET NULL",
        "public.orders",
        f"{_DROP_KEY} {_COMPOSITE} ON UPDATE CASCADE",
        label="on update",
        column="tenant_id",
    ),
    Plant(
        "unique-without-tenant",
        "ALTER TABLE patients ADD UNIQUE (name)",
        "public.patients",
        "ALTER TABLE patients ADD UNIQUE (tenant_id, name)",
        label="constraint",
        column="name",
    ),
    Plant(
        "unique-without-tenant",
        "CREATE UNIQUE INDEX ON patients (lower(name), born) WHERE born IS NOT NULL",
        "public.patients",
        "CREATE UNIQUE INDEX ON patients (tenant_id, lower(name)); "
        "CREATE UNIQUE INDEX ON orders (patient_id, what); "
        "ALTER TABLE orders ADD key uuid UNIQUE, ADD n int GENERATED ALWAYS AS IDENTITY UNIQUE, "
        "ADD random text UNIQUE DEFAULT gen_random_uuid()::text",
        label="index",
        column="born",
    ),
    Plant(
        "unique-without-tenant",
        "ALTER TABLE tags ADD code int; ALTER TABLE tags DROP CONSTRAINT tags_pkey CASCADE; "
        "UPDATE tags SET code = id; ALTER TABLE tags ADD PRIMARY KEY (code)",
        "public.tags",
        "ALTER TABLE tags ADD code int; CREATE INDEX ON tags (code)",
        label="natural primary key",
        column="code",
    ),
    Plant(
        "unique-without-tenant",
        _ROOMS,
        "public.patients",
        "ALTER TABLE patients ADD room point; CREATE INDEX ON patients USING gist (room)",
        label="exclusion",
        column="room",
    ),
)


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_fault_is_found(world: World, plant: Plant) -> None:
    plant.is_found(world)


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_what_resembles_it_is_not_found(world: World, plant: Plant) -> None:
    plant.is_not_found(world)


# -- what a rule must not believe, and what it must not fail to say ---------------------------


def test_key_that_is_validated_under_force_is_not_believed(world: World) -> None:
    """PostgreSQL itself says that the key is valid, and rows cross all the same."""
    with planted(world, _UNDER_FORCE.replace("THEIR", str(B))) as subject:
        assert examine(subject, [RULE["key-not-valid"]]).findings == ()
        [finding] = examine(subject, [RULE["key-crossed"]]).findings
    assert finding.message == (
        "1 rows of public.orders point at a row of public.patients that does not exist or belongs "
        "to another tenant, although orders_patient_id_fkey, anew is validated."
    )


_AS_OWNER = """
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO {owner};
    SET LOCAL SESSION AUTHORIZATION {owner}"""


def test_rows_that_nobody_sees_are_not_called_clean(world: World) -> None:
    """Under FORCE the owner would count zero: the rule could not look then, which ends with 2."""
    revoke = "REVOKE {maintenance} FROM {owner}; REVOKE {backup} FROM {owner};"
    with planted(world, f"{_CROSS} {revoke} {_AS_OWNER}") as subject:
        result = examine(subject, [RULE["key-crossed"]])
    assert (result.looked, result.findings) == ((), ())
    [unseen] = result.unseen
    assert unseen.what == "key-crossed"
    assert unseen.reason.startswith("Policies or missing privileges hide rows of public.order_tags")


@pytest.mark.parametrize("role", ["maintenance", "backup"])
def test_member_of_a_role_that_sees_all_counts(world: World, role: str) -> None:
    """The rule takes the role of the address that sees most, and gives it back."""
    with planted(world, f"{_CROSS} GRANT {{{role}}} TO {{owner}}; {_AS_OWNER}") as subject:
        result = examine(subject, [RULE["key-crossed"]])
        assert subject.run is not None
        [[role_after, row_security]] = subject.run(
            "SELECT current_setting('role'), current_setting('row_security')"
        )
    assert found(result) == {("key-crossed", "public.orders")}
    assert result.unseen == ()
    assert (role_after, row_security) == ("none", "on")


def test_tables_that_could_be_counted_are(world: World) -> None:
    """What one table's key answers is kept when another's cannot be asked."""
    hide = "CREATE POLICY less ON tags AS RESTRICTIVE TO {maintenance} USING (false);"
    given = f"{_CROSS} {hide} REVOKE {{backup}} FROM {{owner}};"
    with planted(world, f"{given} GRANT {{maintenance}} TO {{owner}}; {_AS_OWNER}") as subject:
        result = examine(subject, [RULE["key-crossed"]])
    assert found(result) == {("key-crossed", "public.orders")}
    assert [each.what for each in result.unseen] == ["key-crossed"]


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_a_key_that_cannot_be_counted_hides_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """However many keys are counted in one statement, the one that fails is said alone."""
    monkeypatch.setattr("tenantguard.check.keys._AT_ONCE", at_once)
    with planted(world, f"{_CROSS} ALTER TABLE order_tags RENAME tag_id TO label_id") as subject:
        result = examine(subject, [RULE["key-crossed"]])
    assert found(result) == {("key-crossed", "public.orders")}
    [unseen] = result.unseen
    assert unseen.reason.startswith("public.order_tags to public.tags: ")
    assert "orders" not in unseen.reason


def test_loose_column_shows_another_tenants_rows(admin_url: URL, world: World) -> None:
    """Two tenants whose ids differ by a blank read each other's rows, with every policy there."""
    metadata = MetaData(schema="loose")
    Table("tenants", metadata, Column("id", Text, primary_key=True))
    Table("notes", metadata, *_columns(), Column("tenant_id", CHAR(8), nullable=False))
    catalog = Catalog(metadata, "loose.tenants")
    roles, admin = world.guard.roles, create_engine(admin_url)
    with admin.begin() as connection:
        connection.execute(text("CREATE SCHEMA loose"))
        metadata.create_all(connection)
        connection.execute(text("INSERT INTO loose.tenants VALUES ('acme'), ('acme ')"))
        connection.execute(text("INSERT INTO loose.notes VALUES (1, 'acme')"))
    rls.apply(admin, catalog, roles)
    with admin.connect() as connection:
        connection.execute(text("SELECT set_config('tenantguard.tenant', 'acme ', true)"))
        connection.execute(text(f'SET LOCAL ROLE "{roles.application}"'))
        assert connection.scalar(text("SELECT count(*) FROM loose.notes")) == 1
    with connected(admin, catalog, roles) as subject:
        result = examine(subject, [RULE["tenant-match-loose"]])
    with admin.begin() as connection:
        connection.execute(text("DROP SCHEMA loose CASCADE"))
    admin.dispose()
    assert found(result) == {("tenant-match-loose", "loose.notes")}


def test_unique_key_tells_that_another_tenant_has_a_value(world: World) -> None:
    """The violation is another tenant's row showing through, which is what the rule is for."""
    insert = "INSERT INTO patients (tenant_id, name) VALUES ('{}', 'patient a0')"
    as_b = f"SELECT set_config('tenantguard.tenant', '{B}', true); SET LOCAL ROLE {{application}};"
    with planted(world, f"ALTER TABLE patients ADD UNIQUE (name); {as_b}") as subject:
        assert subject.run is not None
        assert list(subject.run("SELECT name FROM patients WHERE name = 'patient a0'")) == []
        with pytest.raises(IntegrityError):
            subject.run(insert.format(B))


# -- what the models alone show ---------------------------------------------------------------

OFFLINE = [
    "tenant-nullable",
    "tenant-default-wrong",
    "tenant-type-differs",
    "key-empties-tenant",
    "unique-without-tenant",
]


def _models(*arguments: Any, tenant: Column[Any] | None = None) -> Result:
    metadata = MetaData()
    Table("tenants", metadata, Column("id", Uuid, primary_key=True))
    columns = [Column("tenant_id", Uuid, nullable=False)] if tenant is None else [tenant]
    Table("parents", metadata, *_columns(), Column("tenant_id", Uuid, nullable=False))
    Table("rows", metadata, *_columns(), *columns, *arguments)
    catalog = Catalog(metadata, "tenants")
    return examine(Subject(catalog, Roles()), [RULE[each] for each in OFFLINE])


def _columns() -> list[Column[Any]]:
    return [Column("id", Integer, primary_key=True)]


@pytest.mark.parametrize(
    ("rule", "column", "arguments"),
    [
        ("tenant-nullable", Column("tenant_id", Uuid), ()),
        (
            "tenant-default-wrong",
            Column("tenant_id", Uuid, nullable=False, server_default=str(A)),
            (),
        ),
        (
            "tenant-default-wrong",
            Column("tenant_id", Uuid, Computed("kind::uuid"), nullable=False),
            (Column("kind", Text),),
        ),
        (
            "key-empties-tenant",
            None,
            (
                Column("parent_id", Integer),
                ForeignKeyConstraint(
                    ["tenant_id", "parent_id"],
                    ["parents.tenant_id", "parents.id"],
                    ondelete="SET NULL",
                ),
            ),
        ),
        (
            "key-empties-tenant",
            Column(
                "tenant_id", Uuid, ForeignKey("tenants.id", onupdate="SET NULL"), nullable=False
            ),
            (),
        ),
    ],
)
def test_models_alone_show_it(
    rule: str, column: Column[Any] | None, arguments: tuple[Any, ...]
) -> None:
    """What the models say is found without a database, at the tenant column's own line."""
    result = _models(*arguments, tenant=column)
    assert found(result) == {(rule, "public.rows")}
    assert [each.column for each in result.findings] == ["tenant_id"]
    assert result.looked == tuple(OFFLINE)


@pytest.mark.parametrize(
    ("script", "message", "mend"),
    [
        ("", "and the database that it may not", "in the models, or Mapped[…] without None."),
        ("ALTER TABLE orders ALTER tenant_id DROP NOT NULL", "is nobody's", "`tenantguard rls"),
    ],
)
def test_what_only_the_models_leave_empty_is_mended_there(
    world: World, monkeypatch: pytest.MonkeyPatch, script: str, message: str, mend: str
) -> None:
    """Nothing is to be filled or applied where the database has NOT NULL already."""
    orders = world.guard.catalog.metadata.tables["orders"]
    monkeypatch.setattr(orders.c.tenant_id, "nullable", True)
    with planted(world, script) as subject:
        findings = examine(subject, [RULE["tenant-nullable"]]).findings
    [finding] = [each for each in findings if each.object == "public.orders"]
    assert message in finding.message
    assert mend in finding.mend
    assert ("fill what is empty" in finding.mend) is bool(script)


def test_models_show_another_type() -> None:
    metadata = MetaData()
    Table("tenants", metadata, Column("id", String(36), primary_key=True))
    Table("rows", metadata, *_columns(), Column("tenant_id", String(10), nullable=False))
    result = examine(Subject(Catalog(metadata, "tenants"), Roles()), [RULE["tenant-type-differs"]])
    assert found(result) == {("tenant-type-differs", "public.rows")}


@pytest.mark.parametrize(
    ("arguments", "column"),
    [
        ((Column("email", Text, unique=True),), "email"),
        ((Column("email", Text), UniqueConstraint("email")), "email"),
        ((Column("email", Text), Index("i", func.lower(text("email")), unique=True)), None),
        ((Column("n", Text), Column("b", Text), Index("i", "b", "n", unique=True)), "b"),
    ],
)
def test_models_alone_show_a_unique_key(arguments: tuple[Any, ...], column: str | None) -> None:
    result = _models(*arguments)
    assert [(each.code, each.column) for each in result.findings] == [
        ("unique-without-tenant", column)
    ]
    assert "guard.identity_lookup(" in result.findings[0].mend


@pytest.mark.parametrize(
    "arguments",
    [
        (Column("email", Text), UniqueConstraint("tenant_id", "email")),
        (Column("key", Uuid, unique=True),),
        (Column("slug", Text, unique=True, default=lambda: uuid.uuid4().hex),),
        (Column("slug", Text, unique=True, server_default=func.gen_random_uuid()),),
        (Column("parent_id", ForeignKey("parents.id"), unique=True),),
    ],
)
def test_models_with_a_key_that_tells_nothing_are_clean(arguments: tuple[Any, ...]) -> None:
    """Nobody chooses the values of a surrogate key, so a collision tells nothing."""
    assert _models(*arguments).findings == ()


def test_a_table_without_a_primary_key_has_no_unique_key() -> None:
    metadata = MetaData()
    Table("tenants", metadata, Column("id", Uuid, primary_key=True))
    Table("rows", metadata, Column("tenant_id", Uuid, nullable=False), Column("kind", Text))
    subject = Subject(Catalog(metadata, "tenants"), Roles())
    assert examine(subject, [RULE["unique-without-tenant"]]).findings == ()
