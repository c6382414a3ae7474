"""All drivers: however their work is broken off or shared, the next tenant gets only its own."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from drivers import ASYNC, DRIVERS, SYNC
from driving import NAMES, ONE, pause, serves_next, stored
from practice import UNKNOWN, A, B, Patient
from proxy import proxy
from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only

from tenantguard import (
    ConfigurationError,
    TenantGuard,
    UnknownTenantError,
    UnsafeRoleError,
    tenant_context,
)
from tenantguard.rls import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import Locks, World

PATIENTS: Any = Patient.__table__
LEFT = "left behind"
every_driver = pytest.mark.parametrize("driver", DRIVERS)
asynchronous = pytest.mark.parametrize("driver", ASYNC)
preparing = pytest.mark.parametrize("driver", ["psycopg", *ASYNC])
synchronous = pytest.mark.parametrize("driver", SYNC)


@pytest.fixture(autouse=True)
def nothing_is_left(locks: Locks) -> Iterator[None]:
    """No test's broken work belongs to B, and what was committed for A is gone afterwards."""
    yield
    assert LEFT not in stored(locks.world, B)
    with locks.world.admin.begin() as connection:
        connection.execute(text(f"DELETE FROM patients WHERE name = '{LEFT}'"))


def state_of(connection: Any) -> Any:
    return connection.connection.driver_connection.tenantguard


def refusal(engine: Engine, world: World) -> str | None:
    """What the next check-out says, if it does not serve B."""
    try:
        serves_next(engine, world)
    except DBAPIError as error:
        return f"{error!r} {error}"
    return None


@pytest.mark.parametrize(
    ("driver", "argument"),
    [
        ("psycopg-async", "async_creator_fn"),
        ("asyncpg", "connection_class"),
        ("psycopg2", "connection_factory"),
    ],
)
def test_another_connection_class_is_refused(locks: Locks, argument: str) -> None:
    """connect_args cannot put another class in the place of the one that binds."""
    engine = locks.both(connect_args={argument: object})
    with tenant_context(A), pytest.raises(ConfigurationError, match=f"remove {argument} from"):
        engine.connect()


@every_driver
def test_an_unknown_tenant_leaves_the_connection_usable(locks: Locks) -> None:
    """A refused BEGIN is over: the same connection serves the next tenant."""
    engine = locks.both(**ONE)
    serves_next(engine, locks.world)
    with tenant_context(UNKNOWN), engine.connect() as connection:
        connection_before = connection.connection.driver_connection
        with pytest.raises(UnknownTenantError, match="does not have the active tenant"):
            connection.exec_driver_sql(NAMES)
    serves_next(engine, locks.world)
    with tenant_context(A), engine.connect() as connection:
        assert connection.connection.driver_connection is connection_before


@every_driver
def test_a_connection_that_cannot_be_cleaned_is_not_kept(locks: Locks, driver: str) -> None:
    """When the scrub fails nobody gets the connection, and the error does not name the tenant."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        state_of(connection).scrub = ["SELECT 1/0"]
        broken = connection.connection.driver_connection
    said = [refusal(engine, locks.world) for _ in range(3)]
    # psycopg2 carries out the scrub with the first statement, and after that failed apart.
    assert [bool(each) for each in said] == [True, driver == "psycopg2", False]
    assert str(B) not in str(said)
    with tenant_context(A), engine.connect() as connection:
        assert connection.connection.driver_connection is not broken


@every_driver
def test_a_timeout_left_behind_does_not_end_the_scrub(locks: Locks) -> None:
    """The scrub resets the settings before it does what takes long."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        state = state_of(connection)
        connection.exec_driver_sql("SET statement_timeout = '150ms'")
        connection.commit()
        state.scrub = [state.scrub[0], "SELECT pg_sleep(0.3)", *state.scrub[1:]]
    serves_next(engine, locks.world)


@every_driver
@pytest.mark.parametrize("when", ["idle", "in a transaction"])
def test_a_lost_connection_is_replaced(locks: Locks, when: str) -> None:
    """A backend that is gone raises; what it had begun is not there, and the next is served."""
    engine = locks.both(**ONE)
    kill = text("SELECT pg_terminate_backend(:pid, 5000)")
    with tenant_context(A), engine.connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        connection.execute(insert(PATIENTS).values(name=LEFT))
        if when == "idle":
            connection.rollback()
        with locks.world.admin.begin() as admin:
            assert admin.execute(kill, {"pid": pid}).scalar_one()
        with pytest.raises(DBAPIError):
            connection.exec_driver_sql(NAMES)
    serves_next(engine, locks.world)
    assert LEFT not in stored(locks.world, A)


@every_driver
def test_a_failed_verification_hands_nothing_out(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it finds something or breaks, the connection is not used; later another one is."""
    engine = locks.both(**ONE)

    def breaks(*_: Any) -> list[Finding]:
        raise RuntimeError("broken")

    found = [Finding("role-superuser", "role", "The role is a superuser.", "Use another.")]
    with tenant_context(A), monkeypatch.context() as patched:
        patched.setattr("tenantguard.rls.verify", breaks)
        with pytest.raises(RuntimeError, match="broken"):
            engine.connect()
        patched.setattr("tenantguard.rls.verify", lambda *_: found)
        with pytest.raises(UnsafeRoleError, match="is a superuser"):
            engine.connect()
    serves_next(engine, locks.world)


@every_driver
def test_a_statement_timeout_ends_one_statement(locks: Locks) -> None:
    """What PostgreSQL cancelled leaves neither the tenant nor the timeout behind."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        connection.execute(insert(PATIENTS).values(name=LEFT))
        connection.exec_driver_sql("SET statement_timeout = '50ms'")
        with pytest.raises(DBAPIError, match="statement timeout"):
            connection.exec_driver_sql("SELECT pg_sleep(5)")
    serves_next(engine, locks.world)
    assert LEFT not in stored(locks.world, A)


@pytest.mark.parametrize("driver", ["psycopg"])
def test_an_interrupt_ends_one_statement(locks: Locks) -> None:
    """After Ctrl-C the pool serves the next tenant."""
    engine = locks.both(**ONE)
    serves_next(engine, locks.world)
    previous = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with tenant_context(A), engine.connect() as connection:
            connection.execute(insert(PATIENTS).values(name=LEFT))
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                connection.exec_driver_sql("SELECT pg_sleep(5)")
    finally:
        signal.signal(signal.SIGALRM, previous)
    serves_next(engine, locks.world)
    assert LEFT not in stored(locks.world, A)


@asynchronous
@pytest.mark.parametrize("after", [0.5, 1.5, 2.5, 3.5])
def test_a_cancelled_task_leaves_nothing(locks: Locks, driver: str, after: float) -> None:
    """Cancelled in BEGIN, in the statement or in COMMIT, *after* so many round trips."""
    delay = 0.015
    with proxy(locks.world.app_url, delay=delay) as between:
        # A libpq older than 17 cancels with Python's lock held, which the proxy needs.
        slow = driver == "asyncpg" or psycopg.capabilities.has_cancel_safe()
        url = between.url(locks.world.app_url) if slow else locks.world.app_url
        engine = locks._engine(url, ONE)
        locks.world.guard.protect(engine)

        async def write() -> None:
            with tenant_context(A):
                async with AsyncEngine(engine).begin() as connection:
                    await connection.execute(insert(PATIENTS).values(name=LEFT))

        async def cancel() -> bool:
            task = asyncio.create_task(write())
            await pause(after * 2 * delay)
            task.cancel()
            return isinstance(
                (await asyncio.gather(task, return_exceptions=True))[0], BaseException
            )

        serves_next(engine, locks.world)
        cancelled = await_only(cancel())
        serves_next(engine, locks.world)
        serves_next(engine, locks.world, A)
        engine.dispose()
    # Whoever is cancelled in COMMIT cannot know how it ended.
    assert cancelled or LEFT in stored(locks.world, A)
    assert after > 2 or not slow or LEFT not in stored(locks.world, A)


@asynchronous
def test_tasks_of_two_tenants_share_a_small_pool(locks: Locks) -> None:
    """A hundred tasks on two connections: each sees its tenant's rows before and after a commit."""
    engine = locks.both(pool_size=2, max_overflow=0)
    own = {tenant: stored(locks.world, tenant) for tenant in (A, B)}

    async def work(tenant: Any) -> None:
        with tenant_context(tenant):
            async with AsyncEngine(engine).connect() as connection:
                for _ in range(2):
                    found = await connection.exec_driver_sql(NAMES)
                    assert list(found.scalars()) == own[tenant]
                    await connection.commit()
                    await pause(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(work(tenant) for tenant in (A, B) * 50))

    await_only(all_of_them())


@synchronous
def test_threads_of_two_tenants_share_a_small_pool(locks: Locks) -> None:
    """A hundred jobs on two connections: each sees its tenant's rows before and after a commit."""
    engine = locks.both(pool_size=2, max_overflow=0)
    own = {tenant: stored(locks.world, tenant) for tenant in (A, B)}

    def work(tenant: Any) -> bool:
        with tenant_context(tenant), engine.connect() as connection:
            first = list(connection.exec_driver_sql(NAMES).scalars())
            connection.commit()
            return first == list(connection.exec_driver_sql(NAMES).scalars()) == own[tenant]

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(work, (A, B) * 50))


# -- statements that SQL text has prepared ------------------------------------------------------


@preparing
@pytest.mark.parametrize("lock", ["both", "second_alone"])
def test_what_sql_has_prepared_is_not_there_for_the_next(locks: Locks, lock: str) -> None:
    """Drivers run what they prepared by its name, so nothing under such a name may be another's."""
    engine = getattr(locks, lock)(**ONE)
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql("PREPARE planted AS DELETE FROM patients")
        connection.commit()
    said = refusal(engine, locks.world)
    assert said is None or "could not be begun" in said
    serves_next(engine, locks.world)
    with tenant_context(B), engine.connect() as connection:
        query = "SELECT count(*) FROM pg_prepared_statements WHERE name = 'planted'"
        assert connection.exec_driver_sql(query).scalar_one() == 0


@preparing
def test_a_statement_planted_under_the_drivers_name_does_not_run(locks: Locks, driver: str) -> None:
    """A replaces what the driver prepared; B's next use of it does not run what A has planted."""
    at_once = {} if driver == "asyncpg" else {"connect_args": {"prepare_threshold": 0}}
    engine = locks.both(**ONE, **at_once)
    query = select(PATIENTS.c.name).order_by(PATIENTS.c.id)
    own = stored(locks.world, B)
    # Not rolled back: psycopg would forget what it has prepared.
    with tenant_context(B), engine.begin() as connection:
        assert connection.scalars(query).all() == own
    with tenant_context(A), engine.connect() as connection:
        find = text(
            "SELECT name FROM pg_prepared_statements WHERE position('ORDER BY patients' in "
            "statement) > 0 AND NOT from_sql AND statement NOT LIKE '%pg_prepared%'"
        )
        name = connection.scalar(find)
        connection.exec_driver_sql(f"DEALLOCATE {name}")
        connection.exec_driver_sql(f"PREPARE {name} AS UPDATE patients SET name = '{LEFT}'")
        connection.commit()
    refusal(engine, locks.world)
    with tenant_context(B), engine.begin() as connection:
        assert connection.scalars(query).all() == own
    assert stored(locks.world, B) == own


@every_driver
def test_only_what_the_first_lock_has_not_compiled_is_suspected(locks: Locks) -> None:
    """Looking for prepared statements is not free; work without text is spared it."""
    engine = locks.both(**ONE)
    for work, suspected in (
        (select(PATIENTS.c.name), False),
        (select(PATIENTS.c.name), False),
        (text("SELECT 1"), False),
        (select(PATIENTS.c.name), True),
        (select(PATIENTS.c.name), False),
    ):
        with tenant_context(A), engine.begin() as connection:
            assert state_of(connection).suspect is suspected
            connection.execute(work)


@every_driver
def test_a_statement_that_fails_vouches_for_nothing_after_it(locks: Locks) -> None:
    """What a raw cursor sends after an error is suspected like any other."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(DBAPIError):
            connection.execute(select(PATIENTS.c.id / 0))
        connection.rollback()
        connection.connection.cursor().execute("SELECT 1")
    with tenant_context(A), engine.connect() as connection:
        assert state_of(connection).suspect


# -- what the session's settings do to the tenant's text ----------------------------------------


@pytest.fixture(scope="module")
def shops(admin_url: Any) -> Iterator[tuple[MetaData, Engine]]:
    """A registry of texts; in LATIN1 the bytes of the first spell the second."""
    metadata = MetaData()
    table = Table("shops", metadata, Column("id", String, primary_key=True))
    admin = create_engine(admin_url)
    metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(table), [{"id": "ä"}, {"id": "Ã¤"}])
    yield metadata, admin
    metadata.drop_all(admin)
    admin.dispose()


@every_driver
def test_a_tenant_is_the_same_in_every_encoding(
    locks: Locks, shops: tuple[MetaData, Engine]
) -> None:
    """What a session's client_encoding is does not change whose transaction it is."""
    guard = TenantGuard(shops[0], tenants="shops")
    engine = locks._engine(shops[1].url, ONE)
    guard._bind(engine, verify=lambda *_: None)
    is_short = "SELECT octet_length(current_setting('tenantguard.tenant'))"
    with tenant_context("ä"), engine.connect() as connection:
        connection.exec_driver_sql("SET client_encoding = 'LATIN1'")
        connection.commit()
        assert connection.exec_driver_sql(is_short).scalar_one() == len("ä".encode())
