"""The tenant rides on the driver's BEGIN: everywhere, at no extra round trip, and nothing stays."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest
from drivers import ASYNC, DRIVERS, engine_of
from practice import UNKNOWN, A, B, Patient
from proxy import proxy
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    Roles,
    TenantGuard,
    UnknownTenantError,
    UnscopedStatementError,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import Locks, World
    from sqlalchemy import URL, Connection

PATIENTS: Any = Patient.__table__
TENANT = text("SELECT current_setting('tenantguard.tenant', true)")
LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]
# BEGIN, the statement, COMMIT or ROLLBACK.
TRIPS = dict.fromkeys(DRIVERS, 3)

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(autouse=True)
def as_filled(world: World) -> Iterator[None]:
    """What a test has written is gone before the next."""
    yield
    with world.admin.begin() as connection:
        connection.execute(text("DELETE FROM patients WHERE name NOT LIKE 'patient __'"))


def shown(connection: Connection, setting: str) -> str:
    return str(connection.scalar(text(f"SHOW {setting}")))


def stored(world: World, name: str) -> int:
    return sum(1 for row in world.rows("patients", A) if name in row)


@pytest.mark.parametrize("level", LEVELS)
def test_isolation_level_is_kept(locks: Locks, level: Any) -> None:
    """The tenant is added to the driver's own start command, so its isolation level stays."""
    engine = locks.both(isolation_level=level)
    name = f"written in {level}"
    with tenant_context(A), engine.begin() as connection:
        assert shown(connection, "transaction_isolation") == level.lower()
        assert connection.scalar(TENANT) == str(A)
        connection.execute(insert(PATIENTS).values(name=name))
    assert stored(locks.world, name) == 1


@pytest.mark.parametrize("level", LEVELS)
def test_isolation_level_of_one_connection_is_kept(locks: Locks, level: Any) -> None:
    """A level set by execution options holds for that connection and not for the next."""
    engine = locks.both()
    with tenant_context(A):
        with engine.connect().execution_options(isolation_level=level) as connection:
            assert shown(connection, "transaction_isolation") == level.lower()
            assert connection.scalar(TENANT) == str(A)
        with engine.connect() as connection:
            assert shown(connection, "transaction_isolation") == "read committed"


def test_read_only_and_deferrable_are_kept(locks: Locks) -> None:
    """A read-only transaction refuses a write, and knows its tenant."""
    engine = locks.both()
    options = {
        "isolation_level": "SERIALIZABLE",
        "postgresql_readonly": True,
        "postgresql_deferrable": True,
    }
    with tenant_context(A), engine.connect().execution_options(**options) as connection:
        assert shown(connection, "transaction_read_only") == "on"
        assert shown(connection, "transaction_deferrable") == "on"
        assert connection.scalar(TENANT) == str(A)
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(insert(PATIENTS).values(name="never"))


def test_savepoint_rollback_keeps_the_tenant(locks: Locks) -> None:
    """Rolling back to a savepoint leaves the transaction's tenant as it was."""
    engine = locks.both()
    with tenant_context(A), engine.begin() as connection:
        savepoint = connection.begin_nested()
        connection.execute(insert(PATIENTS).values(name="undone"))
        savepoint.rollback()
        assert connection.scalar(TENANT) == str(A)
        connection.execute(insert(PATIENTS).values(name="after savepoint"))
    assert (stored(locks.world, "undone"), stored(locks.world, "after savepoint")) == (0, 1)


def test_commit_in_mid_request_keeps_the_tenant(locks: Locks) -> None:
    """Each transaction is bound anew, so a session that commits goes on for its tenant."""
    with tenant_context(A), Session(locks.both()) as session:
        session.add(Patient(name="first half"))
        session.commit()
        assert session.scalar(TENANT) == str(A)
        session.add(Patient(name="second half"))
        session.commit()
    assert (stored(locks.world, "first half"), stored(locks.world, "second half")) == (1, 1)


@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_two_phase_knows_the_tenant(locks: Locks, end: str) -> None:
    """A two-phase transaction is bound like any other, and ends as it was told to."""
    engine = locks.both()
    name = f"two-phase {end}"
    with tenant_context(A), engine.connect() as connection:
        transaction = connection.begin_twophase()
        assert connection.scalar(TENANT) == str(A)
        connection.execute(insert(PATIENTS).values(name=name))
        transaction.prepare()
        getattr(transaction, end)()
        raw: Any = connection.connection.dbapi_connection
        raw.autocommit = True
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            raw.cursor().execute("SELECT 1")
        raw.autocommit = False
    assert stored(locks.world, name) == (end == "commit")


def test_raw_connection_knows_the_tenant(locks: Locks) -> None:
    """A driver cursor, which no event of SQLAlchemy sees, runs for the tenant."""
    engine = locks.both()
    with tenant_context(A):
        connection = engine.raw_connection()
        cursor = connection.cursor()
        cursor.execute("SELECT DISTINCT tenant_id::text FROM patients")
        assert [tuple(row) for row in cursor.fetchall()] == [(str(A),)]
        connection.rollback()
        connection.close()


def test_raw_connection_without_a_tenant_sees_nothing(locks: Locks) -> None:
    """The second lock alone: no tenant, no rows."""
    connection = locks.both().raw_connection()
    cursor = connection.cursor()
    cursor.execute("SELECT count(*) FROM patients")
    assert cursor.fetchone() == (0,)
    connection.close()


def test_tenant_change_in_an_open_transaction_is_refused(locks: Locks) -> None:
    """The database would go on with the first tenant; so the statement is not sent."""
    with tenant_context(A), locks.both().connect() as connection:
        connection.execute(select(PATIENTS.c.id))
        with (
            tenant_context(B),
            pytest.raises(CrossTenantError, match="begun for another tenant, or for none"),
        ):
            connection.execute(select(PATIENTS.c.id))


def test_core_autobegin_binds_before_the_first_statement(locks: Locks) -> None:
    """An autobegun Core connection knows its tenant with its very first statement."""
    with tenant_context(A), locks.both().connect() as connection:
        assert connection.scalar(TENANT) == str(A)


def test_unknown_tenant_is_refused_once_and_for_all(locks: Locks) -> None:
    """A tenant that the registry does not have is an error, not an empty result."""
    engine = locks.both()
    for _ in range(2):
        with tenant_context(UNKNOWN), engine.connect() as connection:
            with pytest.raises(UnknownTenantError, match="The registry does not have"):
                connection.execute(select(PATIENTS))
            with pytest.raises((CrossTenantError, UnknownTenantError)):
                connection.execute(select(PATIENTS))


@pytest.mark.parametrize("given", ["not-a-uuid", 17, "'; DROP TABLE patients; --", "x" * 4096])
def test_malformed_tenant_is_refused_before_any_sql(locks: Locks, given: Any) -> None:
    """A tenant that does not have the registry's type never reaches the server."""
    engine = locks.both()
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    with (
        tenant_context(given),
        engine.connect() as connection,
        pytest.raises(UnknownTenantError, match="type of the primary key of practices") as caught,
    ):
        connection.execute(select(PATIENTS))
    assert sent == []
    assert str(given) not in str(caught.value)


def test_connection_that_is_not_ours_is_refused(locks: Locks, driver: str) -> None:
    """create_engine(creator=…) makes connections that cannot bind; they are refused."""
    url = locks.world.app_url
    plain: Any = {"host": url.query["host"], "port": url.port or 5432, "user": url.username}
    make: dict[str, Any] = {
        "psycopg": partial(psycopg.connect, dbname=url.database, **plain),
        "psycopg2": partial(psycopg2.connect, dbname=url.database, **plain),
        "psycopg-async": partial(psycopg.AsyncConnection.connect, dbname=url.database, **plain),
        "asyncpg": partial(asyncpg.connect, database=url.database, **plain),
    }
    name = "async_creator" if driver in ASYNC else "creator"
    engine = locks._engine(url, {name: make[driver]})
    locks.world.guard.protect(engine)
    with tenant_context(A), pytest.raises(ConfigurationError, match="did not make"):
        engine.connect()


# -- round trips ------------------------------------------------------------------------------


def test_no_additional_round_trip(locks: Locks, driver: str) -> None:
    """Binding and scrubbing ride on messages that are sent anyway."""
    world = locks.world
    with proxy(world.app_url) as counted, tenant_context(A):
        plain = engine_of(counted.url(world.admin.url), driver)
        guarded = locks._engine(counted.url(world.app_url), {})
        world.guard.protect(guarded)
        trips = {}
        for name, engine in (("plain", plain), ("guarded", guarded)):
            for _ in range(3):
                before = counted.round_trips
                with engine.begin() as connection:
                    connection.execute(select(PATIENTS.c.id)).all()
                trips[name] = counted.round_trips - before
        plain.dispose()
        guarded.dispose()
    assert trips["guarded"] == trips["plain"] == TRIPS[driver]


def test_second_transaction_of_a_checkout_costs_nothing_more(locks: Locks, driver: str) -> None:
    """A commit in mid-request begins again with one message."""
    world = locks.world
    with proxy(world.app_url) as counted, tenant_context(A):
        engine = locks._engine(counted.url(world.app_url), {})
        world.guard.protect(engine)
        with engine.connect() as connection:
            connection.execute(select(PATIENTS.c.id)).all()
            connection.commit()
            before = counted.round_trips
            connection.execute(select(PATIENTS.c.id)).all()
            connection.commit()
            trips = counted.round_trips - before
        engine.dispose()
    assert trips == TRIPS[driver]


# -- the scrub --------------------------------------------------------------------------------

LEFTOVERS = {
    "temporary table": (
        "CREATE TEMP TABLE patients AS SELECT 'planted' AS name",
        "SELECT count(*) FROM pg_class WHERE relname = 'patients' AND relpersistence = 't'",
        0,
    ),
    "held cursor": (
        "DECLARE held CURSOR WITH HOLD FOR SELECT name FROM patients",
        "SELECT count(*) FROM pg_cursors WHERE name = 'held'",
        0,
    ),
    "search_path": ("SET search_path = pg_temp", "SHOW search_path", '"$user", public'),
    "setting": ("SET work_mem = '65kB'", "SELECT current_setting('work_mem') = '65kB'", False),
    "listening": ("LISTEN spy", "SELECT count(*) FROM pg_listening_channels()", 0),
    "advisory lock": (
        "SELECT pg_advisory_lock(4711)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
        0,
    ),
    "read only by default": (
        "SET default_transaction_read_only = on",
        "SHOW default_transaction_read_only",
        "off",
    ),
}


@pytest.mark.parametrize("end", ["commit", "rollback later"])
@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_nothing_survives_check_in(locks: Locks, leftover: str, end: str) -> None:
    """What one tenant left on a pooled connection is gone for the next, also after a rollback."""
    plant, look, expected = LEFTOVERS[leftover]
    engine = locks.both(pool_size=1, max_overflow=0)
    with tenant_context(A), engine.connect() as connection:
        connection.execute(text(plant))
        connection.commit()
        planted = connection.scalar(text(look))
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
    with tenant_context(B), engine.connect() as connection:
        if end == "rollback later":
            connection.execute(text("SELECT 1"))
            connection.rollback()
        assert connection.scalar(text("SELECT pg_backend_pid()")) == pid
        found = connection.scalar(text(look))
    assert planted != expected
    assert found == expected


def test_what_connect_listeners_set_survives(locks: Locks) -> None:
    """The scrub brings a connection back to how the application made it, not to bare defaults."""
    engine = locks._engine(locks.world.app_url, {"pool_size": 1, "max_overflow": 0})

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET search_path = public, pg_catalog")
        cursor.execute("SET TIME ZONE 'Europe/Berlin'")
        cursor.execute("SET statement_timeout = '17s'")
        cursor.close()
        connection.commit()

    locks.world.guard.protect(engine)
    for tenant in (A, B):
        with tenant_context(tenant), engine.connect() as connection:
            assert shown(connection, "search_path") == "public, pg_catalog"
            assert shown(connection, "TimeZone") == "Europe/Berlin"
            assert shown(connection, "statement_timeout") == "17s"
            connection.execute(text("SET statement_timeout = '1s'"))
            connection.commit()


def test_role_set_by_a_tenant_does_not_survive(locks: Locks) -> None:
    """SET ROLE and SET SESSION AUTHORIZATION are undone with the rest."""
    engine = locks.second_alone(pool_size=1, max_overflow=0)
    own = locks.world.guard.roles.application
    with tenant_context(A), engine.connect() as connection:
        connection.execute(text(f'SET ROLE "{own}"'))
        connection.commit()
    with tenant_context(B), engine.connect() as connection:
        assert connection.scalar(text("SELECT current_setting('role')")) == "none"


def test_tenant_set_for_the_session_does_not_survive(locks: Locks) -> None:
    """A tenant that injected SQL set for the whole session is gone for work without a tenant."""
    engine = locks.both(pool_size=1, max_overflow=0)
    with tenant_context(A), engine.connect() as connection:
        connection.execute(text(f"SET tenantguard.tenant = '{B}'"))
        assert connection.scalar(TENANT) == str(B)
        connection.commit()
        assert connection.scalar(TENANT) == str(A)
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SELECT count(*), current_setting('tenantguard.tenant') FROM patients")
    assert cursor.fetchone() == (0, "")
    raw.close()


def test_setting_is_empty_after_the_transaction(locks: Locks) -> None:
    """After commit, rollback and error nothing of the tenant is left on the connection."""
    engine = locks.both(pool_size=1, max_overflow=0)
    with tenant_context(A):
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        with engine.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(text("SELECT 1/0"))
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute("SELECT current_setting('tenantguard.tenant', true)")
    assert cursor.fetchone() == ("",)
    raw.close()


@pytest.mark.parametrize("between", ["nothing", "pooler"])
def test_behind_a_pooler_each_transaction_scrubs(
    locks: Locks, driver: str, between: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler may give each transaction another connection to the server, with leftovers on it."""
    module = import_module(f"tenantguard.binding.{driver.removesuffix('-async')}")
    if between == "pooler":
        # What PgBouncer tells the driver is never the server's own process.
        owner = getattr(module, "TenantBinding", module.TenantConnection)
        monkeypatch.setattr(owner, "server_process", lambda _self: 0)
    with tenant_context(A), locks.both().connect() as connection:
        connection.execute(text("SET work_mem = '65kB'"))
        connection.commit()
        assert (shown(connection, "work_mem") == "65kB") is (between == "nothing")


def test_behind_a_pooler_found_settings_are_not_kept(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a new connection finds set may be another tenant's doing; it is not set again."""
    engine = locks._engine(locks.world.app_url, {})

    @event.listens_for(engine, "connect")
    def found(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET search_path = pg_temp, public")
        cursor.close()
        connection.commit()

    monkeypatch.setattr("tenantguard.binding.engine.PROCESS", "nothing that was asked for")
    locks.world.guard.protect(engine)
    with tenant_context(A), engine.connect() as connection:
        assert shown(connection, "search_path") == '"$user", public'


# -- tenants that are text --------------------------------------------------------------------


@pytest.fixture(scope="module")
def shops(admin_url: URL) -> Iterator[tuple[MetaData, Engine]]:
    """A registry whose key is a text; no policies, for the literal's sake alone."""
    metadata = MetaData()
    Table("shops", metadata, Column("id", String, primary_key=True))
    items = Table("items", metadata, Column("id", Integer, primary_key=True))
    items.append_column(Column("tenant_id", String))
    admin = create_engine(admin_url)
    metadata.create_all(admin)
    yield metadata, admin
    metadata.drop_all(admin)
    admin.dispose()


@pytest.fixture
def of_shops(shops: tuple[MetaData, Engine], driver: str) -> Iterator[Engine]:
    """An engine bound and scoped for the shops."""
    metadata, admin = shops
    guard = TenantGuard(metadata, tenants="shops", roles=Roles())
    guarded = engine_of(admin.url, driver)
    guard._bind(guarded, verify=lambda *_: None)
    guard._scope(guarded, text_allowed=lambda: True)
    yield guarded
    guarded.dispose()


@pytest.mark.parametrize(
    "tenant",
    ["o'brien", "back\\slash", "a';SET ROLE x;--", "$1 %s %(x)s {}", "ä" * 2048, "x" * 4096],
    ids=["quote", "backslash", "injection", "placeholders", "umlauts", "4 KiB"],
)
def test_text_is_sent_as_a_literal(
    shops: tuple[MetaData, Engine], of_shops: Engine, tenant: str
) -> None:
    """A tenant's text is escaped for the driver, whatever it contains."""
    metadata, admin = shops
    items = metadata.tables["items"]
    with admin.begin() as connection:
        upsert = postgresql.insert(metadata.tables["shops"]).values(id=tenant)
        connection.execute(upsert.on_conflict_do_nothing())
        connection.execute(delete(items))
        connection.execute(insert(items).values(tenant_id=tenant))
    with tenant_context(tenant), of_shops.connect() as connection:
        assert connection.scalar(TENANT) == tenant
        assert connection.scalar(select(func.count()).select_from(items)) == 1


@pytest.mark.parametrize("strings", ["on", "off"])
def test_literals_do_not_depend_on_the_servers_settings(
    shops: tuple[MetaData, Engine], of_shops: Engine, strings: str
) -> None:
    """The escaping is right whether a backslash means something in the session's strings or not."""
    tenant = "a\\'; SELECT 'b"
    with shops[1].begin() as connection:
        upsert = postgresql.insert(shops[0].tables["shops"]).values(id=tenant)
        connection.execute(upsert.on_conflict_do_nothing())
    with tenant_context(tenant), of_shops.connect() as connection:
        connection.execute(text(f"SET standard_conforming_strings = {strings}"))
        connection.commit()
        assert connection.scalar(TENANT) == tenant


def test_nul_in_a_text_is_refused(of_shops: Engine) -> None:
    """PostgreSQL cannot store a NUL; such a tenant is malformed."""
    with (
        tenant_context("a\0b"),
        of_shops.connect() as connection,
        pytest.raises(UnknownTenantError, match="type of the primary key"),
    ):
        connection.execute(TENANT)


def test_protecting_twice_is_a_no_op_and_a_second_guard_is_refused(locks: Locks) -> None:
    """One engine has one guard, which attaches once."""
    engine: Engine = locks.both()
    compiler = engine.dialect.statement_compiler
    locks.world.guard.protect(engine)
    assert engine.dialect.statement_compiler is compiler
    other = TenantGuard(Patient.metadata, tenants="practices", roles=locks.world.guard.roles)
    with pytest.raises(ConfigurationError, match="Another TenantGuard protects this engine"):
        other.protect(engine)
