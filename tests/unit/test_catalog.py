"""Every table is classified exactly once, and what does not fit is said in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import (
    CHAR,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    TypeDecorator,
    Uuid,
    column,
    table,
)

from tenantguard import ConfigurationError, Roles, TenantGuard, UnknownTenantError
from tenantguard.catalog import Catalog, Kind

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


def make(key: TypeEngine[Any] | None = None, **options: Any) -> Catalog:
    metadata = MetaData()
    type_ = key or Uuid()
    Table("practices", metadata, Column("id", type_, primary_key=True))
    Table(
        "patients",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", type_, ForeignKey("practices.id")),
    )
    Table("materials", metadata, Column("id", Integer, primary_key=True))
    Table("order", metadata, Column("Practice", type_), schema="Sales")
    return Catalog(metadata, "practices", **options)


def test_each_kind_is_recognised() -> None:
    """Registry, scoped, per-table column, shared, untenanted and undecided are told apart."""
    catalog = make(tenant_columns={"Sales.order": "Practice"}, shared={"materials": "prices"})
    kinds = {entry.fullname: entry.kind for entry in catalog}
    assert kinds == {
        "practices": Kind.REGISTRY,
        "patients": Kind.SCOPED,
        "materials": Kind.SHARED,
        "Sales.order": Kind.SCOPED,
    }
    assert make().entry(table("materials", column("id"))).kind is Kind.UNCLASSIFIED
    assert make(untenanted={"x": "y"}).entry(table("x")).kind is Kind.UNTENANTED


def test_lightweight_and_foreign_tables_are_found_by_name() -> None:
    """`table("patients")` and a Table of another MetaData mean the same table."""
    catalog = make()
    other = Table("patients", MetaData(), Column("id", Integer))
    assert catalog.entry(table("patients")).kind is Kind.SCOPED
    assert catalog.entry(other).kind is Kind.SCOPED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shared": {"materials": " "}}, "declared without a reason"),
        ({"shared": {"material": "typo"}}, "the MetaData does not have it"),
        ({"tenant_columns": {"nowhere": "x"}}, "the MetaData does not have it"),
        ({"tenant_columns": {"patients": "praxis"}}, "has no column 'praxis'"),
        (
            {"shared": {"materials": "a"}, "untenanted": {"materials": "b"}},
            "declared both shared and untenanted",
        ),
    ],
)
def test_configuration_that_does_not_fit_is_refused(options: Any, message: str) -> None:
    """Each mistake has its own sentence."""
    with pytest.raises(ConfigurationError, match=message):
        make(**options).check()


def test_missing_registry_is_refused() -> None:
    """The message says how to name it."""
    with pytest.raises(ConfigurationError, match="is not in the MetaData"):
        Catalog(MetaData(), "practices").check()


def test_registry_with_two_keys_is_refused() -> None:
    """A tenant's id is one column."""
    metadata = MetaData()
    Table(
        "t",
        metadata,
        Column("a", Integer, primary_key=True),
        Column("b", Integer, primary_key=True),
    )
    with pytest.raises(ConfigurationError, match="primary key of exactly one column"):
        Catalog(metadata, "t").check()


def test_registry_of_an_unfit_type_is_refused() -> None:
    """A float identifies nobody."""
    with pytest.raises(ConfigurationError, match="none of them"):
        make(Float()).check()


def test_tenant_column_of_another_type_is_refused() -> None:
    """A column that cannot hold the registry's key is named."""
    catalog = make()
    Table("odd", catalog.metadata, Column("tenant_id", Integer))
    with pytest.raises(ConfigurationError, match=r"odd\.tenant_id has another type"):
        catalog.check()


class Guid(TypeDecorator[UUID]):
    """The widespread recipe: a UUID on PostgreSQL, text elsewhere."""

    impl = CHAR
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else CHAR(32))


U = "0b7c1c2e-5a0f-4f0e-9d0a-3f8f6f1f2a11"


@pytest.mark.parametrize(
    ("key", "given", "canonical"),
    [
        (Uuid(), U, UUID(U)),
        (Uuid(), U.upper(), UUID(U)),
        (Uuid(), UUID(U), UUID(U)),
        (Uuid(as_uuid=False), U.upper(), U),
        (Guid(), U.upper(), UUID(U)),
        (BigInteger(), "17", 17),
        (BigInteger(), 17, 17),
        (String(36), UUID(U), U),
        (String(), "o'brien", "o'brien"),
    ],
)
def test_ids_become_canonical(key: Any, given: Any, canonical: Any) -> None:
    """An id, or its text, becomes what the registry's key holds."""
    assert make(key).canonical(given) == canonical


@pytest.mark.parametrize(
    ("key", "given"),
    [
        (Uuid(), "17"),
        (Uuid(), 17),
        (Guid(), "nonsense"),
        (Integer(), "017"),
        (Integer(), "1 "),
        (Integer(), "one"),
        (Integer(), UUID(U)),
        (Integer(), 2**31),
        (BigInteger(), -(2**63) - 1),
        (SmallInteger(), "32768"),
        (Uuid(), {"a": 1}),
        (Integer(), True),
        (String(3), "abcd"),
        (String(), "a\0b"),
        (String(), 17),
        (String(), "\ud800"),
    ],
)
def test_malformed_ids_are_refused_without_repeating_them(key: Any, given: Any) -> None:
    """The error names the registry and never the id."""
    with pytest.raises(UnknownTenantError, match="primary key of practices") as caught:
        make(key).canonical(given)
    assert repr(str(given)).strip("'") not in str(caught.value).replace("primary", "")


@pytest.mark.parametrize(
    ("key", "given", "stored"),
    [
        (Uuid(), UUID(U), U),
        (Uuid(native_uuid=False), UUID(U), UUID(U).hex),
        (Uuid(as_uuid=False), U, U),
        (Guid(), UUID(U), U),
        (BigInteger(), 17, "17"),
        (String(), "o'brien", "o'brien"),
    ],
)
def test_the_setting_has_the_text_that_columns_have(key: Any, given: Any, stored: str) -> None:
    """A UUID kept as CHAR(32) has no dashes, and so has the setting it is compared with."""
    assert make(key).text(given) == stored


def test_roles_need_names_of_their_own() -> None:
    """One role cannot be two."""
    with pytest.raises(ConfigurationError, match="a name of its own"):
        Roles(application="x", maintenance="x")


def test_signed_setting_needs_a_key() -> None:
    with pytest.raises(ConfigurationError, match="keys signing init"):
        TenantGuard(MetaData(), tenants="practices", signed_setting=True)


def test_unknown_mode_is_refused() -> None:
    """A typo in the mode does not turn the guard off."""
    with pytest.raises(ConfigurationError, match="'off', 'observe' or 'enforce'"):
        TenantGuard(MetaData(), tenants="t", mode="enforced")  # type: ignore[arg-type]
