"""AUTOCOMMIT: each execution is a transaction of its own, which carries the tenant and commits."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS, engine_of
from driving import NAMES, ONE, serves_next, stored
from practice import UNKNOWN, A, B, Order, Patient
from proxy import proxy
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    Sequence,
    String,
    Table,
    Uuid,
    delete,
    event,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.orm import Session

from tenantguard import (
    CrossTenantError,
    TenantGuard,
    TenantNotSetError,
    UnknownTenantError,
    UnscopedStatementError,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import Locks
    from sqlalchemy import Connection, Engine

PATIENTS: Any = Patient.__table__
TENANT = text("SELECT current_setting('tenantguard.tenant', true)")
ALONE = {"isolation_level": "AUTOCOMMIT"}
EVERY_LOCK = ("both", "first_alone", "second_alone")
LEFT = "left behind"
# BEGIN with the tenant, the statement, COMMIT.
TRIPS = 3
EXPECTED = nullcontext()

pytestmark = pytest.mark.parametrize("driver", DRIVERS)
every_lock = pytest.mark.parametrize("lock", EVERY_LOCK)


@pytest.fixture(autouse=True)
def as_filled(locks: Locks) -> Iterator[None]:
    """Nothing that a test wrote is B's, and all of it is gone before the next."""
    before = stored(locks.world, B)
    yield
    assert stored(locks.world, B) == before
    with locks.world.admin.begin() as connection:
        connection.execute(text("DELETE FROM patients WHERE name NOT LIKE 'patient __'"))


def own(locks: Locks, lock: str = "both", options: Any = None) -> Engine:
    """An engine in AUTOCOMMIT."""
    engine: Engine = getattr(locks, lock)(**ALONE, **(options or {}))
    return engine


def written(locks: Locks, name: str = LEFT) -> int:
    return stored(locks.world, A).count(name)


def raw_of(connection: Connection) -> Any:
    return connection.connection.dbapi_connection


# -- what AUTOCOMMIT promises -------------------------------------------------------------------


@every_lock
@pytest.mark.parametrize("where", ["engine", "connection", "option engine"])
def test_each_statement_is_committed_by_itself(locks: Locks, lock: str, where: str) -> None:
    """A write is there for everybody before the connection is closed, and after its rollback."""
    engine = getattr(locks, lock)(**(ALONE if where == "engine" else {}))
    if where == "option engine":
        engine = engine.execution_options(**ALONE)
    with tenant_context(A), engine.connect() as connection:
        if where == "connection":
            connection.execution_options(**ALONE)
        for number in (1, 2):
            connection.execute(insert(PATIENTS).values(name=LEFT, tenant_id=A))
            assert written(locks) == number
        connection.rollback()
    assert written(locks) == 2


def test_core_orm_and_text_run_for_the_tenant(locks: Locks) -> None:
    """Whatever SQLAlchemy sends knows its tenant, and rows can be read after the commit."""
    with tenant_context(A), own(locks).connect() as connection:
        found = connection.execute(select(PATIENTS.c.name).order_by(PATIENTS.c.name))
        assert connection.scalar(TENANT) == str(A)
        assert found.scalars().all() == stored(locks.world, A)
        driver_sql = connection.exec_driver_sql(NAMES)
        assert connection.execute(text(NAMES)).scalars().all() == stored(locks.world, A)
        assert driver_sql.scalars().all() == stored(locks.world, A)


def test_a_session_works(locks: Locks) -> None:
    """Flush, lazy load, refresh and get are scoped; what was flushed a rollback does not undo."""
    with tenant_context(A), Session(own(locks)) as session:
        patient = Patient(name=LEFT, orders=[Order(what="crown")])
        session.add(patient)
        session.flush()
        assert written(locks) == 1
        session.commit()
        assert [order.what for order in patient.orders] == ["crown"]
        session.refresh(patient)
        assert session.get(Patient, patient.id) is patient
        patient.name = "changed"
        session.flush()
        session.rollback()
        assert session.scalar(select(func.count()).select_from(Patient)) == 4
    assert (written(locks), written(locks, "changed")) == (0, 1)


def test_the_tenant_may_change_between_statements(locks: Locks) -> None:
    """No transaction is open between them; each is its own tenant's, on one connection."""
    with own(locks, options=ONE).connect() as connection:
        for tenant in (A, B, A):
            with tenant_context(tenant):
                found = connection.scalars(select(PATIENTS.c.name).order_by(PATIENTS.c.name))
                assert found.all() == stored(locks.world, tenant)


def test_nothing_is_left_on_the_connection(locks: Locks) -> None:
    """After each statement no transaction is open, no tenant is set and autocommit is on."""
    engine = own(locks, options=ONE)
    with tenant_context(A), engine.connect() as connection:
        for statement in (select(PATIENTS), insert(PATIENTS).values(name=LEFT)):
            connection.execute(statement)
            assert raw_of(connection).autocommit
            driven: Any = connection.connection.driver_connection
            assert not driven.in_transaction()
            assert not driven.tenantguard.alone
    raw = engine.raw_connection()
    state = raw.driver_connection.tenantguard  # type: ignore[union-attr]
    # Like the pool's own queries, this one is not bound.
    state.check_outs = 0
    cursor = raw.cursor()
    cursor.execute("SELECT current_setting('tenantguard.tenant', true)")
    assert cursor.fetchone() == ("",)
    state.check_outs = 1
    raw.close()


def test_a_connection_goes_back_to_its_own_level(locks: Locks) -> None:
    """AUTOCOMMIT by execution options ends with the check-out."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect().execution_options(**ALONE) as connection:
        connection.execute(insert(PATIENTS).values(name=LEFT))
    with tenant_context(A), engine.connect() as connection:
        connection.execute(insert(PATIENTS).values(name=LEFT))
        connection.rollback()
    assert written(locks) == 1


# -- attacks ------------------------------------------------------------------------------------


@every_lock
def test_another_tenants_rows_are_not_reached(locks: Locks, lock: str) -> None:
    """Reads show own rows, updates and deletes reach no other, with each lock alone too."""
    theirs = locks.world.rows("patients", B)[0][0]
    with tenant_context(A), own(locks, lock).connect() as connection:
        found = connection.scalars(select(PATIENTS.c.name).order_by(PATIENTS.c.name))
        assert found.all() == stored(locks.world, A)
        at = PATIENTS.c.id == theirs
        assert connection.execute(update(PATIENTS).where(at).values(name="x")).rowcount == 0
        assert connection.execute(delete(PATIENTS).where(at)).rowcount == 0


@every_lock
def test_a_row_of_another_tenant_is_refused(locks: Locks, lock: str) -> None:
    """A foreign tenant in a write is an error, and the connection goes on for its own."""
    with tenant_context(A), own(locks, lock).connect() as connection:
        with pytest.raises((CrossTenantError, DBAPIError), match=r"tenant|row-level security"):
            connection.execute(insert(PATIENTS).values(name=LEFT, tenant_id=B))
        connection.execute(insert(PATIENTS).values(name=LEFT, tenant_id=A))
    assert written(locks) == 1


@pytest.mark.parametrize("lock", ["both", "second_alone"])
def test_text_reaches_own_rows_only(locks: Locks, lock: str) -> None:
    """Row-level security has the tenant, whatever the text asks for."""
    with tenant_context(A), own(locks, lock).connect() as connection:
        assert connection.execute(text(NAMES)).scalars().all() == stored(locks.world, A)
        assert (
            connection.exec_driver_sql(f"DELETE FROM patients WHERE tenant_id = '{B}'").rowcount
            == 0
        )


def test_without_a_tenant(locks: Locks) -> None:
    """Tenant data and text are refused as in a transaction; what needs no tenant runs."""
    with own(locks).connect() as connection:
        for statement in (select(PATIENTS), text("SELECT 1")):
            with pytest.raises(TenantNotSetError):
                connection.execute(statement)
        assert connection.scalar(select(1)) == 1


def test_an_unknown_tenant_is_refused(locks: Locks) -> None:
    """The registry is asked as ever; the same connection then serves a tenant that it has."""
    with own(locks, options=ONE).connect() as connection:
        for _ in range(2):
            with tenant_context(UNKNOWN), pytest.raises(UnknownTenantError):
                connection.execute(select(PATIENTS))
        with tenant_context(A):
            connection.execute(insert(PATIENTS).values(name=LEFT))
    assert written(locks) == 1


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["SELECT 1/0", "SELEC 1", "VACUUM patients"])
def test_a_failed_statement_leaves_the_connection_usable(locks: Locks, wrong: str) -> None:
    """What was written before stays, and what comes after runs."""
    with tenant_context(A), own(locks).connect() as connection:
        connection.execute(insert(PATIENTS).values(name=LEFT))
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql(wrong)
        connection.execute(insert(PATIENTS).values(name=LEFT))
    assert written(locks) == 2


def test_what_cannot_run_in_a_transaction_says_so(locks: Locks) -> None:
    """PostgreSQL's own error names the statement."""
    with (
        tenant_context(A),
        own(locks).connect() as connection,
        pytest.raises(DBAPIError, match="VACUUM cannot run inside a transaction block"),
    ):
        connection.exec_driver_sql("VACUUM patients")


@pytest.mark.parametrize("returning", [True, False])
def test_a_batch_is_one_transaction(locks: Locks, returning: bool) -> None:  # noqa: FBT001
    """When one of many rows fails none is there, also where SQLAlchemy sends them in parts."""
    taken = locks.world.rows("patients", A)[0][0]
    many = [{"name": LEFT, "id": number} for number in (90001, 90002, taken)]
    statement: Any = insert(PATIENTS)
    if returning:
        statement = statement.returning(PATIENTS.c.id)
    options = {"insertmanyvalues_page_size": 1}
    with tenant_context(A), own(locks).connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(statement, many, execution_options=options)
        assert written(locks) == 0
        connection.execute(statement, many[:2], execution_options=options)
        assert written(locks) == 2


@pytest.fixture
def late(locks: Locks) -> Iterator[None]:
    """A constraint that is checked at COMMIT and fails."""
    made = """
    CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'too late' USING ERRCODE = '23514'; END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON patients DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.name = 'late') EXECUTE FUNCTION late()
    """
    with locks.world.admin.begin() as connection:
        connection.execute(text(made))
    yield
    with locks.world.admin.begin() as connection:
        connection.execute(text("DROP FUNCTION late() CASCADE"))


@pytest.mark.usefixtures("late")
def test_an_error_at_commit_is_the_statements(locks: Locks) -> None:
    """A deferred constraint fails where the statement was executed, and nothing was written."""
    with tenant_context(A), own(locks).connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(insert(PATIENTS).values(name="late"))
        connection.execute(insert(PATIENTS).values(name=LEFT))
    assert (written(locks, "late"), written(locks)) == (0, 1)


def test_a_lost_connection_is_replaced(locks: Locks) -> None:
    """The next execution gets a new one, in AUTOCOMMIT too."""
    engine = own(locks, options=ONE)
    with tenant_context(A), engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        with locks.world.admin.begin() as admin:
            admin.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        with pytest.raises(DBAPIError):
            connection.execute(insert(PATIENTS).values(name=LEFT))
        connection.rollback()
        connection.execute(insert(PATIENTS).values(name=LEFT))
        assert written(locks) == 1
    serves_next(engine, locks.world)


def test_a_listener_that_raises_loses_no_write(locks: Locks) -> None:
    """Its execution ends with it: what is executed afterwards is refused, or committed."""
    engine = own(locks, options=ONE)

    @event.listens_for(engine, "before_cursor_execute")
    def raises(*args: Any) -> None:
        if "boom" in args[2]:
            raise RuntimeError("boom")

    write = insert(PATIENTS).values(name=LEFT)
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(RuntimeError, match="boom"):
            connection.exec_driver_sql("SELECT 'boom'")
        # SQLAlchemy 2.0 does not tell the execution of it.
        refused = raw_of(connection).autocommit is False
        with pytest.raises(UnscopedStatementError, match="has not ended") if refused else EXPECTED:
            connection.execute(write)
        assert written(locks) == (0 if refused else 1)
    with tenant_context(A), engine.connect() as connection:
        before = written(locks)
        connection.execute(write)
        assert written(locks) == before + 1


def test_a_connection_with_an_unfinished_execution_is_not_pooled(locks: Locks) -> None:
    """Whether it is in AUTOCOMMIT again is not certain, so the pool makes another."""
    engine = own(locks, options=ONE)
    with tenant_context(A), engine.connect() as connection:
        broken: Any = connection.connection.driver_connection
        # As an event listener leaves it that raises where SQLAlchemy tells nobody.
        broken.tenantguard.alone = True
        with pytest.raises(UnscopedStatementError, match="has not ended"):
            connection.execute(select(PATIENTS))
    with tenant_context(A), engine.connect() as connection:
        assert connection.connection.driver_connection is not broken
        connection.execute(insert(PATIENTS).values(name=LEFT))
    assert written(locks) == 1


@pytest.mark.parametrize("name", ["before_cursor_execute", "after_cursor_execute"])
def test_a_listener_that_executes_is_refused(locks: Locks, name: str) -> None:
    """Whose transaction it would run in is not clear, so it does not run."""
    engine = own(locks)

    @event.listens_for(engine, name)
    def executes(connection: Connection, *_: Any) -> None:
        connection.execute(insert(PATIENTS).values(name=LEFT))

    with (
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises(UnscopedStatementError, match="has not ended"),
    ):
        connection.execute(select(PATIENTS))
    assert written(locks) == 0


# -- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"stream_results": True}, {"yield_per": 1}])
def test_server_side_cursors_are_refused(locks: Locks, options: dict[str, Any]) -> None:
    """Their rows would be fetched after the transaction; the error says what to do instead."""
    with tenant_context(A), own(locks).connect() as connection:
        with pytest.raises(UnscopedStatementError, match="isolation_level='READ COMMITTED'"):
            connection.execute(select(PATIENTS), execution_options=options)
        connection.execute(insert(PATIENTS).values(name=LEFT))
        assert written(locks) == 1
    level = {"isolation_level": "READ COMMITTED"}
    with tenant_context(A), own(locks).connect().execution_options(**level) as connection:
        found = connection.execute(select(PATIENTS.c.name), execution_options=options)
        assert sorted(found.scalars()) == stored(locks.world, A)


def test_savepoints_are_refused(locks: Locks) -> None:
    """A savepoint would be gone at once, and its rollback would undo nothing."""
    with (
        tenant_context(A),
        own(locks).connect() as connection,
        pytest.raises(UnscopedStatementError, match="savepoints and two-phase need"),
    ):
        connection.begin_nested()
    with (
        tenant_context(A),
        Session(own(locks)) as session,
        pytest.raises(UnscopedStatementError, match="savepoints and two-phase need"),
        session.begin_nested(),
    ):
        session.scalars(select(Patient))


def test_two_phase_is_refused(locks: Locks) -> None:
    """There is no transaction that could be prepared."""
    with (
        tenant_context(A),
        own(locks).connect() as connection,
        # psycopg and psycopg2 refuse it themselves; SQLAlchemy 2.0, for psycopg's asynchronous one.
        pytest.raises(Exception, match=r"(?i)autocommit|two-?phase|tpc"),
    ):
        connection.begin_twophase()


@pytest.mark.parametrize("lock", ["both", "second_alone"])
def test_a_raw_cursor_is_refused(locks: Locks, lock: str) -> None:
    """Nobody would commit it; before, between and after executions."""
    with tenant_context(A), own(locks, lock).connect() as connection:
        for _ in range(2):
            with pytest.raises(UnscopedStatementError, match="only a statement of SQLAlchemy's"):
                connection.connection.cursor().execute(NAMES)
            connection.execute(insert(PATIENTS).values(name=LEFT))
    assert written(locks) == 2


# -- what SQLAlchemy sends before the statement -------------------------------------------------


def numbered(locks: Locks, sequence: str) -> tuple[Engine, Any]:
    """An engine, and patients whose numbers come of *sequence*, which is asked by itself."""
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    table = Table(
        "patients",
        metadata,
        Column("id", Integer, Sequence(sequence), primary_key=True),
        Column("tenant_id", Uuid),
        Column("name", String),
        implicit_returning=False,
    )
    engine = engine_of(locks.world.app_url, locks.driver, **ALONE)
    locks._engines.append(engine)
    roles = locks.world.guard.roles
    guard = TenantGuard(metadata, tenants="practices", roles=roles)
    guard._bind(engine, verify=lambda *_: None)
    guard._scope(engine, text_allowed=lambda: True)
    return engine, table


def test_a_columns_sequence_runs_for_the_tenant(locks: Locks) -> None:
    """A sequence that is asked for the key before the INSERT is asked in a transaction too."""
    engine, table = numbered(locks, "patients_id_seq")
    with tenant_context(A), engine.connect() as connection:
        result = connection.execute(insert(table).values(name=LEFT))
        assert result.inserted_primary_key is not None
        assert isinstance(result.inserted_primary_key[0], int)
    assert written(locks) == 1


def test_a_sequence_that_fails_leaves_the_connection_usable(locks: Locks) -> None:
    """The transaction that it was asked in is rolled back."""
    engine, table = numbered(locks, "missing_seq")
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(StatementError, match="missing_seq"):
            connection.execute(insert(table).values(name=LEFT))
        connection.execute(insert(table).values(name=LEFT, id=4711))
    assert written(locks) == 1


# -- round trips --------------------------------------------------------------------------------


def test_round_trips(locks: Locks, driver: str) -> None:
    """A statement in AUTOCOMMIT costs what a transaction with one statement costs."""
    world = locks.world
    with proxy(world.app_url) as counted, tenant_context(A):
        engines = {
            "plain": engine_of(counted.url(world.admin.url), driver, **ALONE),
            "guarded": locks._engine(counted.url(world.app_url), ALONE),
        }
        world.guard.protect(engines["guarded"])
        trips = {}
        for name, engine in engines.items():
            with engine.connect() as connection:
                for _ in range(3):
                    before = counted.round_trips
                    connection.execute(select(PATIENTS.c.id)).all()
                    trips[name] = counted.round_trips - before
            engine.dispose()
    assert trips == {"plain": 1, "guarded": TRIPS}
