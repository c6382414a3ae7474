"""Citus: the generated SQL as it is committed, and the models that it cannot be made for.

`python tests/unit/test_rls_citus.py` writes the golden files anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from tenantguard import ConfigurationError, Exact, TenantGuard, encrypted_str, rls
from tenantguard.catalog import Catalog, Roles
from tenantguard.keytable import ENCRYPTED
from tenantguard.rls.step import Kind

GOLDEN = Path(__file__).parent / "golden" / "citus"
SHARED = {"materials": "price list of the trade association"}


def tenant() -> Column[Any]:
    return Column("tenant_id", ForeignKey("practices.id"), nullable=False)


def own_key() -> PrimaryKeyConstraint:
    return PrimaryKeyConstraint("tenant_id", "id")


def metadata(*tables: tuple[Any, ...]) -> MetaData:
    made = MetaData()
    Table("practices", made, Column("id", Uuid, primary_key=True))
    Table("materials", made, Column("id", Integer, primary_key=True), Column("name", String))
    Table("versions", made, Column("id", Integer, primary_key=True))
    for name, *parts in tables:
        Table(name, made, Column("id", Integer), *parts)
    return made


def catalog(*tables: tuple[Any, ...], **options: Any) -> Catalog:
    given = {"shared": SHARED, "untenanted": {"versions": "migration state"}, **options}
    return Catalog(metadata(*tables), "practices", dialect="citus", **given)


def orders() -> tuple[Any, ...]:
    return (
        "orders",
        tenant(),
        Column("patient_id", Integer),
        Column("material_id", ForeignKey("materials.id")),
        own_key(),
        ForeignKeyConstraint(
            ["tenant_id", "patient_id"],
            ["patients.tenant_id", "patients.id"],
            ondelete="SET NULL (patient_id)",
        ),
        UniqueConstraint("patient_id", "tenant_id"),
    )


def patients() -> tuple[Any, ...]:
    return ("patients", tenant(), own_key())


def sealed() -> tuple[Any, ...]:
    column = Column("diagnosis", LargeBinary, info={ENCRYPTED: "letters.diagnosis"})
    return ("letters", tenant(), column, own_key())


WORLDS = {"practice.sql": (patients, orders), "encrypted.sql": (sealed,)}


def golden(name: str) -> str:
    found = catalog(*(table() for table in WORLDS[name]))
    return rls.sql(found, Roles(), create_roles=True)


@pytest.mark.parametrize("name", WORLDS)
def test_sql_is_the_golden_one(name: str) -> None:
    """What is generated for Citus changes only together with the file that is reviewed."""
    assert golden(name) == (GOLDEN / name).read_text(encoding="utf-8")


def test_parents_are_distributed_first_and_beside_the_registry() -> None:
    """What a key refers to is distributed before it, by the tenant, with the registry's rows."""
    found = catalog(orders(), patients(), ("areas", tenant(), own_key()))
    steps = [step for step in rls.generate(found, Roles()) if step.kind is Kind.DISTRIBUTION]
    order = [step.target[1] for step in steps]
    assert set(order) == {"practices", "areas", "materials", "patients", "orders"}
    for parent, child in (
        ("practices", "areas"),
        ("practices", "patients"),
        ("patients", "orders"),
        ("materials", "orders"),
    ):
        assert order.index(parent) < order.index(child)
    calls = {step.target[1]: step.up[0] for step in steps}
    assert "'id', colocate_with => 'none')" in calls["practices"]
    beside = """'tenant_id', colocate_with => '"public"."practices"')"""
    assert all(beside in calls[name] for name in ("areas", "patients", "orders"))
    assert 'create_reference_table(\'"public"."materials"\'::regclass)' in calls["materials"]


def test_policies_have_no_sub_select_and_no_floor() -> None:
    """Citus refuses the one, and makes the other permissive on the shards."""
    text = rls.sql(catalog(patients()), Roles())
    policies = re.findall(r"CREATE POLICY[^;]*", text)
    assert len(policies) == 2 * 3
    assert not any("SELECT" in each or "RESTRICTIVE" in each for each in policies)
    assert 'USING ("tenant_id" = nullif(' in text


def test_tables_are_distributed_before_keys_and_policies() -> None:
    """Structure reaches the shards with the table; keys and policies come after all tables."""
    kinds = [step.kind for step in rls.generate(catalog(patients()), Roles())]
    last = max(index for index, kind in enumerate(kinds) if kind is Kind.DISTRIBUTION)
    assert kinds.index(Kind.DEFAULT) < kinds.index(Kind.DISTRIBUTION)
    assert last < kinds.index(Kind.POLICY)


def test_a_search_that_a_trigger_keeps_is_refused() -> None:
    """Distributed tables have no triggers, so nothing would fill it."""
    type_ = encrypted_str(search=Exact(kept_by="trigger")).column.type
    found = catalog(("letters", tenant(), Column("text", type_), own_key()))
    with pytest.raises(ConfigurationError, match="no triggers on distributed tables, and a search"):
        rls.sql(found, Roles())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [PrimaryKeyConstraint("id")],
            r"primary key \(id\) of notes lacks the tenant; make it \(tenant_id, id\)",
        ),
        ([own_key(), UniqueConstraint("n")], r"unique key \(n\) of notes .* \(tenant_id, n\)"),
        ([own_key(), Index("i", "n", unique=True)], r"unique index \(n\) of notes lacks"),
        ([own_key(), ExcludeConstraint(("n", "="))], r"exclusion constraint \(n\) of notes lacks"),
        (
            [own_key(), ForeignKeyConstraint(["n"], ["versions.id"])],
            r"key \(n\) of notes leads to versions, which is untenanted",
        ),
        (
            [own_key(), Column("up", ForeignKey("patients.id"))],
            r"\(up\) of notes lacks the tenant; make it \(tenant_id, up\) .* \(tenant_id, id\)",
        ),
        (
            [
                own_key(),
                ForeignKeyConstraint(
                    ["tenant_id", "n"], ["patients.tenant_id", "patients.id"], ondelete="SET NULL"
                ),
            ],
            r"\(tenant_id, n\) of notes would change the tenant column",
        ),
    ],
)
def test_keys_without_the_tenant_are_refused(parts: list[Any], message: str) -> None:
    """A key that Citus cannot hold is named, with what it has to become."""
    found = catalog(patients(), ("notes", tenant(), Column("n", Integer), *parts))
    with pytest.raises(ConfigurationError, match=message):
        rls.generate(found, Roles())


def test_what_is_on_every_node_does_not_refer_to_one() -> None:
    """A reference table's key to a tenant's table has no rows to be checked against."""
    lines: tuple[Any, ...] = (
        "lines",
        PrimaryKeyConstraint("id"),
        Column("p", ForeignKey("practices.id")),
    )
    with pytest.raises(ConfigurationError, match=r"\(p\) of lines leads from a table that is on"):
        rls.generate(catalog(lines, shared={**SHARED, "lines": "an example"}), Roles())


def test_tables_without_the_tenant_column_are_refused() -> None:
    """A child cannot be distributed by a column that it does not have."""
    unique = UniqueConstraint("tenant_id", "id"), UniqueConstraint("id")
    child: tuple[Any, ...] = (
        "parts",
        PrimaryKeyConstraint("id"),
        Column("o", ForeignKey("notes.id"), nullable=False),
    )
    found = catalog(("notes", tenant(), own_key(), *unique), child)
    with pytest.raises(
        ConfigurationError, match=r"parts has no tenant column; .*migrate sql parts"
    ):
        rls.generate(found, Roles())


def test_what_citus_cannot_do_is_refused() -> None:
    """Signed tenants, questions before the tenant is known, and other databases are errors."""
    tables = metadata(("users", tenant(), Column("email", String), own_key()))
    options: dict[str, Any] = {
        "tenants": "practices",
        "shared": SHARED,
        "untenanted": {"versions": "state"},
    }
    with pytest.raises(ConfigurationError, match="Leave out signed_setting=True"):
        TenantGuard(
            tables, **options, dialect="citus", signing=cast("Any", object()), signed_setting=True
        )
    with pytest.raises(ConfigurationError, match="takes 'postgres' or 'citus'"):
        TenantGuard(tables, **options, dialect=cast("Any", "other"))
    guard = TenantGuard(tables, **options, dialect="citus")
    guard.catalog.lookups.append(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no key can be unique over all tenants"):
        rls.generate(guard.catalog, guard.roles)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for each in WORLDS:
        (GOLDEN / each).write_text(golden(each), encoding="utf-8")
