"""Search columns of partitions and of children by INHERITS: none is out of step unnoticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from clinic import Clinic, Version, generated, kept, kept_twice, open_clinic
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from vault import A

from tenantguard import rls
from tenantguard.errors import ConfigurationError
from tenantguard.rls.kept import keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

NAME = "canary Zoe"
TRIGGER = keeper("patients", "name")
_DIFFERENT_SINCE = 160000
INDEXED = r"'\x9e54010100112233445566778899aabbccddeeff01'"
PARTED = f"""
DROP TABLE patients; DROP FUNCTION IF EXISTS {TRIGGER}();
CREATE TABLE patients (id int PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES practices, name bytea)
    PARTITION BY RANGE (id);
CREATE TABLE first PARTITION OF patients FOR VALUES FROM (0) TO (100)"""
CHECKS = (
    "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
    "WHERE conrelid = 'patients'::regclass AND contype = 'c'"
)


@pytest.fixture
def clinic(new_database: Callable[[], URL], tmp_path: Path) -> Iterator[Clinic]:
    with open_clinic(new_database(), tmp_path) as made:
        yield made


def write(clinic: Clinic, table: str = "patients", number: int = 9) -> None:
    clinic.run(f"INSERT INTO {table} (id, tenant_id, name) VALUES ({number}, '{A}', {INDEXED})")


@pytest.fixture
def parted(clinic: Clinic) -> Version:
    """An application whose search column a trigger keeps, on a partitioned table."""
    made = clinic.version(name=kept)
    clinic.run(PARTED)
    made.apply()
    assert made.findings() == []
    made.add(A, id=1, name=NAME)
    return made


def test_a_trigger_that_one_partition_has_disabled_is_found(
    clinic: Clinic, parted: Version
) -> None:
    """Its writes fail, the finding says so, and applying enables it there again."""
    clinic.run(f'ALTER TABLE first DISABLE TRIGGER "{TRIGGER}"')
    with pytest.raises(DBAPIError, match="patients_name_bidx_kept"):
        write(clinic)
    assert parted.findings() == ["search-trigger-changed"]
    parted.apply()
    assert (parted.findings(), parted.steps()) == ([], [])
    write(clinic)


def test_a_partition_that_comes_later_has_trigger_and_check(
    clinic: Clinic, parted: Version
) -> None:
    """Made there or attached; what its rows had before is looked at."""
    clinic.run("CREATE TABLE second (LIKE patients)")
    attach = "ALTER TABLE patients ATTACH PARTITION second FOR VALUES FROM (100) TO (200)"
    with pytest.raises(DBAPIError, match="missing constraint"):
        clinic.run(attach)
    clinic.run("DROP TABLE second; CREATE TABLE second (LIKE patients INCLUDING CONSTRAINTS)")
    clinic.run(attach)
    clinic.run("CREATE TABLE third PARTITION OF patients FOR VALUES FROM (200) TO (300)")
    for number in (150, 250):
        write(clinic, number=number)
    assert clinic.run(
        "SELECT bool_and(name_bidx = substring(name, 5, 16)) FROM patients WHERE id > 100"
    ) == [(True,)]
    assert parted.findings() == []


def test_a_partition_that_generates_something_else_is_found(clinic: Clinic) -> None:
    """PostgreSQL lets it from version 16 on, and a search would miss its rows."""
    version = clinic.version(name=generated)
    clinic.run(PARTED)
    version.apply()
    assert version.findings() == []
    other = "name_bidx bytea GENERATED ALWAYS AS (substring(name, 1, 16)) STORED"
    attach = (
        "CREATE TABLE second (LIKE patients INCLUDING CONSTRAINTS);"
        f"ALTER TABLE second DROP name_bidx; ALTER TABLE second ADD {other};"
        "ALTER TABLE patients ATTACH PARTITION second FOR VALUES FROM (100) TO (200)"
    )
    if int(clinic.run("SHOW server_version_num")[0][0]) < _DIFFERENT_SINCE:
        with pytest.raises(DBAPIError, match="conflicting generation expression"):
            clinic.run(attach)
        return
    clinic.run(attach)
    assert version.findings() == ["search-column-changed"]
    with pytest.raises(ConfigurationError, match="or in a partition"):
        version.apply()
    clinic.run('ALTER TABLE "public"."patients" DROP COLUMN "name_bidx"')
    version.apply()
    assert version.findings() == []
    version.add(A, id=150, name=NAME)
    assert version.search(NAME) == ([150], [])


def test_a_child_inherits_the_check_and_not_the_trigger(clinic: Clinic) -> None:
    """Without one of its own, writing values into it fails; none is lost for searches."""
    version = clinic.version(name=kept)
    clinic.run("DROP TABLE patients")
    version.guard.catalog.metadata.create_all(clinic.admin)
    version.apply()
    clinic.run("CREATE TABLE child () INHERITS (patients)")
    with pytest.raises(DBAPIError, match="patients_name_bidx_kept"):
        write(clinic, "child")
    clinic.run(
        f'CREATE TRIGGER "{TRIGGER}" BEFORE INSERT OR UPDATE ON child '
        f'FOR EACH ROW EXECUTE FUNCTION "{TRIGGER}"()'
    )
    write(clinic, "child")
    assert clinic.run("SELECT length(name_bidx) FROM patients") == [(16,)]


@pytest.mark.parametrize("number", [0, 1])
def test_a_check_that_children_do_not_inherit_is_none(clinic: Clinic, number: int) -> None:
    """A child's rows would hold plaintext, or what no search finds; applying makes it again."""
    version = clinic.version(name=kept)
    clinic.run("DROP TABLE patients")
    version.guard.catalog.metadata.create_all(clinic.admin)
    version.apply()
    name, definition = clinic.run(f"{CHECKS} ORDER BY 1")[number]
    alter = f"ALTER TABLE patients DROP CONSTRAINT {name}, ADD CONSTRAINT {name}"
    clinic.run(f"{alter} {definition} NO INHERIT")
    assert version.findings() == ["format-check-missing"]
    version.apply()
    assert version.findings() == []
    clinic.run("CREATE TABLE child () INHERITS (patients)")
    assert clinic.run(CHECKS.replace("patients", "child") + " ORDER BY 1") == clinic.run(
        f"{CHECKS} ORDER BY 1"
    )


def test_a_function_of_another_owner_is_the_superusers_to_replace(clinic: Clinic) -> None:
    """A table that was given away left it behind; the message says who can go on."""
    version, two = clinic.version(name=kept), clinic.version(name=kept_twice)
    clinic.run("DROP TABLE patients")
    version.guard.catalog.metadata.create_all(clinic.admin)
    version.apply()
    clinic.run(
        f'ALTER SCHEMA public OWNER TO "{clinic.roles.owner}";'
        f'ALTER TABLE patients OWNER TO "{clinic.roles.owner}"'
    )
    assert version.findings() == []
    options = {"options": f"-c role={clinic.roles.owner}"}
    owner = create_engine(clinic.admin.url, connect_args=options)
    try:
        with pytest.raises(ConfigurationError, match=r"must be owner .* Connect as a superuser\."):
            rls.apply(owner, two.guard.catalog, clinic.roles)
        two.apply()
        [[found]] = clinic.run(f"SELECT proowner::regrole FROM pg_proc WHERE proname = '{TRIGGER}'")
        assert found.strip('"') == clinic.roles.owner
        rls.apply(owner, two.guard.catalog, clinic.roles)
    finally:
        owner.dispose()
