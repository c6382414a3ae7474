"""Keys of blind indexes: rotated and retired while every process finds what all others write."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from key_commands import IDS, MODULE, Keys, Process, assert_could_not_look, serve
from killed_command import run_and_kill
from sqlalchemy import UniqueConstraint, select
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard import searched
from tenantguard.cli import main
from tenantguard.cli.keys import retire
from tenantguard.crypto.format import CANDIDATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INDEX = ("--purpose", "index", "--all")


def rotate(keys: Keys) -> tuple[int, int, int]:
    """Run the command; return how many keys were added, made primary, and wait."""
    document = keys.json("rotate", *INDEX, "--no-wait")
    return document["added"], document["primary"], document["pending"]


def indexes(keys: Keys, note: str) -> list[bytes]:
    """The blind index of *note* in each of tenant A's rows that have it, the oldest row first."""
    process = Process(keys)
    with process.guard.tenant_context(A), Session(process.engine) as session:
        found = session.execute(select(Patient.id, Patient.notes).order_by(Patient.id)).all()
    stored = dict(keys.vault.run("SELECT id, name_bidx FROM patients"))
    return [bytes(stored[row.id]) for row in found if row.notes == note]


def encrypt(keys: Keys, *arguments: str) -> Result:
    """Run `tenantguard encrypt` with the guard and the address of *keys*."""
    address = keys.vault.admin.url.render_as_string(hide_password=False)
    return CliRunner().invoke(
        main,
        ["encrypt", *arguments, "--guard", f"{MODULE}:guard"],
        env={"TENANTGUARD_ADMIN_URL": address},
    )


def rewrite(keys: Keys, *options: str, code: int = 0) -> dict[str, Any]:
    # As each run of the command, it has read no keys yet.
    vars(sys.modules[MODULE])["guard"] = keys.vault.another_guard()
    result = encrypt(keys, "rewrite", *options, "--format", "json")
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.fixture
def rotated(rotating: Keys, later: Callable[[float], None]) -> Keys:
    """Two tenants with a value of an old index key each, and a new key that every process has."""
    rotate(rotating)
    later(361)
    assert rotate(rotating) == (0, 2, 0)
    later(361)
    return rotating


def test_everybody_finds_everything_while_keys_rotate(
    rotating: Keys, later: Callable[[float], None]
) -> None:
    """At each step processes with caches as old as they get write, and find each other's values."""
    old, late = Process(rotating), Process(rotating)
    assert old.read() == late.read() == {"a"}
    assert rotate(rotating) == (2, 0, 2)
    later(299)
    assert rotate(rotating) == (0, 0, 2)
    added = Process(rotating)
    added.write("with the new key added")
    old.write("with the old keyset, in the cache")
    # The oldest keyset finds what is written with the newest: nothing has the new key's index yet.
    assert old.read() == added.read() == Process(rotating).read()
    later(62)
    assert late.read() == old.read()
    assert rotate(rotating) == (0, 2, 0)
    new = Process(rotating)
    new.write("with the new key")
    added.write("with the old key, in the cache")
    later(299)
    added.write("a")
    new.write("a")
    assert old.read() == late.read() == added.read() == new.read()
    assert len(new.read()) == 5
    assert len(set(indexes(rotating, "a"))) == 2
    with new.guard.tenant_context(A), Session(new.engine) as session:
        for name, count in (("a", 3), ("with the new key", 1), ("nobody", 0)):
            for condition in (
                Patient.name == name,
                Patient.name.in_([name, "nobody"]),
                ~(Patient.name != name),
                ~Patient.name.not_in(["no one", name]),
            ):
                assert len(session.scalars(select(Patient.id).where(condition)).all()) == count
            for condition in (Patient.name != name, Patient.name.not_in(["nobody", name])):
                assert len(session.scalars(select(Patient.id).where(condition)).all()) == 7 - count


def test_named_searches_ask_for_both_keys(rotated: Keys) -> None:
    """Last and first characters are found under the old key and under the new one."""
    Process(rotated).write("b")
    process = Process(rotated)
    with process.guard.tenant_context(A), Session(process.engine) as session:
        for patient in session.scalars(select(Patient)):
            patient.policy = "AOK 1234"
        session.commit()
        for condition in (
            searched(Patient.policy, "last4") == "1234",
            searched(Patient.policy, "prefix3").in_(["aok"]),
        ):
            assert len(session.scalars(select(Patient.id).where(condition)).all()) == 2


def test_rewrite_gives_values_indexes_of_the_new_key(rotated: Keys) -> None:
    """Each value is opened; whose index differs is sealed anew, and the rest is not written."""
    Process(rotated).write("a")
    old, new = indexes(rotated, "a")
    versions = rotated.vault.run("SELECT xmin, name_bidx FROM patients ORDER BY id")
    document = rewrite(rotated, "--dry-run")
    assert (document["compared"], document["done"]) == (3, 0)
    said = encrypt(rotated, "rewrite", "--dry-run").stdout
    assert "3 of them are opened, to compare their blind indexes." in said
    assert "at most 3 values are to be sealed anew" in said
    document = rewrite(rotated)
    assert (document["done"], document["failed"], document["locked"]) == (2, [], 0)
    assert indexes(rotated, "a") == [new, new] != [old, new]
    after = rotated.vault.run("SELECT xmin, name_bidx FROM patients ORDER BY id")
    assert [one == other for one, other in zip(versions, after, strict=True)] == [
        False,
        False,
        True,
    ]
    assert rewrite(rotated)["done"] == 0
    assert Process(rotated).read() == {"a"}


def test_rewrite_leaves_what_others_have_locked(rotated: Keys) -> None:
    """Nobody is waited for; what is locked is counted, and done by the next run."""
    with rotated.vault.admin.begin() as connection:
        connection.exec_driver_sql(f"SELECT FROM patients WHERE tenant_id = '{A}' FOR UPDATE")
        document = rewrite(rotated, code=1)
    assert (document["done"], document["locked"]) == (1, 1)
    assert rewrite(rotated)["done"] == 1


@pytest.mark.parametrize("at", [1, 3])
def test_killed_rewrite_is_continued(rotated: Keys, at: int) -> None:
    """Killed after a batch, the next run does the rest, and every value is found."""
    rotated.vault.run(
        "INSERT INTO patients (tenant_id, city, name, notes) SELECT tenant_id, '', name, notes "
        "FROM patients, generate_series(1, 4) WHERE tenant_id = :a",
        a=A,
    )
    files = [rotated.vault.key_file]
    arguments = ("encrypt", "rewrite", "--batch", "1", "--tenant", str(A))
    assert run_and_kill(rotated, files, *arguments, at=at) == -signal.SIGKILL
    assert len(set(indexes(rotated, "a"))) == min(at, 2)
    assert Process(rotated).read() == {"a"}
    assert rewrite(rotated, "--tenant", str(A))["done"] == 6 - at
    assert rewrite(rotated, "--tenant", str(A))["done"] == 0


def test_retire_keeps_a_key_that_an_index_needs(rotated: Keys) -> None:
    """It compares all values itself: one that is found under the old key alone keeps that key."""
    before = rotated.rows()
    result = rotated("retire", *INDEX)
    assert (result.exit_code, rotated.rows()) == (1, before), result.output
    assert (
        "key-in-use: 2 old keys are still needed by stored values, and stay: patients.name (2)."
        in result.stdout
    )
    assert not IDS.search(result.output)
    rewrite(rotated, "--tenant", str(B))
    document = rotated.json("retire", *INDEX, code=1)
    assert (document["keys"], document["in_use"], document["purpose"]) == (1, 1, "index")
    rewrite(rotated)
    assert rotated.json("retire", *INDEX, "--dry-run")["keys"] == 1
    assert rotated.json("retire", *INDEX)["keysets_changed"] == 1
    assert Process(rotated).read() == {"a"}
    assert rotated("list", "--verify").exit_code == 0


def test_retired_keys_find_nothing_until_they_are_enabled(rotated: Keys) -> None:
    """A row of the old key, from a backup, is found again after --undo."""
    [row] = rotated.vault.run("SELECT name FROM patients WHERE tenant_id = :a", a=A)
    rewrite(rotated)
    assert rotated.json("retire", *INDEX)["keys"] == 2
    rotated.vault.run("UPDATE patients SET name = :n WHERE tenant_id = :a", n=row[0], a=A)
    with pytest.raises(AssertionError):
        Process(rotated).read()
    assert rotated("retire", *INDEX, "--undo").exit_code == 0
    assert Process(rotated).read() == {"a"}


def test_searches_find_again_after_an_older_keyset_was_imported(
    rotating: Keys, later: Callable[[float], None], tmp_path: Path
) -> None:
    """It lacks the newer key, which nothing shows; the command says what mends it."""
    file = str(tmp_path / "keys.jsonl")
    rotating("export", "--wrapped", file)
    for _ in range(2):
        rotate(rotating)
        later(361)
    Process(rotating).write("new")
    rotating.vault.run("DELETE FROM tenantguard_keys WHERE purpose = 'index'")
    assert "searches find all again after" in rotating("import", file).stdout
    with pytest.raises(AssertionError):
        Process(rotating).read()
    assert rewrite(rotating, "--indexes")["done"] == 1
    assert Process(rotating).read() == {"a", "new"}


def test_values_that_cannot_be_compared_keep_the_key(rotated: Keys) -> None:
    """What does not open, and what the comparing role does not see, may need it."""
    rewrite(rotated)
    rotated.vault.run(
        "UPDATE patients SET name = set_byte(name, 50, get_byte(name, 50) # 1) "
        "WHERE tenant_id = :a",
        a=A,
    )
    document = rotated.json("retire", *INDEX, code=1)
    assert [each["code"] for each in document["findings"]] == ["key-in-use", "index-not-compared"]
    assert (document["keys"], document["in_use"]) == (1, 1)
    rotated.vault.run("DELETE FROM patients WHERE tenant_id = :a", a=A)
    Process(rotated).write("hidden")
    role = rotated.vault.guard.roles.application
    rotated.vault.run(
        f"CREATE POLICY hiding ON patients AS RESTRICTIVE TO \"{role}\" USING (city <> '')"
    )
    try:
        document = rotated.json("retire", *INDEX, code=1)
    finally:
        rotated.vault.run("DROP POLICY hiding ON patients")
    assert "patients.name (1)" in document["findings"][1]["message"]


def test_keys_wait_for_a_transaction_that_copies_values(
    rotated: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has copied before they were sealed anew is seen by nobody until it is committed."""
    monkeypatch.setattr(retire, "_PATIENCE", 0.0)
    with rotated.vault.admin.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO patients (tenant_id, city, name, notes) "
            "SELECT tenant_id, city, name, notes FROM patients"
        )
        assert rewrite(rotated)["done"] == 2
        for purpose in (INDEX, ("--all",)):
            document = rotated.json("retire", *purpose)
            assert (document["keys"], document["waiting"]) == (0, 2 if purpose is INDEX else 0)
    assert Process(rotated).read() == {"a"}
    assert rotated.json("retire", *INDEX, code=1)["in_use"] == 2
    assert rewrite(rotated)["done"] == 2
    assert rotated.json("retire", *INDEX)["keys"] == 2
    assert Process(rotated).read() == {"a"}


def test_transactions_that_end_soon_are_waited_for(
    rotated: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application has some open at any time."""
    rewrite(rotated)
    with rotated.vault.admin.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        monkeypatch.setattr(retire, "sleep", lambda _: connection.rollback())
        assert rotated.json("retire", *INDEX)["keys"] == 2


def test_keys_wait_while_caches_may_index_with_the_old_one(
    rotating: Keys, later: Callable[[float], None]
) -> None:
    """Nothing is retired until every process indexes with the new key."""
    rotate(rotating)
    later(361)
    rotate(rotating)
    rotating.vault.run("DELETE FROM patients")
    document = rotating.json("retire", *INDEX)
    assert (document["keys"], document["waiting"]) == (0, 2)
    later(361)
    assert rotating.json("retire", *INDEX)["keys"] == 2


def test_no_third_key_is_added(rotated: Keys, later: Callable[[float], None]) -> None:
    """A search asks for two keys, so the old one has to be retired before."""
    before = rotated.rows()
    document = rotated.json("rotate", *INDEX, "--no-wait", code=1)
    assert [each["code"] for each in document["findings"]] == ["index-key-not-retired"]
    assert (document["added"], rotated.rows()) == (0, before)
    assert CANDIDATES == 2
    rewrite(rotated)
    rotated.json("retire", *INDEX)
    assert rotate(rotated) == (2, 0, 2)
    later(361)
    assert rotate(rotated) == (0, 2, 0)
    assert Process(rotated).read() == {"a"}


def test_killed_rotation_is_continued(rotating: Keys, later: Callable[[float], None]) -> None:
    """Killed while keys are added, the next run adds those that are missing."""
    files = [rotating.vault.key_file]
    arguments = ("keys", "rotate", *INDEX, "--no-wait")
    assert run_and_kill(rotating, files, *arguments, at=2) == -signal.SIGKILL
    assert Process(rotating).read() == {"a"}
    assert rotate(rotating) == (1, 0, 2)
    later(361)
    assert rotate(rotating) == (0, 2, 0)


@pytest.fixture
def unique() -> Iterator[None]:
    """The models say that a patient's name is unique."""
    table: Any = Patient.__table__
    constraint = UniqueConstraint("tenant_id", "name_bidx", name="one_name")
    table.append_constraint(constraint)
    yield
    table.constraints.remove(constraint)


@pytest.mark.usefixtures("unique")
def test_unique_indexes_are_refused(rotating: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not hold across two keys; who accepts that has to say so."""
    serve(monkeypatch, guard=rotating.vault.another_guard())
    before = rotating.rows()
    result = rotating("rotate", *INDEX, "--no-wait")
    assert_could_not_look(result, r"patients.name_bidx.*--allow-duplicates")
    assert rotating.rows() == before
    assert rotating.json("rotate", *INDEX, "--no-wait", "--allow-duplicates")["added"] == 2
    assert rotating.json("rotate", "--all", "--no-wait")["added"] == 2


@pytest.mark.parametrize(
    "index",
    [
        "(tenant_id, name_bidx)",
        "(tenant_id, name_bidx) WHERE city <> ''",
        "(tenant_id, encode(name_bidx, 'hex'))",
    ],
)
def test_unique_indexes_that_only_the_database_knows_are_refused(
    rotating: Keys, index: str
) -> None:
    """Migrations make such as the models do not have, of a part of the rows or an expression."""
    rotating.vault.run("CREATE INDEX plain ON patients (tenant_id, name_bidx)")
    rotating.vault.run("CREATE UNIQUE INDEX others ON patients (tenant_id, id) INCLUDE (name_bidx)")
    rotating.vault.run(f"CREATE UNIQUE INDEX one_name ON patients {index}")
    try:
        result = rotating("rotate", *INDEX, "--no-wait")
        assert_could_not_look(result, r"patients.name_bidx.*--allow-duplicates")
        assert "policy" not in result.output
        rotating.vault.run("DROP INDEX one_name")
        assert rotate(rotating) == (2, 0, 2)
    finally:
        rotating.vault.run("DROP INDEX IF EXISTS plain, others, one_name")


def test_duplicates_end_the_rewriting_until_one_is_gone(rotated: Keys) -> None:
    """Under two keys a unique index lets an equal value in; PostgreSQL says so, and no value."""
    rotated.vault.run("CREATE UNIQUE INDEX one_name ON patients (tenant_id, name_bidx)")
    try:
        Process(rotated).write("a")
        result = encrypt(rotated, "rewrite")
        assert result.exit_code == 2, result.output
        assert "23505" in result.output
        assert "Change or delete one of the two rows" in result.output
        assert "\\x" not in result.output
        assert not IDS.search(result.output)
        rotated.vault.run("DELETE FROM patients WHERE id = (SELECT max(id) FROM patients)")
        assert rewrite(rotated)["done"] == 2
    finally:
        rotated.vault.run("DROP INDEX one_name")
