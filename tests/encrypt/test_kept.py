"""A search column that a trigger keeps: made without rewriting the table, and never out of step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from clinic import Clinic, Version, generated, kept, kept_twice, open_clinic, plain
from commanding import MODULE, Command, assert_could_not_look, serve
from rotating import rotate_at
from sqlalchemy import ForeignKey, MetaData, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from vault import ENVIRONMENT, A, B

from tenantguard import Exact, KeyFile, TenantGuard, encrypted_str
from tenantguard.cli import main
from tenantguard.errors import ConfigurationError, PolicyDriftError
from tenantguard.rls.kept import keeper
from tenantguard.rls.names import quote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

NAME = "canary Zoe"
TRIGGER = keeper("patients", "name")
INDEXED = r"'\x9e54010100112233445566778899aabbccddeeff01'"
WRITE = f"INSERT INTO patients (id, tenant_id, name) VALUES (9, '{A}', {INDEXED})"
DAMAGE = [
    f'DROP TRIGGER "{TRIGGER}" ON patients',
    f'ALTER TABLE patients DISABLE TRIGGER "{TRIGGER}"',
]
FILENODE = "SELECT pg_relation_filenode('patients')"
IN_STEP = "SELECT bool_and(name_bidx IS NOT DISTINCT FROM substring(name, 5, 16)) FROM patients"


@pytest.fixture
def clinic(new_database: Callable[[], URL], tmp_path: Path) -> Iterator[Clinic]:
    with open_clinic(new_database(), tmp_path) as made:
        yield made


@pytest.fixture
def version(clinic: Clinic) -> Version:
    """The application whose search column a trigger keeps, on a table of its own."""
    made = clinic.version(name=kept)
    clinic.run("DROP TABLE patients")
    made.guard.catalog.metadata.create_all(clinic.admin)
    return made


def command(clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch) -> Command:
    serve(monkeypatch, guard=version.guard)
    return Command(clinic.admin)


def keys(
    clinic: Clinic,
    version: Version,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    *options: str,
    code: int = 0,
) -> str:
    """Run a `tenantguard keys` command for all keys of blind indexes; return what it says."""
    serve(monkeypatch, guard=version.guard)
    address = clinic.admin.url.render_as_string(hide_password=False)
    result = CliRunner().invoke(
        main,
        ["keys", verb, "--purpose", "index", "--all", *options, "--guard", f"{MODULE}:guard"],
        env={"TENANTGUARD_ADMIN_URL": address},
    )
    assert result.exit_code == code, result.output
    return result.output


def test_create_all_makes_what_keeps_it(version: Version) -> None:
    """Column, trigger and check are there: `rls apply` has nothing of them to make."""
    steps = map(str, version.steps())
    assert not [each for each in steps if "search" in each or "format" in each]
    version.apply()
    assert version.findings() == []
    version.add(A, id=1, name=NAME)
    assert version.search(NAME) == ([1], [])


@pytest.mark.usefixtures("version")
def test_whoever_writes_the_index_is_the_values(clinic: Clinic) -> None:
    """SQL text, COPY, and a value for the column itself: the trigger comes last."""
    clinic.run(WRITE)
    clinic.run(r"UPDATE patients SET name_bidx = '\x00'")
    clinic.run(r"UPDATE patients SET name = overlay(name placing '\xff'::bytea from 6)")
    with clinic.admin.begin() as connection:
        cursor: Any = connection.connection.cursor()
        with cursor.copy("COPY patients (id, tenant_id, name, name_bidx) FROM STDIN") as copy:
            copy.write_row((10, A, None, b"\x00"))
    assert clinic.run(IN_STEP) == [(True,)]
    assert clinic.run("SELECT count(name_bidx) FROM patients") == [(1,)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_without_the_trigger_writes_are_refused(
    clinic: Clinic, version: Version, damage: str
) -> None:
    """They are not lost for searches; the guard names the trigger, and applying restores it."""
    version.apply()
    clinic.run(damage)
    with pytest.raises(DBAPIError, match="patients_name_bidx_kept"):
        clinic.run(WRITE)
    assert version.findings() == ["search-trigger-changed"]
    with pytest.raises(PolicyDriftError, match="writes fail"):
        version.search(NAME)
    assert [str(each) for each in version.steps()] == [f"public.patients search trigger {TRIGGER}"]
    version.apply()
    clinic.run(WRITE)
    assert clinic.run(IN_STEP) == [(True,)]


def test_a_dropped_table_leaves_no_function(clinic: Clinic, version: Version) -> None:
    """`drop_all` takes the trigger's function along, and `create_all` makes it again."""
    metadata = version.guard.catalog.metadata
    count = f"SELECT count(*) FROM pg_proc WHERE proname = '{TRIGGER}'"
    metadata.tables["patients"].drop(clinic.admin)
    assert clinic.run(count) == [(0,)]
    metadata.create_all(clinic.admin)
    assert clinic.run(count) == [(1,)]


@pytest.mark.parametrize("by_script", [True, False])
def test_a_filled_column_becomes_searchable_in_place(
    clinic: Clinic,
    monkeypatch: pytest.MonkeyPatch,
    by_script: bool,  # noqa: FBT001
) -> None:
    """Apply adds column and trigger, and says how to fill it; old rows can be changed meanwhile."""
    first, second = clinic.version(name=plain), clinic.version(name=kept)
    first.add(A, id=1, name=NAME)
    first.add(B, id=2, name="Max")
    first.add(A, id=3)
    [[filenode]] = clinic.run(FILENODE)
    run = command(clinic, second, monkeypatch)
    assert_could_not_look(run("rewrite"), "has no column 'name_bidx' yet")
    with pytest.raises(ConfigurationError, match="encrypt rewrite` seals them anew"):
        second.apply()
    assert_could_not_look(run("expand", "patients.name"), "No encrypted column takes the place")
    first.add(A, id=4, name="Ada")
    clinic.run("UPDATE patients SET id = id + 10 WHERE id IN (1, 4)")
    assert run.json("rewrite", "--dry-run")["waiting"][0]["values"] == 3
    assert run.json("rewrite")["done"] == 3
    assert run.json("rewrite")["waiting"] == []
    second.apply(by_script=by_script)
    assert second.findings() == []
    assert second.search(NAME) == ([11], [14])
    assert clinic.run(FILENODE) == [(filenode,)]


def test_a_generated_column_is_added_in_place_by_a_rewrite(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The values are sealed anew first; only then PostgreSQL rewrites the table for the column."""
    first, second = clinic.version(name=plain), clinic.version(name=generated)
    first.add(A, id=1, name=NAME)
    [[filenode]] = clinic.run(FILENODE)
    assert command(clinic, second, monkeypatch).json("rewrite")["done"] == 1
    assert clinic.run(FILENODE) == [(filenode,)]
    second.apply()
    assert (second.findings(), second.search(NAME)) == ([], ([1], []))
    assert clinic.run(FILENODE) != [(filenode,)]


def test_what_is_not_filled_is_filled_without_a_rewrite(
    clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column that was lost is added in an instant, and `rewrite` sets the trigger off."""
    version.apply()
    version.add(A, id=1, name=NAME)
    version.add(B, id=2, name=NAME)
    [[filenode]] = clinic.run(FILENODE)
    before = clinic.run("SELECT id, name FROM patients ORDER BY id")
    clinic.run("ALTER TABLE patients DROP name_bidx")
    assert sorted(version.findings()) == ["format-check-missing", "search-column-missing"]
    with pytest.raises(ConfigurationError, match="'name_bidx' is not filled yet"):
        version.apply()
    run = command(clinic, version, monkeypatch)
    assert run.json("rewrite", "--tenant", str(A))["done"] == 1
    assert run.json("rewrite")["done"] == 1
    version.apply()
    assert version.findings() == []
    assert version.search(NAME) == ([1], [])
    assert clinic.run("SELECT id, name FROM patients ORDER BY id") == before
    assert clinic.run(FILENODE) == [(filenode,)]


def test_a_value_that_is_neither_new_nor_filled_is_counted_once(
    clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under an older key, and with a search column that is not filled, it is still one value."""
    version.apply()
    version.add(A, id=1, name=NAME)
    version.add(B, id=2, name=NAME)
    rotate_at(clinic.admin, version.guard, A, ENVIRONMENT)
    clinic.run("ALTER TABLE patients DROP name_bidx; ALTER TABLE patients ADD name_bidx bytea")
    run = command(clinic, clinic.version(name=kept), monkeypatch)
    assert run.json("rewrite", "--dry-run")["waiting"] == [{"column": "patients.name", "values": 2}]
    assert run.json("rewrite")["done"] == 2
    assert run.json("rewrite")["waiting"] == []
    assert clinic.run(IN_STEP) == [(True,)]


@pytest.mark.parametrize("damage", DAMAGE)
def test_nothing_is_filled_without_the_trigger(
    clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """`rewrite` says that it is missing, instead of writing rows that stay as they are."""
    version.apply()
    version.add(A, id=1, name=NAME)
    clinic.run(f"{damage}; ALTER TABLE patients DROP name_bidx")
    clinic.run("ALTER TABLE patients ADD name_bidx bytea")
    run = command(clinic, version, monkeypatch)
    assert_could_not_look(run("rewrite"), "lacks the trigger that fills 'name_bidx'")


def test_an_old_key_stays_while_a_search_column_is_not_in_step(
    clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the value has the new key's index, what is searched has the old one's."""
    version.apply()
    version.add(A, id=1, name=NAME)
    [[old]] = clinic.run("SELECT name_bidx FROM patients")
    for _ in range(2):
        keys(clinic, version, monkeypatch, "rotate", "--no-wait")
        clinic.run("UPDATE tenantguard_keys SET rotated_at = rotated_at - interval '1 h'")
    run = command(clinic, clinic.version(name=kept), monkeypatch)
    assert run.json("rewrite")["done"] == 1
    clinic.run("ALTER TABLE patients DISABLE TRIGGER USER, DROP CONSTRAINT patients_name_bidx_kept")
    clinic.run(f"UPDATE patients SET name_bidx = '\\x{bytes(old).hex()}'")
    clinic.run("ALTER TABLE patients ENABLE TRIGGER USER")
    version = clinic.version(name=kept)
    assert "patients.name (1)" in keys(clinic, version, monkeypatch, "retire", code=1)
    assert command(clinic, version, monkeypatch).json("rewrite")["done"] == 1
    assert "1 old keys were disabled" in keys(clinic, version, monkeypatch, "retire")
    version.apply()
    assert version.search(NAME) == ([1], [])


def test_a_generated_column_becomes_a_kept_one(clinic: Clinic) -> None:
    """The message says how, in an instant; what it holds stays."""
    first, second = clinic.version(name=generated), clinic.version(name=kept)
    first.apply()
    first.add(A, id=1, name=NAME)
    [[filenode]] = clinic.run(FILENODE)
    with pytest.raises(ConfigurationError, match="is not a plain one") as raised:
        second.apply()
    assert 'ALTER "name_bidx" DROP EXPRESSION; then' in str(raised.value)
    clinic.run('ALTER TABLE patients ALTER "name_bidx" DROP EXPRESSION')
    second.apply()
    assert (second.findings(), second.search(NAME)) == ([], ([1], []))
    assert clinic.run(FILENODE) == [(filenode,)]
    with pytest.raises(ConfigurationError, match="is not generated from 'name'"):
        first.apply()


def test_a_trigger_goes_with_its_columns(clinic: Clinic, version: Version) -> None:
    """Without the search it stays while its column does, which older applications may search."""
    version.apply()
    version.add(A, id=1, name=NAME)
    first = clinic.version(name=plain)
    first.apply()
    first.add(A, id=2, name=NAME)
    assert clinic.run(IN_STEP) == [(True,)]
    clinic.run("ALTER TABLE patients DROP name_bidx")
    with pytest.raises(DBAPIError, match="no field"):
        clinic.run(WRITE)
    assert first.findings() == ["search-trigger-changed"]
    first.apply()
    assert first.findings() == []
    first.add(A, id=3, name=NAME)
    assert clinic.run(f"SELECT count(*) FROM pg_proc WHERE proname = '{TRIGGER}'") == [(0,)]


def test_a_further_search_is_kept_by_the_same_trigger(
    clinic: Clinic, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its column is added, the function replaced, and the rows are sealed with both indexes."""
    version.apply()
    version.add(A, id=1, name=NAME)
    two = clinic.version(name=kept_twice)
    with pytest.raises(ConfigurationError, match="without a blind index for each search"):
        two.apply()
    assert command(clinic, two, monkeypatch).json("rewrite")["done"] == 1
    two.apply()
    assert (two.findings(), two.search(NAME)) == ([], ([1], []))
    [[count]] = clinic.run(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'patients'::regclass AND NOT tgisinternal"
    )
    assert count == 1
    assert clinic.run("SELECT name_last3_bidx = substring(name, 21, 16) FROM patients") == [(True,)]


ODD = "a\"b's %:x \\y"


@pytest.mark.parametrize("by_script", [True, False])
def test_names_that_need_quotes(clinic: Clinic, by_script: bool) -> None:  # noqa: FBT001
    """In what `create_all` sends, in what `rls apply` sends, and in its script."""

    class Base(DeclarativeBase):
        metadata = MetaData(schema=ODD)

    class Practice(Base):
        __tablename__ = "practices"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Patient(Base):
        __tablename__ = ODD
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[int] = mapped_column(ForeignKey(Practice.id))
        name: Mapped[str | None] = encrypted_str(name=ODD, search=Exact(kept_by="trigger"))

    guard = TenantGuard(
        Base.metadata,
        tenants=f"{ODD}.practices",
        roles=clinic.roles,
        keys=KeyFile(clinic.key_file, environment=ENVIRONMENT),
    )
    version = Version(clinic, guard, Patient)
    table = f"{quote(ODD)}.{quote(ODD)}"
    clinic.run(f"CREATE SCHEMA {quote(ODD)}")
    Base.metadata.create_all(clinic.admin)
    assert not any("search" in str(each) for each in version.steps())
    version.apply()
    assert version.steps() == []
    clinic.run(f"DROP TRIGGER {keeper(ODD, ODD)} ON {table}")
    version.apply(by_script=by_script)
    assert version.steps() == []
    clinic.run(
        f"INSERT INTO {quote(ODD)}.practices VALUES (1);"
        f"INSERT INTO {table} (id, tenant_id, {quote(ODD)}) VALUES (1, 1, {INDEXED})"
    )
    assert clinic.run(f"SELECT length({quote(f'{ODD}_bidx')}) FROM {table}") == [(16,)]


def test_neither_written_nor_returned(version: Version) -> None:
    """The application's statements do not name it."""
    table = version.patient.__table__
    for statement in (insert(table), insert(version.patient).returning(version.patient)):
        assert "bidx" not in str(statement)
    assert "name_bidx" not in version.patient.__mapper__.attrs


def test_the_superuser_gives_the_function_to_the_tables_owner(
    clinic: Clinic, version: Version
) -> None:
    """Whoever applies: who owns a trigger's function decides what it does."""
    clinic.run(
        f'ALTER TABLE patients OWNER TO "{clinic.roles.owner}"; DROP TRIGGER "{TRIGGER}" '
        "ON patients"
    )
    version.apply()
    owner = (
        f"SELECT pg_get_userbyid(proowner), proacl::text FROM pg_proc WHERE proname = '{TRIGGER}'"
    )
    [[name, granted]] = clinic.run(owner)
    assert name == clinic.roles.owner
    assert "{=" not in granted
    assert ",=" not in granted
