"""Which tables belong to tenants through another table, and where that is not certain."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, MetaData, Table

from tenantguard import ConfigurationError
from tenantguard.catalog import Catalog, Kind
from tenantguard.migrate.target import with_tenant_column


def make(**tables: list[Any]) -> Catalog:
    """A catalog with a registry, a scoped table `owned` and *tables*, whose keys are `id`."""
    metadata = MetaData()
    Table("tenants", metadata, Column("id", Integer, primary_key=True))
    Table("materials", metadata, Column("id", Integer, primary_key=True))
    Table(
        "owned",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", ForeignKey("tenants.id"), nullable=False),
        Column("part", Integer),
    )
    for name, columns in tables.items():
        own = [] if any(column.name == "id" for column in columns) else [_key()]
        Table(name, metadata, *own, *columns)
    return Catalog(metadata, "tenants", shared={"materials": "price list"})


def _key() -> Column[int]:
    return Column("id", Integer, primary_key=True)


def _to(target: str, *, name: str = "parent_id", nullable: bool = False) -> Column[int]:
    return Column(name, Integer, ForeignKey(f"{target}.id"), nullable=nullable)


def _kind(catalog: Catalog, name: str) -> Kind:
    return catalog.entry(catalog.metadata.tables[name]).kind


def _references(catalog: Catalog, name: str) -> list[str]:
    entry = catalog.entry(catalog.metadata.tables[name])
    return [each.column.name for each in catalog.references(entry)]


def test_child_belongs_to_its_parents_tenant() -> None:
    """Also through another child; only what is never NULL says whose a row is."""
    catalog = make(
        lines=[_to("owned")],
        comments=[_to("lines"), _to("owned", name="about_id", nullable=True)],
    )
    assert _kind(catalog, "lines") is _kind(catalog, "comments") is Kind.CHILD
    comments = catalog.entry(catalog.metadata.tables["comments"])
    assert [each.column.name for each in comments.parents] == ["parent_id"]
    assert _references(catalog, "comments") == ["about_id", "parent_id"]
    assert comments.owned
    assert not comments.guarded
    assert [each.fullname for each in catalog.application_only] == ["comments", "lines"]


@pytest.mark.parametrize(
    "column",
    [
        _to("owned", nullable=True),
        _to("materials"),
        _to("tenants"),
        _to("nowhere"),
        _to("itself"),
    ],
    ids=["optional", "shared", "registry", "unknown", "itself"],
)
def test_table_whose_tenant_is_not_certain_stays_unclassified(column: Column[Any]) -> None:
    catalog = make(itself=[column])
    assert _kind(catalog, "itself") is Kind.UNCLASSIFIED


def test_reference_of_several_columns_is_not_followed() -> None:
    key = ForeignKeyConstraint(["owned_id", "owned_part"], ["owned.id", "owned.part"])
    columns = [_to("owned"), Column("owned_id", Integer), Column("owned_part", Integer)]
    catalog = make(lines=[*columns, key])
    assert _kind(catalog, "lines") is Kind.UNCLASSIFIED


@pytest.mark.parametrize("nullable", [True, False])
def test_table_that_refers_to_the_registry_is_not_guessed(nullable: bool) -> None:  # noqa: FBT001
    """The registry's key may be its tenant column by another name."""
    catalog = make(members=[_to("owned"), _to("tenants", name="practice_id", nullable=nullable)])
    assert _kind(catalog, "members") is Kind.UNCLASSIFIED
    catalog.tenant_columns = {"members": "practice_id"}
    assert _kind(catalog, "members") is Kind.SCOPED


def test_reference_to_what_is_not_unique_is_not_followed() -> None:
    """Two tenants' rows may have that value in common."""
    part: Column[Any] = Column("part", Integer, ForeignKey("owned.part"), nullable=False)
    catalog = make(lines=[part])
    assert _kind(catalog, "lines") is Kind.UNCLASSIFIED
    catalog.metadata.tables["owned"].c.part.unique = True
    assert _kind(catalog, "lines") is Kind.CHILD


@pytest.mark.parametrize("first", ["versions", "pages"])
def test_tables_that_refer_to_each_other_are_found_in_any_order(first: str) -> None:
    catalog = make(
        pages=[_to("owned"), _to("versions", name="current_id", nullable=True)],
        versions=[_to("pages")],
    )
    assert _kind(catalog, first) is Kind.CHILD
    assert _kind(catalog, "pages") is _kind(catalog, "versions") is Kind.CHILD
    assert _references(catalog, "pages") == ["current_id", "parent_id"]
    assert _references(catalog, "versions") == ["parent_id"]


def test_circle_without_a_tenant_stays_unclassified() -> None:
    catalog = make(ones=[_to("others")], others=[_to("ones")])
    assert _kind(catalog, "ones") is _kind(catalog, "others") is Kind.UNCLASSIFIED


def test_scoped_table_checks_references_to_children_only() -> None:
    """Those to scoped tables are held by composite keys in the database."""
    tenant: Column[Any] = Column("tenant_id", Integer, nullable=False)
    catalog = make(
        lines=[_to("owned")],
        marks=[tenant, _to("lines", name="line_id"), _to("owned", name="owned_id")],
    )
    assert _kind(catalog, "marks") is Kind.SCOPED
    assert _references(catalog, "marks") == ["line_id"]


def test_reference_of_several_columns_to_a_child_is_refused() -> None:
    tenant: Column[Any] = Column("tenant_id", Integer, nullable=False)
    key = ForeignKeyConstraint(["line", "part"], ["lines.id", "lines.part"])
    catalog = make(
        lines=[_to("owned"), Column("part", Integer)],
        marks=[tenant, Column("line", Integer), Column("part", Integer), key],
    )
    marks = catalog.entry(catalog.metadata.tables["marks"])
    with pytest.raises(ConfigurationError, match="several columns"):
        catalog.references(marks)


def test_declaration_wins() -> None:
    """Who declares a child as shared or untenanted has given the reason."""
    catalog = make(lines=[_to("owned")])
    catalog.untenanted = {"lines": "import queue"}
    assert _kind(catalog, "lines") is Kind.UNTENANTED


def test_child_can_be_given_its_column() -> None:
    catalog, entry = with_tenant_column(make(lines=[_to("owned")]), "lines")
    assert entry.kind is Kind.SCOPED
    assert catalog.application_only == []


def test_models_that_are_imported_later_are_seen() -> None:
    """What was not certain before is, and what row-level security does not hold has grown."""
    tenant: Column[Any] = Column("tenant_id", Integer, nullable=False)
    catalog = make(lines=[_to("headers", name="header_id")], marks=[tenant, _to("lines")])
    assert _references(catalog, "marks") == []
    assert catalog.application_only == []
    Table("headers", catalog.metadata, _key(), _to("owned"))
    assert _references(catalog, "marks") == ["parent_id"]
    assert [each.fullname for each in catalog.application_only] == ["headers", "lines"]


def test_reference_beyond_the_models_is_left_alone() -> None:
    tenant: Column[Any] = Column("tenant_id", Integer, nullable=False)
    assert _references(make(marks=[tenant, _to("nowhere")]), "marks") == []
