"""A finding points at the line of the model that it is about, or at less, and never at another."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import pytest

from tenantguard import TenantGuard
from tenantguard.findings import Finding
from tenantguard.report import Place, Places

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MODELS = """
import uuid
from typing import Annotated, Optional
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
from sqlalchemy.orm import (
    DeclarativeBase, Mapped, column_property, declared_attr, mapped_column, registry
)
from .mixins import Owned
from .tables import crates, twins

class Base(DeclarativeBase):
    metadata = crates.metadata

class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[int] = mapped_column(primary_key=True)

def decorate(cls):
    return cls

@decorate
class Patient(Owned, Base):  # here: patients
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]  # here: patients.name
    called = mapped_column("nick", String)  # here: patients.nick
    odd = mapped_column(
        "odd name",
        String,
    )
    __table_args__ = (
        Column("extra", Integer),  # here: patients.extra
        {"schema": None},
    )

    @declared_attr
    def declared(cls) -> Mapped[Optional[int]]:  # here: patients.declared
        return mapped_column(Integer)

class Child(Patient):  # single table: the base has the table
    adult: Mapped[Optional[bool]]  # here: patients.adult

class Joined(Patient):  # here: joined
    __tablename__ = "joined"
    id: Mapped[int] = mapped_column(ForeignKey("patients.id"), primary_key=True)  # here: joined.id

def make():
    class Inner(Owned, Base):  # here: inner
        __tablename__ = "inner"
        id: Mapped[int] = mapped_column(primary_key=True)
    return Inner

Inner = make()

if True:
    class Twice(Owned, Base):
        __tablename__ = "twice"
        id: Mapped[int] = mapped_column(primary_key=True)
else:
    class Twice(Owned, Base):
        __tablename__ = "twice"

class WithTable(Base):  # here: with_table
    __table__ = Table(
        "with_table",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("practices.id")),  # here: with_table.tenant_id
        schema="other",
    )

class Imperative:  # here: imperative
    pass

registry(metadata=Base.metadata).map_imperatively(
    Imperative,
    Table(
        "imperative",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("practices.id")),
    ),
)
Base.metadata.tables["imperative"]
"""
MIXINS = """
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

class Owned:
    tenant_id: Mapped[int] = mapped_column(ForeignKey("practices.id"))  # here: mixin
"""
TABLES = """
import sqlalchemy as sa
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

crates = Table(  # here: crates
    "crates",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant_id", ForeignKey("practices.id")),  # here: crates.tenant_id
)
boxes = sa.Table("boxes", crates.metadata, Column("tenant_id", Integer))  # here: boxes
twins = Table("twins", crates.metadata, Column("tenant_id", Integer))  # here: twins
for number in range(2):
    Table(f"made_{number}", crates.metadata, Column("tenant_id", Integer))
"""
OTHER = """
from sqlalchemy import Column, Integer, MetaData, Table

twins = Table("twins", MetaData(), Column("tenant_id", Integer))
crates = Table("crates", MetaData(), Column("tenant_id", Integer), schema="elsewhere")
"""
SECURITY = """
from tenantguard import TenantGuard
from .models import Base
from . import other

guard = TenantGuard(Base.metadata, tenants="practices")  # here: guard
"""
FILES = {
    "models": MODELS,
    "mixins": MIXINS,
    "tables": TABLES,
    "other": OTHER,
    "security": SECURITY,
    "__init__": "",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An application in a package, imported."""
    root = tmp_path_factory.mktemp("repository")
    (root / "src" / "placed").mkdir(parents=True)
    for name, text in FILES.items():
        (root / "src" / "placed" / f"{name}.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(root / "src"))
    importlib.import_module("placed.security")
    yield root
    sys.path.remove(str(root / "src"))
    for name in [each for each in sys.modules if each.partition(".")[0] == "placed"]:
        del sys.modules[name]


@pytest.fixture
def places(package: Path) -> Places:
    guard = sys.modules["placed.security"].guard
    return Places(guard.catalog, guard, package)


def marked(name: str) -> Place:
    """The line that says that it is *name*'s."""
    found = [
        Place(f"src/placed/{file}.py", number)
        for file, text in FILES.items()
        for number, line in enumerate(text.splitlines(), 1)
        if line.endswith(f"# here: {name}")
    ]
    [place] = found
    return place


def finding(object_: str | None, column: str | None = None) -> Finding:
    return Finding("a-rule", object_, "Wrong.", "Mend it.", column=column)


@pytest.mark.parametrize(
    ("object_", "column", "mark"),
    [
        ("public.patients", None, "patients"),
        ("public.patients", "name", "patients.name"),
        ("public.patients", "nick", "patients.nick"),
        ("public.patients", "extra", "patients.extra"),
        ("public.patients", "declared", "patients.declared"),
        ("public.patients", "adult", "patients.adult"),
        ("public.patients", "tenant_id", "mixin"),
        ("public.joined", None, "joined"),
        ("public.joined", "id", "joined.id"),
        ("public.inner", None, "inner"),
        ("public.inner", "tenant_id", "mixin"),
        ("other.with_table", None, "with_table"),
        ("other.with_table", "tenant_id", "with_table.tenant_id"),
        ("public.imperative", None, "imperative"),
        ("public.crates", None, "crates"),
        ("public.crates", "tenant_id", "crates.tenant_id"),
        ("public.boxes", "tenant_id", "boxes"),
        ("public.twins", None, "twins"),
    ],
)
def test_a_finding_points_at_its_model(
    places: Places, object_: str, column: str | None, mark: str
) -> None:
    """Mapped classes with their mixins and inheritance, and Tables, each at its own line."""
    assert places(finding(object_, column)) == marked(mark)


@pytest.mark.parametrize(
    ("object_", "column", "mark"),
    [
        ("public.patients", "no_such", "patients"),
        ("public.imperative", "tenant_id", "imperative"),
        ("public.made_1", None, "guard"),
        ("public.twice", None, "guard"),
        ("public.patients_2024", None, "guard"),
        ("tenantguard_app", None, "guard"),
        (None, None, "guard"),
    ],
)
def test_what_is_not_certain_is_less(
    places: Places, object_: str | None, column: str | None, mark: str
) -> None:
    """A column that is not found is its class; what is defined twice, or by no model, the guard."""
    assert places(finding(object_, column)) == marked(mark)


def test_an_attribute_of_several_lines_is_its_first(places: Places, package: Path) -> None:
    place = places(finding("public.patients", "odd name"))
    assert place is not None
    lines = (package / place.file).read_text("utf-8").splitlines()
    assert lines[place.line - 1].strip() == "odd = mapped_column("


def test_files_outside_of_the_repository_are_not_named(package: Path) -> None:
    """No place is better than a path of one machine."""
    guard = sys.modules["placed.security"].guard
    elsewhere = Places(guard.catalog, guard, package / "src" / "placed" / "nothing")
    assert elsewhere(finding("public.patients")) is None
    assert elsewhere(finding(None)) is None


def test_the_environment_is_not_the_application(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment within the repository is not its source."""
    guard = sys.modules["placed.security"].guard
    monkeypatch.setattr(sys, "prefix", str(package / "src"))
    assert Places(guard.catalog, guard, package)(finding("public.patients")) is None


def test_the_repository_is_the_root(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are named from where `.git` is, wherever below it the command runs."""
    (package / ".git").mkdir()
    monkeypatch.chdir(package / "src" / "placed")
    guard = sys.modules["placed.security"].guard
    assert Places(guard.catalog, guard)(finding(None)) == marked("guard")
    (package / ".git").rmdir()


def test_a_guard_that_no_module_holds_has_no_place(places: Places) -> None:
    catalog = places._catalog
    other = TenantGuard(catalog.metadata, tenants="practices")
    assert Places(other.catalog, other, places._sources.root)(finding(None)) is None
