"""A tenant's keys: made once, read when needed, never used when they may not last."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Barrier
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from drivers import DRIVERS, SYNC, engine_of
from proxy import proxy
from sqlalchemy import Engine, create_engine, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from vault import ENVIRONMENT, Base, Patient, make_guard

from tenantguard import (
    ConfigurationError,
    EncryptedValueError,
    KeyFile,
    KeyUnavailableError,
    TenantGuard,
    TenantNotSetError,
    TenantShreddedError,
    TenantSuspendedError,
    UnknownTenantError,
    keystore,
    tenant_context,
)
from tenantguard.binding import ask
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vault import Vault

every_driver = pytest.mark.parametrize("driver", DRIVERS)
synchronous = pytest.mark.parametrize("driver", SYNC)
ONE = {"pool_size": 1, "max_overflow": 0}
KEYS = "tenantguard_keys"
TABLE: Any = Patient.__table__
NAMES = select(Patient.name).order_by(Patient.id)
PLAIN = select(Patient.city).order_by(Patient.id)


@contextmanager
def process(vault: Vault, driver: str, **options: Any) -> Iterator[Engine]:
    """An engine of another process: its guard has no keys in its cache."""
    engine = vault.fresh_engine(driver, **options)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(vault: Vault, driver: str) -> Iterator[Engine]:
    with process(vault, driver) as made:
        yield made


def write(engine: Engine, tenant: UUID, name: str = "p") -> None:
    with tenant_context(tenant), Session(engine) as session:
        session.add(Patient(name=name))
        session.commit()


def read(engine: Engine, tenant: UUID) -> list[str]:
    with tenant_context(tenant), engine.connect() as connection:
        return list(connection.scalars(NAMES))


def rows(vault: Vault, tenant: UUID) -> list[Any]:
    return vault.run(f"SELECT * FROM {KEYS} WHERE tenant_id = :id ORDER BY purpose", id=tenant)


def cached(engine: Engine) -> list[str]:
    """The tenants whose keys the engine's guard has in its cache."""
    keys_for: Any = engine.dialect.execution_ctx_cls.keys  # type: ignore[attr-defined]
    return list(keys_for.__self__._cache)


def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows by each question to the table of keys."""
    questions: list[str] = []
    original: Any = vars(keystore)["ask"]

    def note(connection: Any, query: str) -> Any:
        questions.append(query)
        return original(connection, query)

    monkeypatch.setattr(keystore, "ask", note)
    return questions


# -- what it costs ----------------------------------------------------------------------------

# asyncpg prepares what it has not asked before.
COLD = {"psycopg": 1, "psycopg2": 1, "psycopg-async": 1, "asyncpg": 2}


@every_driver
def test_the_first_encrypted_statement_costs_a_round_trip(
    vault: Vault, tenant: UUID, driver: str
) -> None:
    """Reading the keys of a tenant is one question to the database; after it there is none."""
    other = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
    with process(vault, driver) as engine:
        write(engine, tenant)
        write(engine, other)
    with proxy(vault.app_url) as counted:
        engine = engine_of(counted.url(vault.app_url), driver, **ONE)
        vault.another_guard().protect(engine)

        def spent(tenant: UUID) -> int:
            time.sleep(0.02)
            before = counted.round_trips
            with tenant_context(tenant), engine.begin() as connection:
                connection.execute(NAMES).all()
            return counted.round_trips - before

        for _ in range(3):
            with tenant_context(tenant), engine.begin() as connection:
                connection.execute(PLAIN).all()
        # What the driver prepares for the statement is not to be counted.
        spent(other)
        trips = [spent(tenant) for _ in range(4)]
        engine.dispose()
    assert trips[0] - trips[1] == COLD[driver]
    assert len(set(trips[1:])) == 1


@every_driver
def test_plain_columns_need_no_keys(
    engine: Engine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement without encrypted columns does not ask for keys, one with them asks once."""
    write(engine, tenant)
    read(engine, tenant)
    questions = asked(monkeypatch)
    with tenant_context(tenant), engine.connect() as connection:
        connection.execute(PLAIN).all()
    read(engine, tenant)
    assert questions == []


# -- when keys are made -----------------------------------------------------------------------


@every_driver
def test_keys_are_made_with_the_first_value(vault: Vault, engine: Engine, tenant: UUID) -> None:
    """Reading and searching make none; writing makes both, which every process then has."""
    with tenant_context(tenant), Session(engine) as session:
        assert session.scalars(select(Patient.name)).all() == []
        assert session.scalar(select(Patient.id).where(Patient.name == "p")) is None
        session.commit()
    assert rows(vault, tenant) == []
    write(engine, tenant)
    assert [row.purpose for row in rows(vault, tenant)] == ["data", "index"]
    made = rows(vault, tenant)
    write(engine, tenant)
    assert rows(vault, tenant) == made
    assert read(engine, tenant) == ["p", "p"]


@every_driver
def test_an_autobegun_connection_has_keys(vault: Vault, tenant: UUID, driver: str) -> None:
    """The first statement of a Core connection is sealed and opened, though nothing was begun."""
    with process(vault, driver) as engine, tenant_context(tenant), engine.connect() as connection:
        connection.execute(insert(TABLE).values(name="p"))
        connection.commit()
    with process(vault, driver) as engine:
        assert read(engine, tenant) == ["p"]
    with process(vault, driver) as engine, tenant_context(tenant), engine.connect() as connection:
        assert connection.scalar(select(TABLE.c.id).where(TABLE.c.name == "p")) is not None


@every_driver
def test_autocommit_makes_and_reads_keys(vault: Vault, tenant: UUID, driver: str) -> None:
    """Keys are made in the transaction of the first value's own, and read in that of a query's."""
    for name in ("p", "q"):
        with process(vault, driver, isolation_level="AUTOCOMMIT") as engine:
            with tenant_context(tenant), engine.connect() as connection:
                connection.execute(insert(TABLE).values(name=name))
            with tenant_context(tenant), engine.connect() as connection:
                assert name in connection.scalars(NAMES).all()
    with process(vault, driver) as engine:
        assert read(engine, tenant) == ["p", "q"]


@every_driver
def test_a_value_that_cannot_be_sealed_leaves_autocommit_usable(
    vault: Vault, tenant: UUID, driver: str
) -> None:
    """The transaction that read the keys is over, and what it made is gone with it."""
    with (
        process(vault, driver, isolation_level="AUTOCOMMIT") as engine,
        tenant_context(tenant),
        engine.connect() as connection,
    ):
        with pytest.raises(EncryptedValueError):
            connection.execute(insert(TABLE).values(name="p\ud800"))
        raw: Any = connection.connection
        assert not raw.driver_connection.in_transaction()
        assert not raw.driver_connection.tenantguard.vouched
        connection.execute(insert(TABLE).values(name="p"))
        assert connection.scalars(NAMES).all() == ["p"]


@every_driver
def test_asking_leaves_no_trace(vault: Vault, tenant: UUID, driver: str) -> None:
    """The statement that keys are read for is vouched for by itself, or not."""
    with (
        process(vault, driver) as engine,
        tenant_context(tenant),
        engine.connect() as connection,
    ):
        state: Any = connection.connection.driver_connection.tenantguard  # type: ignore[union-attr]
        before = (state.vouched, state.strange, state.caller)
        assert ask(connection, "SELECT 1") == [(1,)]
        assert (state.vouched, state.strange, state.caller) == before


# -- keys that do not last --------------------------------------------------------------------


@every_driver
@pytest.mark.parametrize("how", ["rollback", "savepoint", "inner savepoint", "error"])
def test_a_key_that_was_rolled_back_is_not_used_again(
    vault: Vault, tenant: UUID, driver: str, how: str
) -> None:
    """What is written after the rollback can be read by everybody: the lost key sealed nothing."""
    with process(vault, driver) as engine:
        with tenant_context(tenant), Session(engine) as session:
            if how == "rollback":
                session.execute(insert(Patient).values(name="lost"))
                session.rollback()
            elif how == "error":
                session.execute(insert(Patient).values(name="lost"))
                with pytest.raises(DBAPIError):
                    session.execute(select(Patient.id / 0).select_from(Patient))
                session.rollback()
            elif how == "savepoint":
                savepoint = session.begin_nested()
                session.execute(insert(Patient).values(name="lost"))
                savepoint.rollback()
            else:
                outer = session.begin_nested()
                with session.begin_nested():
                    session.execute(insert(Patient).values(name="lost"))
                outer.rollback()
            session.execute(insert(Patient).values(name="kept"))
            session.commit()
            session.execute(insert(Patient).values(name="later"))
            session.commit()
        assert read(engine, tenant) == ["kept", "later"]
    with process(vault, driver) as another:
        assert read(another, tenant) == ["kept", "later"]
        with tenant_context(tenant), Session(another) as session:
            assert session.scalar(select(Patient.name).where(Patient.name == "KEPT")) == "kept"


@every_driver
def test_keys_are_cached_when_they_are_committed(
    engine: Engine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction that has made them asks each time; after it, one question is the last."""
    questions = asked(monkeypatch)
    with tenant_context(tenant), Session(engine) as session:
        session.execute(insert(Patient).values(name="p"))
        made = len(questions)
        session.execute(insert(Patient).values(name="q"))
        assert len(questions) == made + 1
        session.commit()
        for more in (2, 2, 2):
            session.scalars(NAMES).all()
            assert len(questions) == made + more


@every_driver
def test_a_released_savepoint_keeps_its_keys(vault: Vault, tenant: UUID, driver: str) -> None:
    """Keys made in a savepoint last when it and the transaction do."""
    with process(vault, driver) as engine, tenant_context(tenant), Session(engine) as session:
        with session.begin_nested():
            session.execute(insert(Patient).values(name="in"))
        session.execute(insert(Patient).values(name="out"))
        session.commit()
    with process(vault, driver) as another:
        assert read(another, tenant) == ["in", "out"]


# -- at the same time -------------------------------------------------------------------------


@synchronous
def test_two_first_writers_end_with_the_same_keys(vault: Vault, tenant: UUID, driver: str) -> None:
    """Two processes that write a tenant's first values at once: both are read afterwards."""
    together = Barrier(2)

    def begin(number: int) -> None:
        with process(vault, driver) as engine, tenant_context(tenant), Session(engine) as session:
            session.execute(PLAIN).all()
            together.wait()
            session.execute(insert(Patient).values(name=str(number)))
            session.commit()
            session.execute(insert(Patient).values(name=str(number)))
            session.commit()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(begin, range(2)))
    assert len(rows(vault, tenant)) == 2
    with process(vault, driver) as engine:
        assert sorted(read(engine, tenant)) == ["0", "0", "1", "1"]


@every_driver
def test_a_snapshot_without_the_keys_fails_and_a_retry_heals(
    vault: Vault, tenant: UUID, driver: str
) -> None:
    """Under REPEATABLE READ another's new keys are a serialization failure, not a loss."""
    repeatable = {"isolation_level": "REPEATABLE READ"}
    with process(vault, driver, **repeatable) as late, process(vault, driver) as early:
        with tenant_context(tenant), Session(late) as session:
            session.execute(PLAIN).all()
            write(early, tenant, "early")
            with pytest.raises(DBAPIError, match="could not serialize"):
                session.execute(insert(Patient).values(name="late"))
            session.rollback()
            session.execute(insert(Patient).values(name="late"))
            session.commit()
        assert read(early, tenant) == ["early", "late"]


@every_driver
def test_two_sessions_of_one_request_do_not_wait_forever(
    vault: Vault, engine: Engine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second cannot have the keys that the first has not committed, and says so."""
    monkeypatch.setattr(keystore, "_PATIENCE", "100ms")
    with tenant_context(tenant), Session(engine) as first, Session(engine) as second:
        first.execute(insert(Patient).values(name="first"))
        with pytest.raises(KeyUnavailableError, match="Do not use two sessions") as refusal:
            second.execute(insert(Patient).values(name="second"))
        assert str(tenant) not in str(refusal.value)
        second.rollback()
        first.commit()
        second.execute(insert(Patient).values(name="second"))
        waits = second.scalar(text("SELECT current_setting('lock_timeout')"))
        second.commit()
    assert waits == "0"
    assert read(engine, tenant) == ["first", "second"]
    assert len(rows(vault, tenant)) == 2


@every_driver
def test_making_keys_leaves_the_lock_timeout(engine: Engine, tenant: UUID) -> None:
    """The patience is for the keys alone; one that the application has set is kept."""
    for number, timeout in enumerate(("0", "7s")):
        with tenant_context(tenant), Session(engine) as session:
            session.execute(text(f"SET LOCAL lock_timeout = '{timeout}'"))
            session.execute(insert(Patient).values(name=str(number)))
            kept = session.scalar(text("SELECT current_setting('lock_timeout')"))
            assert kept == timeout


# -- the cache --------------------------------------------------------------------------------


@every_driver
def test_the_cache_forgets_in_time(
    vault: Vault, engine: Engine, tenant: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After five minutes the table is asked again, and what it says now counts."""
    write(engine, tenant)
    read(engine, tenant)
    vault.run(
        f"UPDATE {KEYS} SET state = 'destroyed', wrapped = NULL WHERE tenant_id = :t", t=tenant
    )
    assert read(engine, tenant) == ["p"]
    later = time.monotonic() + 299
    monkeypatch.setattr(keystore, "monotonic", lambda: later)
    assert read(engine, tenant) == ["p"]
    monkeypatch.setattr(keystore, "monotonic", lambda: later + 2)
    with pytest.raises(TenantShreddedError):
        read(engine, tenant)


def test_the_cache_is_bounded(vault: Vault, tenant: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant that came first is forgotten first."""
    monkeypatch.setattr(keystore, "_TENANTS", 1)
    engine = vault.fresh_engine()
    other = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
    for each in (tenant, other):
        write(engine, each)
        read(engine, each)
    assert cached(engine) == [str(other)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_a_forked_child_has_no_keys(vault: Vault, tenant: UUID) -> None:
    """A process that is forked from this one reads the keys anew; this one keeps its own."""
    engine = vault.fresh_engine()
    write(engine, tenant)
    read(engine, tenant)
    child = os.fork()
    if child == 0:
        os._exit(len(cached(engine)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert cached(engine) == [str(tenant)]


# -- rows that are not as they were -----------------------------------------------------------

ALTERED = "was altered, or belongs to another tenant or purpose"
DAMAGES = {
    "altered data": (
        (
            "UPDATE {keys} SET wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1) "
            "WHERE tenant_id = '{own}' AND purpose = 'data'"
        ),
        ALTERED,
    ),
    "altered index": (
        (
            "UPDATE {keys} SET wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1) "
            "WHERE tenant_id = '{own}' AND purpose = 'index'"
        ),
        ALTERED,
    ),
    "altered check": (
        (
            "UPDATE {keys} SET check_value = "
            "set_byte(check_value, 9, get_byte(check_value, 9) # 1) "
            "WHERE tenant_id = '{own}' AND purpose = 'index'"
        ),
        ALTERED,
    ),
    "another's check": (
        (
            "UPDATE {keys} AS mine SET check_value = theirs.check_value FROM {keys} "
            "AS theirs WHERE mine.tenant_id = '{own}' AND theirs.tenant_id = '{other}' "
            "AND mine.purpose = 'data' AND theirs.purpose = 'data'"
        ),
        ALTERED,
    ),
    "another tenant's": (
        (
            "UPDATE {keys} AS mine SET wrapped = theirs.wrapped, check_value = theirs.check_value "
            "FROM {keys} AS theirs WHERE mine.tenant_id = '{own}' AND theirs.tenant_id = '{other}' "
            "AND mine.purpose = theirs.purpose"
        ),
        ALTERED,
    ),
    "another purpose's": (
        (
            "UPDATE {keys} AS mine SET wrapped = theirs.wrapped, check_value = theirs.check_value "
            "FROM {keys} AS theirs WHERE mine.tenant_id = '{own}' AND theirs.tenant_id = '{own}' "
            "AND mine.purpose <> theirs.purpose"
        ),
        ALTERED,
    ),
    "another key's": (
        "UPDATE {keys} SET kek_uri = 'file:prod/0' WHERE tenant_id = '{own}'",
        "wrapped by another key-encryption key, or another environment's",
    ),
    "missing data": (
        "DELETE FROM {keys} WHERE tenant_id = '{own}' AND purpose = 'data'",
        "has one keyset of two",
    ),
    "missing index": (
        "DELETE FROM {keys} WHERE tenant_id = '{own}' AND purpose = 'index'",
        "has one keyset of two",
    ),
}


@every_driver
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_keys_are_refused(vault: Vault, tenant: UUID, driver: str, damage: str) -> None:
    """Nothing is read, searched or written with them, and nothing is made in their place."""
    other = UUID("bbbbbbbb-0000-4000-8000-00000000000b")
    with process(vault, driver) as engine:
        write(engine, tenant)
        write(engine, other)
    statement, because = DAMAGES[damage]
    vault.run(statement.format(keys=KEYS, own=tenant, other=other))
    before = rows(vault, tenant)
    with process(vault, driver) as engine, tenant_context(tenant):
        for use in (
            NAMES,
            select(TABLE.c.id).where(TABLE.c.name == "p"),
            insert(TABLE).values(name="q"),
        ):
            with (
                engine.connect() as connection,
                pytest.raises(KeyUnavailableError, match=because) as refusal,
            ):
                connection.execute(use)
            assert str(tenant) not in str(refusal.value)
            assert refusal.value.__cause__ is None
    assert rows(vault, tenant) == before
    vault.run(f"DELETE FROM {KEYS} WHERE tenant_id = :t", t=other)
    vault.run("DELETE FROM patients WHERE tenant_id = :t", t=other)


@dataclass(frozen=True, slots=True)
class Relabelled:
    """The same key, said to be another environment's."""

    file: KeyFile
    environment: str = "elsewhere"

    @property
    def uri(self) -> str:
        return self.file.uri

    @property
    def kek(self) -> Any:
        return self.file.kek


def test_the_environment_is_authenticated(vault: Vault, tenant: UUID) -> None:
    """Keys of one environment do not open in another, even if somebody copies key and name."""
    write(vault.engine(), tenant)
    keys = Relabelled(KeyFile(vault.key_file, environment=ENVIRONMENT))
    guard = TenantGuard(Base.metadata, tenants="practices", roles=vault.guard.roles, keys=keys)
    with pytest.raises(KeyUnavailableError, match=ALTERED):
        read(vault.protected_by(guard), tenant)


def test_another_key_encryption_key_is_refused(vault: Vault, tenant: UUID, tmp_path: Path) -> None:
    """A file that was made anew does not open what the old one wrapped."""
    write(vault.engine(), tenant)
    make_key_file(tmp_path / "key.json", environment=ENVIRONMENT)
    engine = vault.protected_by(make_guard(vault.guard.roles, tmp_path / "key.json"))
    with pytest.raises(KeyUnavailableError, match="wrapped by another key-encryption key"):
        read(engine, tenant)


def test_lost_keys_are_not_made_up(vault: Vault, tenant: UUID) -> None:
    """Values whose keys were deleted say so, and no new keys are made beside them."""
    write(vault.engine(), tenant)
    vault.run(f"DELETE FROM {KEYS} WHERE tenant_id = :t", t=tenant)
    engine = vault.fresh_engine()
    with pytest.raises(KeyUnavailableError, match="has no key that this transaction can see"):
        read(engine, tenant)
    with pytest.raises(KeyUnavailableError, match="were lost"):
        write(engine, tenant, "q")


@every_driver
def test_keys_that_only_decrypt(vault: Vault, tenant: UUID, driver: str) -> None:
    """A decrypt-only key reads and searches, and seals nothing new."""
    with process(vault, driver) as engine:
        write(engine, tenant)
    vault.run(f"UPDATE {KEYS} SET state = 'decrypt-only' WHERE tenant_id = :t", t=tenant)
    with process(vault, driver) as engine:
        assert read(engine, tenant) == ["p"]
        with tenant_context(tenant), Session(engine) as session:
            assert session.scalar(select(Patient.name).where(Patient.name == "P")) == "p"
        with pytest.raises(KeyUnavailableError, match="decrypt-only"):
            write(engine, tenant)


@every_driver
@pytest.mark.parametrize("purposes", [("data", "index"), ("data",), ("index",)])
def test_destroyed_keys_stay_destroyed(
    vault: Vault, tenant: UUID, driver: str, purposes: tuple[str, ...]
) -> None:
    """Nothing is read, searched or written, and no new key takes their place."""
    with process(vault, driver) as engine:
        write(engine, tenant)
    for purpose in purposes:
        vault.run(
            f"UPDATE {KEYS} SET state = 'destroyed', wrapped = NULL, check_value = NULL "
            "WHERE tenant_id = :t AND purpose = :p",
            t=tenant,
            p=purpose,
        )
    before = rows(vault, tenant)
    with process(vault, driver) as engine, tenant_context(tenant):
        for use in (
            NAMES,
            select(TABLE.c.id).where(TABLE.c.name == "p"),
            insert(TABLE).values(name="q"),
        ):
            with engine.connect() as connection, pytest.raises(TenantShreddedError):
                connection.execute(use).all()
        with engine.connect() as connection:
            assert connection.scalars(PLAIN).all() == [""]
    assert rows(vault, tenant) == before


# -- what the database says -------------------------------------------------------------------

OBSTACLES = {
    "no table": (
        f"ALTER TABLE {KEYS} RENAME TO gone",
        f"ALTER TABLE gone RENAME TO {KEYS}",
        "there is no table",
    ),
    "no privilege": (
        f"REVOKE SELECT ON {KEYS} FROM {{role}}",
        f"GRANT SELECT ON {KEYS} TO {{role}}",
        "a privilege is missing",
    ),
}


@every_driver
@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_obstacles_name_the_command(vault: Vault, tenant: UUID, driver: str, obstacle: str) -> None:
    """What PostgreSQL refuses is said in our words, without its text, which could quote values."""
    harm, mend, because = OBSTACLES[obstacle]
    role = vault.guard.roles.application
    with process(vault, driver, **ONE) as engine, tenant_context(tenant):
        with engine.connect() as connection:
            connection.execute(PLAIN).all()
        vault.run(harm.format(role=role))
        try:
            with (
                engine.connect() as connection,
                pytest.raises(KeyUnavailableError, match=because) as refusal,
            ):
                connection.execute(NAMES)
        finally:
            vault.run(mend.format(role=role))
        assert "tenantguard rls apply" in str(refusal.value)
        assert refusal.value.__cause__ is refusal.value.__context__ is None
        with engine.connect() as connection:
            assert connection.scalars(NAMES).all() == []


@every_driver
def test_a_lost_connection_is_a_lost_connection(vault: Vault, tenant: UUID, driver: str) -> None:
    """A server that goes away while keys are read invalidates the connection, as always."""
    with process(vault, driver) as engine:
        write(engine, tenant)
    with process(vault, driver, **ONE) as engine, tenant_context(tenant):
        with engine.connect() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            vault.run("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
            with pytest.raises(DBAPIError) as lost:
                connection.execute(NAMES)
            assert lost.value.connection_invalidated
            assert str(tenant) not in str(lost.value)
        assert read(engine, tenant) == ["p"]


@every_driver
def test_a_read_only_transaction_reads(vault: Vault, tenant: UUID, driver: str) -> None:
    """It makes no keys: PostgreSQL's own error says why."""
    read_only = {"postgresql_readonly": True}
    with process(vault, driver, execution_options=read_only) as engine, tenant_context(tenant):
        with engine.connect() as connection:
            assert connection.scalars(NAMES).all() == []
        with (
            engine.connect() as connection,
            pytest.raises(DBAPIError, match="read-only transaction"),
        ):
            connection.execute(insert(TABLE).values(name="p"))
    with process(vault, driver) as engine:
        write(engine, tenant)
    with process(vault, driver, execution_options=read_only) as engine:
        assert read(engine, tenant) == ["p"]


@every_driver
def test_no_keys_for_who_is_not_served(vault: Vault, tenant: UUID, driver: str) -> None:
    """An unknown or suspended tenant gets no keys."""
    unknown = uuid4()
    with process(vault, driver) as engine, pytest.raises(UnknownTenantError):
        write(engine, unknown)
    practices = Base.metadata.tables["practices"]
    keys = KeyFile(vault.key_file, environment=ENVIRONMENT)
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        roles=vault.guard.roles,
        keys=keys,
        suspended=practices.c.id.is_not(None),
    )
    engine = engine_of(vault.app_url, driver)
    guard.protect(engine)
    with pytest.raises(TenantSuspendedError):
        write(engine, tenant)
    engine.dispose()
    assert rows(vault, unknown) == rows(vault, tenant) == []


# -- the guard --------------------------------------------------------------------------------


def test_keys_can_be_made_beforehand(vault: Vault, tenant: UUID) -> None:
    """`create_keys` makes them once, in the caller's transaction."""
    with vault.admin.connect() as connection:
        assert vault.guard.create_keys(connection, tenant)
        connection.rollback()
        assert rows(vault, tenant) == []
        assert vault.guard.create_keys(connection, str(tenant))
        connection.commit()
    made = rows(vault, tenant)
    with Session(vault.admin) as session:
        assert not vault.guard.create_keys(session, tenant)
    engine = vault.fresh_engine()
    write(engine, tenant)
    assert read(vault.fresh_engine(), tenant) == ["p"]
    assert rows(vault, tenant) == made
    with vault.admin.connect() as connection, pytest.raises(UnknownTenantError):
        vault.guard.create_keys(connection, "not a uuid")
    with (
        vault.admin.connect() as connection,
        pytest.raises(KeyUnavailableError, match="the registry does not have the tenant"),
    ):
        vault.guard.create_keys(connection, uuid4())


def test_a_guard_without_keys_does_not_protect(vault: Vault) -> None:
    """Models with encrypted columns need keys=."""
    guard = TenantGuard(Base.metadata, tenants="practices")
    engine = create_engine(vault.app_url)
    with pytest.raises(ConfigurationError, match="TenantGuard has no keys="):
        guard.protect(engine)
    assert not guard.protects(engine)
    with vault.admin.connect() as connection, pytest.raises(ConfigurationError, match="no keys="):
        guard.create_keys(connection, uuid4())


def test_observing_does_not_seal(vault: Vault) -> None:
    """`observe` could seal with the wrong tenant's key, so it does not protect."""
    guard = make_guard(vault.guard.roles, vault.key_file, mode="observe")
    engine = create_engine(vault.app_url)
    with pytest.raises(ConfigurationError, match="need mode='enforce'"):
        guard.protect(engine)
    assert not guard.protects(engine)


UNPROTECTED = "on an engine that has no keys. Use an engine that a guard with"


@every_driver
def test_without_keys_encrypted_columns_are_refused(
    vault: Vault, tenant: UUID, driver: str
) -> None:
    """On an engine that no guard protects, or with mode off; other columns work."""
    off = make_guard(vault.guard.roles, vault.key_file, mode="off")
    with process(vault, driver) as engine:
        write(engine, tenant)
    engine = engine_of(vault.admin.url, driver)
    off.protect(engine)
    for use in (insert(TABLE).values(tenant_id=tenant, name="p"), NAMES.where(Patient.name == "p")):
        with engine.connect() as connection, pytest.raises(KeyUnavailableError, match=UNPROTECTED):
            connection.execute(use)
    with tenant_context(tenant), engine.connect() as connection:
        with pytest.raises(
            KeyUnavailableError, match="was fetched from an engine that has no keys"
        ):
            connection.execute(NAMES).all()
        assert connection.scalars(PLAIN.where(TABLE.c.tenant_id == tenant)).all() == [""]
    engine.dispose()


@every_driver
def test_an_engine_protected_late_seals(vault: Vault, tenant: UUID, driver: str) -> None:
    """What an engine has refused before it was protected works afterwards."""
    engine = engine_of(vault.app_url, driver)
    with engine.connect() as connection, pytest.raises(KeyUnavailableError, match=UNPROTECTED):
        connection.execute(insert(TABLE).values(tenant_id=tenant, name="p"))
    engine.dispose()
    vault.another_guard().protect(engine)
    write(engine, tenant)
    assert read(engine, tenant) == ["p"]
    engine.dispose()


@every_driver
def test_system_access_leaves_encrypted_columns_out(
    vault: Vault, tenant: UUID, driver: str
) -> None:
    """The system has no tenant and so no key: the refusal names the way round."""
    with process(vault, driver) as engine:
        write(engine, tenant)
    system = engine_of(vault.admin.url, driver)
    guard = make_guard(vault.guard.roles, vault.key_file, system_engine=system)
    with guard.system_access(reason="test") as engine, engine.connect() as connection:
        with pytest.raises(TenantNotSetError, match=r"under system access leave the column out"):
            connection.execute(NAMES).all()
        with pytest.raises(KeyUnavailableError, match="under system access leave the column out"):
            connection.execute(insert(TABLE).values(tenant_id=tenant, name="p"))
        found = connection.scalars(select(TABLE.c.city).where(TABLE.c.tenant_id == tenant))
        assert found.all() == [""]
    system.dispose()
