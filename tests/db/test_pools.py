"""Pools: whichever hands a connection out, and whatever listens, the tenant is the right one."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS, SYNC
from driving import NAMES, ONE, serves_next, stored
from practice import A, B, Patient
from proxy import proxy
from sqlalchemy import event, insert, select, text
from sqlalchemy.exc import InterfaceError, InvalidRequestError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool, StaticPool

from tenantguard import CrossTenantError, UnscopedStatementError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import Locks

PATIENTS: Any = Patient.__table__
NAME = "through a pool"
TENANT = "SELECT nullif(current_setting('tenantguard.tenant', true), '')"

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(autouse=True)
def as_filled(locks: Locks) -> Iterator[None]:
    yield
    with locks.world.admin.begin() as connection:
        connection.execute(text(f"DELETE FROM patients WHERE name = '{NAME}'"))


def process(connection: Any) -> int:
    return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": NullPool},
        {"poolclass": StaticPool},
        {**ONE, "pool_recycle": 0},
        {**ONE, "pool_pre_ping": True},
        {**ONE, "pool_reset_on_return": "commit"},
        {**ONE, "pool_use_lifo": True},
    ],
    ids=["null", "static", "recycle", "pre-ping", "commit on return", "lifo"],
)
def test_each_pool_serves_each_tenant(locks: Locks, options: dict[str, Any]) -> None:
    """Reads and writes go to the tenant of the moment, and a write is where it belongs."""
    engine = locks.both(**options)
    for tenant in (A, B, A, B):
        serves_next(engine, locks.world, tenant)
    with tenant_context(A), engine.begin() as connection:
        connection.execute(insert(PATIENTS).values(name=NAME))
    assert NAME in stored(locks.world, A)
    assert NAME not in stored(locks.world, B)
    serves_next(engine, locks.world)


def test_a_pool_without_reset_does_not_hand_on_a_transaction(locks: Locks) -> None:
    """With reset_on_return=None a raw connection comes back as it is; it is thrown away."""
    engine = locks.both(**ONE, pool_reset_on_return=None)
    with tenant_context(A):
        raw = engine.raw_connection()
        raw.cursor().execute(f"UPDATE patients SET name = '{NAME}'")
        raw.close()
    for tenant in (B, A):
        with suppress(UnscopedStatementError):
            serves_next(engine, locks.world, tenant)
            assert tenant == A
        serves_next(engine, locks.world, tenant)
    assert NAME not in stored(locks.world, A)


def test_a_static_connection_has_one_tenant_at_a_time(locks: Locks) -> None:
    """Handed out twice at once it serves who began; the other is refused."""
    engine = locks.both(poolclass=StaticPool)
    with tenant_context(A):
        first = engine.connect()
    with tenant_context(B):
        second = engine.connect()
        assert list(second.exec_driver_sql(NAMES).scalars()) == stored(locks.world, B)
    with tenant_context(A), pytest.raises(CrossTenantError, match="begun for another tenant"):
        first.exec_driver_sql(NAMES)
    with tenant_context(B):
        second.rollback()
    first.rollback()
    with tenant_context(A):
        assert list(first.exec_driver_sql(NAMES).scalars()) == stored(locks.world, A)
        first.rollback()
    first.close()
    second.close()
    serves_next(engine, locks.world)


def test_a_static_connection_in_a_transaction_is_not_handed_out(locks: Locks) -> None:
    """While A's transaction is open nobody else gets the connection."""
    engine = locks.both(poolclass=StaticPool)
    with tenant_context(A):
        first = engine.connect()
        first.execute(insert(PATIENTS).values(name=NAME))
    with tenant_context(B), pytest.raises(UnscopedStatementError, match="still open"):
        engine.connect()
    with suppress(InterfaceError, OperationalError, InvalidRequestError), tenant_context(A):
        first.close()
    assert NAME not in [*stored(locks.world, A), *stored(locks.world, B)]
    serves_next(engine, locks.world)


def test_a_new_pool_serves_on(locks: Locks) -> None:
    """`dispose()` with a connection out: it stays its tenant's, and the new pool verifies."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql(NAMES)
        engine.dispose()
        serves_next(engine, locks.world)
        assert list(connection.exec_driver_sql(NAMES).scalars()) == stored(locks.world, A)
        with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another tenant"):
            connection.exec_driver_sql(NAMES)
        connection.invalidate()
    serves_next(engine, locks.world)


@pytest.mark.parametrize("way", ["invalidate", "soft"])
def test_an_invalidated_connection_is_replaced(locks: Locks, way: str) -> None:
    """What was begun is gone; the next connection is another one, and bound."""
    engine = locks.both(**ONE)
    with tenant_context(A):
        with engine.connect() as connection:
            before = process(connection)
            connection.execute(insert(PATIENTS).values(name=NAME))
            if way == "invalidate":
                connection.invalidate()
            else:
                connection.connection.invalidate(soft=True)
        with engine.connect() as connection:
            assert process(connection) != before
    assert NAME not in stored(locks.world, A)
    serves_next(engine, locks.world)


def test_a_detached_connection_stays_bound(locks: Locks, driver: str) -> None:
    """Outside of the pool a connection serves the tenant of the moment, and only that one."""
    engine = locks.both(**ONE)
    with engine.connect() as connection:
        connection.detach()
        detached: Any = connection.connection.dbapi_connection
        for tenant in (A, B, A):
            with tenant_context(tenant):
                found = connection.exec_driver_sql(NAMES).scalars()
                assert list(found) == stored(locks.world, tenant)
                connection.commit()
    if driver not in SYNC:
        detached.close()
    serves_next(engine, locks.world)


@pytest.mark.parametrize("when", ["checkout", "checkin"])
@pytest.mark.parametrize("registered", ["before", "after"])
@pytest.mark.parametrize("end", ["commit", None])
def test_listeners_of_the_application_run_safely(
    locks: Locks, when: str, registered: str, end: str | None
) -> None:
    """SQL in a pool's event sees the tenant's rows or none, and an open transaction is refused."""
    engine = locks._engine(locks.world.app_url, ONE)
    seen: set[str | None] = set()

    def look(connection: Any, *_: Any) -> None:
        if connection is None:  # it was invalidated
            return
        cursor = connection.cursor()
        cursor.execute(TENANT)
        seen.add(cursor.fetchone()[0])
        cursor.close()
        if end:
            connection.commit()

    if registered == "before":
        event.listen(engine, when, look)
    locks.world.guard.protect(engine)
    if registered == "after":
        event.listen(engine, when, look)
    for tenant in (A, B, A):
        refused = False
        try:
            serves_next(engine, locks.world, tenant)
        except UnscopedStatementError:
            refused = True
        assert not (refused and end)
        assert seen <= {None, str(tenant)}
        seen.clear()


def trips(engine: Any, counted: Any) -> int:
    """Count what the third check-out, transaction and commit of *engine* cost."""
    for _ in range(3):
        time.sleep(0.02)  # what closes a connection is on its way
        before = counted.round_trips
        with engine.connect() as connection:
            connection.execute(select(PATIENTS.c.id)).all()
            connection.commit()
            spent = counted.round_trips - before
    return int(spent)


# A transaction that looks at the settings and the role; asyncpg prepares each question.
NEW = {"psycopg": 4, "psycopg2": 4, "psycopg-async": 4, "asyncpg": 6}


@pytest.mark.parametrize("pool", ["pre-ping", "null"])
def test_only_a_new_connection_costs_a_round_trip_more(
    locks: Locks, driver: str, pool: str
) -> None:
    """A pooled connection costs what it costs without us; a new one is examined first."""
    world = locks.world
    options = {"poolclass": NullPool} if pool == "null" else {**ONE, "pool_pre_ping": True}
    with proxy(world.app_url) as counted, tenant_context(A):
        plain = locks._engine(counted.url(world.admin.url), options)
        guarded = locks._engine(counted.url(world.app_url), options)
        world.guard.protect(guarded)
        more = trips(guarded, counted) - trips(plain, counted)
        plain.dispose()
        guarded.dispose()
    assert more == (NEW[driver] if pool == "null" else 0)


def test_session_closed_after_its_tenants_block_gives_its_connection_back(locks: Locks) -> None:
    """Also in a savepoint, which closing has to roll back first."""
    engine = locks.both(pool_size=1, max_overflow=0, pool_timeout=1)
    for tenant in (A, B):
        session = Session(engine)
        with tenant_context(tenant):
            session.begin_nested()
            assert session.scalar(select(Patient.id)) is not None
        session.close()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
