"""`tenantguard keys destroy`: a tenant's keys are gone for good, and the receipt is true."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from key_commands import IDS, MODULE, C, Keys, Process, assert_could_not_look
from killed_command import run_and_kill
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard import TenantShreddedError
from tenantguard.cli import main
from tenantguard.cli.keys import destroy
from tenantguard.keystore import KNOWN_EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

STATES = "SELECT purpose, state, wrapped, check_value FROM tenantguard_keys WHERE tenant_id = :t"
WHY = ("--reason", "request 4711")


def destroyed(keys: Keys, *options: str, tenant: Any = A) -> Any:
    return keys("destroy", "--tenant", str(tenant), *WHY, "--yes", *options)


def states(keys: Keys, tenant: Any = A) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in keys.vault.run(STATES, t=tenant)}


GONE = {(purpose, "destroyed", None, None) for purpose in ("data", "index")}


def test_destroyed_keys_open_and_find_nothing(rotating: Keys) -> None:
    """Read, search and write are refused with a name of its own; another tenant's go on."""
    result = destroyed(rotating)
    assert (result.exit_code, result.stderr) == (0, "")
    assert states(rotating) == GONE
    with pytest.raises(TenantShreddedError, match="key was destroyed"):
        Process(rotating).read()
    with pytest.raises(TenantShreddedError, match="key was destroyed"):
        Process(rotating).write("new")
    assert Process(rotating, B).read() == {"b"}
    assert rotating("list", "--verify").exit_code == 0


def test_destroyed_keys_are_never_made_again(rotating: Keys) -> None:
    """Neither by the application, nor by a command, with values or without; nor twice."""
    destroyed(rotating)
    rotating.vault.run("DELETE FROM patients WHERE tenant_id = :a", a=A)
    with pytest.raises(TenantShreddedError):
        Process(rotating).write("new")
    assert "Nothing to do" in rotating("create").stdout
    for command in (("rewrap",), ("rotate", "--all", "--no-wait"), ("retire", "--all", "--undo")):
        rotating(*command)
    assert states(rotating) == GONE


def test_tenant_without_keys_never_gets_any(keys: Keys) -> None:
    """Also who has none yet leaves a tombstone."""
    assert destroyed(keys).exit_code == 0
    assert states(keys) == GONE
    with pytest.raises(TenantShreddedError):
        Process(keys).write("new")


def test_keys_that_are_being_made_are_destroyed_too(keys: Keys) -> None:
    """Their transaction is waited for; the receipt has their hashes, and its value is lost."""
    process = Process(keys)
    with ThreadPoolExecutor(1) as pool:
        with process.guard.tenant_context(A), Session(process.engine) as session:
            session.add(Patient(name="first", notes="first"))
            session.flush()
            running = pool.submit(destroyed, keys)
            _wait_for_a_waiting_one(keys)
            session.commit()
        result = running.result()
    assert (result.exit_code, "Destroyed 2 keysets" in result.stdout) == (0, True), result.output
    assert result.stdout.count("SHA-256 of ") == 2
    assert states(keys) == GONE
    with pytest.raises(TenantShreddedError):
        Process(keys).read()


def test_cached_keys_write_on_until_the_time_of_the_receipt(
    rotating: Keys, later: Callable[[float], None]
) -> None:
    """What they seal is lost, as the receipt says; after that time nobody seals."""
    process = Process(rotating)
    process.read()
    destroyed(rotating)
    process.write("late")
    with pytest.raises(TenantShreddedError):
        Process(rotating).read()
    later(KNOWN_EVERYWHERE)
    with pytest.raises(TenantShreddedError):
        process.write("later")


def test_command_that_waits_too_long_says_for_what(keys: Keys) -> None:
    """Nothing is wrong with its role; nothing was destroyed."""
    process = Process(keys)
    with process.guard.tenant_context(A), Session(process.engine) as session:
        session.add(Patient(name="first", notes="first"))
        session.flush()
        assert_could_not_look(destroyed(keys), r"55P03.* open transaction .*run the command again")
        session.commit()
    assert Process(keys).read() == {"first"}


def test_receipt_of_the_second_of_two_runs_says_so(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has found keys, and was overtaken before it destroyed them."""

    def overtaken(_: object) -> tuple[str, ...]:
        monkeypatch.undo()
        rotating.vault.run(
            "UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL, check_value = NULL, "
            "shredded_at = now() WHERE tenant_id = :a",
            a=A,
        )
        return ()

    monkeypatch.setattr(destroy._Tenant, "_plaintext", overtaken)
    assert "The tenant's keys were destroyed before" in destroyed(rotating).stdout


def _wait_for_a_waiting_one(keys: Keys) -> None:
    for _ in range(50):
        if keys.vault.run("SELECT FROM pg_locks WHERE NOT granted"):
            return
        sleep(0.1)
    pytest.fail("nobody waits")


def test_receipt_says_what_can_still_be_read(rotating: Keys) -> None:
    """Its hashes tell a copy of the keysets; it names what keeps one, and not the tenant."""
    digests = rotating.vault.run(
        "SELECT purpose, encode(sha256(wrapped), 'hex') FROM tenantguard_keys "
        "WHERE tenant_id = :a ORDER BY 1",
        a=A,
    )
    arguments = ("destroy", "--tenant", str(A), *WHY, "--yes", "--backups-until", "2020-01-31")
    document = rotating.json(*arguments)
    assert document["keysets"] == [{"purpose": p, "sha256": d} for p, d in digests]
    assert (document["reason"], document["backups_until"]) == ("request 4711", "2020-01-31")
    caches, backups, files = document["still_readable"]
    at = datetime.fromisoformat(document["destroyed_at"])
    assert f"until {at + timedelta(seconds=360):%Y-%m-%dT%H:%M:%SZ}" in caches["until"]
    assert "what these still write is lost" in caches["how"]
    assert ("cache" in caches["how"], backups["until"]) == (True, "until 2020-01-31")
    assert "write-ahead log" in files["how"]
    again = rotating.json(*arguments)
    assert (again["destroyed_at"], again["destroyed_before"]) == (document["destroyed_at"], True)
    text = rotating(*arguments)
    assert f"were destroyed before, at {document['destroyed_at']}" in text.stdout
    assert not IDS.search(f"{document}{again}{text.output}")


def test_unsaid_backups_are_said_to_be_unknown(rotating: Keys) -> None:
    """Without a date the receipt promises none."""
    result = destroyed(rotating)
    assert "Destroyed 2 keysets of the tenant, at 20" in result.stdout
    assert "copy of tenantguard_keys from before: for as long as such copies are" in result.stdout


@pytest.mark.parametrize("window", ["kept", "until"])
def test_open_window_of_backups_takes_force(rotating: Keys, window: str) -> None:
    """While backups have the keys it is refused, with the date; --force writes it down."""
    last = datetime.now(UTC).date() + timedelta(days=30)
    option = ("--backups-kept", "30") if window == "kept" else ("--backups-until", str(last))
    before = states(rotating)
    result = destroyed(rotating, *option)
    assert (result.exit_code, states(rotating)) == (1, before)
    assert "Nothing was destroyed: backups have the keys until" in result.stderr
    forced = destroyed(rotating, *option, "--force")
    assert (forced.exit_code, states(rotating)) == (0, GONE)
    assert f"copy of tenantguard_keys from before: until {last.year}" in forced.stdout


def typed(keys: Keys, monkeypatch: pytest.MonkeyPatch, answer: str) -> Any:
    monkeypatch.setattr(destroy, "_is_terminal", lambda: True)
    url = keys.vault.admin.url.render_as_string(hide_password=False)
    arguments = ["keys", "destroy", "--tenant", str(A), *WHY, "--guard", f"{MODULE}:guard"]
    environment = {"TENANTGUARD_ADMIN_URL": url}
    return CliRunner(echo_stdin=False).invoke(main, arguments, input=answer, env=environment)


def test_id_is_typed_again(rotating: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another id, or what is none, destroys nothing; the same does."""
    before = states(rotating)
    for answer in (f"{B}\n", "yes\n"):
        result = typed(rotating, monkeypatch, answer)
        assert (result.exit_code, states(rotating)) == (2, before)
        assert "That is another id. Nothing was destroyed." in result.stderr
    assert typed(rotating, monkeypatch, f"{str(A).upper()}\n").exit_code == 0
    assert states(rotating) == GONE


def test_without_a_terminal_yes_is_needed(rotating: Keys) -> None:
    """A script has to say that it means it."""
    result = rotating("destroy", "--tenant", str(A), *WHY)
    assert_could_not_look(result, "no terminal to ask for the tenant's id again. Give --yes")
    assert "active" in {row[1] for row in states(rotating)}


def test_killed_run_leaves_the_keys_or_destroys_them(rotating: Keys) -> None:
    """Killed before its commit nothing has changed; the next run destroys both."""
    before = states(rotating)
    arguments = ("keys", "destroy", "--tenant", str(A), *WHY, "--yes")
    files = [rotating.vault.key_file]
    assert run_and_kill(rotating, files, *arguments, at=1) == -signal.SIGKILL
    assert states(rotating) == before
    assert Process(rotating).read() == {"a"}
    assert destroyed(rotating).exit_code == 0
    assert states(rotating) == GONE


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("--tenant", str(C), *WHY), "Neither the registry nor tenantguard_keys has the tenant"),
        (("--tenant", "Meier", *WHY), "cannot be the id of a tenant"),
        (("--tenant", str(A), "--reason", " "), "--reason is empty"),
        (
            ("--tenant", str(A), *WHY, "--backups-kept", "1", "--backups-until", "2030-01-01"),
            "not both",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(
    rotating: Keys, arguments: tuple[str, ...], pattern: str
) -> None:
    """With one line that repeats no id."""
    result = rotating("destroy", "--yes", *arguments)
    assert_could_not_look(result, pattern)
    assert not IDS.search(result.output)
    assert "Meier" not in result.output


def test_maintenance_destroys(rotating: Keys, login: Callable[..., URL]) -> None:
    """A login that is granted the role may."""
    url = login(rotating.vault.guard.roles.maintenance)
    result = rotating("destroy", "--tenant", str(A), *WHY, "--yes", url=url)
    assert (result.exit_code, states(rotating)) == (0, GONE)
