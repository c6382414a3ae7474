"""Search that is added to an encrypted column, or removed: no value is left that it would miss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from clinic import Clinic, open_clinic, plain
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError
from vault import A, B

from tenantguard import (
    Exact,
    Last,
    Prefix,
    encrypted_str,
    tenant_context,
)
from tenantguard.errors import ConfigurationError, PolicyDriftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

NAME = "canary Zoe"
STRUCTURE = """
    SELECT attname, attnum, xmin::text FROM pg_attribute WHERE attrelid = 'patients'::regclass
    UNION ALL SELECT conname, 0, xmin::text || convalidated || pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conrelid = 'patients'::regclass
    UNION ALL SELECT id::text, 0, md5(name) || xmin::text FROM patients ORDER BY 1, 2, 3
"""
# What Alembic's autogenerate writes for a column that becomes searchable, and for the reverse.
ADDED = (
    "ALTER TABLE patients ADD name_bidx bytea GENERATED ALWAYS AS (substring(name, 5, 16)) STORED;"
    "CREATE INDEX ix_patients_name_bidx ON patients (tenant_id, name_bidx)"
)
SEVERAL = "; ".join(
    f"ALTER TABLE patients ADD {name} bytea GENERATED ALWAYS AS (substring(name, {begin}, 16)) "
    f"STORED; CREATE INDEX ix_patients_{name} ON patients (tenant_id, {name})"
    for name, begin in (("name_last3_bidx", 21), ("name_prefix2_bidx", 37))
)
REMOVED = "ALTER TABLE patients DROP name_bidx"


def searchable() -> Any:
    return encrypted_str(search=Exact(), nullable=True)


def moved() -> Any:
    return encrypted_str(name="searched", search=Exact(), nullable=True)


@pytest.fixture
def clinic(new_database: Callable[[], URL], tmp_path: Path) -> Iterator[Clinic]:
    with open_clinic(new_database(), tmp_path) as made:
        yield made


@pytest.mark.parametrize("migration", ["SELECT 1", ADDED])
def test_filled_column_does_not_become_searchable(clinic: Clinic, migration: str) -> None:
    """Values without an index stop apply, which changes nothing, and the application's engine."""
    first, second = clinic.version(name=plain), clinic.version(name=searchable)
    first.add(B, id=1, name=NAME)
    first.add(B, id=2)
    clinic.run(migration)
    before = clinic.run(STRUCTURE)
    with pytest.raises(ConfigurationError, match="column 'name' without a blind index") as raised:
        second.apply()
    assert clinic.run(STRUCTURE) == before
    assert NAME not in str(raised.value)
    assert str(B) not in str(raised.value)
    query = str(raised.value).partition("Find them with: ")[2]
    assert [row[0] for row in clinic.run(query)] == [1]
    assert "format-check-missing" in second.findings()
    with pytest.raises(PolicyDriftError, match="'name' has a blind index, so searches could"):
        second.search(NAME)
    first.add(B, id=3, name=NAME)


def test_rewritten_values_are_found(clinic: Clinic) -> None:
    """Copied into a searchable column of its own, each value is found; the old one can go."""
    first = clinic.version(name=plain)
    for number, name in enumerate((NAME, "Max", None)):
        first.add(A, id=number, name=name)
    between = clinic.version(name=plain, searched=searchable)
    clinic.run(f"{ADDED.replace('name', 'searched').replace('ADD', 'ADD searched bytea, ADD', 1)}")
    between.apply()
    with tenant_context(A), between.session() as session:
        for patient in session.scalars(select(between.patient)):
            patient.searched = patient.name
        session.commit()
    clinic.run("ALTER TABLE patients DROP name")
    last = clinic.version(name=moved)
    last.apply()
    assert last.findings() == []
    assert last.search(NAME) == ([0], [1])


def several() -> Any:
    return encrypted_str(search=[Exact(), Last(3), Prefix(2)], nullable=True)


def test_further_search_needs_its_indexes(clinic: Clinic) -> None:
    """Values with one index stop apply where three are declared; fewer searches take them all."""
    one, three = clinic.version(name=searchable), clinic.version(name=several)
    one.apply()
    one.add(A, id=1, name=NAME)
    clinic.run(SEVERAL)
    before = clinic.run(STRUCTURE)
    with pytest.raises(ConfigurationError, match="without a blind index for each search"):
        three.apply()
    assert clinic.run(STRUCTURE) == before
    assert "format-check-missing" in three.findings()
    clinic.run("DELETE FROM patients")
    three.apply()
    assert three.findings() == []
    three.add(A, id=2, name=NAME)
    one.apply()
    assert (one.findings(), one.search(NAME)) == ([], ([2], []))


@pytest.mark.parametrize("by_script", [True, False])
def test_search_columns_that_changed_places_are_found(
    clinic: Clinic,
    by_script: bool,  # noqa: FBT001
) -> None:
    """Searches are known by their place in a value: exchanged, they are a finding, and not made."""
    three = clinic.version(name=several)
    three.apply(by_script=by_script)
    assert three.findings() == []

    def exchanged() -> Any:
        return encrypted_str(search=[Last(3), Exact(), Prefix(2)], nullable=True)

    other = clinic.version(name=exchanged)
    assert other.findings() == ["search-column-changed", "search-column-changed"]
    with pytest.raises(ConfigurationError, match="is not generated from 'name'"):
        other.apply()


@pytest.mark.parametrize("by_script", [True, False])
def test_search_is_added_and_removed(clinic: Clinic, by_script: bool) -> None:  # noqa: FBT001
    """Without plain values search can be added; removed, plain values are taken again."""
    first, second = clinic.version(name=plain), clinic.version(name=searchable)
    first.add(A, id=1)
    second.apply(by_script=by_script)
    second.add(A, id=2, name=NAME)
    assert second.search(NAME) == ([2], [])
    assert first.findings() == ["format-check-missing"]
    clinic.run(REMOVED)
    first.apply(by_script=by_script)
    first.add(A, id=3, name=NAME)
    [check] = clinic.run(
        "SELECT count(*) FROM pg_constraint WHERE conname = 'patients_name_sealed'"
    )
    assert check[0] == 1
    with pytest.raises(ConfigurationError, match="without a blind index"):
        second.apply()


@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        ("9e54010100112233445566778899aabbccddeeff", True),
        ("9e54020300112233445566778899aabbccddeeff01", True),
        ("9e54010000112233445566778899aabbccddeeff01", False),
        ("9e54010200112233445566778899aabbccddeeff01", False),
        ("9e54010100112233445566778899aabbccddee", False),
        ("9e540101", False),
        ("9e54", False),
        ("", False),
        ("9f54010100112233445566778899aabbccddeeff", False),
    ],
)
def test_every_value_of_a_searchable_column_has_an_index(
    clinic: Clinic, stored: str, *, taken: bool
) -> None:
    """The database takes nothing else, whoever writes it, and the finding query finds the rest."""
    clinic.version(name=searchable).apply()
    insert = rf"INSERT INTO patients (id, tenant_id, name) VALUES (1, '{A}', '\x{stored}')"
    if taken:
        clinic.run(insert)
        return
    with pytest.raises(DBAPIError, match="patients_name_sealed"):
        clinic.run(insert)
    clinic.run(f"ALTER TABLE patients DROP CONSTRAINT patients_name_sealed; {insert}")
    with pytest.raises(ConfigurationError, match="without a blind index") as raised:
        clinic.version(name=searchable).apply()
    assert len(clinic.run(str(raised.value).partition("Find them with: ")[2])) == 1
