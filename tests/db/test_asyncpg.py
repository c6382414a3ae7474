"""asyncpg: whatever its interface sends runs for the tenant, or not at all."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from driving import NAMES, ONE, driven, inside, names, pause, serves_each, serves_next, stored, wait
from practice import A, B
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantguard import CrossTenantError, UnscopedStatementError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from locks import Locks

pytestmark = pytest.mark.parametrize("driver", ["asyncpg"])

ENDING = "SELECT name FROM patients WHERE right(name, 1) = $1"
RENAME = "UPDATE patients SET name = name WHERE right(name, 1) = $1"


def _fetch(connection: Any) -> list[str]:
    return names(wait(connection.fetch(NAMES)))


def _fetchrow(connection: Any) -> list[str]:
    return [wait(connection.fetchrow(ENDING, number))["name"] for number in "012"]


def _fetchval(connection: Any) -> list[str]:
    return [wait(connection.fetchval(ENDING, number)) for number in "012"]


def _fetchmany(connection: Any) -> list[str]:
    return names(wait(connection.fetchmany(ENDING, [("0",), ("1",), ("2",)])))


def _execute(connection: Any) -> list[str]:
    assert wait(connection.execute("SELECT 1; SELECT name FROM patients")) == "SELECT 3"
    assert wait(connection.execute(ENDING, "0")) == "SELECT 1"
    assert wait(connection.execute(RENAME, "0")) == "UPDATE 1"
    return _fetch(connection)


def _executemany(connection: Any) -> list[str]:
    wait(connection.executemany(RENAME, [("0",), ("1",)]))
    return _fetch(connection)


def _prepare(connection: Any) -> list[str]:
    return names(wait(wait(connection.prepare(NAMES)).fetch()))


def _cursor(connection: Any) -> list[str]:
    async def collect() -> list[str]:
        return [row["name"] async for row in connection.cursor(NAMES, prefetch=1)]

    return list(wait(collect()))


def _copy(connection: Any) -> list[str]:
    out = BytesIO()
    wait(connection.copy_from_query(NAMES, output=out))
    return out.getvalue().decode().splitlines()


def _reload(connection: Any) -> list[str]:
    wait(connection.reload_schema_state())
    return _fetch(connection)


def _savepoint(connection: Any) -> list[str]:
    block = connection.transaction()
    wait(block.start())
    wait(connection.execute("DELETE FROM order_tags"))
    wait(block.rollback())
    return _fetch(connection)


WAYS = [
    _fetch,
    _fetchrow,
    _fetchval,
    _fetchmany,
    _execute,
    _executemany,
    _prepare,
    _cursor,
    _copy,
    _reload,
    _savepoint,
]


def in_block(way: Callable[[Any], list[str]], **kind: Any) -> Callable[[Any], list[str]]:
    def within(connection: Any) -> list[str]:
        with inside(connection.transaction(**kind)):
            return way(connection)

    return within


def test_each_way_serves_its_tenant(locks: Locks) -> None:
    """Each interface that reads gives A, B and A their own rows on one connection."""
    engine = locks.both(**ONE)
    for way in WAYS:
        serves_each(engine, locks.world, in_block(way))


@pytest.mark.parametrize("way", [each for each in WAYS if each is not _savepoint])
def test_nothing_runs_outside_of_a_transaction(
    locks: Locks, way: Callable[[Any], list[str]]
) -> None:
    """Where asyncpg would commit by itself, nothing is sent."""
    with driven(locks.both(**ONE), A) as connection:
        for _ in range(2):
            with pytest.raises((UnscopedStatementError, asyncpg.NoActiveSQLTransactionError)):
                way(connection)
            assert in_block(way)(connection) == stored(locks.world, A)


@pytest.mark.parametrize("way", [each for each in WAYS if each is not _savepoint])
def test_a_transaction_does_not_change_hands(locks: Locks, way: Callable[[Any], list[str]]) -> None:
    """B's work on A's open transaction is refused, also what was prepared for A."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection, inside(connection.transaction()):
        assert way(connection) == stored(locks.world, A)
        with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another"):
            way(connection)
    serves_next(engine, locks.world)


def test_a_prepared_statement_is_bound_to_no_tenant(locks: Locks) -> None:
    """Prepared under A it reads B's rows under B, and nothing between transactions."""
    with driven(locks.both(**ONE), A) as connection:
        with inside(connection.transaction()):
            prepared = wait(connection.prepare(NAMES))
            assert names(wait(prepared.fetch())) == stored(locks.world, A)
        for refused in (prepared.fetch, prepared.fetchrow, prepared.fetchval, prepared.explain):
            with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
                wait(refused())
        with tenant_context(B), inside(connection.transaction()):
            assert names(wait(prepared.fetch())) == stored(locks.world, B)


def test_a_cursor_does_not_change_hands(locks: Locks) -> None:
    """A cursor that A opened gives B nothing."""
    with driven(locks.both(**ONE), A) as connection, inside(connection.transaction()):
        cursor = wait(connection.cursor(NAMES))
        assert wait(cursor.fetchrow())["name"] == stored(locks.world, A)[0]
        for move in (cursor.fetch, cursor.forward):
            with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another"):
                wait(move(1))
        assert names(wait(cursor.fetch(9))) == stored(locks.world, A)[1:]


def test_a_copy_into_a_protected_table_is_refused(locks: Locks) -> None:
    """PostgreSQL has no COPY FROM under row-level security; into a temporary table it has."""
    engine = locks.both(**ONE)
    rows = [("copied",)]
    with driven(engine, A) as connection:
        with inside(connection.transaction()):
            wait(connection.execute("CREATE TEMP TABLE loaded (name text)"))
            wait(connection.copy_records_to_table("loaded", records=rows))
            wait(connection.copy_to_table("loaded", source=BytesIO(b"copied\n")))
            found = wait(connection.fetch("SELECT name FROM loaded"))
            assert names(found) == ["copied", "copied"]
        for options in ({"records": rows}, {"source": BytesIO(b"copied\n")}):
            copy = getattr(
                connection, "copy_records_to_table" if "records" in options else "copy_to_table"
            )
            with (
                pytest.raises(asyncpg.FeatureNotSupportedError, match="row-level security"),
                inside(connection.transaction()),
            ):
                wait(copy("patients", columns=["name"], **options))
            with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
                wait(copy("patients", columns=["name"], **options))
    serves_next(engine, locks.world)


@pytest.mark.parametrize("level", ["read_committed", "repeatable_read", "serializable"])
def test_a_transaction_s_kind_is_kept(locks: Locks, level: str) -> None:
    """Isolation, read-only and deferrable are what was asked for; so is the tenant."""

    def shown(connection: Any) -> list[str]:
        for setting, value in (
            ("isolation", level.replace("_", " ")),
            ("read_only", "on"),
            ("deferrable", "on"),
        ):
            assert wait(connection.fetchval(f"SHOW transaction_{setting}")) == value
        return _fetch(connection)

    kind = {"isolation": level, "readonly": True, "deferrable": True}
    serves_each(locks.both(**ONE), locks.world, in_block(shown, **kind))


@pytest.mark.parametrize(
    "begin",
    ["BEGIN", "begin;", "START TRANSACTION;", "/* a */ BEGIN;", "BEGIN; SELECT 1;", " BEGIN;"],
)
def test_a_begin_as_text_is_refused(locks: Locks, begin: str) -> None:
    """Only the driver's own BEGIN carries a tenant; it may be sent as text too."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            wait(connection.execute(begin))
        wait(connection.execute("BEGIN;"))
        assert _fetch(connection) == stored(locks.world, A)
        wait(connection.execute("ROLLBACK;"))
    serves_next(engine, locks.world)


def test_a_begin_as_text_does_not_end_an_open_transaction(locks: Locks) -> None:
    """B's BEGIN on A's connection neither commits A's work nor takes the transaction over."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        block = connection.transaction()
        wait(block.start())
        wait(connection.execute("UPDATE patients SET name = 'committed by B'"))
        with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another"):
            wait(connection.execute("BEGIN;"))
        wait(block.rollback())
    assert "committed by B" not in stored(locks.world, A)
    serves_next(engine, locks.world)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
def test_a_transaction_ended_by_text_is_over(locks: Locks, end: str) -> None:
    """What follows is refused, or sees nothing; it never sees another tenant's rows."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        wait(connection.execute("BEGIN;"))
        wait(connection.execute(end))
        if "CHAIN" in end:
            assert _fetch(connection) == []
        else:
            with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
                _fetch(connection)
        wait(connection.execute("ROLLBACK;"))
    serves_next(engine, locks.world)


def test_a_reset_ends_the_transaction(locks: Locks) -> None:
    """A reset() of asyncpg rolls back and sends nothing more; the connection goes on."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        wait(connection.execute("BEGIN;"))
        wait(connection.execute("UPDATE patients SET name = 'reset'"))
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            wait(connection.reset())
        assert in_block(_fetch)(connection) == stored(locks.world, A)
    serves_next(engine, locks.world)


def test_listeners_end_with_the_scrub(locks: Locks) -> None:
    """A's listener is not called for B, and B's own is."""
    engine = locks.both(**ONE)
    heard: list[tuple[str, str]] = []

    def listen(connection: Any, name: str) -> None:
        def note(*sent: Any) -> None:
            heard.append((name, sent[3]))

        with inside(connection.transaction()):
            wait(connection.add_listener("news", note))
            wait(connection.execute(f"NOTIFY news, 'of {name}'"))
        wait(pause(0.05))

    for tenant, name in ((A, "A"), (B, "B")):
        with driven(engine, tenant) as connection:
            listen(connection, name)
    assert heard == [("A", "of A"), ("B", "of B")]


@pytest.mark.parametrize(("statements", "adapted"), [(0, 0), (100, 0), (0, 1), (100, 100)])
def test_prepared_statements_serve_each_tenant(locks: Locks, statements: int, adapted: int) -> None:
    """Whatever is cached, by asyncpg or by SQLAlchemy, reads the rows of whoever runs it."""
    cached = {"statement_cache_size": statements, "prepared_statement_cache_size": adapted}
    engine = locks.both(**ONE, connect_args=cached)
    for tenant in (A, B) * 4:
        serves_next(engine, locks.world, tenant)
    for _ in range(2):
        serves_each(engine, locks.world, in_block(_fetch))


def test_a_statement_prepared_on_a_shadow_reads_the_table(locks: Locks) -> None:
    """What A prepared over a temporary table of the same name reads B's own rows for B."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE patients (name varchar)")
        connection.exec_driver_sql("INSERT INTO patients VALUES ('planted')")
        assert list(connection.exec_driver_sql(NAMES).scalars()) == ["planted"]
        connection.exec_driver_sql("SET search_path = pg_temp")
        connection.commit()
    for tenant in (B, A, B):
        serves_next(engine, locks.world, tenant)


def test_a_changed_table_fails_once_and_serves_on(locks: Locks) -> None:
    """After DDL a cached plan is refused by PostgreSQL; then the statement is prepared anew."""
    engine = locks.both(**ONE)
    everything = text("SELECT * FROM tags ORDER BY name").execution_options()
    with tenant_context(A), engine.connect() as connection:
        assert {row.tenant_id for row in connection.execute(everything)} == {A}
    with locks.world.admin.begin() as admin:
        admin.execute(text("ALTER TABLE tags ADD COLUMN colour text DEFAULT 'red'"))
    with tenant_context(B), engine.connect() as connection:
        with pytest.raises(DBAPIError, match="cached statement plan is invalid"):
            connection.execute(everything)
        connection.rollback()
        assert {(row.tenant_id, row.colour) for row in connection.execute(everything)} == {
            (B, "red")
        }


def test_new_types_are_looked_up_for_the_tenant(locks: Locks) -> None:
    """Asking the server about an enum or a composite type happens in the tenant's transaction."""
    with locks.world.admin.begin() as admin:
        admin.execute(text("CREATE TYPE mood AS ENUM ('good', 'bad')"))
        admin.execute(text("CREATE TYPE visit AS (at date, mood mood)"))
    way = in_block(lambda c: names(wait(c.fetch("SELECT name, 'good'::mood FROM patients"))))
    engine = locks.both(**ONE)
    serves_each(engine, locks.world, lambda connection: sorted(way(connection)))
    with driven(engine, B) as connection:
        with inside(connection.transaction()):
            found = wait(connection.fetchval("SELECT ROW('2026-01-01', 'bad')::visit"))
        assert found["mood"] == "bad"
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            wait(connection.set_builtin_type_codec("visit", codec_name="text"))


def test_statements_taken_away_cost_one_connection(locks: Locks) -> None:
    """After A's DEALLOCATE a cached statement fails once, and not for everybody after."""
    engine = locks.both(**ONE)
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql(NAMES)
        connection.exec_driver_sql("DEALLOCATE ALL")
        connection.commit()
    with pytest.raises(DBAPIError, match="does not exist"):
        serves_next(engine, locks.world)
    serves_next(engine, locks.world)


def test_a_transaction_left_open_is_not_handed_on(locks: Locks) -> None:
    """SQLAlchemy knows nothing of asyncpg's own transaction, so it does not end it."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        wait(connection.execute("BEGIN;"))
        wait(connection.execute("UPDATE patients SET name = 'left open'"))
    with pytest.raises(UnscopedStatementError, match="still open"):
        serves_next(engine, locks.world)
    serves_next(engine, locks.world)
    assert "left open" not in stored(locks.world, A)
