"""`kill -9` at any moment, beside a writer: the next run finishes, and nothing is lost.

Each command is killed after its first statement, after a later one when it is started again, and
so on until it ends by itself. An application changes the same rows all the time.
"""

from __future__ import annotations

import signal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from commanding import Command, serve
from key_commands import Keys, Process
from killed_command import Killed
from locks import unique_roles
from moving import VALUES, OldPatient, build_moving
from rotating import data_keyset, rotate
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import Session
from vault import ENVIRONMENT, A, B, Patient
from writing_beside import written_beside

from tenantguard import KeyFile, Keyring, TenantShreddedError, rls, tenant_context
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.encrypt.counting import rows_by_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL, Engine
    from vault import Vault

MANY = 60
NAME = "patients.name"
STATES = "SELECT state, count(*) FROM tenantguard_keys WHERE tenant_id = :a GROUP BY 1"


def changes_names(engine: Engine, model: Any) -> Callable[[str], int]:
    """Return what gives one of A's patients another name."""
    with tenant_context(A), Session(engine) as session:
        ids = session.scalars(select(model.id)).all()
    chosen = Random(7)

    def change(name: str) -> int:
        one: int = chosen.choice(ids)
        with tenant_context(A), Session(engine) as session:
            session.execute(update(model).where(model.id == one).values(name=name))
            session.commit()
        return one

    return change


def names(engine: Engine) -> dict[int, str]:
    """Open each name of A's, and find its row by it."""
    with tenant_context(A), Session(engine) as session:
        found = {row.id: row.name for row in session.execute(select(Patient.id, Patient.name))}
        for id_, name in found.items():
            assert id_ in session.scalars(select(Patient.id).where(Patient.name == name)).all()
    return found


def keys_used(vault: Vault) -> set[int]:
    """Return the numbers of the keys that have sealed A's values."""
    rows = rows_by_key(vault.run, vault.guard.catalog, tenant=str(A))
    return {each.key for each in rows if each.key is not None}


@pytest.fixture
def full(rotating: Keys) -> Keys:
    """A has many patients, B has one."""
    process = Process(rotating)
    with tenant_context(A), Session(process.engine) as session:
        session.add_all(Patient(name=f"patient {n}", notes="a") for n in range(MANY - 1))
        session.commit()
    return rotating


def killed(keys: Keys, *files: Path) -> Killed:
    return Killed(keys.vault.admin.url, keys.vault.guard.roles, files or (keys.vault.key_file,))


def test_backfill(
    new_database: Callable[[], URL], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row is sealed, once, and has what the older application wrote last."""
    make_key_file(tmp_path / "key.json", environment=ENVIRONMENT)
    admin_url = new_database()
    moving = build_moving(create_engine(admin_url), unique_roles(), tmp_path / "key.json")
    moving.begin(MANY)
    serve(monkeypatch, guard=moving.new)
    command = Command(moving.admin)
    for name in VALUES:
        assert command("expand", f"patients.{name}").exit_code == 0
    rls.apply(moving.admin, moving.new.catalog, moving.roles)
    before = dict(map(tuple, moving.run("SELECT id, name FROM patients")))
    engine = create_engine(admin_url.set(username=moving.roles.application))
    moving.old.protect(engine)
    run = Killed(admin_url, moving.roles, [tmp_path / "key.json"], base="moving:New")
    with written_beside(changes_names(engine, OldPatient)) as written:
        assert run.until_it_ends("encrypt", "backfill", NAME, "--batch", "9", every=12) > 3
    assert command("backfill", NAME).exit_code == 0
    assert command.json("verify", NAME)["rows"] == {"same": MANY + 2}
    assert dict(map(tuple, moving.run("SELECT id, name FROM patients"))) == before | written
    engine.dispose()
    moving.admin.dispose()


def test_rewrite(full: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value is under the newest key, once, and is what the application wrote last."""
    vault, serving = full.vault, Process(full)
    before = names(serving.engine)
    rotate(vault, A)
    with written_beside(changes_names(serving.engine, Patient)) as written:
        assert killed(full).until_it_ends("encrypt", "rewrite", "--batch", "9", every=12) > 3
    serve(monkeypatch, guard=vault.another_guard())
    assert Command(vault.admin)("rewrite").exit_code == 0
    assert names(Process(full).engine) == before | written
    assert keys_used(vault) == {data_keyset(vault, A).numbers[0]}


def test_rotate(full: Keys, later: Callable[[float], None]) -> None:
    """The tenant has one key more, not several; what was sealed meanwhile opens."""
    serving, command, run = Process(full), ("keys", "rotate", "--all", "--no-wait"), killed(full)

    def waiting() -> int:
        pending: int = full.json("rotate", "--all", "--dry-run")["pending"]
        return pending

    before, keys = names(serving.engine), len(data_keyset(full.vault, A).numbers)
    with written_beside(changes_names(serving.engine, Patient)) as written:
        assert run.until_it_ends(*command, every=5) > 2
        later(361)
        at = 1
        while waiting():
            run.ends(*command, at=at)
            at += 5
    assert at > 5
    assert len(data_keyset(full.vault, A).numbers) == keys + 1
    assert names(Process(full).engine) == before | written


def test_rewrap(full: Keys, tmp_path: Path) -> None:
    """The new key-encryption key alone opens all keysets, and what was sealed meanwhile."""
    old, new = full.vault.key_file, tmp_path / "new.json"
    make_key_file(new, environment=ENVIRONMENT)
    serving = Process(full)
    before = names(serving.engine)
    with written_beside(changes_names(serving.engine, Patient)) as written:
        assert killed(full, new, old).until_it_ends("keys", "rewrap", every=5) > 2
    alone = full.vault.another_guard()
    alone.keys = Keyring(KeyFile(new, environment=ENVIRONMENT))
    assert names(full.vault.protected_by(alone)) == before | written


def test_destroy(full: Keys) -> None:
    """Both keysets are there or neither, and none is made again for who writes meanwhile."""
    vault, serving = full.vault, Process(full)
    command = ("keys", "destroy", "--tenant", str(A), "--reason", "request 4711", "--yes")
    key = data_keyset(vault, A).numbers[0]
    outcomes: list[bool] = []

    def write(name: str) -> None:
        serving.keystore.forget()
        try:
            serving.write(name)
        except TenantShreddedError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    run, at, code = killed(full), -2, -signal.SIGKILL
    with written_beside(write):
        while code == -signal.SIGKILL:
            at += 3
            code = run.ends(*command, at=at)
            assert vault.run(STATES, a=A) in ([("active", 2)], [("destroyed", 2)])
    assert (code, at > 3) == (0, True)
    assert vault.run(STATES, a=A) == [("destroyed", 2)]
    # It wrote until the keys were gone, and never after.
    assert outcomes == sorted(outcomes, reverse=True)
    assert {*outcomes} == {True, False}
    assert keys_used(vault) == {key}
    with pytest.raises(TenantShreddedError):
        serving.read()
    assert Process(full, B).read() == {"b"}
