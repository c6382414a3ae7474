"""`tenantguard keys rewrap`: another key-encryption key, and not one value that does not open."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from key_commands import IDS, C, Keys, assert_could_not_look, serve
from killed_command import run_and_kill
from sqlalchemy import select
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session
from vault import ENVIRONMENT, A, B, Base, Patient

from tenantguard import KeyFile, Keyring, KeyUnavailableError, TenantGuard
from tenantguard.cli.keys import changing, rewrap
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

    from tenantguard.cli.keys.writing import Change, KeyRow


@pytest.fixture
def new_key(tmp_path: Path) -> Path:
    """The file of another key-encryption key for the same environment."""
    path = tmp_path / "new.json"
    make_key_file(path, environment=ENVIRONMENT)
    return path


@pytest.fixture
def moving(keys: Keys, new_key: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    """Two tenants with a value each, whose keysets the previous key of the guard has wrapped."""
    for tenant, name in ((A, "Anna"), (B, "Bodo")):
        write(keys, keys.vault.another_guard(), tenant, name)
    serve(monkeypatch, guard=guard_of(keys, new_key, keys.vault.key_file))
    return keys


def guard_of(keys: Keys, *files: Path) -> TenantGuard:
    current, *previous = (KeyFile(each, environment=ENVIRONMENT) for each in files)
    roles = keys.vault.guard.roles
    held = Keyring(current, *previous)
    return TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=held)


def uri_of(path: Path) -> str:
    return KeyFile(path, environment=ENVIRONMENT).uri


def write(keys: Keys, guard: TenantGuard, tenant: uuid.UUID, name: str) -> None:
    engine = keys.vault.protected_by(guard)
    with guard.tenant_context(tenant), Session(engine) as session:
        session.add(Patient(name=name))
        session.commit()


def names(keys: Keys, guard: TenantGuard, tenant: uuid.UUID) -> list[str]:
    """Read and search with a cache of its own."""
    engine = keys.vault.protected_by(guard)
    with guard.tenant_context(tenant), Session(engine) as session:
        found = list(session.scalars(select(Patient.name)))
        for name in found:
            assert session.scalars(select(Patient.name).where(Patient.name == name)).all()
        return found


def uris(keys: Keys) -> set[str]:
    return {row[2] for row in keys.rows()}


def test_rows_of_both_keys_are_used_together(moving: Keys, new_key: Path) -> None:
    """What the previous key wrapped is opened; what is new is wrapped by the current one."""
    moving.add_tenant(C)
    guard = guard_of(moving, new_key, moving.vault.key_file)
    write(moving, guard, C, "Cora")
    assert [names(moving, guard, each) for each in (A, B, C)] == [["Anna"], ["Bodo"], ["Cora"]]
    assert uris(moving) == {uri_of(moving.vault.key_file), uri_of(new_key)}
    with pytest.raises(KeyUnavailableError, match="wrapped by another key-encryption key"):
        names(moving, guard_of(moving, new_key), A)
    moving.vault.run("DELETE FROM patients WHERE tenant_id = :c", c=C)


def test_rewrap_moves_all_rows(moving: Keys, new_key: Path) -> None:
    """Counted, then wrapped: all opens with the new key alone, and a second run does nothing."""
    before = moving.rows()
    counted = moving("rewrap", "--dry-run")
    assert (counted.exit_code, moving.rows()) == (0, before)
    assert "4 keysets are wrapped by a previous key. Run the command without" in counted.stdout
    result = moving("rewrap")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "wrapped: 4 of 4 keysets.\nAll keysets are wrapped by file:test/" in result.stdout
    assert "until the last backup of the database that needs it is gone" in result.stdout
    assert not IDS.search(result.output)
    assert uris(moving) == {uri_of(new_key)}
    alone = guard_of(moving, new_key)
    assert (names(moving, alone, A), names(moving, alone, B)) == (["Anna"], ["Bodo"])
    after = moving.rows()
    assert "Nothing to do" in moving("rewrap").stdout
    assert moving.rows() == after
    assert moving.vault.run("SELECT DISTINCT generation FROM tenantguard_keys") == [(2,)]


def test_rewrap_says_it_as_json(moving: Keys, new_key: Path) -> None:
    """The document counts; nobody's id is in it."""
    old, new = uri_of(moving.vault.key_file), uri_of(new_key)
    assert moving.json("rewrap", "--dry-run") == {
        "version": 1,
        "dry_run": True,
        "kek_uri": new,
        "waiting": 4,
        "rewrapped": 0,
        "overtaken": 0,
        "unopened": 0,
        "keysets": [{"kek_uri": old, "keysets": 4}],
        "findings": [],
    }
    document = moving.json("rewrap")
    assert (document["rewrapped"], document["keysets"]) == (4, [{"kek_uri": new, "keysets": 4}])


@pytest.mark.parametrize("at", [1, 3])
def test_killed_run_is_finished_by_the_next(moving: Keys, new_key: Path, at: int) -> None:
    """Killed in the midst of a batch, each row is as before or as after; the rest is done later."""
    old = moving.vault.key_file
    assert run_and_kill(moving, [new_key, old], "keys", "rewrap", at=at) == -signal.SIGKILL
    wrapped = [row[2] for row in moving.rows()]
    assert (wrapped.count(uri_of(new_key)), wrapped.count(uri_of(old))) == (at - 1, 5 - at)
    both = guard_of(moving, new_key, old)
    assert (names(moving, both, A), names(moving, both, B)) == (["Anna"], ["Bodo"])
    document = moving.json("rewrap")
    assert (document["waiting"], document["rewrapped"]) == (5 - at, 5 - at)
    alone = guard_of(moving, new_key)
    assert (names(moving, alone, A), names(moving, alone, B)) == (["Anna"], ["Bodo"])


def test_changed_row_is_not_overwritten(moving: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another has changed since the row was read stays as that left it."""
    change = rewrap._change

    def overtaken(table: Any, keys: Any, row: KeyRow) -> Change | None:
        moving.vault.run(
            "UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL, check_value = NULL, "
            "generation = generation + 1 WHERE tenant_id = :a AND purpose = 'data'",
            a=A,
        )
        return change(table, keys, row)

    monkeypatch.setattr(rewrap, "_change", overtaken)
    document = moving.json("rewrap")
    assert (document["rewrapped"], document["overtaken"]) == (3, 1)
    [row] = moving.vault.run("SELECT wrapped FROM tenantguard_keys WHERE state = 'destroyed'")
    assert row == (None,)


def test_restored_row_is_not_overwritten(moving: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another keyset under the same generation, as a restore brings it, is not overwritten."""
    change = rewrap._change

    def restored(table: Any, keys: Any, row: KeyRow) -> Change | None:
        moving.vault.run("UPDATE tenantguard_keys SET wrapped = '\\x0102' WHERE purpose = 'index'")
        return change(table, keys, row)

    monkeypatch.setattr(rewrap, "_change", restored)
    document = moving.json("rewrap")
    assert (document["rewrapped"], document["overtaken"]) == (2, 2)


def test_keyset_that_does_not_open_is_left_and_told(moving: Keys) -> None:
    """A damaged row is not wrapped again as if it were good; the others are."""
    moving.vault.run(
        "UPDATE tenantguard_keys SET check_value = '\\x00' "
        "WHERE purpose = 'data' AND tenant_id = :a",
        a=A,
    )
    result = moving("rewrap")
    assert result.exit_code == 1
    assert "key-unusable: 1 keysets are not opened by the key that their row names" in result.stdout
    assert "wrapped: 3 of 4 keysets.\n1 keysets are still wrapped by another" in result.stdout
    assert not IDS.search(result.output)


class Failing:
    """A key that stops answering, as a service does, after so many uses."""

    environment = ENVIRONMENT

    def __init__(self, key: KeyFile, uses: int) -> None:
        self._key, self._uses, self.uri = key, uses, key.uri

    @property
    def kek(self) -> Failing:
        return self

    def _use(self) -> None:
        self._uses -= 1
        if self._uses < 0:
            raise KeyUnavailableError("The key service does not answer.")

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        self._use()
        return self._key.kek.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        self._use()
        return self._key.kek.decrypt(ciphertext, associated_data)


def test_key_that_stops_answering_is_no_damage(
    moving: Keys, new_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with 2 and calls no keyset damaged; the next one does what is left."""
    monkeypatch.setattr(changing, "_BATCH", 1)
    old = Failing(KeyFile(moving.vault.key_file, environment=ENVIRONMENT), uses=3)
    roles, held = moving.vault.guard.roles, Keyring(KeyFile(new_key, environment=ENVIRONMENT), old)
    guard = TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=held)
    serve(monkeypatch, guard=guard)
    assert_could_not_look(moving("rewrap"), "The key service does not answer")
    assert len(uris(moving)) == 2
    old._uses = 100
    assert moving("rewrap").exit_code == 0
    assert uris(moving) == {uri_of(new_key)}


def test_rows_of_an_unknown_key_are_a_finding(
    moving: Keys, new_key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A keyring that lacks the key that wrapped them changes nothing, and says which it is."""
    serve(monkeypatch, guard=guard_of(moving, new_key))
    before = moving.rows()
    result = moving("rewrap")
    assert (result.exit_code, moving.rows()) == (1, before)
    assert f"4 keysets are wrapped by {uri_of(moving.vault.key_file)}, and" in result.stdout


def test_list_tells_the_keys_apart(moving: Keys) -> None:
    """Rows of the previous key are no finding, are opened with it, and wait for rewrapping."""
    result = moving("list", "--verify")
    assert result.exit_code == 0
    assert (
        "4 keysets are wrapped by a previous key of the guard's, and it opens them. `tenantguard "
        "keys rewrap` wraps" in result.stdout
    )
    moving("rewrap")
    assert "All keysets are wrapped by the guard's key" in moving("list", "--verify").stdout


def test_maintenance_rewraps_and_nobody_else(moving: Keys, login: Callable[..., URL]) -> None:
    """The backup role is told which role may; the application may neither change nor delete."""
    roles = moving.vault.guard.roles
    url = login(roles.backup)
    assert_could_not_look(moving("rewrap", url=url), "may not change keys.*the maintenance role")
    moving.vault.run(f'GRANT "{roles.maintenance}" TO "{url.username}"')
    assert moving("rewrap", url=url).exit_code == 0
    for statement in ("UPDATE tenantguard_keys SET generation = 9", "DELETE FROM tenantguard_keys"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            moving.vault.run(f'SET LOCAL ROLE "{roles.application}"; {statement}')
