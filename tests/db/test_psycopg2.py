"""psycopg2: whatever its interface sends runs for the tenant, or not at all."""

from __future__ import annotations

from contextlib import suppress
from io import StringIO
from threading import Event, Thread, current_thread
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from driving import NAMES, ONE, driven, names, serves_each, serves_next, stored
from practice import A, B, Base, Practice
from psycopg2 import extensions, extras, sql
from sqlalchemy import column, text
from sqlalchemy.exc import DBAPIError

from tenantguard import (
    CrossTenantError,
    TenantGuard,
    UnscopedStatementError,
    current_tenant,
    tenant_context,
)
from tenantguard.binding.state import ConnectionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from locks import Locks

pytestmark = pytest.mark.parametrize("driver", ["psycopg2"])

ENDING = "SELECT name FROM patients WHERE right(name, 1) = %s"


class OwnCursor(extensions.cursor):  # type: ignore[misc]
    """As an application may have it: it asks something itself, by super()."""

    said: list[Any]

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002
        self.said = [*getattr(self, "said", []), query]
        super().execute("SET LOCAL work_mem = '65kB'")
        super().execute(query, vars)

    def found(self) -> list[str]:
        super().execute(NAMES)
        return names(self.fetchall())


class OldCursor(extensions.cursor):  # type: ignore[misc]
    """As psycopg2's documentation has it: it calls its base by name."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002
        extensions.cursor.execute(self, query, vars)


def _execute(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute(NAMES)
    return names(cursor.fetchall())


def _named_cursor(connection: Any) -> list[str]:
    with connection.cursor("named", withhold=True) as cursor:
        cursor.execute(NAMES)
        return names([*cursor.fetchmany(1), *cursor])


def _executemany(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.executemany("UPDATE patients SET name = name WHERE right(name, 1) = %s", [("0",)])
    assert cursor.rowcount == 1
    return _execute(connection)


def _execute_values(connection: Any) -> list[str]:
    query = "SELECT name FROM patients JOIN (VALUES %s) AS v (e) ON right(name, 1) = e"
    rows = extras.execute_values(connection.cursor(), query, [("0",), ("1",), ("2",)], fetch=True)
    return sorted(names(rows))


def _execute_batch(connection: Any) -> list[str]:
    cursor = connection.cursor()
    extras.execute_batch(cursor, ENDING, [("0",), ("1",)])
    assert cursor.rowcount == 1
    return _execute(connection)


def _copy_expert(connection: Any) -> list[str]:
    out = StringIO()
    connection.cursor().copy_expert(f"COPY ({NAMES}) TO STDOUT", out)
    return out.getvalue().splitlines()


def _callproc(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.callproc("current_setting", ("tenantguard.tenant",))
    assert cursor.fetchone() == (str(current_tenant()),)
    return _execute(connection)


def _large_object(connection: Any) -> list[str]:
    connection.lobject(0, "w").unlink()
    return _execute(connection)


def _two_phase(connection: Any) -> list[str]:
    connection.tpc_begin("two")
    found = _execute(connection)
    connection.tpc_rollback()
    return found


def _block(connection: Any) -> list[str]:
    with connection, connection.cursor() as cursor:
        cursor.execute(NAMES)
        return names(cursor.fetchall())


def _placeholders(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute("SELECT name, '100%%' FROM patients WHERE name <> %(name)s", {"name": "%s%"})
    return sorted(names(cursor.fetchall()))


def _composed(connection: Any) -> list[str]:
    cursor = connection.cursor()
    query = sql.SQL("SELECT {} FROM patients").format(sql.Identifier("name"))
    cursor.execute(query + sql.SQL(" ORDER BY 1"))
    return names(cursor.fetchall())


def _bytes(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute(b"SELECT name FROM patients WHERE 'a%b' LIKE 'a\\%b' ORDER BY 1")
    return names(cursor.fetchall())


def _several(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute(f"SELECT 1; SET LOCAL work_mem = '65kB'; {NAMES};")
    return names(cursor.fetchall())


def _after_savepoint(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute("SAVEPOINT first")
    cursor.execute("DELETE FROM order_tags")
    cursor.execute("ROLLBACK TO SAVEPOINT first")
    return _execute(connection)


def _after_set_transaction(connection: Any) -> list[str]:
    cursor = connection.cursor()
    cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE")
    cursor.execute("SELECT current_setting('transaction_isolation')")
    assert cursor.fetchone() == ("serializable",)
    return _execute(connection)


def _after_lock(connection: Any) -> list[str]:
    connection.cursor().execute("LOCK TABLE patients IN ACCESS SHARE MODE")
    return _execute(connection)


def _own_kind(connection: Any) -> list[str]:
    connection.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
    cursor = connection.cursor()
    cursor.execute("SELECT current_setting('transaction_read_only'), name FROM patients")
    rows = cursor.fetchall()
    connection.rollback()
    connection.set_session(isolation_level="DEFAULT", readonly="DEFAULT", deferrable="DEFAULT")
    return sorted(name for read_only, name in rows if read_only == "on")


def _by_key(factory: Any) -> Callable[[Any], list[str]]:
    def way(connection: Any) -> list[str]:
        with connection.cursor(cursor_factory=factory) as cursor:
            cursor.execute(NAMES)
            return [getattr(row, "name", None) or row["name"] for row in cursor]

    return way


def _own_cursor(connection: Any) -> list[str]:
    with connection.cursor(cursor_factory=OwnCursor) as cursor:
        cursor.execute("SHOW work_mem")
        assert cursor.fetchall() == [("65kB",)]
        assert cursor.said == ["SHOW work_mem"]
    return _execute(connection)


def _own_method(connection: Any) -> list[str]:
    return list(connection.cursor(cursor_factory=OwnCursor).found())


def _on_the_connection(connection: Any) -> list[str]:
    connection.cursor_factory = extras.RealDictCursor
    try:
        return _by_key(None)(connection)
    finally:
        connection.cursor_factory = None


WAYS = [
    _execute,
    _named_cursor,
    _executemany,
    _execute_values,
    _execute_batch,
    _copy_expert,
    _callproc,
    _large_object,
    _two_phase,
    _block,
    _placeholders,
    _composed,
    _bytes,
    _several,
    _after_savepoint,
    _after_set_transaction,
    _after_lock,
    _own_kind,
    _by_key(extras.RealDictCursor),
    _by_key(extras.DictCursor),
    _by_key(extras.NamedTupleCursor),
    _own_cursor,
    _own_method,
    _on_the_connection,
]
ENDS_ITS_OWN = (_two_phase, _own_kind)


def test_each_way_serves_its_tenant(locks: Locks) -> None:
    """Each interface that reads gives A, B and A their own rows on one connection."""
    engine = locks.both(**ONE)
    for way in WAYS:
        serves_each(engine, locks.world, way)


@pytest.mark.parametrize("way", [each for each in WAYS if each not in ENDS_ITS_OWN])
def test_a_transaction_does_not_change_hands(locks: Locks, way: Callable[[Any], list[str]]) -> None:
    """B's work on A's open transaction is refused; in AUTOCOMMIT nobody's is sent."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        _execute(connection)
        with tenant_context(B), pytest.raises(CrossTenantError, match="begun for another"):
            way(connection)
        connection.rollback()
        connection.autocommit = True
        with pytest.raises(UnscopedStatementError, match="AUTOCOMMIT"):
            way(connection)
        connection.autocommit = False
    serves_next(engine, locks.world)


def test_streamed_results_serve_each_tenant(locks: Locks) -> None:
    """SQLAlchemy's `stream_results` opens a named cursor, also as the first statement."""
    engine = locks.both(**ONE)
    for tenant in (A, B, A):
        with tenant_context(tenant), engine.connect() as connection:
            streaming = connection.execution_options(stream_results=True, yield_per=1)
            found = streaming.exec_driver_sql(NAMES)
            assert list(found.scalars()) == stored(locks.world, tenant)


def test_a_cursor_class_that_passes_by_is_refused(locks: Locks) -> None:
    """A class that names psycopg2's cursor instead of super() gets nothing unnoticed."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        cursor = connection.cursor(cursor_factory=OldCursor)
        with pytest.raises(UnscopedStatementError, match=r"Use super\(\) in that class"):
            cursor.execute(NAMES)
        connection.rollback()
        _execute(connection)
        cursor.execute(NAMES)
        assert names(cursor.fetchall()) == stored(locks.world, A)
    serves_next(engine, locks.world)


@pytest.mark.parametrize("first", ["SELEC 1", "SELECT 1/0", "SELECT nothing", "SELECT %s"])
def test_a_first_statement_that_fails_loses_nothing(locks: Locks, first: str) -> None:
    """The scrub comes with the next transaction; the error does not show the tenant."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        connection.cursor().execute("SET search_path = pg_temp")
        connection.cursor().execute("CREATE TEMP TABLE patients AS SELECT 'planted' AS name")
        connection.commit()
    with driven(engine, B) as connection:
        cursor = connection.cursor()
        with pytest.raises(psycopg2.Error) as caught:
            cursor.execute(first)
        for shown in (str(caught.value), str(caught.value.pgerror), repr(caught.value)):
            assert str(B) not in shown
            assert "tenantguard" not in shown
        connection.rollback()
        assert _execute(connection) == stored(locks.world, B)
    serves_next(engine, locks.world, A)


def test_a_registry_that_fails_does_not_show_the_tenant(locks: Locks) -> None:
    """PostgreSQL quotes the line at fault, which here would be the one with the tenant."""
    suspended = column("gone", _selectable=Practice.__table__).is_not(None)
    guard = TenantGuard(
        Base.metadata, tenants="practices", roles=locks.world.guard.roles, suspended=suspended
    )
    engine = locks._engine(locks.world.app_url, ONE)
    guard._bind(engine, verify=lambda *_: None)
    with tenant_context(A), engine.connect() as connection:
        with pytest.raises(DBAPIError, match="could not be begun for the tenant") as caught:
            connection.exec_driver_sql("SELECT 1")
        assert str(A) not in f"{caught.value!r} {caught.value}"


def test_an_empty_query_binds(locks: Locks) -> None:
    """psycopg2 refuses an empty query by itself; a comment is one with the tenant before it."""
    with driven(locks.both(**ONE), A) as connection:
        with pytest.raises(psycopg2.ProgrammingError, match="empty query"):
            connection.cursor().execute("")
        connection.cursor().execute("-- nothing")
        assert _execute(connection) == stored(locks.world, A)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'left'"])
def test_a_transaction_ended_by_text_is_begun_anew(locks: Locks, end: str) -> None:
    """What follows runs for its own tenant, as one statement each."""
    engine = locks.both(**ONE)
    try:
        with driven(engine, A) as connection:
            connection.cursor().execute(NAMES)
            connection.cursor().execute(end)
            assert _execute(connection) == stored(locks.world, A)
            with tenant_context(B), pytest.raises((CrossTenantError, psycopg2.Error)):
                _execute(connection)
        serves_next(engine, locks.world)
    finally:
        alone = locks.world.admin.execution_options(isolation_level="AUTOCOMMIT")
        with alone.connect() as admin:
            if admin.scalar(text("SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'left'")):
                admin.execute(text("ROLLBACK PREPARED 'left'"))


@pytest.mark.parametrize("chain", ["COMMIT AND CHAIN", "ROLLBACK AND CHAIN"])
def test_a_chained_transaction_sees_nothing(locks: Locks, chain: str) -> None:
    """PostgreSQL begins it without the tenant."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        connection.cursor().execute(chain)
        assert _execute(connection) == []
    serves_next(engine, locks.world)


def test_a_two_phase_transaction_is_of_its_connections_kind(locks: Locks) -> None:
    """The scrub ends what psycopg2 has begun, and begins it once more as it was."""
    with driven(locks.both(**ONE), A) as connection:
        connection.set_session(isolation_level="SERIALIZABLE", readonly=True)
        connection.tpc_begin("kind")
        shown = []
        for name in ("isolation", "read_only"):
            cursor = connection.cursor()
            cursor.execute(f"SHOW transaction_{name}")
            shown.append(cursor.fetchone())
        connection.tpc_rollback()
    assert shown == [("serializable",), ("on",)]


def test_two_phase_transactions_are_recovered_without_rows(locks: Locks) -> None:
    """tpc_recover() lists names; what it leaves open serves the right tenant."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        connection.tpc_begin(connection.xid(1, "recovered", "b"))
        connection.cursor().execute("UPDATE patients SET name = name")
        connection.tpc_prepare()
        with pytest.raises(psycopg2.ProgrammingError):
            connection.cursor().execute(NAMES)
        connection.reset()
    with driven(engine, B) as connection:
        recovered = connection.tpc_recover()
        (found,) = [xid for xid in recovered if xid.database == connection.info.dbname]
        assert _execute(connection) == stored(locks.world, B)
        connection.rollback()
        connection.tpc_rollback(found)
        assert _execute(connection) == stored(locks.world, B)


def test_a_reset_connection_is_bound_again(locks: Locks) -> None:
    """psycopg2's reset() ends the transaction; the next has its tenant."""
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        _execute(connection)
        connection.reset()
        assert _execute(connection) == stored(locks.world, A)
    serves_next(engine, locks.world)


READ_BY = {
    "encoding": ("SET client_encoding = 'LATIN1'", "SELECT 'ü'", "ü"),
    "strings": ("SET standard_conforming_strings = off", r"SELECT 'C:\temp'", r"C:\temp"),
}


@pytest.mark.parametrize("left", READ_BY)
def test_the_first_statement_is_not_read_by_what_was_left(locks: Locks, left: str) -> None:
    """The server reads a whole message before it carries out the scrub in it."""
    leave, query, wanted = READ_BY[left]
    engine = locks.both(**ONE)
    with driven(engine, A) as connection:
        connection.cursor().execute(leave)
        connection.commit()
    with driven(engine, B) as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        assert cursor.fetchone() == (wanted,)


def test_notices_do_not_wait_for_the_next_tenant(locks: Locks) -> None:
    """What the server told A is not in the lists that B reads."""
    engine = locks.both(**ONE)
    tell = "DO $$BEGIN RAISE NOTICE 'to %'; END$$; NOTIFY news, 'to %'"
    with driven(engine, A) as connection:
        connection.cursor().execute("LISTEN news")
        connection.commit()
        connection.cursor().execute(tell.replace("%", "A"))
        connection.commit()
        assert len(connection.notices) == 1
        connection.poll()
        assert len(connection.notifies) == 1
    with driven(engine, B) as connection:
        connection.cursor().execute("LISTEN news")
        assert connection.notifies == []
        connection.commit()
        connection.cursor().execute(tell.replace("%", "B"))
        connection.commit()
        assert [each.strip() for each in connection.notices] == ["NOTICE:  to B"]
        connection.poll()  # Older versions do not look by themselves.
        assert [each.payload for each in connection.notifies] == ["to B"]


@pytest.mark.usefixtures("hasty")
def test_threads_that_share_a_connection_see_their_own(locks: Locks) -> None:
    """psycopg2 lets them; between a check and its command nobody else's transaction begins."""
    engine = locks.both(**ONE)
    found: set[tuple[object, tuple[str, ...]]] = set()

    def work(connection: Any, tenant: Any) -> None:
        answers = 0
        while answers < 300:
            with suppress(CrossTenantError), tenant_context(tenant):
                found.add((tenant, tuple(_execute(connection))))
                answers += 1
                connection.commit()

    with driven(engine, A) as connection:
        threads = [Thread(target=work, args=(connection, tenant)) for tenant in (A, B)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    own = {(tenant, tuple(stored(locks.world, tenant))) for tenant in (A, B)}
    assert found == own


def test_nothing_comes_between_a_check_and_its_command(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another tenant's thread that ends the transaction and begins its own has to wait for it."""
    check = ConnectionState.check
    checked, over = Event(), Event()

    def checking(state: ConnectionState, **facts: bool) -> None:
        check(state, **facts)
        if current_thread() is not other:
            checked.set()
            over.wait(0.5)

    def interfere(connection: Any) -> None:
        checked.wait()
        with tenant_context(B):
            connection.commit()
            connection.cursor().execute("SELECT 1")
        over.set()

    with driven(locks.both(**ONE), A) as connection:
        connection.cursor().execute("SELECT 1")
        other = Thread(target=interfere, args=(connection,))
        monkeypatch.setattr(ConnectionState, "check", checking)
        other.start()
        assert _execute(connection) == stored(locks.world, A)
        other.join()


@pytest.mark.parametrize("level", [None, "SERIALIZABLE"])
def test_defaults_left_behind_do_not_shape_the_next_transaction(
    locks: Locks, level: str | None
) -> None:
    """The transaction that psycopg2 began by them before the scrub is not the one that follows."""
    engine = locks.both(**ONE, **({"isolation_level": level} if level else {}))
    with tenant_context(A), engine.begin() as connection:
        connection.execute(text("SET default_transaction_read_only = on"))
        connection.execute(text("SET default_transaction_isolation = 'repeatable read'"))
    with tenant_context(B), engine.connect() as connection:
        assert connection.scalar(text("SHOW transaction_read_only")) == "off"
        expected = (level or "READ COMMITTED").lower()
        assert connection.scalar(text("SHOW transaction_isolation")) == expected
