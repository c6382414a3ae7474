"""Connections: nothing of a tenant stays on one, and nothing runs on one without a tenant."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from attacking import BINDING, LOCKS, Stage
from drivers import SYNC
from practice import A, B, Patient
from sqlalchemy import bindparam, select, update
from sqlalchemy.orm import Session

from tenantguard import (
    CrossTenantError,
    UnscopedStatementError,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
SETTING = "SELECT nullif(current_setting('tenantguard.tenant', true), '')"
NAMES = "SELECT name FROM patients ORDER BY name"
PSYCOPG = pytest.mark.drivers("psycopg")


@pytest.fixture(params=BINDING)
def single(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Engine]:
    """An engine with one connection, so that the next check-out gets the same one."""
    engine = getattr(stage.locks, request.param)(pool_size=1, max_overflow=0)
    yield engine
    engine.dispose()


def seen(engine: Engine, query: str) -> list[Any]:
    """What B's next check-out answers to *query*."""
    with tenant_context(B), engine.connect() as connection:
        return list(connection.exec_driver_sql(query).scalars())


LEFTOVERS: dict[str, tuple[str, str, list[Any]]] = {
    "setting": (f"SET tenantguard.tenant = '{A}'", SETTING, [str(B)]),
    "role": ("SET SESSION ROLE none", "SELECT count(*) FROM patients", [3]),
    "search path": (
        "SET search_path = pg_temp",
        "SELECT count(*) FROM patients",
        [3],
    ),
    "time zone": ("SET timezone = 'Pacific/Apia'", "SHOW timezone", []),
    "own setting": (
        "SET app.patient = '42'",
        "SELECT nullif(current_setting('app.patient', true), '')",
        [None],
    ),
    "temporary table": (
        "CREATE TEMP TABLE loot AS SELECT * FROM patients",
        "SELECT to_regclass('pg_temp.loot')::text",
        [None],
    ),
    "temporary view": (
        "CREATE TEMP VIEW orders AS SELECT 1 AS id",
        "SELECT count(*) FROM pg_class WHERE relname = 'orders' AND relkind = 'v'",
        [0],
    ),
    "cursor with hold": (
        "DECLARE loot CURSOR WITH HOLD FOR SELECT name FROM patients",
        "SELECT count(*) FROM pg_cursors WHERE name = 'loot'",
        [0],
    ),
    "advisory lock": (
        "SELECT pg_advisory_lock(42)",
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        [0],
    ),
    "listen": ("LISTEN loot", "SELECT count(*) FROM pg_listening_channels()", [0]),
}


@pytest.mark.parametrize("left", LEFTOVERS)
def test_nothing_is_left_for_the_next_check_out(single: Engine, left: str) -> None:
    """What A leaves on a connection is gone when B takes it from the pool."""
    leave, ask, wanted = LEFTOVERS[left]
    before = seen(single, ask)
    with tenant_context(A), single.connect() as connection:
        connection.exec_driver_sql(leave)
        connection.commit()
    assert seen(single, ask) == before == (wanted or before)


@pytest.mark.parametrize("left", LEFTOVERS)
def test_nothing_is_left_for_the_next_tenant(single: Engine, left: str) -> None:
    """The same holds when A's code hands the checked-out connection itself to B."""
    leave, ask, wanted = LEFTOVERS[left]
    with single.connect() as connection:
        with tenant_context(A):
            connection.exec_driver_sql(leave)
            connection.commit()
        with tenant_context(B):
            found = list(connection.exec_driver_sql(ask).scalars())
            connection.rollback()
    assert found == (wanted or seen(single, ask))


def test_the_leftovers_are_real(stage: Stage) -> None:
    """Negative control: on an unprotected pooled connection A's temporary table is B's to read."""
    engine = stage.locks.none(pool_size=1, max_overflow=0)
    with engine.begin() as connection:
        connection.exec_driver_sql(LEFTOVERS["temporary table"][0])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM loot").scalar_one() >= 3


def _commit(connection: Any) -> None:
    connection.commit()


def _rollback(connection: Any) -> None:
    connection.rollback()


def _fail(connection: Any) -> None:
    with pytest.raises(Exception, match="division by zero"):
        connection.exec_driver_sql("SELECT 1/0")


def _invalidate(connection: Any) -> None:
    connection.invalidate()


def _savepoint(connection: Any) -> None:
    savepoint = connection.begin_nested()
    connection.exec_driver_sql(f"SET LOCAL tenantguard.tenant = '{A}'")
    savepoint.rollback()


def _terminate(connection: Any) -> None:
    raw = connection.connection.driver_connection
    getattr(raw, "terminate", connection.connection.dbapi_connection.close)()


ENDS = [_commit, _rollback, _fail, _invalidate, _savepoint, _terminate]


@pytest.mark.filterwarnings("ignore:.*garbage collector")
@pytest.mark.parametrize("end", ENDS)
def test_however_a_transaction_ends_the_next_is_the_next_tenants(
    single: Engine, end: Callable[[Any], None]
) -> None:
    """After commit, rollback, error or disconnect the setting is the next tenant's own."""
    try:
        with tenant_context(A), single.connect() as connection:
            assert connection.exec_driver_sql(SETTING).scalar() == str(A)
            end(connection)
    except Exception as error:  # noqa: BLE001  (closing a closed connection may complain)
        assert end is _terminate, error  # noqa: PT017
    assert seen(single, SETTING) == [str(B)]
    assert seen(single, NAMES) == ["patient b0", "patient b1", "patient b2"]


def _raw_cursor(engine: Engine) -> list[Any]:
    raw: Any = engine.raw_connection()
    try:
        with raw.cursor() as cursor:
            cursor.execute(NAMES)
            return [name for (name,) in cursor.fetchall()]
    finally:
        raw.close()


def _copy(engine: Engine) -> list[Any]:
    raw: Any = engine.raw_connection()
    try:
        with raw.cursor() as cursor, cursor.copy(f"COPY ({NAMES}) TO STDOUT") as copy:
            return [name for (name,) in copy.rows()]
    finally:
        raw.close()


def _named_cursor(engine: Engine) -> list[Any]:
    raw: Any = engine.raw_connection()
    try:
        with raw.driver_connection.cursor("named") as cursor:
            return [name for (name,) in cursor.execute(NAMES)]
    finally:
        raw.close()


def _pipeline(engine: Engine) -> list[Any]:
    raw: Any = engine.raw_connection()
    try:
        with raw.driver_connection.pipeline():
            found = raw.driver_connection.execute(NAMES)
            return [name for (name,) in found.fetchall()]
    finally:
        raw.close()


def _transaction_block(engine: Engine) -> list[Any]:
    raw: Any = engine.raw_connection()
    try:
        with raw.driver_connection.transaction():
            return [name for (name,) in raw.driver_connection.execute(NAMES).fetchall()]
    finally:
        raw.close()


def _two_phase(engine: Engine) -> list[Any]:
    with engine.connect() as connection, connection.begin_twophase() as transaction:
        found = list(connection.exec_driver_sql(NAMES).scalars())
        transaction.rollback()
        return found


def _after_commit_in_text(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        return list(connection.exec_driver_sql(NAMES).scalars())


def _isolated(engine: Engine) -> list[Any]:
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "serializable"
        return list(connection.exec_driver_sql(NAMES).scalars())


def _detached(engine: Engine) -> list[Any]:
    with engine.connect() as connection:
        connection.detach()
        return list(connection.exec_driver_sql(NAMES).scalars())


RAW = [
    _raw_cursor,
    pytest.param(_copy, marks=PSYCOPG),
    pytest.param(_named_cursor, marks=PSYCOPG),
    pytest.param(_pipeline, marks=PSYCOPG),
    pytest.param(_transaction_block, marks=PSYCOPG),
    _two_phase,
    pytest.param(_after_commit_in_text, marks=pytest.mark.drivers(*SYNC, "psycopg-async")),
    _isolated,
    pytest.param(_detached, marks=pytest.mark.drivers(*SYNC)),
]


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("way", RAW)
def test_the_driver_is_bound_too(
    stage: Stage, way: Callable[[Engine], list[Any]], lock: str
) -> None:
    """What passes by SQLAlchemy runs for the tenant: raw cursors, COPY, pipeline, two-phase."""
    with tenant_context(A):
        assert way(stage.engine(lock)) == ["patient a0", "patient a1", "patient a2"]
    assert "patient b0" in way(stage.engine("none"))


@pytest.mark.drivers("asyncpg")
@pytest.mark.parametrize("lock", BINDING)
def test_a_commit_in_text_ends_the_tenant_s_transaction(stage: Stage, lock: str) -> None:
    """Asyncpg does not begin anew after a COMMIT that was sent as text; so nothing is sent."""
    with tenant_context(A), pytest.raises(UnscopedStatementError):
        _after_commit_in_text(stage.engine(lock))


@pytest.mark.parametrize("lock", BINDING)
def test_a_raw_connection_does_not_change_hands(stage: Stage, lock: str) -> None:
    """The driver's connection refuses another tenant inside its transaction."""
    raw: Any = stage.engine(lock).raw_connection()
    with tenant_context(A):
        raw.cursor().execute(NAMES)
    with tenant_context(B), pytest.raises(CrossTenantError):
        raw.cursor().execute(NAMES)
    with tenant_context(A):
        raw.close()


@pytest.mark.parametrize("lock", LOCKS)
def test_autocommit_is_scoped(stage: Stage, lock: str) -> None:
    """Each execution carries the tenant: reads, batches and text; a raw cursor does not run."""
    engine = stage.engine(lock).execution_options(isolation_level="AUTOCOMMIT")
    changed = update(patients).where(patients.c.id == bindparam("k")).values(name="x")
    both = [{"k": stage.mine.patient}, {"k": stage.theirs.patient}]
    with tenant_context(A), engine.connect() as connection:
        connection.execute(changed, both)
        names = connection.scalars(select(patients.c.name)).all()
        assert "x" in names
        assert stage.theirs.name not in names
        with pytest.raises(UnscopedStatementError):
            connection.connection.cursor().execute("SELECT 1")


@pytest.mark.parametrize("lock", LOCKS)
def test_a_session_in_autocommit_is_scoped(stage: Stage, lock: str) -> None:
    """Execution options on a session's connection open no way round."""
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        assert {each.tenant_id for each in session.scalars(select(Patient))} == {A}
        assert session.get(Patient, stage.theirs.patient) is None


@pytest.mark.parametrize("lock", LOCKS)
def test_executemany_may_come_first(stage: Stage, lock: str) -> None:
    """A batch as a transaction's first statement is bound, and reaches own rows only."""
    rows = [{"k": stage.mine.patient, "n": "mine"}, {"k": stage.theirs.patient, "n": "evil"}]
    batch = update(patients).where(patients.c.id == bindparam("k")).values(name=bindparam("n"))
    with tenant_context(A), stage.engine(lock).begin() as connection:
        result = connection.execute(batch, rows)
        assert result.rowcount == 1 or not connection.dialect.supports_sane_multi_rowcount
    named = {row[2] for tenant in (A, B) for row in stage.world.rows("patients", tenant)}
    assert "mine" in named
    assert "evil" not in named


@pytest.mark.parametrize("lock", BINDING)
def test_a_pooled_connection_is_checked_before_use(stage: Stage, lock: str) -> None:
    """`pool_pre_ping` asks outside any tenant's transaction, and the tenant is bound after it."""
    engine = getattr(stage.locks, lock)(pool_pre_ping=True, pool_size=1, max_overflow=0)
    for tenant, letter in ((A, "a"), (B, "b"), (A, "a")):
        with tenant_context(tenant), engine.connect() as connection:
            assert connection.exec_driver_sql(NAMES).scalars().first() == f"patient {letter}0"


@pytest.mark.drivers(*SYNC)
def test_threads_cannot_share_a_connection_across_tenants(stage: Stage) -> None:
    """A thread that uses another tenant's open connection is refused."""
    with tenant_context(A), stage.engine("both").connect() as connection:
        connection.execute(select(patients))

        def steal() -> Any:
            with tenant_context(B):
                return connection.execute(select(patients)).all()

        with ThreadPoolExecutor(1) as pool, pytest.raises(CrossTenantError):
            pool.submit(steal).result()
