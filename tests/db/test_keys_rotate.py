"""`tenantguard keys rotate`: a new key for values, while every process goes on."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from key_commands import IDS, Keys, Process, assert_could_not_look
from killed_command import run_and_kill
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard import UnknownKeyError, keystore
from tenantguard.cli.keys import changing, rotate
from tenantguard.crypto.rotation import keys_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from tenantguard.cli.keys.changing import KeyTable
    from tenantguard.cli.keys.writing import KeyRow
    from tenantguard.crypto.rotation import Row, Stored


def numbers(keys: Keys) -> list[int]:
    """How many keys have sealed tenant A's values, in the order of the rows."""
    rows = keys.vault.run(
        "SELECT substring(notes FROM 6 FOR 4) FROM patients WHERE tenant_id = :a ORDER BY id", a=A
    )
    seen = list(dict.fromkeys(bytes(row[0]) for row in rows))
    return [seen.index(bytes(row[0])) for row in rows]


def rotated(keys: Keys, *options: str) -> tuple[int, int, int]:
    """Run the command; return how many keys were added, made primary, and wait."""
    document = keys.json("rotate", "--no-wait", *(options or ("--all",)))
    return document["added"], document["primary"], document["pending"]


def test_nothing_fails_while_keys_rotate(rotating: Keys, later: Callable[[float], None]) -> None:
    """At each step processes with caches as old as they get write, and read each other's values."""
    old, late = Process(rotating), Process(rotating)
    assert old.read() == late.read() == {"a"}
    assert rotated(rotating) == (2, 0, 2)
    later(299)
    assert rotated(rotating) == (0, 0, 2)
    fresh = Process(rotating)
    fresh.write("with the new key added")
    assert old.read() == {"a", "with the new key added"}
    later(2)
    old.write("from a cache read again")
    later(60)
    assert rotated(rotating) == (0, 2, 0)
    new = Process(rotating)
    new.write("with the new key")
    old.write("with the old key, in the cache")
    late.write("by who has slept all the time")
    assert old.read() == late.read() == fresh.read() == new.read()
    assert len(new.read()) == 6
    assert numbers(rotating) == [0, 0, 0, 1, 0, 1]


def test_rotate_waits_until_every_process_has_the_keys(
    rotating: Keys, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --no-wait one command does both steps, and says what comes next."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        later(seconds)

    monkeypatch.setattr(rotate, "sleep", sleep)
    result = rotating("rotate", "--all")
    assert result.exit_code == 0, result.output
    assert 350 < sum(slept) < 370
    assert "added: 2 keys. They seal now: 2.\nWhat is stored opens" in result.stdout
    assert "`tenantguard encrypt rewrite` seals it anew" in result.stdout
    assert not IDS.search(result.output)
    Process(rotating).write("new")
    assert numbers(rotating) == [0, 1]
    assert rotating.vault.run(
        "SELECT purpose, generation, rotated_at IS NOT NULL FROM tenantguard_keys GROUP BY 1, 2, 3 "
        "ORDER BY 1"
    ) == [("data", 3, True), ("index", 1, False)]


def test_dry_run_counts(rotating: Keys) -> None:
    """Nothing is changed; the document says what would be."""
    before = rotating.rows()
    assert rotating.json("rotate", "--all", "--dry-run") == {
        "version": 1,
        "purpose": "data",
        "dry_run": True,
        "tenants": 2,
        "without_new_key": 2,
        "added": 0,
        "primary": 0,
        "pending": 0,
        "seconds_to_wait": None,
        "overtaken": 0,
        "unopened": 0,
        "findings": [],
    }
    assert rotating.rows() == before
    assert "2 of 2 tenants would get a new key" in rotating("rotate", "--all", "--dry-run").stdout


def test_one_tenant_is_rotated(rotating: Keys, later: Callable[[float], None]) -> None:
    """Only its row changes, and nothing names it; --all goes on with it, and with the others."""
    result = rotating("rotate", "--tenant", str(A), "--no-wait")
    assert "added: 1 keys. They seal now: 0.\n1 keys wait until every process" in result.stdout
    assert not IDS.search(result.output)
    assert rotating.vault.run("SELECT tenant_id FROM tenantguard_keys WHERE generation > 1") == [
        (A,)
    ]
    later(361)
    assert rotated(rotating) == (1, 1, 1)


def test_interrupted_rotation_gets_no_third_key(
    rotating: Keys, later: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has got a key since the rotation began gets no other, whether that seals or not."""
    rotated(rotating)
    later(361)
    monkeypatch.setattr(changing, "_BATCH", 1)
    promote = changing.KeyTable.change

    def once(self: KeyTable, condition: str, make: Any, **options: Any) -> Any:
        return promote(self, f"{condition} AND k.tenant_id = '{A}'", make, **options)

    monkeypatch.setattr(changing.KeyTable, "change", once)
    assert rotated(rotating) == (0, 1, 1)
    monkeypatch.setattr(changing.KeyTable, "change", promote)
    assert rotating.json("rotate", "--all", "--dry-run")["without_new_key"] == 0
    assert rotated(rotating) == (0, 1, 0)
    assert rotated(rotating) == (2, 0, 2)


@pytest.mark.parametrize("at", [1, 2])
def test_killed_run_is_continued(rotating: Keys, later: Callable[[float], None], at: int) -> None:
    """Killed while keys are added, the next run adds those that are missing."""
    files = [rotating.vault.key_file]
    arguments = ("keys", "rotate", "--all", "--no-wait")
    assert run_and_kill(rotating, files, *arguments, at=at) == -signal.SIGKILL
    assert Process(rotating).read() == {"a"}
    # With no key added, it is a new rotation; with one, it is continued.
    assert rotated(rotating) == (3 - at, 0, 2)
    later(361)
    assert rotated(rotating) == (0, 2, 0)
    assert Process(rotating).read() == {"a"}


def test_two_rotations_at_once_add_one_key(rotating: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that another run has changed since it was read is left to that run."""
    from tenantguard.crypto import rotation  # noqa: PLC0415

    add, others = rotation.add_key, iter([True])

    def overtaken(stored: Stored) -> Row | None:
        if next(others, False):
            monkeypatch.setattr(rotation, "add_key", add)
            assert rotated(rotating) == (2, 0, 2)
        return add(stored)

    monkeypatch.setattr(rotation, "add_key", overtaken)
    document = rotating.json("rotate", "--all", "--no-wait")
    assert (document["added"], document["overtaken"], document["pending"]) == (0, 2, 2)
    counts: list[int] = []
    count = rotate._Rotation._pending

    def counted(self: Any) -> Any:
        rows: list[KeyRow] = list(self._table.rows(self._rows))
        counts.extend(len(keys_of(self._table.stored(row))) for row in rows)
        return count(self)

    monkeypatch.setattr(rotate._Rotation, "_pending", counted)
    rotating("rotate", "--all", "--dry-run")
    assert counts == [2, 2]


def test_transaction_that_sees_old_rows_leaves_no_fresh_cache(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under REPEATABLE READ a keyset is as old as the transaction; so is the cache's copy."""
    monkeypatch.setattr(keystore, "_SECONDS", 0.05)
    monkeypatch.setattr(keystore, "monotonic", lambda: 0.0)
    process = Process(rotating)
    repeatable = process.engine.execution_options(isolation_level="REPEATABLE READ")
    with process.guard.tenant_context(A), Session(repeatable) as session:
        session.execute(select(text("pg_sleep(0.06)")).select_from(Patient))
        assert session.scalars(select(Patient.notes)).all() == ["a"]
    assert process.keystore._cache[str(A)].expires < 0


def test_unknown_key_is_looked_up_with_the_next_statement(rotating: Keys) -> None:
    """A process whose cache is older than it can be, after a suspended machine, recovers."""
    process = Process(rotating)
    assert process.read() == {"a"}
    [keys] = process.keystore._cache.values()
    assert process.keystore._cached(str(A)) is keys
    [value] = rotating.vault.run("SELECT notes FROM patients WHERE tenant_id = :b", b=B)
    rotating.vault.run("UPDATE patients SET notes = :v WHERE tenant_id = :a", v=value[0], a=A)
    with pytest.raises(UnknownKeyError, match="does not have"):
        process.read()
    assert process.keystore._cached(str(A)) is None


def test_tenants_have_to_be_named(rotating: Keys) -> None:
    """Neither all nor one is meant by default; what is no id is not repeated."""
    for options in ((), ("--all", "--tenant", str(A))):
        assert_could_not_look(rotating("rotate", *options), "Give either --tenant ID or --all")
    result = rotating("rotate", "--tenant", "Praxis Meier")
    assert_could_not_look(result, "cannot be the id of a tenant.*registry's primary key")
    assert "Meier" not in result.output
    for command in ("rotate", "retire"):
        other = rotating(command, "--tenant", "dddddddd-0000-4000-8000-00000000000d")
        assert_could_not_look(other, "Neither the registry nor tenantguard_keys has the tenant")
        assert "dddddddd" not in other.output


def test_keysets_that_do_not_open_are_a_finding(rotating: Keys) -> None:
    """The others get their keys; nobody is named."""
    rotating.vault.run(
        "UPDATE tenantguard_keys SET check_value = '' WHERE purpose = 'data' AND tenant_id = :a",
        a=A,
    )
    result = rotating("rotate", "--all", "--no-wait")
    assert result.exit_code == 1
    assert "key-unusable: 1 keysets" in result.stdout
    assert "added: 1 keys" in result.stdout
    assert not IDS.search(result.output)


def test_maintenance_rotates(rotating: Keys, login: Callable[..., URL]) -> None:
    """A login that is granted the role may; the backup role is told which one may."""
    roles = rotating.vault.guard.roles
    url = login(roles.maintenance)
    assert "added: 2 keys" in rotating("rotate", "--all", "--no-wait", url=url).stdout
