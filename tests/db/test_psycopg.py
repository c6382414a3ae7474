"""psycopg: whatever its interface sends runs for the tenant, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from driving import NAMES, ONE, driven, every, inside, names, serves_each, serves_next, stored, wait
from practice import UNKNOWN, A, B

from tenantguard import CrossTenantError, UnscopedStatementError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from locks import Locks

pytestmark = pytest.mark.parametrize("driver", ["psycopg", "psycopg-async"])


def _execute(connection: Any) -> list[str]:
    return names(wait(wait(connection.execute(NAMES)).fetchall()))


def _copy(connection: Any) -> list[str]:
    with (
        inside(connection.cursor()) as cursor,
        inside(cursor.copy(f"COPY ({NAMES}) TO STDOUT")) as copy,
    ):
        return names(every(copy.rows()))


def _named_cursor(connection: Any) -> list[str]:
    with inside(connection.cursor("named")) as cursor:
        wait(cursor.execute(NAMES))
        return names([*wait(cursor.fetchmany(1)), *wait(cursor.fetchall())])


def _held_cursor(connection: Any) -> list[str]:
    with inside(connection.cursor("held", withhold=True)) as cursor:
        wait(cursor.execute(NAMES))
        return names(every(cursor))


def _pipeline(connection: Any) -> list[str]:
    with inside(connection.pipeline()):
        return _execute(connection)


def _blocks(connection: Any) -> list[str]:
    with inside(connection.transaction()), inside(connection.transaction()):
        return _execute(connection)


def _block_in_autocommit(connection: Any) -> list[str]:
    wait(connection.rollback())
    wait(connection.set_autocommit(True))
    try:
        with inside(connection.transaction()):
            return _execute(connection)
    finally:
        wait(connection.set_autocommit(False))


def _block_in_pipeline(connection: Any) -> list[str]:
    with inside(connection.pipeline()), inside(connection.transaction()):
        return _execute(connection)


def _executemany(connection: Any) -> list[str]:
    cursor = connection.cursor()
    found = "SELECT name FROM patients WHERE right(name, 1) = %s"
    wait(cursor.executemany(found, [("0",), ("1",), ("2",)], returning=True))
    rows = wait(cursor.fetchall())
    while cursor.nextset():
        rows += wait(cursor.fetchall())
    return names(rows)


def _stream(connection: Any) -> list[str]:
    return names(every(connection.cursor().stream(NAMES)))


def _binary(connection: Any) -> list[str]:
    return names(wait(wait(connection.execute(NAMES, binary=True, prepare=True)).fetchall()))


WAYS = [
    _execute,
    _copy,
    _named_cursor,
    _held_cursor,
    _pipeline,
    _blocks,
    _block_in_autocommit,
    _block_in_pipeline,
    _executemany,
    _stream,
    _binary,
]


def test_each_way_serves_its_tenant(locks: Locks) -> None:
    """Each interface that reads gives A, B and A their own rows on one connection."""
    engine = locks.both(**ONE)
    for way in WAYS:
        serves_each(engine, locks.world, way)


@pytest.mark.parametrize("threshold", [0, 1])
def test_prepared_statements_serve_each_tenant(locks: Locks, threshold: int) -> None:
    """One prepared statement with a generic plan reads the rows of whoever runs it."""
    engine = locks.both(**ONE, connect_args={"prepare_threshold": threshold})
    plans = "SELECT generic_plans FROM pg_prepared_statements WHERE statement = $$%s$$"

    def committed(connection: Any) -> list[str]:
        found = _execute(connection)
        # A rollback makes psycopg forget what it has prepared.
        wait(connection.commit())
        return found

    for _ in range(7):
        serves_each(engine, locks.world, committed)
    with driven(engine, A) as connection:
        assert wait(wait(connection.execute(plans % NAMES)).fetchone())[0] > 6


def test_a_copy_into_a_protected_table_is_refused(locks: Locks) -> None:
    """PostgreSQL has no COPY FROM under row-level security; into a temporary table it has."""
    engine = locks.both(**ONE)

    def load(connection: Any, table: str) -> None:
        with (
            inside(connection.cursor()) as cursor,
            inside(cursor.copy(f"COPY {table} (name) FROM STDIN")) as copy,
        ):
            wait(copy.write_row(("copied",)))

    with driven(engine, A) as connection:
        wait(connection.execute("CREATE TEMP TABLE loaded (name text)"))
        load(connection, "loaded")
        found = wait(wait(connection.execute("SELECT name FROM loaded")).fetchall())
        assert names(found) == ["copied"]
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="row-level security"):
            load(connection, "patients")
    serves_next(engine, locks.world)


def test_notifications_do_not_wait_for_the_next_tenant(locks: Locks) -> None:
    """What A listened for is not in B's notifications."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        wait(connection.execute("LISTEN news"))
        wait(connection.commit())
        wait(connection.execute("NOTIFY news, 'of A'"))
        wait(connection.commit())
    with driven(engine, B) as connection:
        wait(connection.execute("LISTEN own"))
        wait(connection.commit())
        with locks.world.admin.begin() as admin:
            admin.exec_driver_sql("NOTIFY own, 'of B'")
        assert [each.payload for each in every(connection.notifies(timeout=0.3))] == ["of B"]


@pytest.mark.parametrize("way", [_execute, _copy, _pipeline, _named_cursor, _stream])
def test_autocommit_is_refused_everywhere(locks: Locks, way: Callable[[Any], list[str]]) -> None:
    """Outside of a transaction no interface sends anything."""
    with driven(locks.both(**ONE), A) as connection:
        wait(connection.set_autocommit(True))
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            way(connection)
        wait(connection.set_autocommit(False))
        assert way(connection) == stored(locks.world, A)


@pytest.mark.parametrize("way", [each for each in WAYS if each is not _block_in_autocommit])
def test_a_transaction_does_not_change_hands(locks: Locks, way: Callable[[Any], list[str]]) -> None:
    """B's work on A's open transaction is refused, whatever sends it."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        assert _execute(connection) == stored(locks.world, A)
        with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another"):
            way(connection)
    serves_next(engine, locks.world)


def test_an_unknown_tenant_fails_in_a_pipeline(locks: Locks) -> None:
    """Where the registry's answer comes too late, the transaction fails by itself."""
    engine = locks.both(**ONE)
    with driven(engine, UNKNOWN) as connection, pytest.raises(psycopg.DataError):
        _pipeline(connection)
    serves_next(engine, locks.world)
