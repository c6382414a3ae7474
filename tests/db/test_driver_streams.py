"""The drivers' own server-side cursors, and asynchronous sessions: rows stay with their tenant."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from drivers import ASYNC, DRIVERS, engine_of
from driving import NAMES, ONE, driven, serves_next, wait
from practice import A, B, Base, Patient
from sqlalchemy import Engine, select
from sqlalchemy.exc import ResourceClosedError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.util import await_only

from tenantguard import CrossTenantError, TenantGuard, TenantNotSetError, tenant_context
from tenantguard.context import no_tenant

if TYPE_CHECKING:
    from collections.abc import Callable

    from locks import Locks

OWN = ["patient a0", "patient a1", "patient a2"]
LOCKS = ("both", "second_alone")
every_driver = pytest.mark.parametrize("driver", DRIVERS)
with_hold = pytest.mark.parametrize("driver", [each for each in DRIVERS if each != "asyncpg"])


class Cursor:
    """A driver's own server-side cursor over the patients' names."""

    def __init__(self, connection: Any, **options: Any) -> None:
        self._transaction: Any = None
        if hasattr(connection, "fetchrow"):
            self._transaction = connection.transaction()
            wait(self._transaction.start())
            self._cursor = wait(connection.cursor(NAMES))
            self._fetch = self._cursor.fetch
        else:
            self._cursor = connection.cursor("names", **options)
            wait(self._cursor.execute(NAMES))
            self._fetch = self._cursor.fetchmany

    def fetch(self, size: int) -> list[str]:
        return [row[0] for row in wait(self._fetch(size))]

    def close(self) -> None:
        wait(self._transaction.rollback() if self._transaction else self._cursor.close())

    def others(self) -> list[Callable[[], Any]]:
        """Other ways to move it, or to read on."""
        ways = [getattr(self._cursor, name, None) for name in ("fetchone", "fetchall")]
        steps = [getattr(self._cursor, name, None) for name in ("forward", "scroll")]
        return [*filter(None, ways), *(partial(step, 1) for step in steps if step)]


@every_driver
@pytest.mark.parametrize("lock", LOCKS)
def test_a_drivers_cursor_does_not_change_hands(locks: Locks, lock: str) -> None:
    """What a server-side cursor still has to fetch is fetched by its tenant only."""
    engine = getattr(locks, lock)(**ONE)
    with driven(engine, A) as connection:
        cursor = Cursor(connection)
        found = cursor.fetch(1)
        for other in (tenant_context(B), no_tenant()):
            with other, pytest.raises(CrossTenantError, match="begun for another"):
                cursor.fetch(1)
        for way in cursor.others():
            with tenant_context(B), pytest.raises(CrossTenantError):
                wait(way())
        assert [*found, *cursor.fetch(5)] == OWN
        with tenant_context(B):
            cursor.close()
    serves_next(engine, locks.world)


@with_hold
@pytest.mark.parametrize("lock", LOCKS)
def test_a_held_cursor_does_not_change_hands(locks: Locks, lock: str) -> None:
    """A cursor that outlives its transaction is its tenant's, also while no transaction is open."""
    engine = getattr(locks, lock)(**ONE)
    hold = {"withhold": True}
    with driven(engine, A) as connection:
        cursor = Cursor(connection, **hold)
        wait(connection.commit())
        with tenant_context(B), pytest.raises(Exception, match=r"begun for another|not exist"):
            cursor.fetch(1)
        wait(connection.rollback())
        # psycopg2 began B's transaction for it, which closed what A held.
        with suppress(psycopg2.errors.InvalidCursorName):
            cursor.close()
    with driven(engine, A) as connection:
        cursor = Cursor(connection, **hold)
        wait(connection.commit())
        assert cursor.fetch(5) == OWN
        cursor.close()
    serves_next(engine, locks.world)


def _asynchronous(engine: Engine) -> AsyncSession:
    return AsyncSession(AsyncEngine(engine))


@pytest.mark.parametrize("driver", ASYNC)
def test_an_asynchronous_stream_does_not_change_hands(locks: Locks) -> None:
    """`AsyncSession.stream` and its likes give the rows that wait in memory to their tenant."""

    async def work() -> None:
        async with _asynchronous(locks.both()) as session:
            for size in (1, 2, None):
                options = {"yield_per": size} if size else {}
                with tenant_context(A):
                    query = select(Patient).order_by(Patient.name)
                    rows = await session.stream_scalars(query, execution_options=options)
                    found = [(await anext(rows)).name]
                with tenant_context(B), pytest.raises(CrossTenantError, match="streamed result"):
                    await anext(rows)
                with pytest.raises(TenantNotSetError, match="fetch all rows"):
                    await rows.all()
                with tenant_context(A):
                    found += [patient.name async for patient in rows]
                assert found == OWN
                await rows.close()
            await session.close()

    await_only(work())


@pytest.mark.parametrize("driver", ASYNC)
def test_what_async_execute_fetched_stays_with_who_has_it(locks: Locks) -> None:
    """`AsyncSession.execute` fetches everything; its rows are read anywhere, like a list."""

    async def work() -> list[str]:
        async with _asynchronous(locks.both()) as session:
            with tenant_context(A):
                rows = await session.scalars(select(Patient.name).order_by(Patient.name))
            return list(rows)

    assert await_only(work()) == OWN


def test_a_system_stream_is_read_in_system_access_only(locks: Locks, driver: str) -> None:
    """Rows of all tenants, opened in system access, are not read on as a tenant or as nobody."""
    system = engine_of(locks.world.admin.url, driver)
    guard = TenantGuard(Base.metadata, tenants="practices", system_engine=system)
    with guard.system_access(reason="test"):
        connection = system.connect()
        rows = connection.execution_options(stream_results=True).scalars(select(Patient.name))
        found = [next(rows)]
    try:
        for other in (tenant_context(B), nullcontext()):
            with other, pytest.raises(CrossTenantError, match="outside system_access"):
                next(rows)
        with guard.system_access(reason="test"):
            assert len([*found, *rows]) == 6
    finally:
        with guard.system_access(reason="test"):
            connection.close()
        system.dispose()


def test_a_closed_stream_gives_no_row(locks: Locks) -> None:
    """Neither from the server nor of those that were fetched ahead."""
    streamed = {"stream_results": True, "max_row_buffer": 3}
    with tenant_context(A), locks.both().connect() as connection:
        result = connection.execute(select(Patient.name), execution_options=streamed)
        assert result.fetchone() is not None
        result.close()
        with pytest.raises(ResourceClosedError):
            result.fetchone()
