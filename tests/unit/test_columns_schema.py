"""What an encrypted column adds to its table, and which declarations are refused."""

from __future__ import annotations

from typing import Any

import pytest
from declaring import DIALECT, checks, ddl, labels, new_base, parts, patient, table_of
from sqlalchemy import (
    Column,
    Index,
    Integer,
    MetaData,
    Table,
    create_mock_engine,
    insert,
    inspect,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from tenantguard import (
    Exact,
    Last,
    Prefix,
    encrypted_json,
    encrypted_str,
)
from tenantguard.keytable import ENCRYPTED, encrypted_columns

# -- the table ----------------------------------------------------------------------------------


def test_table_is_made_with_check_generated_column_and_index() -> None:
    """`create_all` makes all that a column needs, and nothing else."""
    assert ddl(table_of(patient())) == (
        "CREATE TABLE patients (\n"
        "id SERIAL NOT NULL\n"
        "tenant_id INTEGER NOT NULL\n"
        "name BYTEA NOT NULL\n"
        "name_bidx BYTEA GENERATED ALWAYS AS (substring(name, 5, 16)) STORED\n"
        "notes BYTEA\n"
        "PRIMARY KEY (id)\n"
        "CONSTRAINT patients_name_sealed CHECK (substring(name, 1, 2) = '\\x9e54'::bytea "
        "AND length(name) >= 20 AND get_bit(name, 24) = 1)\n"
        "CONSTRAINT patients_notes_sealed CHECK (substring(notes, 1, 2) = '\\x9e54'::bytea)\n"
        ")\n"
        "CREATE INDEX ix_patients_name_bidx ON patients (tenant_id, name_bidx)"
    )


def test_each_search_has_a_generated_column_and_an_index() -> None:
    """The check demands as many blind indexes; each stands at its own bytes."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        phone: Mapped[str] = encrypted_str(
            search=[
                Last(4, normalize="digits"),
                Exact(),
                Prefix(3, name="area", tenant_column="id"),
            ],
            padding=16,
        )

    assert ddl(table_of(Patient)) == (
        "CREATE TABLE patients (\n"
        "id SERIAL NOT NULL\n"
        "tenant_id INTEGER NOT NULL\n"
        "phone BYTEA NOT NULL\n"
        "phone_last4_bidx BYTEA GENERATED ALWAYS AS (substring(phone, 5, 16)) STORED\n"
        "phone_bidx BYTEA GENERATED ALWAYS AS (substring(phone, 21, 16)) STORED\n"
        "phone_area_bidx BYTEA GENERATED ALWAYS AS (substring(phone, 37, 16)) STORED\n"
        "PRIMARY KEY (id)\n"
        "CONSTRAINT patients_phone_sealed CHECK (substring(phone, 1, 2) = '\\x9e54'::bytea "
        "AND length(phone) >= 52 AND get_bit(phone, 24) = 1 AND get_byte(phone, 3) >= 32)\n"
        ")\n"
        "CREATE INDEX ix_patients_phone_area_bidx ON patients (id, phone_area_bidx)\n"
        "CREATE INDEX ix_patients_phone_bidx ON patients (tenant_id, phone_bidx)\n"
        "CREATE INDEX ix_patients_phone_last4_bidx ON patients (tenant_id, phone_last4_bidx)"
    )
    copy = table_of(Patient).to_metadata(MetaData(), name="archive")
    assert copy.c.keys() == table_of(Patient).c.keys()
    type_: Any = copy.c.phone.type
    assert (len(type_.field.indexes), type_.field.padding) == (3, 16)


def test_what_a_trigger_keeps_is_a_plain_column_with_a_check() -> None:
    """Nothing is generated, so the column is added to a table of any size in an instant."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        phone: Mapped[str] = encrypted_str(
            search=[Exact(), Last(4, kept_by="trigger"), Prefix(3, kept_by="trigger")]
        )

    made = ddl(table_of(Patient))
    assert "phone_bidx BYTEA GENERATED ALWAYS AS (substring(phone, 5, 16)) STORED\n" in made
    for name, begin in (("phone_last4_bidx", 21), ("phone_prefix3_bidx", 37)):
        assert f"\n{name} BYTEA\n" in made
        assert (
            f"CONSTRAINT patients_{name}_kept CHECK "
            f'("{name}" IS NOT DISTINCT FROM substring("phone", {begin}, 16))'
        ) in made
        assert f"CREATE INDEX ix_patients_{name} ON patients (tenant_id, {name})" in made


def test_the_trigger_is_made_with_the_table_on_postgresql_alone() -> None:
    """One trigger for all searches of a column, after its table; a copied table has its own."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        name: Mapped[str] = encrypted_str(
            search=[Exact(kept_by="trigger"), Last(4, kept_by="trigger")]
        )

    table = table_of(Patient)
    for each in (table, table.to_metadata(MetaData(), name="archive", schema="old")):
        sent: list[str] = []
        engine: Any = create_mock_engine(
            "postgresql+psycopg://",
            lambda statement, *_, sent=sent, **__: sent.append(
                str(statement.compile(dialect=DIALECT))
            ),
        )
        each.metadata.create_all(engine, checkfirst=False)
        on = '"old"."archive"' if each is not table else '"patients"'
        [trigger] = [line for line in sent if "CREATE OR REPLACE TRIGGER" in line]
        assert f"BEFORE INSERT OR UPDATE ON {on}\n    FOR EACH ROW" in trigger
        [function] = [line for line in sent if "CREATE OR REPLACE FUNCTION" in line]
        assert 'NEW."name_last4_bidx" := substring(NEW."name", 21, 16);' in function
        assert "SET search_path = pg_catalog" in function
    other: list[Any] = []
    mock: Any = create_mock_engine("sqlite://", lambda statement, *_, **__: other.append(statement))
    for statement in (table.dispatch.after_create, table.dispatch.after_drop):
        statement(table, mock)
    assert other == []


def test_index_over_two_searches() -> None:
    """Two generated columns stand in one index, which the model names as any other."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        __table_args__ = (Index("by_both", "tenant_id", "name_bidx", "born_bidx"),)
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        name: Mapped[str] = encrypted_str(search=Exact())
        born: Mapped[str] = encrypted_str(search=Exact())

    assert "CREATE INDEX by_both ON patients (tenant_id, name_bidx, born_bidx)" in ddl(
        table_of(Patient)
    )


def test_optional_attribute_is_nullable() -> None:
    """`Mapped[str | None]` says it, and nullable= says it louder."""

    class Row(new_base()):  # type: ignore[misc]
        __tablename__ = "rows"
        id: Mapped[int] = mapped_column(primary_key=True)
        needed: Mapped[str] = encrypted_str()
        optional: Mapped[str | None] = encrypted_str()
        forced: Mapped[str | None] = encrypted_str(nullable=False)

    columns = table_of(Row).c
    assert (columns.needed.nullable, columns.optional.nullable) == (False, True)
    assert not columns.forced.nullable


def test_generated_column_is_not_mapped() -> None:
    """It is neither an attribute nor selected, inserted or returned."""
    model = patient()
    attributes = ["id", "tenant_id", "name", "notes"]
    assert inspect(model).attrs.keys() == attributes
    assert select(model).selected_columns.keys() == attributes
    for statement in (
        select(model),
        select(table_of(model)),
        insert(model),
        insert(model.__table__),
    ):
        assert "bidx" not in str(statement.compile(dialect=DIALECT))
    assert "name_bidx" in table_of(model).c


@pytest.mark.parametrize("place", ["before", "after", "mixin", "abstract"])
def test_index_begins_with_the_tenant_wherever_it_is_declared(place: str) -> None:
    """The tenant's column may come earlier, later, from a mixin or from an abstract base."""
    tenant = {"__annotations__": {"tenant_id": Mapped[int]}, "tenant_id": mapped_column(Integer)}
    name = {"name": encrypted_str(search=Exact())}
    body: dict[str, Any] = {
        "__tablename__": "patients",
        "__module__": __name__,
        "id": mapped_column(Integer, primary_key=True),
    }
    base: Any = new_base()
    bases: tuple[type, ...] = (base,)
    if place == "mixin":
        bases = (type("Mixin", (), dict(tenant)), base)
        body |= name
    elif place == "abstract":
        bases = (type("Abstract", (base,), {"__abstract__": True, **tenant}),)
        body |= name
    else:
        body |= tenant | name if place == "before" else name | tenant
    (index,) = table_of(type("Patient", bases, body)).indexes
    assert index.name == "ix_patients_name_bidx"
    assert [column.name for column in index.columns] == ["tenant_id", "name_bidx"]


def test_tenant_column_of_another_name() -> None:
    """`Exact(tenant_column=…)` names it as the database does; without it there is no index."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = encrypted_str(search=Exact(tenant_column="Practice"))
        city: Mapped[str] = encrypted_str(search=Exact())
        practice: Mapped[int] = mapped_column("Practice")

    (index,) = table_of(Patient).indexes
    assert [column.name for column in index.columns] == ["Practice", "name_bidx"]


def test_type_that_is_copied_brings_nothing_along() -> None:
    """Whoever copies a table's column copies what is beside it; the labels are the new table's."""
    metadata = MetaData()
    source = table_of(patient()).c.name
    table = Table(
        "archive", metadata, Column("name", source.type.copy()), Column("tenant_id", Integer)
    )
    assert table.c.keys() == ["name", "tenant_id"]
    assert labels(metadata) == {"archive.name": ("archive", "name")}
    assert source.info[ENCRYPTED] == ("patients", "name")


# -- copies -------------------------------------------------------------------------------------


def test_copied_table_has_everything_once() -> None:
    """`to_metadata`, also twice and under another name, makes the same table."""
    original = table_of(patient())
    copy = original.to_metadata(MetaData())
    for each in (copy, copy.to_metadata(MetaData())):
        assert parts(each) == parts(original)
    renamed = original.to_metadata(MetaData(), name="archive")
    assert renamed.c.keys() == original.c.keys()
    assert checks(renamed) == checks(original)
    assert renamed.c.name.info[ENCRYPTED] == ("archive", "name")
    assert original.c.name.info[ENCRYPTED] == ("patients", "name")


def test_each_table_of_a_mixin_has_a_field_of_its_own() -> None:
    """A column of a mixin or an abstract base is sealed for each table's own name."""
    base = new_base()

    class Named:
        name: Mapped[str] = encrypted_str(search=Exact(), info={"mine": 1})

    class Abstract(base):  # type: ignore[misc, valid-type]
        __abstract__ = True
        tenant_id: Mapped[int]
        notes: Mapped[str | None] = encrypted_str()

    class Patient(Named, Abstract):
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Doctor(Named, Abstract):
        __tablename__ = "doctors"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert labels(base.metadata) == {
        "doctors.name": ("doctors", "name"),
        "doctors.notes": ("doctors", "notes"),
        "patients.name": ("patients", "name"),
        "patients.notes": ("patients", "notes"),
    }
    for model in (Patient, Doctor):
        table = table_of(model)
        assert checks(table) == {f"{table.name}_name_sealed", f"{table.name}_notes_sealed"}
        assert [index.name for index in table.indexes] == [f"ix_{table.name}_name_bidx"]
        assert table.c.name.info["mine"] == 1
    types: list[Any] = [column.type for column in encrypted_columns(base.metadata)]
    fields = {id(each.field) for each in types}
    assert len(fields) == 4


def test_inherited_table_takes_columns_of_its_children() -> None:
    """With single-table inheritance the column of a child is in the parent's table."""
    base = new_base()

    class Person(base):  # type: ignore[misc, valid-type]
        __tablename__ = "people"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012  (as users write it)

    class Doctor(Person):
        licence: Mapped[str | None] = encrypted_str(search=Exact())
        __mapper_args__ = {"polymorphic_identity": "doctor"}  # noqa: RUF012

    table = table_of(Person)
    assert checks(table) == {"people_licence_sealed"}
    assert [index.name for index in table.indexes] == ["ix_people_licence_bidx"]
    assert "licence_bidx" not in inspect(Doctor).attrs
    assert labels(base.metadata) == {"people.licence": ("people", "licence")}


def test_info_that_columns_share_is_not_changed() -> None:
    """The labels stand in the column's own info, so another column is not taken for encrypted."""
    shared = {"audited": True}
    base = new_base()

    class Patient(base):  # type: ignore[misc, valid-type]
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = encrypted_str(info=shared)
        notes: Mapped[str] = encrypted_str(info=shared)
        city: Mapped[str] = mapped_column(info=shared)

    assert shared == {"audited": True}
    assert list(labels(base.metadata)) == ["patients.name", "patients.notes"]
    assert table_of(Patient).c.notes.info == {"audited": True, ENCRYPTED: ("patients", "notes")}


def test_dataclass_models() -> None:
    """An encrypted column is a field of a dataclass like any other."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Patient(Base):
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        tenant_id: Mapped[int]
        name: Mapped[str] = encrypted_str(search=Exact())
        tags: Mapped[list[str]] = encrypted_json(default_factory=list, repr=False)
        notes: Mapped[str | None] = encrypted_str(default=None, kw_only=True)

    made = Patient(1, "Anna")
    assert (made.name, made.tags, made.notes) == ("Anna", [], None)
    assert "tags" not in repr(made)
    assert made == Patient(1, "Anna", [], notes=None)
