"""What is not proven is said, with the reason; who may prove; which rows serve."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from practice import A, B
from signing_world import build_signed
from sqlalchemy import Column, MetaData, Table, Uuid, create_engine
from zoo import ZOO, Zoo, build_zoo

from tenantguard import ConfigurationError, TenantGuard
from tenantguard.prove import State, prove, trial
from tenantguard.prove.case import NOTHING
from tenantguard.prove.probes import PROBES, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

WORDS = "unguessable words"
_ID = "id bigserial PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES practices"
TABLES = {
    **{name: ZOO[name] for name in ("plain", "parents", "children", "one_to_one", "without_key")},
    "digests": f"({_ID}, a text NOT NULL CHECK (md5(a) = 'dd997c54f3ddf7420604e6c022ed64bb'))",
    "snapshots": f"({_ID}, a pg_snapshot NOT NULL)",
    "refusing": f"({_ID}, a int)",
    "swallowing": f"({_ID}, a int)",
    "either_or": "(tenant_id uuid NOT NULL REFERENCES practices, a int, b int, UNIQUE (a, b), "
    "CHECK (num_nonnulls(a, b) = 1))",
    "between_stools": f"({_ID}, a int NOT NULL CHECK (a > 5 AND a < 5))",
}
MORE = """
CREATE FUNCTION refusing() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'never'; END $$;
CREATE FUNCTION swallowing() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER refusing BEFORE INSERT ON refusing FOR EACH ROW EXECUTE FUNCTION refusing();
CREATE TRIGGER swallowing BEFORE INSERT ON swallowing FOR EACH ROW EXECUTE FUNCTION swallowing();
"""
UNPROVABLE = {
    **{
        name: f"No value was found for a of public.{name} that fulfils its check ({name}_a_check)."
        for name in ("digests", "between_stools")
    },
    "snapshots": "No value is known for column a of public.snapshots, whose type is pg_snapshot.",
    "refusing": "No valid row could be invented for public.refusing: PostgreSQL refused (P0001).",
    "swallowing": "A trigger or a rule keeps the invented row out.",
}


@pytest.fixture(scope="module")
def zoo(admin_url: URL) -> Iterator[Zoo]:
    built = build_zoo(admin_url, TABLES, MORE)
    yield built
    built.dispose()


@pytest.mark.parametrize("name", UNPROVABLE)
def test_a_table_without_a_valid_row_is_not_proven(zoo: Zoo, name: str) -> None:
    """Never green, and the reason names the column, the constraint or PostgreSQL's code."""
    result = prove(zoo.admin, zoo.guard.catalog, zoo.guard.roles, tables=[name])
    [table] = result.tables
    assert table.state is State.NOT_PROVEN
    assert table.reasons == (UNPROVABLE[name],)
    assert [(each.what, each.reason) for each in result.result.unseen] == [
        (f"public.{name}", UNPROVABLE[name])
    ]
    assert result.result.looked == ()


def test_a_probe_that_never_goes_red_proves_nothing(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its negative control finds as little as the probe itself."""
    blind = Probe("blind", "is never noticed", lambda _: NOTHING, ("read",))
    monkeypatch.setattr(trial, "PROBES", (*PROBES, blind))
    found = zoo.prove("plain")["plain"]
    assert found.state is State.NOT_PROVEN
    assert "blind" not in found.held
    [reason] = found.reasons
    assert reason.startswith("Probe blind found nothing although its negative control")


def test_a_control_that_takes_nothing_away_proves_nothing(
    zoo: Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_without_policies", lambda _: "SELECT")
    found = zoo.prove("plain")["plain"]
    assert found.state is State.NOT_PROVEN
    assert set(found.held) == {"truncate"}
    assert len(found.reasons) == len(PROBES) - 1


def test_a_table_whose_keys_have_null_is_not_proven(zoo: Zoo) -> None:
    """No row there conflicts with another, so an upsert reaches none whatever policies say."""
    found = zoo.prove("either_or")["either_or"]
    assert found.state is State.NOT_PROVEN
    [reason] = found.reasons
    assert reason == (
        "Probe upsert says nothing: a row has NULL in each key, so nothing conflicts. Put rows of "
        "two tenants there that have none, and run it with --samples existing."
    )
    assert {"read", "insert", "move"} <= set(found.held)


def test_an_unknown_table_is_refused(zoo: Zoo) -> None:
    with pytest.raises(ConfigurationError, match="no table 'materials' holds rows of tenants"):
        zoo.prove("materials")


def test_a_table_that_the_database_does_not_have_is_not_proven(zoo: Zoo) -> None:
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    Table("ghosts", metadata, Column("id", Uuid, primary_key=True), Column("tenant_id", Uuid))
    Table("nobodys", metadata, Column("id", Uuid, primary_key=True))
    guard = TenantGuard(metadata, tenants="practices", roles=zoo.guard.roles)
    found = {each.table: each for each in prove(zoo.admin, guard.catalog, guard.roles).tables}
    assert found["public.ghosts"].reasons == (
        "The database has no such table. Run the migrations first.",
    )
    assert found["public.nobodys"].reasons[0].startswith("It is unclassified.")
    assert found["public.practices"].state is State.PROVEN
    assert found["public.nobodys"].state is found["public.ghosts"].state is State.NOT_PROVEN


def test_a_value_that_the_connection_sets_is_found(zoo: Zoo) -> None:
    """A default of the database would open every unbound session."""
    name = zoo.admin.url.database
    zoo.run(f"ALTER DATABASE {name} SET tenantguard.tenant = '{A}'")
    engine = create_engine(zoo.admin.url)
    try:
        proof = prove(engine, zoo.guard.catalog, zoo.guard.roles, tables=["plain"])
    finally:
        engine.dispose()
        zoo.run(f"ALTER DATABASE {name} RESET tenantguard.tenant")
    assert {each.code for each in proof.result.findings} == {"prove-left-over"}
    assert [each.message.split()[0] for each in proof.findings] == ["After", "Before"]


def test_a_lost_connection_is_one_line(zoo: Zoo) -> None:
    """It says what to do, and not that the tables are proven, or broken."""
    engine = create_engine(zoo.admin.url, connect_args={"application_name": "lost"})

    def lose(*_: Any) -> None:
        zoo.ask(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE application_name = 'lost'"
        )

    try:
        with pytest.raises(ConfigurationError, match=r"were not all tried: .* run it again"):
            prove(engine, zoo.guard.catalog, zoo.guard.roles, progress=lose)
    finally:
        engine.dispose()


# -- existing rows ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled(zoo: Zoo) -> Zoo:
    zoo.run(
        f"""INSERT INTO practices VALUES ('{A}', 'a1', 'free'), ('{B}', 'b1', 'free');
        INSERT INTO digests (tenant_id, a) VALUES ('{A}', '{WORDS}'), ('{B}', '{WORDS}'),
            ('{B}', '{WORDS}');
        INSERT INTO parents (tenant_id, name) VALUES ('{A}', 'x'), ('{B}', 'y');
        INSERT INTO children (tenant_id, parent_id) SELECT tenant_id, id FROM parents;
        INSERT INTO one_to_one (tenant_id, parent_id) SELECT tenant_id, id FROM parents;
        INSERT INTO without_key (tenant_id, a) VALUES ('{A}', 'x'), ('{B}', 'y');
        INSERT INTO plain (tenant_id) VALUES ('{A}')"""
    )
    return zoo


@pytest.mark.parametrize("name", ["digests", "parents", "children", "one_to_one", "without_key"])
def test_rows_that_are_there_serve(filled: Zoo, name: str) -> None:
    """Also where none could be invented, and where other rows refer to them."""
    before = filled.counts()
    found = filled.prove(name, samples="existing")[name]
    assert found.reasons == ()
    assert found.state is State.PROVEN
    assert {"read", "insert", "move", "update", "delete"} <= set(found.held)
    assert filled.counts() == before


def test_rows_of_one_tenant_do_not_serve(filled: Zoo) -> None:
    found = filled.prove("plain", samples="existing")["plain"]
    assert found.state is State.NOT_PROVEN
    assert "rows of fewer than two tenants" in found.reasons[0]


def test_a_fault_is_found_among_rows_that_are_there(filled: Zoo) -> None:
    filled.run("ALTER TABLE digests DISABLE ROW LEVEL SECURITY")
    try:
        found = filled.prove("digests", samples="existing")["digests"]
    finally:
        filled.run("ALTER TABLE digests ENABLE ROW LEVEL SECURITY")
    assert found.state is State.BROKEN
    assert {"prove-read", "prove-insert", "prove-move"} <= {each.code for each in found.findings}


# -- other admins, other drivers -------------------------------------------------------------


@pytest.fixture
def owner(zoo: Zoo) -> Iterator[str]:
    """A login that owns the tables and is no superuser."""
    name = f"{zoo.guard.roles.owner}_login"
    application = zoo.guard.roles.application
    moving = "".join(
        f'ALTER TABLE "{each.name}" OWNER TO {name};' for each in zoo.guard.catalog.tables()
    )
    zoo.run(
        f"CREATE ROLE {name} LOGIN; GRANT {application} TO {name}; "
        f"GRANT USAGE ON SCHEMA public TO {name}; {moving}"
    )
    yield name
    zoo.run(f"REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}; DROP ROLE {name}")


def test_the_owner_can_prove(zoo: Zoo, owner: str) -> None:
    """FORCE is in its way, and lifted for the rows that it makes."""
    engine = create_engine(zoo.admin.url.set(username=owner))
    try:
        proof = prove(
            engine, zoo.guard.catalog, zoo.guard.roles, tables=["plain", "children", "practices"]
        )
    finally:
        engine.dispose()
    assert {each.reasons for each in proof.tables} == {()}
    assert {each.state for each in proof.tables} == {State.PROVEN}
    assert zoo.ask("SELECT DISTINCT relforcerowsecurity FROM pg_class WHERE relname = 'plain'") == [
        (True,)
    ]


def test_an_owner_who_cannot_become_the_application_proves_nothing(zoo: Zoo, owner: str) -> None:
    zoo.run(f"REVOKE {zoo.guard.roles.application} FROM {owner}")
    engine = create_engine(zoo.admin.url.set(username=owner))
    try:
        with pytest.raises(ConfigurationError, match=r"cannot act as .* grant that role"):
            prove(engine, zoo.guard.catalog, zoo.guard.roles, tables=["plain"])
    finally:
        engine.dispose()


def test_the_application_itself_proves_nothing(zoo: Zoo) -> None:
    """Once, not once a table: it says whose login is needed."""
    engine = create_engine(zoo.app_url)
    try:
        with pytest.raises(ConfigurationError, match=r"owns none .* --admin-url a superuser"):
            prove(engine, zoo.guard.catalog, zoo.guard.roles)
    finally:
        engine.dispose()


def test_a_table_of_another_owner_is_not_proven(zoo: Zoo, owner: str) -> None:
    """The reason says who may try it; the other tables are proven all the same."""
    zoo.run("ALTER TABLE plain OWNER TO CURRENT_USER")
    engine = create_engine(zoo.admin.url.set(username=owner))
    try:
        proof = prove(engine, zoo.guard.catalog, zoo.guard.roles, tables=["plain", "without_key"])
    finally:
        engine.dispose()
    states = {each.table: each.state for each in proof.tables}
    assert states == {"public.plain": State.NOT_PROVEN, "public.without_key": State.PROVEN}
    [reason] = [each.reasons[0] for each in proof.tables if each.reasons]
    assert "(42501, InsufficientPrivilege)" in reason
    assert "Give --admin-url a superuser's address" in reason


def test_the_other_driver_proves_as_much(zoo: Zoo) -> None:
    engine = create_engine(zoo.admin.url.set(drivername="postgresql+psycopg2"))
    try:
        proof = prove(
            engine, zoo.guard.catalog, zoo.guard.roles, tables=["plain", "children", "digests"]
        )
    finally:
        engine.dispose()
    states = {each.table: each.state for each in proof.tables}
    assert states.pop("public.digests") is State.NOT_PROVEN
    assert set(states.values()) == {State.PROVEN}
    assert {each.held for each in proof.tables if each.table == "public.plain"} == {
        zoo.prove("plain")["plain"].held
    }


# -- views, and the signed setting -----------------------------------------------------------


def test_a_view_is_proven_by_the_rows_of_its_tables(new_database: Callable[[], URL]) -> None:
    """As its invoker it is; as its owner it shows both tenants' rows."""
    zoo = build_zoo(new_database(), {"parents": ZOO["parents"]}, "")
    zoo.run(
        "CREATE VIEW names WITH (security_invoker) AS SELECT tenant_id, name FROM parents; "
        f"GRANT SELECT ON names TO {zoo.guard.roles.application}"
    )
    metadata = MetaData()
    metadata.reflect(zoo.admin, only=["parents", "practices"])
    Table("names", metadata, Column("tenant_id", Uuid), info={"is_view": True})
    guard = TenantGuard(metadata, tenants="practices", roles=zoo.guard.roles)
    seeing = Zoo(zoo.admin, guard, zoo.app_url)
    proven = seeing.prove("names")["names"]
    zoo.run("ALTER VIEW names SET (security_invoker = off)")
    open_ = seeing.prove("names")["names"]
    zoo.dispose()
    assert (proven.state, proven.reasons) == (State.PROVEN, ())
    assert {"read", "copy", "unset", "prepared"} <= set(proven.held)
    assert open_.state is State.BROKEN
    assert {"prove-read", "prove-unset"} <= {each.code for each in open_.findings}


def test_a_signed_setting_is_proven_with_signatures(
    new_database: Callable[[], URL], tmp_path: Path
) -> None:
    """And a tenant that nobody signed is found where only the plain policies stand."""
    world = build_signed(new_database(), tmp_path / "signing.json")
    guard, key = world.guard, world.guard.signing_keys().primary

    def proven(**options: Any) -> Any:
        [found] = prove(
            world.admin, guard.catalog, guard.roles, tables=["orders"], **options
        ).tables
        return found

    signed, keyless = proven(signing_key=key), proven()
    with world.admin.begin() as connection:
        connection.exec_driver_sql("DROP POLICY tenantguard_application_floor ON orders")
    forged = proven(signing_key=key)
    world.dispose()
    assert (signed.state, signed.reasons) == (State.PROVEN, ())
    assert "forged" in signed.held
    assert keyless.state is State.NOT_PROVEN
    assert "no key to sign with" in keyless.reasons[0]
    assert [each.code for each in forged.findings] == ["prove-forged"]


def test_a_table_without_a_tenant_column_is_application_only(
    new_database: Callable[[], URL],
) -> None:
    tables = {
        "parents": ZOO["parents"],
        "notes": "(parent_id bigint NOT NULL REFERENCES parents)",
    }
    zoo = build_zoo(new_database(), tables, "")
    proof = prove(zoo.admin, zoo.guard.catalog, zoo.guard.roles)
    zoo.dispose()
    assert {each.table: each.state for each in proof.tables} == {
        "public.notes": State.APPLICATION_ONLY,
        "public.parents": State.PROVEN,
        "public.practices": State.PROVEN,
    }
    assert proof.result.unseen == ()
