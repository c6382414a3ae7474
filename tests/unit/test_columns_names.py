"""Names that need quoting, are too long or follow a convention."""

from __future__ import annotations

import re
from typing import Any

import pytest
from declaring import checks, ddl, labels, new_base, parts, patient, table_of
from sqlalchemy import Integer, MetaData, inspect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Mapped, mapped_column

from tenantguard import Exact, encrypted_str

LONG = "behandlungsdokumentationsvorlagenverzeichnis_der_zahnarztpraxis"
CONVENTION = {
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}


ODD = ["Nachname", "select", "with space", 'a"quote', "per%cent", " :colon", "x::y", "back\\slash"]


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_quoted(name: str) -> None:
    """A name that needs quoting is quoted, and stays itself, in the check and the generation."""

    class Patient(new_base()):  # type: ignore[misc]
        __tablename__ = "Patients of 2026"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        value: Mapped[str] = encrypted_str(name=name, search=Exact())

    quoted = '"' + name.replace('"', '""') + '"'
    made = ddl(table_of(Patient))
    demanded = f"length({quoted}) >= 20 AND get_bit({quoted}, 24) = 1"
    assert f"CHECK (substring({quoted}, 1, 2) = '\\x9e54'::bytea AND {demanded})" in made
    assert f"GENERATED ALWAYS AS (substring({quoted}, 5, 16)) STORED" in made
    generated = quoted[1:-1] + "_bidx"
    assert re.search(rf'ON "Patients of 2026" \(tenant_id, "?{re.escape(generated)}"?\)', made)
    assert inspect(Patient).attrs.keys() == ["id", "tenant_id", "value"]
    assert labels(Patient.metadata)[f"Patients of 2026.{name}"] == ("Patients of 2026", name)


def test_table_in_a_schema() -> None:
    """The label has the schema, and the names of what is beside the column do not."""
    base = new_base(MetaData(schema="clinic"))
    table = table_of(patient(base))
    assert labels(base.metadata)["clinic.patients.name"] == ("clinic.patients", "name")
    assert checks(table) == {"patients_name_sealed", "patients_notes_sealed"}


@pytest.mark.parametrize("convention", [None, CONVENTION])
@pytest.mark.parametrize("letter", ["x", "ü"])
def test_long_names_are_cut_and_differ(letter: str, convention: dict[str, str] | None) -> None:
    """Names beyond PostgreSQL's 63 bytes are cut, and two that begin alike stay two."""
    names = [(letter * 60)[: 60 // len(letter.encode())] + end for end in ("aa", "ab")]

    class Row(new_base(MetaData(naming_convention=convention))):  # type: ignore[misc]
        __tablename__ = LONG
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int]
        one: Mapped[str] = encrypted_str(name=names[0], search=Exact())
        two: Mapped[str] = encrypted_str(name=names[1], search=Exact())

    table = table_of(Row)
    rendered = re.findall(r"(?:CONSTRAINT|INDEX) \"?([^\" ]+)\"? (?:CHECK|ON)", ddl(table))
    generated = [column.name for column in table.c if column.computed is not None]
    assert len(rendered) == len(set(rendered)) == 4
    assert len(set(generated)) == 2
    assert all(len(each.encode()) <= 63 for each in (*rendered, *generated))
    assert parts(table.to_metadata(MetaData(naming_convention=convention))) == parts(table)


def test_naming_convention_applies_once() -> None:
    """The convention names the check; the index keeps its name, also in a copy."""
    metadata = MetaData(naming_convention=CONVENTION)
    table = table_of(patient(new_base(metadata)))
    copy = table.to_metadata(MetaData(naming_convention=CONVENTION))
    for each in (table, copy):
        made = ddl(each)
        assert "CONSTRAINT ck_patients_patients_name_sealed CHECK" in made
        assert "CREATE INDEX ix_patients_name_bidx ON patients (tenant_id, name_bidx)" in made
        assert made.count("CHECK") == 2


@pytest.mark.parametrize("first", [True, False])
def test_column_in_the_place_of_the_generated_one_is_refused(*, first: bool) -> None:
    """A column of that name is not replaced."""
    mine = {"name_bidx": mapped_column(Integer)}
    sealed = {"name": encrypted_str(search=Exact())}
    body: dict[str, Any] = {"__tablename__": "patients", "__module__": __name__}
    body |= {"id": mapped_column(Integer, primary_key=True)}
    body |= mine | sealed if first else sealed | mine
    with pytest.raises(ArgumentError, match="'name_bidx' is already present"):
        type("Patient", (new_base(),), body)
