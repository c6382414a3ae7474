"""`tenantguard encrypt rewrite`: values come under the primary key, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from commanding import Command, assert_could_not_look, serve, without_check
from rotating import data_keyset, rotate
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session
from vault import A, B, Patient

from tenantguard import tenant_context
from tenantguard.cli.encrypt.access import access_to
from tenantguard.crypto.format import PLAIN
from tenantguard.crypto.padding import padding_of
from tenantguard.encrypt.batches import Batch, Change
from tenantguard.encrypt.counting import rows_by_key
from tenantguard.encrypt.forms import Values, field_of
from tenantguard.encrypt.rewriting import Rewriting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault import Vault

MANY = 300
NOBODY = UUID("dddddddd-0000-4000-8000-00000000000d")


@pytest.fixture
def command(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command, on a vault in which A has many patients and B one, A's keys being rotated."""
    serve(monkeypatch, guard=vault.another_guard())
    write(vault, A, *(f"patient {number}" for number in range(MANY)))
    write(vault, B, "Carl")
    rotate(vault, A)
    yield Command(vault.admin)
    vault.run("DELETE FROM patients")
    vault.run("DELETE FROM tenantguard_keys")


def write(vault: Vault, tenant: Any, *names: str) -> None:
    with tenant_context(tenant), Session(vault.fresh_engine()) as session:
        session.add_all(
            Patient(tenant_id=tenant, name=name, notes=f"of {name}", phone="1") for name in names
        )
        session.commit()


def names(vault: Vault, tenant: Any) -> list[str]:
    """What the application reads, each value opened."""
    with tenant_context(tenant), Session(vault.fresh_engine()) as session:
        found = session.execute(select(Patient.name, Patient.notes, Patient.phone)).all()
    assert all(row.notes == f"of {row.name}" and row.phone == "1" for row in found)
    return sorted(row.name for row in found)


def keys_used(vault: Vault, tenant: Any) -> dict[int | None, int]:
    """How many values each key has sealed for *tenant*."""
    found: dict[int | None, int] = {}
    for rows in rows_by_key(vault.run, vault.guard.catalog, tenant=str(tenant)):
        if rows.key is not None:
            found[rows.key] = found.get(rows.key, 0) + rows.rows
    return found


def test_rewrite_brings_all_values_under_the_primary_key(vault: Vault, command: Command) -> None:
    """Every value is the same as before, and is found; a second run has nothing to do."""
    before = names(vault, A)
    waiting = command.json("rewrite", "--dry-run")
    assert [each["values"] for each in waiting["waiting"]] == [MANY] * 3
    assert waiting["done"] == 0
    document = command.json("rewrite", "--batch", "70", "--workers", "2")
    assert (document["done"], document["failed"], document["locked"]) == (3 * MANY, [], 0)
    assert keys_used(vault, A) == {data_keyset(vault, A).numbers[0]: 3 * MANY}
    assert names(vault, A) == before
    with tenant_context(A), Session(vault.fresh_engine()) as session:
        assert session.scalars(select(Patient).where(Patient.name == "PATIENT 7")).one()
    assert command.json("rewrite")["waiting"] == []


def test_rewrite_takes_columns_and_a_tenant(vault: Vault, command: Command) -> None:
    """Only what is named is sealed anew."""
    rotate(vault, B)
    assert command.json("rewrite", "patients.name", "--tenant", str(B))["done"] == 1
    assert sorted(keys_used(vault, B).values()) == [1, 2]
    assert keys_used(vault, A) == {data_keyset(vault, A).numbers[1]: 3 * MANY}
    assert_could_not_look(command("rewrite", "--tenant", "x"), "--tenant does not have the type")
    nobody = command("rewrite", "--tenant", str(NOBODY))
    assert_could_not_look(nobody, "Neither the registry nor tenantguard_keys has the tenant")
    assert str(NOBODY) not in nobody.output
    unknown = command("rewrite", "patients.nam")
    assert_could_not_look(unknown, r"no encrypted column 'patients.nam'. Did you mean")


def test_rewrite_seals_anew_what_lacks_an_index(vault: Vault, command: Command) -> None:
    """A value without the blind index that its column declares gets one."""
    column = vault.guard.catalog.metadata.tables["visits"].c.reason
    [[patient]] = vault.run("SELECT id FROM patients WHERE tenant_id = :b", b=B)
    keys = access_to(vault.another_guard(), vault.admin).keys
    with without_check(vault, "visits", "visits_reason_sealed"):
        with vault.admin.begin() as connection:
            own, context = keys(connection, str(B), False), field_of(column).context  # noqa: FBT003
            assert context is not None
            connection.execute(
                text("INSERT INTO visits (tenant_id, patient_id, reason) VALUES (:b, :p, :r)"),
                {"b": B, "p": patient, "r": own.seal(context, PLAIN, b"\x01cough")},
            )
        assert command.json("rewrite", "visits.reason")["done"] == 1
    [[head, index]] = vault.run(
        "SELECT encode(substring(reason, 1, 4), 'hex'), reason_bidx FROM visits"
    )
    vault.run("DELETE FROM visits")
    assert (head, len(index)) == ("9e540101", 16)


@pytest.mark.parametrize(
    ("declared", "header"),
    [
        ({"pad": padding_of("pow2")}, "9e540104"),
        ({"bound": True, "accepts_unbound": True}, "9e540102"),
    ],
)
def test_rewrite_seals_anew_what_is_declared_otherwise_now(
    vault: Vault,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    declared: dict[str, Any],
    header: str,
) -> None:
    """Padding, and binding to the row, come into values that were sealed without."""
    column = vault.guard.catalog.metadata.tables["patients"].c.notes
    for name, value in {**declared, "header": bytes.fromhex(header)}.items():
        monkeypatch.setattr(field_of(column), name, value)
    assert command.json("rewrite", "patients.notes")["done"] == MANY + 1
    rows = vault.run("SELECT id::text, notes FROM patients WHERE tenant_id = :a", a=A)
    assert {bytes(stored[:4]).hex() for _, stored in rows} == {header}
    with vault.admin.connect() as connection:
        keys = access_to(vault.another_guard(), vault.admin).keys(connection, str(A), False)  # noqa: FBT003
    opened = {Values(column, keys).open((key,), bytes(stored)) for key, stored in rows}
    assert opened == {f"of patient {number}" for number in range(MANY)}


def test_rewrite_leaves_what_does_not_open(vault: Vault, command: Command) -> None:
    """An altered value is counted and left as it is; the others are done all the same."""
    vault.run(
        "UPDATE patients SET notes = set_byte(notes, length(notes) - 1, "
        "get_byte(notes, length(notes) - 1) # 1) WHERE id = (SELECT min(id) FROM patients)"
    )
    [[before]] = vault.run("SELECT notes FROM patients WHERE id = (SELECT min(id) FROM patients)")
    document = command.json("rewrite", code=1)
    assert document["failed"] == [{"table": "patients", "reason": "TamperedError", "rows": 1}]
    assert document["done"] == 3 * MANY - 3
    [[after]] = vault.run("SELECT notes FROM patients WHERE id = (SELECT min(id) FROM patients)")
    assert bytes(after) == bytes(before)
    assert "1 rows were left: altered" in command("rewrite").stdout


def test_what_was_changed_since_it_was_read_is_not_overwritten(
    vault: Vault, command: Command
) -> None:
    """A row is written only while it holds what was read: the application's value stays."""
    del command
    catalog = vault.guard.catalog
    entry = catalog.entry(catalog.metadata.tables["patients"])
    job = Rewriting(entry, [catalog.metadata.tables["patients"].c.name])
    access, batch = access_to(vault.another_guard(), vault.admin), Batch(job, size=10)
    work = job.with_keys(access.keys_of(entry, str(A)))
    with access.transaction(str(A)) as run:
        rows = batch.read(run, str(A), work.wanted, None)
    changes = []
    for row in rows:
        values, written = work.made(row.key, row.cells)
        changes.append(Change(row.key, row.cells, written, values))
    with tenant_context(A), Session(vault.fresh_engine()) as session:
        session.execute(
            update(Patient)
            .where(Patient.id == int(rows[3].key[0]))
            .values(name="of the application")
        )
        session.commit()
    with access.transaction(str(A)) as run:
        assert batch.write(run, str(A), changes) == 9
    with tenant_context(A), Session(vault.fresh_engine()) as session:
        found = session.get(Patient, int(rows[3].key[0]))
        assert found is not None
        assert found.name == "of the application"


def test_locked_rows_are_told(vault: Vault, command: Command) -> None:
    """A row that another transaction keeps locked is not waited for; it is counted and left."""
    with vault.admin.begin() as connection:
        connection.execute(text("SELECT FROM patients ORDER BY id LIMIT 1 FOR UPDATE"))
        document = command.json("rewrite", code=1)
        assert (document["done"], document["locked"]) == (3 * MANY - 3, 1)
    assert command.json("rewrite")["done"] == 3


def test_locked_rows_are_told_whatever_came_in(
    vault: Vault, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where values under an older key came in meanwhile, so that as many were sealed anew."""
    copied = "tenant_id, city, name, notes, phone"
    newest = "FROM patients WHERE tenant_id = :a ORDER BY id DESC LIMIT 1"
    copies = [f"INSERT INTO patients ({copied}) SELECT {copied} {newest}"]
    read = Batch.read

    def while_others_write(*args: Any, **kwargs: Any) -> Any:
        while copies:
            vault.run(copies.pop(), a=A)
        return read(*args, **kwargs)

    monkeypatch.setattr(Batch, "read", while_others_write)
    with vault.admin.begin() as connection:
        connection.execute(text("SELECT FROM patients ORDER BY id LIMIT 1 FOR UPDATE"))
        document = command.json("rewrite", code=1)
        assert (document["done"], document["locked"]) == (3 * MANY, 1)
    assert command.json("rewrite")["done"] == 3


def test_rewrite_runs_under_row_level_security(vault: Vault, command: Command) -> None:
    """Where policies do not hold for the role, nothing is written."""
    vault.run("ALTER TABLE patients DISABLE ROW LEVEL SECURITY")
    try:
        assert_could_not_look(command("rewrite"), "Row-level security does not hold on table")
    finally:
        vault.run("ALTER TABLE patients ENABLE ROW LEVEL SECURITY")
    assert data_keyset(vault, A).numbers[0] not in keys_used(vault, A)


def test_no_superuser_is_needed(vault: Vault, command: Command) -> None:
    """A login that is granted the maintenance role sees all; with the application's, it writes."""
    made = f"{vault.admin.url.database}_operator"
    url = vault.admin.url.set(username=made, drivername="postgresql+psycopg2")
    roles = vault.guard.roles
    vault.run(f'CREATE ROLE "{made}" LOGIN NOINHERIT')
    try:
        vault.run(f'GRANT "{roles.maintenance}" TO "{made}"')
        assert command("status", url=url).exit_code == 0
        assert_could_not_look(command("rewrite", url=url), "may not act as")
        vault.run(f'GRANT "{roles.application}" TO "{made}"')
        assert command.json("rewrite", url=url)["done"] == 3 * MANY
    finally:
        vault.run(f'DROP ROLE "{made}"')


def test_a_writer_loses_nothing(vault: Vault, command: Command) -> None:
    """While all is sealed anew, the application's writes stay, whichever side is first."""
    engine, stop, written = vault.fresh_engine(), Event(), dict[int, str]()
    ids = [row[0] for row in vault.run("SELECT id FROM patients WHERE tenant_id = :a", a=A)]

    def application() -> None:
        number = 0
        while not stop.is_set() or number < 50:
            at, name = ids[(number * 37) % MANY], f"writer {number}"
            with tenant_context(A), Session(engine) as session:
                values = {"name": name, "notes": f"of {name}"}
                session.execute(update(Patient).where(Patient.id == at).values(**values))
                session.commit()
            written[at] = name
            number += 1

    thread = Thread(target=application)
    thread.start()
    for _ in range(3):
        rotate(vault, A)
        assert command("rewrite", "--batch", "20", "--workers", "2").exit_code in {0, 1}
    stop.set()
    thread.join()
    names(vault, A)
    with tenant_context(A), Session(vault.fresh_engine()) as session:
        found = {row.id: row.name for row in session.execute(select(Patient.id, Patient.name))}
    assert {at: found[at] for at in written} == written
    assert command("rewrite").exit_code == 0
    assert keys_used(vault, A) == {data_keyset(vault, A).numbers[0]: 3 * MANY}


KILLED = """
import os, signal, sys
from pathlib import Path
from sqlalchemy import create_engine
from vault import Roles, make_guard
from tenantguard.cli import main
from tenantguard.encrypt import passes

guard = make_guard(Roles(*sys.argv[1].split(",")), Path(sys.argv[2]))
batch, number = passes.Batch.write, 0

def write(self, run, tenant, changes):
    global number
    number += 1
    written = batch(self, run, tenant, changes)
    if number == 3:
        # The batch is written and not committed.
        os.kill(os.getpid(), signal.SIGKILL)
    return written

passes.Batch.write = write
main(["encrypt", "rewrite", "--batch", "50", "--guard", "__main__:guard"])
"""


def test_a_killed_run_is_finished_by_the_next(vault: Vault, command: Command) -> None:
    """A batch is killed by -9: whole batches are done, the rest is done later, nothing twice."""
    before, roles = names(vault, A), vault.guard.roles
    named = (roles.application, roles.owner, roles.maintenance, roles.support, roles.backup)
    path = os.pathsep.join((str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")))
    address = vault.admin.url.render_as_string(hide_password=False)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, ",".join(named), str(vault.key_file)],
        env={**os.environ, "PYTHONPATH": path, "TENANTGUARD_ADMIN_URL": address},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    new, old = data_keyset(vault, A).numbers
    assert keys_used(vault, A) == {new: 300, old: 600}
    assert command.json("rewrite")["done"] == 600
    assert keys_used(vault, A) == {new: 900}
    assert names(vault, A) == before
