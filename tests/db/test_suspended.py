"""Suspended tenants: refused from the next transaction on, once the registry is asked again."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS
from driving import NAMES, ONE, driven, inside, serves_next, stored, wait
from practice import A, B, Base, Order, Practice
from proxy import proxy
from sqlalchemy import ColumnElement, and_, column, not_, or_, text
from sqlalchemy.exc import DBAPIError

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    TenantGuard,
    TenantSuspendedError,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from locks import Locks, World
    from sqlalchemy import Engine

REGISTRY: Any = Practice.__table__


def of_registry(name: str) -> Any:
    """A column that the database has and the models do not."""
    return column(name, _selectable=REGISTRY)


STATUS = """it's 100% \\ "over" %(x)s :y — aus"""
SINCE: ColumnElement[bool] = of_registry("suspended_at").is_not(None)
SUSPENSIONS: dict[str, tuple[ColumnElement[bool], str]] = {
    "timestamp": (SINCE, "suspended_at = now()"),
    "boolean": (of_registry("locked").is_(True), "locked = true"),
    "text": (of_registry("status") == STATUS, "status = :status"),
    "like": (of_registry("status").like("it's 100\\%%"), "status = :status"),
    "any of": (or_(SINCE, of_registry("status").in_(["x", STATUS])), "status = :status"),
    "none of": (not_(and_(of_registry("locked").is_(None), SINCE.is_(False))), "locked = true"),
}

pytestmark = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(autouse=True)
def columns(world: World) -> Iterator[None]:
    """Columns that say who is suspended."""
    added = ("suspended_at timestamptz", "locked boolean", "status text")
    with world.admin.begin() as connection:
        for each in added:
            connection.execute(text(f"ALTER TABLE practices ADD COLUMN {each}"))
    yield
    with world.admin.begin() as connection:
        for each in added:
            connection.execute(text(f"ALTER TABLE practices DROP COLUMN {each.split()[0]}"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The registry's clock, in seconds; a test sets it."""
    now = [1000.0]
    monkeypatch.setattr("tenantguard.registry.monotonic", lambda: now[0])
    return now


def suspending(
    locks: Locks, condition: ColumnElement[bool] = SINCE, url: Any = None
) -> tuple[Engine, TenantGuard]:
    guard = TenantGuard(
        Base.metadata, tenants="practices", roles=locks.world.guard.roles, suspended=condition
    )
    engine = locks._engine(url or locks.world.app_url, ONE)
    guard._bind(engine, verify=lambda *_: None)
    return engine, guard


def suspend(world: World, how: str = "suspended_at = now()") -> None:
    with world.admin.begin() as connection:
        setting = text(f"UPDATE practices SET {how} WHERE id = :tenant")
        values = {"status": STATUS} if ":status" in how else {}
        connection.execute(setting, {"tenant": A, **values})


def refused(engine: Engine) -> None:
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(TenantSuspendedError, match="active tenant is suspended") as caught:
            connection.exec_driver_sql(NAMES)
        assert str(A) not in f"{caught.value!r} {caught.value} {caught.value.__cause__}"


@pytest.mark.parametrize("kind", SUSPENSIONS)
def test_a_suspended_tenant_is_refused(locks: Locks, kind: str) -> None:
    """Whatever the condition says with, it is refused, others are not, and it may come back."""
    condition, how = SUSPENSIONS[kind]
    engine, _ = suspending(locks, condition)
    suspend(locks.world, how)
    for _ in range(2):
        refused(engine)
        serves_next(engine, locks.world, B)
    suspend(locks.world, "suspended_at = NULL, locked = NULL, status = NULL")
    serves_next(engine, locks.world, A)


def test_the_registrys_word_holds_for_a_while(locks: Locks, clock: list[float]) -> None:
    """A tenant suspended meanwhile is refused when the word has run out, and not later."""
    engine, _ = suspending(locks)
    serves_next(engine, locks.world, A)
    suspend(locks.world)
    clock[0] += 29
    serves_next(engine, locks.world, A)
    clock[0] += 1
    refused(engine)
    suspend(locks.world, "suspended_at = NULL")
    serves_next(engine, locks.world, A)


def test_a_commit_in_mid_request_asks_again(locks: Locks, clock: list[float]) -> None:
    """The next transaction of a long request is refused too."""
    engine, _ = suspending(locks)
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql(NAMES)
        connection.commit()
        suspend(locks.world)
        clock[0] += 31
        with pytest.raises(TenantSuspendedError, match="active tenant is suspended"):
            connection.exec_driver_sql(NAMES)


def test_nothing_is_read_where_beginning_was_refused(locks: Locks) -> None:
    """A transaction that is still open is nobody's, also not that of the one before."""
    engine, _ = suspending(locks)
    suspend(locks.world)
    found: Sequence[str] = ()
    with engine.connect() as connection:
        with tenant_context(B):
            connection.exec_driver_sql(NAMES)
            connection.commit()
        with tenant_context(A), pytest.raises(TenantSuspendedError):
            connection.exec_driver_sql(NAMES)
        with tenant_context(B), suppress(CrossTenantError):
            found = connection.exec_driver_sql(NAMES).scalars().all()
    assert set(found) <= set(stored(locks.world, B))


def test_asking_costs_no_round_trip(locks: Locks, driver: str, clock: list[float]) -> None:
    """The question rides on BEGIN; psycopg2, which cannot, sends it apart."""
    world = locks.world
    with proxy(world.app_url) as counted:
        engine, _ = suspending(locks, url=counted.url(world.app_url))
        spent = []
        for seconds in (0, 0, 31):
            clock[0] += seconds
            before = counted.round_trips
            with tenant_context(A), engine.begin() as connection:
                connection.exec_driver_sql(NAMES).all()
            spent.append(counted.round_trips - before)
        engine.dispose()
    assert spent[2] - spent[1] == (driver == "psycopg2")


def _two_phase(connection: Any, _names: list[str]) -> None:
    connection.begin_twophase()
    connection.exec_driver_sql(NAMES)


def _raw(connection: Any, _names: list[str]) -> None:
    connection.connection.cursor().execute(NAMES)


def _batch(connection: Any, names: list[str]) -> None:
    update = text("UPDATE patients SET name = :name WHERE name = :name")
    connection.execute(update, [{"name": name} for name in names])


@pytest.mark.parametrize("first", [_two_phase, _raw, _batch])
def test_every_way_to_begin_asks(locks: Locks, first: Callable[[Any, list[str]], None]) -> None:
    """Two-phase, the driver's own cursor and a batch are refused like a statement."""
    engine, _ = suspending(locks)
    suspend(locks.world)
    # In psycopg's pipeline, which a batch is, the transaction fails by itself.
    with (
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises((TenantSuspendedError, DBAPIError), match=r"suspended|by zero"),
    ):
        first(connection, stored(locks.world, A))
    serves_next(engine, locks.world, B)


def test_a_block_of_the_driver_is_refused(locks: Locks, driver: str) -> None:
    """A transaction that the driver's own block begins is refused, and the next tenant served."""
    engine, _ = suspending(locks)
    suspend(locks.world)
    with driven(engine, A) as connection:
        block = connection if driver == "psycopg2" else connection.transaction()
        with pytest.raises(TenantSuspendedError, match="active tenant is suspended"), inside(block):
            wait(getattr(connection, "execute", connection.cursor().execute)(NAMES))
    serves_next(engine, locks.world, B)


def test_a_condition_on_another_table_is_refused(locks: Locks) -> None:
    """The registry alone says who is suspended."""
    with pytest.raises(ConfigurationError, match="the columns of practices only"):
        suspending(locks, Order.cents > 0)
