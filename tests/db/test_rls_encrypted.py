"""What encrypted columns need in the database: made, compared and verified like the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from rls_patients import (
    INDEXED,
    KEYS,
    PATIENTS,
    SEALED,
    add_patients,
    found,
    missing,
    patients_world,
)
from rls_world import A, B, World, make_world, statements
from sqlalchemy import Column, Computed, LargeBinary, create_engine
from sqlalchemy.exc import DBAPIError

from tenantguard import rls
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import SEARCHES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

CANARY = b"canary-plaintext"
SEALED_FORM = r"substring(name, 1, 2) = '\x9e54'::bytea"
GENERATED = "bytea GENERATED ALWAYS AS ({}) STORED"


@pytest.fixture
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    with patients_world(new_database()) as made:
        yield made


@pytest.fixture
def applied(world: World) -> World:
    rls.apply(world.owner, world.catalog, world.roles)
    return world


def test_applied_once_nothing_is_missing(applied: World) -> None:
    """The second run asks and changes nothing, and the application's role finds no fault."""
    assert missing(applied) == []
    with statements(applied.owner) as sent:
        assert rls.apply(applied.owner, applied.catalog, applied.roles) == []
    assert not any(each.startswith(("BEGIN", "CREATE", "ALTER", "GRANT")) for each in sent)
    assert found(applied) == set()


def test_script_does_what_apply_does(world: World) -> None:
    """The script completes tables of create_all, of an older version, and once more, alike."""
    script = rls.sql(world.catalog, world.roles)
    with world.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})
        assert missing(world) == []
        world.run(rls.down_sql(world.catalog, world.roles))
        world.run("ALTER TABLE patients DROP name_bidx, DROP CONSTRAINT patients_name_check")
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})
    assert missing(world) == []


def test_dry_run_lists_the_table_of_keys_and_makes_nothing(world: World) -> None:
    """Without the table everything else is still compared, also by who may not create tables."""
    listed = missing(world)
    assert listed[1] == f"{KEYS} table tenantguard_keys"
    assert f"{KEYS} force row level security" in listed
    assert "public.order force row level security" in listed
    stranger = create_engine(world.url.set(username=world.roles.application))
    with stranger.connect() as connection:
        steps = rls.plan(connection, world.catalog, world.roles)
    stranger.dispose()
    assert [str(step) for step in steps] == listed
    assert world.run(f"SELECT to_regclass('{KEYS}')") == [(None,)]


def test_superuser_makes_the_table_for_the_owner(world: World) -> None:
    """Whoever applies, the table of keys belongs to whom the registry belongs to."""
    rls.apply(world.admin, world.catalog, world.roles)
    owner = world.run(
        f"SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = '{KEYS}'::regclass"
    )
    assert owner == [(world.roles.owner,)]
    assert missing(world) == []


@pytest.mark.parametrize("check", [None, "{}_is_sealed"])
def test_names_of_a_convention_are_accepted(
    new_database: Callable[[], URL], check: str | None
) -> None:
    """Checks and indexes that create_all made are present, whatever they are called."""
    with make_world(new_database()) as world:
        if check:
            world.metadata.naming_convention = {"ck": "ck_%(table_name)s_%(constraint_name)s"}
        table = add_patients(world.metadata, check=check)
        with world.owner.begin() as connection:
            table.create(connection)
        listed = missing(world)
        assert not any("format" in each or "search" in each for each in listed)
        world.run("ALTER TABLE patients DROP name_bidx; ALTER TABLE patients DROP name")
        world.run("ALTER TABLE patients ADD name bytea")
        made = [each for each in missing(world) if "format" in each or "search" in each]
        name = "ck_patients_name_is_sealed" if check else "tg_patients_name_format_"
        assert made[0].startswith(f"{PATIENTS} format check {name}")
        assert made[1:] == [
            f"{PATIENTS} search column name_bidx",
            f"{PATIENTS} search index ix_patients_name_bidx",
        ]
        rls.apply(world.owner, world.catalog, world.roles)
        assert missing(world) == []


@pytest.mark.parametrize(
    ("damage", "steps"),
    [
        (
            "ALTER TABLE patients DROP name_bidx",
            [
                f"{PATIENTS} search column name_bidx",
                f"{PATIENTS} search index ix_patients_name_bidx",
            ],
        ),
        (
            "DROP INDEX ix_patients_name_bidx; CREATE INDEX ON patients (name_bidx, tenant_id)",
            [f"{PATIENTS} search index ix_patients_name_bidx"],
        ),
        (
            (
                "DROP INDEX ix_patients_name_bidx; CREATE INDEX ix_patients_name_bidx "
                "ON patients (tenant_id, name_bidx) WHERE id > 0"
            ),
            [f"{PATIENTS} search index ix_patients_name_bidx"],
        ),
        (
            (
                "UPDATE pg_index SET indisvalid = false "
                "WHERE indexrelid = 'ix_patients_name_bidx'::regclass"
            ),
            [f"{PATIENTS} search index ix_patients_name_bidx"],
        ),
        (
            "ALTER TABLE patients DROP CONSTRAINT patients_notes_check",
            [f"{PATIENTS} format check tg_patients_notes_format_"],
        ),
        (
            (
                "ALTER TABLE patients DROP CONSTRAINT patients_notes_check; "
                "ALTER TABLE patients ADD CHECK (substring(notes, 1, 1) = '\\x9e'::bytea)"
            ),
            [f"{PATIENTS} format check tg_patients_notes_format_"],
        ),
        (
            "UPDATE pg_constraint SET convalidated = false WHERE conname = 'patients_notes_check'",
            [f"{PATIENTS} format check patients_notes_check"],
        ),
        (
            (
                "ALTER TABLE patients DROP CONSTRAINT patients_name_check; "
                f"ALTER TABLE patients ADD CHECK ({SEALED_FORM})"
            ),
            [f"{PATIENTS} format check tg_patients_name_format_"],
        ),
        (f"ALTER TABLE {KEYS} NO FORCE ROW LEVEL SECURITY", [f"{KEYS} force"]),
        (f"GRANT SELECT ON {KEYS} TO PUBLIC", [f"{KEYS} grants"]),
        (f"GRANT SELECT ON {KEYS} TO {{support}}", [f"{KEYS} grants"]),
        (f"GRANT UPDATE (wrapped) ON {KEYS} TO {{app}}", [f"{KEYS} grants"]),
        (f"GRANT DELETE ON {KEYS} TO {{app}}", [f"{KEYS} grants"]),
        (
            f"ALTER TABLE {KEYS} DROP CONSTRAINT {{key}}",
            [f"{KEYS} foreign key"],
        ),
    ],
)
def test_every_difference_is_found_and_mended(
    applied: World, damage: str, steps: list[str]
) -> None:
    """The plan names exactly what was changed, and applying restores it, with rows in place."""
    roles = applied.roles
    applied.run(f"INSERT INTO patients VALUES (1, '{A}', {INDEXED}, DEFAULT, NULL)")
    [[key]] = applied.run(
        f"SELECT conname FROM pg_constraint WHERE conrelid = '{KEYS}'::regclass AND contype = 'f'"
    )
    names = {"{app}": roles.application, "{support}": roles.support, "{key}": key}
    for placeholder, name in names.items():
        damage = damage.replace(placeholder, f'"{name}"')
    applied.run(damage)
    listed = missing(applied)
    assert len(listed) == len(steps)
    assert all(map(str.startswith, listed, steps))
    rls.apply(applied.owner, applied.catalog, roles)
    assert missing(applied) == []
    assert found(applied) == set()
    assert applied.run("SELECT name_bidx = substring(name, 5, 16) FROM patients") == [(True,)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            "ALTER TABLE patients DROP name_bidx; ALTER TABLE patients ADD name_bidx bytea",
            "'name_bidx' of public.patients is not generated from 'name'.*DROP COLUMN",
        ),
        (
            "ALTER TABLE patients DROP name_bidx; ALTER TABLE patients ADD name_bidx "
            + GENERATED.format("substring(name, 4, 16)"),
            "'name_bidx' of public.patients is not generated from 'name'.*DROP COLUMN",
        ),
        (
            "ALTER TABLE patients DROP name_bidx, DROP name; ALTER TABLE patients ADD name text",
            r"patients\.name is text in the database.*a name of its own",
        ),
        ("ALTER TABLE patients DROP notes", "patients has no column 'notes'.*migrations first"),
        (f"ALTER TABLE {KEYS} DROP check_value", "column 'check_value' is missing.*never altered"),
        (
            f"ALTER TABLE {KEYS} ALTER generation TYPE bigint",
            "column 'generation' is of another type",
        ),
        (f"ALTER TABLE {KEYS} DROP CONSTRAINT tenantguard_keys_pkey", "primary key is not"),
        (
            (
                f"ALTER TABLE {KEYS} DROP CONSTRAINT tenantguard_keys_pkey, "
                "ADD PRIMARY KEY (tenant_id, purpose, generation)"
            ),
            r"primary key is not \(tenant_id, purpose\)",
        ),
        (
            (
                "CREATE INDEX other ON practices (name); DROP INDEX ix_patients_name_bidx; "
                "ALTER INDEX other RENAME TO ix_patients_name_bidx"
            ),
            r"refused public\.patients search index .*\(42P07\)",
        ),
    ],
)
def test_what_differs_is_refused_and_never_altered(
    applied: World, damage: str, message: str
) -> None:
    """What is there and differs stops the run, and says what to do; nothing of it is changed."""
    applied.run(damage)
    before = applied.run("SELECT attrelid, attname, xmin FROM pg_attribute ORDER BY 1, 2")
    with pytest.raises(ConfigurationError, match=message):
        rls.apply(applied.owner, applied.catalog, applied.roles)
    after = applied.run("SELECT attrelid, attname, xmin FROM pg_attribute ORDER BY 1, 2")
    assert after == before


def test_virtual_search_column_is_refused(applied: World, server_version: int) -> None:
    """A column that PostgreSQL computes on reading, from 18 on, has no index: it is no match."""
    kind = "VIRTUAL" if server_version >= 180000 else "STORED"
    applied.run("ALTER TABLE patients DROP name_bidx")
    expression = "substring(name, 5, 16)" if kind == "VIRTUAL" else "substring(name, 5, 15)"
    applied.run(
        f"ALTER TABLE patients ADD name_bidx bytea GENERATED ALWAYS AS ({expression}) {kind}"
    )
    with pytest.raises(ConfigurationError, match="is not generated from 'name' as the models say"):
        missing(applied)


def test_expression_of_the_models_is_checked(world: World) -> None:
    """What is no expression over the encrypted column is named before anything is made."""
    add = world.metadata.tables["patients"].append_column
    wrong = Computed("substring(id, 5, 16)", persisted=True)
    add(Column("notes_bidx", LargeBinary, wrong, info={SEARCHES: "notes"}))
    with pytest.raises(ConfigurationError, match=r"encrypted column 'notes' of public\.patients"):
        missing(world)
    assert world.run("SELECT count(*) FROM pg_policy") == [(0,)]


@pytest.mark.parametrize("forced", [True, False])
def test_value_of_another_format_is_refused(applied: World, forced: bool) -> None:  # noqa: FBT001
    """Validating a check scans the table itself: FORCE hides no row from the owner, as measured."""
    applied.run(
        "ALTER TABLE patients DROP CONSTRAINT patients_notes_check;"
        f"INSERT INTO patients (id, tenant_id, notes) VALUES (1, '{A}', '{CANARY.decode()}'),"
        f" (2, '{B}', {SEALED}), (3, '{B}', NULL)"
    )
    if not forced:
        applied.run("ALTER TABLE patients NO FORCE ROW LEVEL SECURITY")
    with pytest.raises(
        ConfigurationError, match="'notes' that tenantguard did not write"
    ) as raised:
        rls.apply(applied.owner, applied.catalog, applied.roles)
    assert CANARY.decode() not in str(raised.value)
    assert CANARY.hex() not in str(raised.value)
    assert str(A) not in str(raised.value)
    assert raised.value.__suppress_context__
    query = str(raised.value).partition("Find them with: ")[2]
    assert [row[0] for row in applied.run(query)] == [1]
    applied.run("UPDATE patients SET notes = NULL WHERE id = 1")
    rls.apply(applied.owner, applied.catalog, applied.roles)
    assert missing(applied) == []
    with pytest.raises(DBAPIError, match="check constraint"):
        applied.run(f"INSERT INTO patients (id, tenant_id, notes) VALUES (4, '{A}', 'plain')")


@pytest.mark.parametrize(
    ("damage", "code", "table"),
    [
        (f"DROP TABLE {KEYS}", "table-missing", KEYS),
        (f"ALTER TABLE {KEYS} DISABLE ROW LEVEL SECURITY", "rls-not-enabled", KEYS),
        (f"ALTER TABLE {KEYS} NO FORCE ROW LEVEL SECURITY", "rls-not-forced", KEYS),
        (f"DROP POLICY tenantguard_application_floor ON {KEYS}", "policy-missing", KEYS),
        (f"CREATE POLICY mine ON {KEYS} USING (true)", "policy-extra", KEYS),
        (f"GRANT UPDATE (state) ON {KEYS} TO {{app}}", "privilege-excess", KEYS),
        (f"GRANT DELETE ON {KEYS} TO {{app}}", "privilege-excess", KEYS),
        (f"GRANT TRUNCATE ON {KEYS} TO PUBLIC", "privilege-excess", KEYS),
        (f"ALTER TABLE {KEYS} OWNER TO {{app}}", "role-owns-table", KEYS),
        (f"ALTER TABLE {KEYS} DROP check_value", "key-table-changed", KEYS),
        (f"ALTER TABLE {KEYS} DROP CONSTRAINT tenantguard_keys_pkey", "key-table-changed", KEYS),
        ("ALTER TABLE patients DROP name_bidx", "search-column-missing", PATIENTS),
        (
            "ALTER TABLE patients DROP CONSTRAINT patients_notes_check",
            "format-check-missing",
            PATIENTS,
        ),
        (
            "ALTER TABLE patients DROP CONSTRAINT patients_name_check",
            "format-check-missing",
            PATIENTS,
        ),
        (
            (
                "ALTER TABLE patients DROP CONSTRAINT patients_name_check; "
                f"ALTER TABLE patients ADD CHECK ({SEALED_FORM})"
            ),
            "format-check-missing",
            PATIENTS,
        ),
        (
            "UPDATE pg_constraint SET convalidated = false WHERE conname = 'patients_name_check'",
            "format-check-missing",
            PATIENTS,
        ),
        (
            "ALTER TABLE patients ALTER name_bidx DROP EXPRESSION",
            "search-column-changed",
            PATIENTS,
        ),
        (
            "ALTER TABLE patients DROP name_bidx; ALTER TABLE patients ADD name_bidx "
            + GENERATED.format("substring(notes, 5, 16)"),
            "search-column-changed",
            PATIENTS,
        ),
        (
            (
                "ALTER TABLE patients DROP name_bidx; ALTER TABLE patients ADD name_bidx text "
                "GENERATED ALWAYS AS ('x') STORED"
            ),
            "search-column-changed",
            PATIENTS,
        ),
    ],
)
def test_planted_fault_is_found(applied: World, damage: str, code: str, table: str) -> None:
    """The application's own role finds exactly what would lose keys or make searches wrong."""
    applied.run(damage.replace("{app}", f'"{applied.roles.application}"'))
    assert (code, table) in found(applied)
    assert {each for _, each in found(applied)} == {table}


def test_four_statements_with_encrypted_columns(applied: World) -> None:
    """The whole verification stays at four statements, and a new connection's at one."""
    sent: list[Any] = []

    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
            sent.append(query)
            return super().execute(query, *args, **kwargs)

    with applied.as_application() as connection:
        connection.cursor_factory = Cursor
        assert rls.verify(connection, applied.catalog, applied.roles) == []
        assert len(sent) == 4
        assert rls.verify_role(connection, applied.catalog, applied.roles) == []
        assert len(sent) == 5
        applied.run(f"ALTER TABLE {KEYS} NO FORCE ROW LEVEL SECURITY")
        [off] = rls.verify_role(connection, applied.catalog, applied.roles)
    assert (off.code, off.object) == ("rls-off", KEYS)
