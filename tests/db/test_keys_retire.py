"""`tenantguard keys retire`: an old key is disabled once no stored value needs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from key_commands import IDS, Keys, Process, assert_could_not_look
from sqlalchemy import text
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard import UnknownKeyError
from tenantguard.cli.keys import retire
from tenantguard.cli.keys import rotate as rotate_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL


@pytest.fixture
def rotated(rotating: Keys, later: Callable[[float], None]) -> Keys:
    """Two tenants with a value of an old key each, and a new key that seals."""
    rotate(rotating, later)
    later(361)
    return rotating


def rotate(keys: Keys, later: Callable[[float], None]) -> None:
    keys("rotate", "--all", "--no-wait")
    later(361)
    assert keys.json("rotate", "--all", "--no-wait")["primary"] == 2


def rewrite(keys: Keys) -> None:
    """Seal all values anew, as the application would."""
    for tenant in (A, B):
        process = Process(keys, tenant)
        with process.guard.tenant_context(tenant), Session(process.engine) as session:
            for patient in session.query(Patient):
                note = patient.notes
                patient.name = patient.notes = ""
                session.flush()
                patient.name = patient.notes = note or ""
            session.commit()


def test_needed_keys_are_kept(rotated: Keys) -> None:
    """A key that opens one stored value stays; the columns and the way out are named."""
    before = rotated.rows()
    result = rotated("retire", "--all")
    assert (result.exit_code, rotated.rows()) == (1, before)
    assert (
        "key-in-use: 2 old keys are still needed by stored values, and stay: patients.name (2), "
        "patients.notes (2)." in result.stdout
    )
    assert "mend: `tenantguard encrypt rewrite` seals the values" in result.stdout
    assert not IDS.search(result.output)
    assert Process(rotated).read() == {"a"}


def test_unneeded_keys_are_disabled_and_can_be_enabled(rotated: Keys) -> None:
    """Once the values are sealed anew the old key opens nothing, until it is enabled again."""
    old = rotated.vault.run("SELECT notes FROM patients WHERE tenant_id = :a", a=A)
    rewrite(rotated)
    assert "2 old keys would be disabled." in rotated("retire", "--all", "--dry-run").stdout
    assert rotated.json("retire", "--all") == {
        "version": 1,
        "purpose": "data",
        "dry_run": False,
        "undo": False,
        "keys": 2,
        "keysets_changed": 2,
        "overtaken": 0,
        "unopened": 0,
        "in_use": 0,
        "waiting": 0,
        "findings": [],
    }
    assert Process(rotated).read() == {"a"}
    assert rotated("list", "--verify").exit_code == 0
    rotated.vault.run("UPDATE patients SET notes = :n WHERE tenant_id = :a", n=old[0][0], a=A)
    with pytest.raises(UnknownKeyError, match="or the key was retired"):
        Process(rotated).read()
    undone = rotated("retire", "--tenant", str(A), "--undo")
    assert undone.stdout == "All keys of 1 tenants' keysets are enabled again.\n"
    assert Process(rotated).read() == {"a"}
    assert rotated("retire", "--all").exit_code == 1


def test_one_tenants_values_do_not_hold_anothers_keys(rotated: Keys) -> None:
    """Numbers of keys are random and may be equal; each tenant's count for its own key."""
    rotated.vault.run("DELETE FROM patients WHERE tenant_id = :b", b=B)
    document = rotated.json("retire", "--all", code=1)
    assert (document["keys"], document["in_use"]) == (1, 1)
    assert rotated.json("retire", "--tenant", str(A), code=1)["in_use"] == 1
    assert rotated.json("retire", "--tenant", str(B))["in_use"] == 0


def test_keys_are_kept_while_caches_may_seal_with_them(
    rotating: Keys, later: Callable[[float], None]
) -> None:
    """Until every process seals with the new key, what is counted is not all there will be."""
    rotate(rotating, later)
    rotating.vault.run("DELETE FROM patients")
    result = rotating("retire", "--all")
    assert (result.exit_code, "0 old keys were disabled" in result.stdout) == (0, True)
    assert "2 tenants' keys have changed less than 360 seconds ago" in result.stdout
    later(361)
    assert rotating.json("retire", "--all")["keys"] == 2


def test_keys_are_kept_while_a_transaction_is_open(
    rotating: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has sealed with an old key is not counted before it ends."""
    monkeypatch.setattr(rotate_command, "_KNOWN", "true")
    monkeypatch.setattr(retire, "KNOWN_EVERYWHERE", 0.0)
    monkeypatch.setattr(retire, "_PATIENCE", 0.0)
    process = Process(rotating)
    with process.guard.tenant_context(A), Session(process.engine) as session:
        session.add(Patient(name="late", notes="late"))
        session.flush()
        assert rotating.json("rotate", "--all", "--no-wait")["primary"] == 2
        rotating.vault.run("DELETE FROM patients WHERE name IS NOT NULL")
        assert rotating.json("retire", "--all")["waiting"] == 2
        session.commit()
    document = rotating.json("retire", "--all", code=1)
    assert (document["waiting"], document["keys"], document["in_use"]) == (0, 1, 1)
    assert Process(rotating).read() == {"late"}


@pytest.fixture
def prepared(rotated: Keys) -> Iterator[None]:
    """A prepared transaction, which no session shows."""
    engine: Any = rotated.vault.admin.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in ("BEGIN", "SELECT 1", "PREPARE TRANSACTION 'key_retire'"):
            connection.execute(text(statement))
        yield
        connection.execute(text("ROLLBACK PREPARED 'key_retire'"))


@pytest.mark.usefixtures("prepared")
def test_keys_are_kept_while_a_transaction_is_prepared(
    rotated: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold values, and does not say since when."""
    monkeypatch.setattr(retire, "_PATIENCE", 0.0)
    rotated.vault.run("DELETE FROM patients")
    assert rotated.json("retire", "--all")["waiting"] == 2


def test_role_that_does_not_see_transactions_is_told(
    rotated: Keys, login: Callable[..., URL]
) -> None:
    """A login with the maintenance role needs to see since when transactions are open."""
    rotated.vault.run("DELETE FROM patients")
    url = login(rotated.vault.guard.roles.maintenance)
    refused = rotated("retire", "--all", url=url)
    assert_could_not_look(refused, "values could be missed. Grant it pg_read_all_stats")
    rotated.vault.run(f'GRANT pg_read_all_stats TO "{url.username}"')
    assert "2 old keys were disabled." in rotated("retire", "--all", url=url).stdout
