"""Keys that another process has changed are noticed at once, where they are followed."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from bouncer import pgbouncer
from drivers import address
from key_commands import IDS, C, Keys, Process, serve
from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.orm import Session
from vault import ENVIRONMENT, A, B, Base, Patient

from tenantguard import (
    ConfigurationError,
    KeyFile,
    Keyring,
    TenantGuard,
    TenantShreddedError,
    keystore,
)
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.following import channel_of, follower, listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    from tenantguard.following import KeyFollower

CHANNEL = "tenantguard_keys"
PROCESS = Path(__file__).parents[1] / "following_process.py"
SECONDS = 30.0
NOTES = select(Patient.notes)


def eventually(happened: Callable[[], bool]) -> bool:
    """Whether it has *happened* before the time is over."""
    until = time.monotonic() + SECONDS
    while not (found := happened()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def destroy(keys: Keys) -> None:
    result = keys("destroy", "--tenant", str(A), "--reason", "request 4711", "--yes")
    assert result.exit_code == 0, result.output


def is_shredded(process: Process) -> bool:
    try:
        process.read()
    except TenantShreddedError:
        return True
    return False


@pytest.fixture
def process(rotating: Keys) -> Process:
    """A process that has the keys of A in its cache."""
    made = Process(rotating)
    assert made.read() == {"a"}
    return made


@contextmanager
def followed(process: Process, url: Any) -> Iterator[KeyFollower]:
    """Let *process* follow keys; it is connected when the block begins."""
    with process.guard.follow_keys(url) as made:
        assert made.wait(SECONDS)
        # Having begun to follow, it has forgotten those that it had.
        assert process.read() == {"a"}
        yield made


# -- who changes keys tells it ----------------------------------------------------------------


@contextmanager
def heard(keys: Keys) -> Iterator[list[tuple[str, str]]]:
    """A list of what was told in the block, each with its payload; there when the block ends."""
    told: list[tuple[str, str]] = []
    plain = keys.vault.admin.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}")
        connection.execute("LISTEN the_end")
        yield told
        # PostgreSQL delivers in the order of the commits.
        keys.vault.run("SELECT pg_notify('the_end', '')")
        for notice in connection.notifies(timeout=SECONDS):
            if notice.channel == "the_end":
                break
            told.append((notice.channel, notice.payload))
        else:
            pytest.fail("nothing arrived")


def rewrap(keys: Keys, directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    make_key_file(directory / "new.json", environment=ENVIRONMENT)
    files = (directory / "new.json", keys.vault.key_file)
    held = Keyring(*(KeyFile(each, environment=ENVIRONMENT) for each in files))
    roles = keys.vault.guard.roles
    guard = TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=held)
    serve(monkeypatch, guard=guard)
    return ["rewrap"]


def retire(keys: Keys, *_: Any) -> list[str]:
    keys("rotate", "--all", "--no-wait")
    return ["retire", "--all", "--undo"]


def import_(keys: Keys, directory: Path, *_: Any) -> list[str]:
    keys("export", "--wrapped", str(directory / "keys.jsonl"))
    keys.vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :a", a=A)
    return ["import", str(directory / "keys.jsonl")]


COMMANDS: dict[str, Callable[..., list[str]]] = {
    "rotate": lambda *_: ["rotate", "--all", "--no-wait"],
    "rewrap": rewrap,
    "destroy": lambda *_: ["destroy", "--tenant", str(A), "--reason", "test", "--yes"],
    "import": import_,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_tell_that_keys_have_changed(
    rotating: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """With the commit of the change, once, and neither whose nor which."""
    arguments = COMMANDS[command](rotating, tmp_path, monkeypatch)
    before = rotating.rows()
    with heard(rotating) as told:
        assert rotating(*arguments).exit_code == 0
    assert rotating.rows() != before
    assert told == [(CHANNEL, "")]


def test_retiring_tells_it(rotating: Keys, later: Callable[[float], None]) -> None:
    """Likewise, when keys are disabled and when they are enabled again."""
    rotating("rotate", "--all", "--no-wait")
    later(361)
    rotating("rotate", "--all", "--no-wait")
    later(361)
    rotating.vault.run("DELETE FROM patients")
    for more in ((), ("--undo",)):
        with heard(rotating) as told:
            assert rotating("retire", "--all", *more).exit_code == 0
        assert told == [(CHANNEL, "")]


def test_nothing_is_told_where_nothing_is_changed(rotating: Keys, tmp_path: Path) -> None:
    """Nor where an application makes a tenant's first keys: nobody has others of it."""
    file = str(tmp_path / "keys.jsonl")
    rotating.add_tenant(C)
    with heard(rotating) as told:
        for arguments in (
            ["rotate", "--all", "--dry-run"],
            ["rewrap"],
            ["retire", "--all", "--dry-run"],
            ["list", "--verify"],
            ["export", "--wrapped", file],
            ["import", file, "--dry-run"],
        ):
            assert rotating(*arguments).exit_code == 0
        Process(rotating, C).write("c")
    assert told == []


def test_tables_of_keys_have_channels_of_their_own() -> None:
    """Each schema's is another, and short enough for PostgreSQL."""

    class Catalog:
        def __init__(self, schema: str | None) -> None:
            self.key_table = type("Table", (), {"schema": schema})

    schemas = (None, "public", "praxis", "s" * 63, "s" * 62 + "t")
    public, same, *others = (channel_of(Catalog(each)) for each in schemas)  # type: ignore[arg-type]
    assert public == same == CHANNEL
    assert len({public, *others}) == 4
    assert max(len(each) for each in others) <= 63


# -- who follows notices ----------------------------------------------------------------------


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_destroyed_keys_are_noticed_at_once(
    rotating: Keys, process: Process, driver: str, caplog: pytest.LogCaptureFixture
) -> None:
    """By the next statement, five minutes before it would have been; other tenants go on."""
    other = Process(rotating, B)
    caplog.set_level(logging.INFO, "tenantguard")
    with followed(process, address(rotating.vault.app_url, driver)):
        destroy(rotating)
        assert eventually(lambda: is_shredded(process))
    assert other.read() == {"b"}
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"Following changes of keys on the channel {CHANNEL}."
    assert set(said[1:]) == {"Keys were changed: those in the cache are forgotten."}
    assert not IDS.search(caplog.text)


def test_who_does_not_follow_uses_them_on(rotating: Keys, process: Process) -> None:
    """That is what the others are compared with."""
    destroy(rotating)
    assert process.read() == {"a"}


def test_context_that_has_the_keys_notices_too(rotating: Keys, process: Process) -> None:
    """Its next statement, in the same block, session and transaction, does not open with them."""
    url = rotating.vault.app_url
    with (
        followed(process, url),
        process.guard.tenant_context(A),
        Session(process.engine) as session,
    ):
        assert session.scalars(NOTES).all() == ["a"]
        destroy(rotating)
        assert eventually(lambda: not process.keystore._cache)
        with pytest.raises(TenantShreddedError):
            session.scalars(NOTES).all()
        with pytest.raises(TenantShreddedError):
            session.scalars(NOTES.where(Patient.name == "a")).all()


def test_another_process_notices(rotating: Keys) -> None:
    """A real one; it ends by itself and silently, although it never stops to follow."""
    vault = rotating.vault
    url = vault.app_url.render_as_string(hide_password=False)
    settings = {
        "roles": asdict(vault.guard.roles),
        "key": str(vault.key_file),
        "app": url,
        "listened": url,
        "tenant": str(A),
    }
    command = [sys.executable, "-X", "dev", "-W", "error", str(PROCESS), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"has the keys\n"
        destroy(rotating)
        _, errors = child.communicate(timeout=2 * SECONDS)
    assert (child.returncode, errors) == (0, b"")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_process_does_not_follow(rotating: Keys, process: Process) -> None:
    """It says so, stops without harm, and the process that it came from follows on."""
    with followed(process, rotating.vault.app_url) as own:
        child = os.fork()
        if child == 0:
            own.stop()
            os._exit(own.following or process.keystore._lock.locked())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        destroy(rotating)
        assert eventually(lambda: is_shredded(process))
        assert own.following


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_forked_process_does_not_wait_for_the_thread(rotating: Keys, process: Process) -> None:
    """Which the parent has alone, and which may hold a lock at that moment."""
    with followed(process, rotating.vault.app_url):
        lock = process.guard._lock
        with lock:
            child = os.fork()
            if child == 0:
                os._exit(process.guard._lock.locked())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert process.guard._lock is lock


def test_stopping_closes_the_connection(rotating: Keys, process: Process) -> None:
    """At the end of the block no thread and no connection is left; twice is once."""
    listening = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'tenantguard keys'"
    )
    with followed(process, rotating.vault.app_url) as own:
        thread: Any = own._thread
        assert len(rotating.vault.run(listening)) == 1
        with pytest.raises(ConfigurationError, match="has been started before"):
            own.start()
        assert repr(own) == "<KeyFollower following=True>"
    assert (own.following, thread.is_alive()) == (False, False)
    own.stop()
    with pytest.raises(ConfigurationError, match="has been started before"):
        own.start()
    assert eventually(lambda: rotating.vault.run(listening) == [])


# -- what was missed --------------------------------------------------------------------------


class Gate:
    """Makes connections, unless it is closed."""

    def __init__(self, url: URL) -> None:
        self._url = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self.open = True
        self.tried = Event()

    def __call__(self) -> Any:
        if self.open:
            return psycopg.connect(self._url, application_name="listening")
        self.tried.set()
        raise psycopg.OperationalError("host secret.example refused a password")


@pytest.fixture
def gate(rotating: Keys, monkeypatch: pytest.MonkeyPatch) -> Gate:
    monkeypatch.setattr(follower, "_SOONEST", 0.01)
    return Gate(rotating.vault.app_url)


def engine_through(gate: Gate) -> Any:
    return create_engine("postgresql+psycopg://", creator=gate, poolclass=NullPool)


def test_lost_connection_is_made_again_and_keys_forgotten(
    rotating: Keys, process: Process, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    """What was told meanwhile is known as soon as it follows again; the log says why it did not."""
    with followed(process, engine_through(gate)) as own:
        gate.open = False
        rotating.vault.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'listening'"
        )
        assert gate.tried.wait(SECONDS)
        assert not own.following
        destroy(rotating)
        assert process.read() == {"a"}
        gate.open = True
        assert own.wait(SECONDS)
        assert is_shredded(process)
    assert "Changes of keys are not followed: no connection (OperationalError" in caplog.text
    assert "are used for five minutes at the most" in caplog.text
    assert "secret" not in caplog.text


def during_the_read(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let *act* happen once, between the reading of keys and their coming into the cache."""
    original: Any = vars(keystore)["ask"]

    def ask(connection: Any, query: str) -> Any:
        rows = original(connection, query)
        monkeypatch.setattr(keystore, "ask", original)
        act()
        return rows

    monkeypatch.setattr(keystore, "ask", ask)


@pytest.mark.parametrize("told", [True, False])
def test_keys_read_just_before_are_not_kept(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch, *, told: bool
) -> None:
    """Having to forget while it reads, a process does not keep what it has read.

    It may be told of a change, or have lost a connection.
    """
    process = Process(rotating)
    # The first connection forgets keys by itself.
    process.tenant = B
    assert process.read() == {"b"}
    process.tenant = A

    def change() -> None:
        destroy(rotating)
        if told:
            process.guard._forget_keys()
        else:
            process.keystore.forget()

    during_the_read(monkeypatch, change)
    with process.guard.tenant_context(A), Session(process.engine) as session:
        assert session.scalars(NOTES).all() == ["a"]
    assert is_shredded(process)


def test_keys_of_an_older_snapshot_are_not_kept(rotating: Keys, process: Process) -> None:
    """A transaction that began before the change sees the old keys, and leaves them to nobody."""
    engine = process.engine.execution_options(isolation_level="REPEATABLE READ")
    with process.guard.tenant_context(A), Session(engine) as session:
        assert session.scalars(NOTES).all() == ["a"]
        destroy(rotating)
        process.guard._forget_keys()
        assert session.scalars(NOTES).all() == ["a"]
        assert not process.keystore._cache
    assert is_shredded(process)


class Stream:
    """A driver that reads a byte at a time, each a message."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self.reads = 0

    def read(self) -> set[str]:
        self.reads += 1
        return {self._raw.recv(1).decode()}


def test_what_has_come_meanwhile_is_taken_together() -> None:
    """Many messages let a process forget its keys once, and not for minutes; never without end."""
    (raw, server), (woken, waker) = socket.socketpair(), socket.socketpair()
    driver = Stream(raw)
    heard = listener.Listener(driver, raw, woken)
    with raw, server, woken, waker:
        server.send(b"ab" * 20)
        assert heard.wait() == {"a", "b"}
        assert driver.reads == 40
        server.send(b"c" * 1000)
        assert heard.wait() == {"c"}
        assert driver.reads < 1000
        waker.send(b"!")
        reads = driver.reads
        heard.wait()
        assert driver.reads == reads + 1
        heard.close()


# -- where it cannot work ---------------------------------------------------------------------


def test_address_that_is_not_listened_on_is_said(
    rotating: Keys, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What another connection sends must arrive; if it does not, nothing is followed."""
    monkeypatch.setattr(listener, "_DELIVERY", 0.05)
    monkeypatch.setattr(listener, "_send", lambda *_: None)
    with rotating.vault.another_guard().follow_keys(engine_through(gate)) as own:
        assert eventually(lambda: "a notification did not arrive" in caplog.text)
        assert not own.following


def test_standby_is_said(
    rotating: Keys, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A standby cannot listen, whatever its data are."""

    def refuse(*_: Any) -> None:
        raise psycopg.errors.ReadOnlySqlTransaction("cannot execute LISTEN during recovery")

    monkeypatch.setattr(listener, "_prove", refuse)
    with rotating.vault.another_guard().follow_keys(engine_through(gate)):
        assert eventually(lambda: "the address is a standby's" in caplog.text)
    assert "Give the primary's" in caplog.text


def test_pooler_is_said_and_not_tried_again(
    rotating: Keys, gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where something else answers the driver and messages do not pass, that is an error."""
    monkeypatch.setattr(listener, "_DELIVERY", 0.05)
    monkeypatch.setattr(listener, "_send", lambda *_: None)
    monkeypatch.setattr(listener, "_is_behind_pooler", lambda _: True)
    own = rotating.vault.another_guard().follow_keys(engine_through(gate))
    thread: Any = own._thread
    thread.join(SECONDS)
    assert (own.following, thread.is_alive()) == (False, False)
    assert "Give it PostgreSQL's own address" in caplog.text
    own.stop()


@pytest.mark.pgbouncer
def test_pgbouncer_is_noticed(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In transaction mode no notification passes, and the log says so."""
    monkeypatch.setattr(listener, "_DELIVERY", 0.2)
    vault = rotating.vault
    with pgbouncer(vault) as pooled:
        url = vault.app_url.set(host=pooled.host, port=pooled.port, query=pooled.query)
        with vault.another_guard().follow_keys(url) as own:
            assert eventually(lambda: "Give it PostgreSQL's own address" in caplog.text)
            assert not own.following


@pytest.mark.parametrize(
    "given",
    [
        "postgresql+asyncpg://u:secret@h/d",
        "sqlite://",
        "nonsense secret",
        "postgresql+secret://h/d",
        "postgresql+psycopg://u:a@secret:secret@h/d",
        None,
    ],
)
def test_what_cannot_listen_is_refused(rotating: Keys, given: Any) -> None:
    """In words that name the fix, and do not repeat the address."""
    with pytest.raises(ConfigurationError, match=r"such as postgresql\+psycopg://") as refusal:
        rotating.vault.guard.follow_keys(given)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__context__ is None


def test_engine_of_the_application_is_refused(rotating: Keys, process: Process) -> None:
    """One that a guard protects, and the system engine."""
    system = create_engine(rotating.vault.app_url)
    keys = rotating.vault.guard.keys
    guard = TenantGuard(Base.metadata, tenants="practices", keys=keys, system_engine=system)
    for engine in (process.engine, system):
        with pytest.raises(ConfigurationError, match="an engine that nothing else uses"):
            guard.follow_keys(engine)


def test_nothing_to_follow(rotating: Keys) -> None:
    """Without keys= it is a mistake; a guard that is off follows nothing."""
    url = rotating.vault.app_url
    with pytest.raises(ConfigurationError, match="nothing to follow"):
        TenantGuard(Base.metadata, tenants="practices").follow_keys(url)
    keys = rotating.vault.guard.keys
    with TenantGuard(Base.metadata, tenants="practices", keys=keys, mode="off").follow_keys(
        url
    ) as own:
        assert (own.following, own._thread) == (False, None)


# -- a standby's rows -------------------------------------------------------------------------

RECOVERY = "pg_catalog.pg_is_in_recovery()"
REPLAYED = "pg_catalog.pg_last_xact_replay_timestamp()"
UNKNOWN = (float("inf"), float("inf"))
AGES = {
    "replayed now": ("statement_timestamp()", "READ COMMITTED", (0, 30)),
    "replayed a minute ago": (
        "statement_timestamp() - interval '1 minute'",
        "READ COMMITTED",
        (60, 90),
    ),
    "a clock that is ahead": (
        "statement_timestamp() + interval '1 day'",
        "READ COMMITTED",
        (0, 0),
    ),
    "nothing replayed": ("NULL::timestamptz", "READ COMMITTED", UNKNOWN),
    "an older snapshot": ("statement_timestamp()", "REPEATABLE READ", UNKNOWN),
}


@pytest.mark.parametrize("case", AGES)
def test_rows_of_a_standby_are_as_old_as_what_it_has_replayed(rotating: Keys, case: str) -> None:
    """So old they are at the most; where that is not known, keys are not kept."""
    replayed, isolation, (least, most) = AGES[case]
    question = keystore._AGE.replace(RECOVERY, "true").replace(REPLAYED, f"({replayed})")
    with rotating.vault.admin.connect() as connection:
        connection.execution_options(isolation_level=isolation)
        age: Any = connection.exec_driver_sql(f"SELECT {question}").scalar()
    assert least <= age <= most


def test_keys_of_a_standby_are_kept_so_long(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of five minutes the age of what it has replayed is taken off; of a lost standby, all."""
    for ago, kept in ((200, True), (301, False)):
        known = keystore._AGE.replace(RECOVERY, "true").replace(
            REPLAYED, f"(clock_timestamp() - interval '{ago} seconds')"
        )
        with monkeypatch.context() as patched:
            patched.setattr(keystore, "_AGE", known)
            process = Process(rotating)
            process.read()
            process.read()
        keys = process.keystore._cache.get(str(A))
        assert (keys is not None and keystore.is_fresh(keys)) is kept
