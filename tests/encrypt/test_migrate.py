"""A column of plaintext becomes an encrypted one, and back, beside applications old and new."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
import sqlalchemy.orm
from click.testing import CliRunner
from commanding import MODULE, Command, assert_could_not_look, serve
from locks import unique_roles
from moving import VALUES, Moving, NewPatient, OldPatient, build_moving
from sqlalchemy import (
    Column,
    ForeignKey,
    LargeBinary,
    String,
    TypeDecorator,
    create_engine,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from vault import ENVIRONMENT, A, B

import tenantguard
from tenantguard import TenantGuard, keystore, rls, tenant_context
from tenantguard.cli import main
from tenantguard.cli.encrypt import changing
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.encrypt.backfilling import writer
from tenantguard.encrypt.batches import Batch, Change, Row
from tenantguard.encrypt.entering import Access
from tenantguard.errors import KeyUnavailableError
from tenantguard.rls.kept import keeper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine
    from sqlalchemy.types import TypeEngine

    from tenantguard.encrypt.statements import Statements

MANY = 120
FILENODE = "SELECT pg_relation_filenode('patients')"
NAME = "patients.name"
BOTH = ("name_sealed", "name_sealed_bidx")


@pytest.fixture(scope="module")
def moving(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moving]:
    key_file = tmp_path_factory.mktemp("keys") / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    built = build_moving(create_engine(admin_url), unique_roles(), key_file)
    yield built
    built.admin.dispose()


@pytest.fixture
def command(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, on a database in which A has many patients and B two, all of it plaintext."""
    serve(monkeypatch, guard=moving.new)
    moving.begin(MANY)
    return Command(moving.admin)


@pytest.fixture
def expanded(moving: Moving, command: Command) -> Command:
    """The command, after every column was expanded."""
    for name in VALUES:
        assert command("expand", f"patients.{name}").exit_code == 0
    rls.apply(moving.admin, moving.new.catalog, moving.roles)
    return command


@pytest.fixture
def engine(moving: Moving) -> Iterator[Engine]:
    """The migrating application's engine."""
    made = create_engine(moving.admin.url.set(username=moving.roles.application))
    moving.new.protect(made)
    yield made
    made.dispose()


def old_writes(moving: Moving, statement: Any) -> None:
    """What the old application does, which does not know the new columns."""
    made = create_engine(moving.admin.url.set(username=moving.roles.application))
    moving.old.protect(made)
    with tenant_context(A), made.begin() as connection:
        connection.execute(statement)
    made.dispose()


def test_plan_tells_what_will_happen_and_changes_nothing(moving: Moving, command: Command) -> None:
    """Rows, sizes, indexes and locks are named, and what keeps plaintext with what clears it."""
    document = command.json("plan", NAME)
    assert (document["rows"], document["waiting"], document["tenants"]) == (MANY + 2, MANY + 2, 2)
    assert document["indexes"] == ["ix_patients_name"]
    assert document["expand"][0]["lock"] == "ACCESS EXCLUSIVE"
    said = command("plan", NAME).stdout
    for each in ("this REWRITES the table", "VACUUM (FULL, ANALYZE)", "archived WAL and backups"):
        assert each in said
    assert "REWRITES" not in command("plan", "patients.scan").stdout
    assert not moving.run("SELECT FROM information_schema.columns WHERE column_name ~ 'sealed'")


def test_plan_says_how_a_large_table_is_not_rewritten(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where a generated column would be added, and only where that takes long."""
    assert "kept_by" not in command("plan", NAME).stdout
    assert command.json("plan", NAME)["advice"] is None
    monkeypatch.setattr("tenantguard.cli.encrypt.plan._LARGE", 0)
    assert 'search=Exact(kept_by="trigger")' in command("plan", NAME).stdout
    assert "nothing is rewritten" in command.json("plan", NAME)["advice"]
    said = command("plan", "patients.insured").stdout
    assert "kept_by" not in said
    assert "REWRITES" not in said


def test_expand_adds_what_is_missing_once(command: Command) -> None:
    """The dry run prints the SQL; a second run does nothing."""
    dry = command("expand", NAME, "--dry-run")
    assert dry.exit_code == 1
    column, index = (f'ADD COLUMN IF NOT EXISTS "{each}"' for each in BOTH)
    assert f"{column} bytea, {index}" in dry.stdout
    assert "CREATE INDEX CONCURRENTLY" in dry.stdout
    assert command("expand", NAME).exit_code == 0
    assert command.json("expand", NAME)["steps"] == []


@pytest.mark.usefixtures("expanded")
def test_both_applications_pass_the_guard_when_expanded(moving: Moving, engine: Engine) -> None:
    """The columns, checks, index and trigger are such that both guards start."""
    old_writes(moving, select(OldPatient.id))
    with tenant_context(A), Session(engine) as session:
        assert session.scalars(select(NewPatient.plain_name)).all()


def test_every_type_is_sealed_verified_and_put_back(
    moving: Moving, expanded: Command, engine: Engine
) -> None:
    """Each value is the same when it is read from the sealed column, and after decrypting."""
    with_psycopg2 = moving.admin.url.set(drivername="postgresql+psycopg2")
    for name in VALUES:
        column = f"patients.{name}_sealed"
        rows = MANY + (2 if name == "name" else 1)
        assert expanded("verify", column).exit_code == 1
        assert expanded.json("backfill", column, "--dry-run")["done"] == 0
        document = expanded.json("backfill", column, "--batch", "50", "--workers", "2")
        assert (document["done"], document["failed"]) == (rows, [])
        assert expanded.json("backfill", column)["waiting"] == []
        for url in (moving.admin.url, with_psycopg2):
            assert expanded.json("verify", column, url=url)["rows"] == {"same": rows}
    with tenant_context(B), Session(engine) as session:
        patient = session.scalars(select(NewPatient).where(NewPatient.born.is_not(None))).one()
        assert {name: getattr(patient, name) for name in VALUES} == VALUES
    before = moving.run("SELECT * FROM patients ORDER BY id")
    for name in VALUES:
        with moving.admin.begin() as connection:
            connection.execute(text("SET LOCAL tenantguard.encrypting = 'on'"))
            connection.execute(text(f'UPDATE patients SET "{name}" = NULL'))
        done = expanded("backfill", f"patients.{name}", "--decrypt", url=with_psycopg2)
        assert done.exit_code == 0, (name, done.output)
    assert moving.run("SELECT * FROM patients ORDER BY id") == before


def test_an_older_applications_change_is_not_lost(moving: Moving, expanded: Command) -> None:
    """When plaintext changes without the sealed value, that is forgotten, and sealed later."""
    assert expanded("backfill", NAME).exit_code == 0
    old_writes(moving, update(OldPatient).where(OldPatient.name == "patient 7").values(name="new"))
    old_writes(moving, update(OldPatient).where(OldPatient.name == "patient 8").values(visits=8))
    assert moving.run("SELECT name FROM patients WHERE name_sealed IS NULL") == [("new",)]
    document = expanded.json("verify", NAME, code=1)
    assert document["rows"] == {"same": MANY + 1, "plaintext-not-sealed": 1}
    assert expanded.json("backfill", NAME)["done"] == 1
    assert expanded.json("verify", NAME)["holds"]


def test_the_application_writes_both_and_reads_what_is_there(
    moving: Moving, expanded: Command, engine: Engine
) -> None:
    """Writing both in one statement keeps both; a search finds sealed and plain rows."""
    nobody = expanded("backfill", NAME, "--tenant", str(uuid.UUID(int=7)))
    assert_could_not_look(nobody, "Neither the registry nor tenantguard_keys has the tenant")
    assert expanded("backfill", NAME, "--tenant", str(A)).exit_code == 0
    old_writes(moving, update(OldPatient).where(OldPatient.name == "patient 3").values(name="Ada"))
    with tenant_context(A), Session(engine) as session:
        patient = session.scalars(select(NewPatient).where(NewPatient.name == "patient 4")).one()
        patient.name = patient.plain_name = "ADA"
        session.commit()
        named = or_(
            NewPatient.name == "ada",
            NewPatient.name.is_(None) & (NewPatient.plain_name == "Ada"),
        )
        found = session.scalars(select(NewPatient).where(named)).all()
        assert sorted(each.name or each.plain_name or "" for each in found) == ["ADA", "Ada"]


def encrypting(moving: Moving, statement: str) -> None:
    """Write as the commands do, past the triggers."""
    with moving.admin.begin() as connection:
        connection.execute(text("SET LOCAL tenantguard.encrypting = 'on'"))
        connection.execute(text(statement))


def test_verify_finds_what_differs(moving: Moving, expanded: Command) -> None:
    """Another value sealed than the plaintext is counted, and nothing is dropped then."""
    assert expanded("backfill", NAME).exit_code == 0
    encrypting(moving, "UPDATE patients SET name = 'another' WHERE name = 'patient 5'")
    document = expanded.json("verify", NAME, code=1)
    assert document["rows"] == {"same": MANY + 1, "different": 1}
    result = expanded("contract", NAME)
    assert result.exit_code == 1
    assert "1 rows have another value sealed than their plaintext" in result.stdout
    assert "another'" not in result.output
    assert moving.run("SELECT count(name) FROM patients") == [(MANY + 2,)]


def test_a_newer_applications_change_is_not_lost(
    moving: Moving, expanded: Command, engine: Engine
) -> None:
    """What is sealed alone leaves no plaintext of before; what writes both keeps both."""
    assert expanded("backfill", NAME).exit_code == 0
    found = NewPatient.name
    with tenant_context(A), Session(engine) as session:
        session.execute(update(NewPatient).where(found == "patient 4").values(name="alone"))
        session.execute(update(NewPatient).where(found == "patient 5").values(visits=5))
        both = {"name": "patient 6", "plain_name": "patient 6"}
        session.execute(update(NewPatient).where(found == "patient 6").values(both))
        session.execute(update(NewPatient).where(found == "patient 7").values(name="alone"))
        session.commit()
    gone = "SELECT count(*) FROM patients WHERE name IN ('patient 4', 'patient 7')"
    assert moving.run(gone) == [(0,)]
    assert expanded.json("verify", NAME)["rows"] == {
        "same": MANY,
        "sealed-without-plaintext": 2,
    }
    assert expanded("contract", NAME).exit_code == 0
    with tenant_context(A), Session(engine) as session:
        names = session.scalars(select(found).where(found.in_(["alone", "patient 6"]))).all()
    assert sorted(names) == ["alone", "alone", "patient 6"]


def test_rows_that_are_not_seen_are_not_dropped(moving: Moving, expanded: Command) -> None:
    """A policy of the application's own can hide rows from the role that compares."""
    assert expanded("backfill", NAME).exit_code == 0
    moving.run("CREATE POLICY own ON patients AS RESTRICTIVE USING (name <> 'patient 9')")
    try:
        document = expanded.json("verify", NAME, code=1)
        assert document["rows"] == {"same": MANY + 1, "not-seen": 1}
        assert "1 rows were counted and not seen" in expanded("contract", NAME).stdout
    finally:
        moving.run("DROP POLICY own ON patients")
    assert moving.run("SELECT count(name) FROM patients") == [(MANY + 2,)]


@pytest.mark.parametrize("number", [0, 1])
def test_disabled_triggers_are_none(moving: Moving, expanded: Command, number: int) -> None:
    """Nothing is dropped without them; expanding once more enables them."""
    assert expanded("backfill", NAME).exit_code == 0
    trigger = triggers_of_name(moving)[number]
    moving.run(f'ALTER TABLE patients DISABLE TRIGGER "{trigger}"')
    assert_could_not_look(expanded("contract", NAME), "lacks the trigger")
    assert expanded("expand", NAME).exit_code == 0
    assert expanded("contract", NAME).exit_code == 0


def test_keys_are_looked_up_again_when_their_time_is_over(
    expanded: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long run does not go on with keys that were retired or destroyed meanwhile."""
    now, asked = [0.0], []
    keys_of, read = Access.keys_of, Batch.read

    def counted(access: Access, *args: Any, **kwargs: Any) -> Any:
        asked.append(now[0])
        return keys_of(access, *args, **kwargs)

    def slowly(*args: Any, **kwargs: Any) -> Any:
        now[0] += 301
        return read(*args, **kwargs)

    monkeypatch.setattr(keystore, "monotonic", lambda: monotonic() + now[0])
    monkeypatch.setattr(Access, "keys_of", counted)
    monkeypatch.setattr(Batch, "read", slowly)
    assert expanded("backfill", NAME, "--batch", "50", "--tenant", str(A)).exit_code == 0
    assert len(set(asked)) > MANY / 50


def test_a_row_that_gets_another_key_is_sealed_anew(moving: Moving, expanded: Command) -> None:
    """Where values are bound to their row, what was sealed for the old key is forgotten."""
    column = "patients.born"
    assert expanded("backfill", column).exit_code == 0
    moving.run("UPDATE patients SET id = id + 1000000 WHERE born IS NOT NULL")
    assert expanded.json("verify", column, code=1)["rows"] == {"plaintext-not-sealed": MANY + 1}
    assert expanded("backfill", column).exit_code == 0
    assert expanded.json("verify", column)["rows"] == {"same": MANY + 1}


def triggers_of_name(moving: Moving) -> list[str]:
    """Return the names of the two triggers of the migration of names."""
    functions = moving.run(
        "SELECT t.tgname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE t.tgrelid = 'patients'::regclass AND p.prosrc LIKE '%name_sealed%' ORDER BY 1"
    )
    return [name for (name,) in functions]


def test_contract_drops_the_plaintext(moving: Moving, expanded: Command, engine: Engine) -> None:
    """Only what was sealed and compared is left, NOT NULL where the model says so."""
    assert expanded("contract", NAME).exit_code == 1
    assert expanded("backfill", NAME).exit_code == 0
    assert "DROP COLUMN" in expanded("contract", NAME, "--dry-run").stdout
    assert expanded("contract", NAME).exit_code == 0
    assert moving.run(
        "SELECT column_name, is_nullable FROM information_schema.columns WHERE table_name = "
        "'patients' AND column_name IN ('name', 'name_sealed')"
    ) == [("name_sealed", "NO")]
    triggers = "SELECT count(*) FROM pg_trigger WHERE tgrelid = 'patients'::regclass"
    assert moving.run(f"{triggers} AND tgname ~ 'zz_tg_m'") == [(2 * (len(VALUES) - 1),)]
    with tenant_context(A), Session(engine) as session:
        wanted = select(NewPatient.name).where(NewPatient.name == "PATIENT 9")
        assert session.scalars(wanted).all() == ["patient 9"]
    assert "Nothing to do" in expanded("contract", NAME).stdout
    assert_could_not_look(expanded("backfill", NAME), "does not have both columns")


@pytest.mark.parametrize(("name", "rewritten"), [("insured", False), ("name", True)])
def test_what_a_trigger_keeps_rewrites_nothing(
    moving: Moving, command: Command, name: str, *, rewritten: bool
) -> None:
    """From the first step to the last the table is the same file; a generated column makes another.

    An older application's change is forgotten in the search column too.
    """
    column, sealed = f"patients.{name}", f"{name}_sealed"
    for each in VALUES.keys() - {name}:
        assert command("expand", f"patients.{each}").exit_code == 0
    [[filenode]] = moving.run(FILENODE)
    assert command("expand", column).exit_code == 0
    rls.apply(moving.admin, moving.new.catalog, moving.roles)
    assert command("backfill", column).exit_code == 0
    value = f"(SELECT {name} FROM patients ORDER BY id LIMIT 1)"
    moving.run(f"UPDATE patients SET {name} = {value} WHERE tenant_id = :b", b=B)
    waiting = f"SELECT count(*) FROM patients WHERE {name} IS NOT NULL AND {sealed} IS NULL"
    assert moving.run(waiting) != [(0,)]
    in_step = f"{sealed}_bidx IS NOT DISTINCT FROM substring({sealed}, 5, 16)"
    assert moving.run(f"SELECT bool_and({in_step}) FROM patients") == [(True,)]
    assert command("backfill", column).exit_code == 0
    assert command("verify", column).exit_code == 0
    assert command("contract", column).exit_code == 0
    assert (moving.run(FILENODE) != [(filenode,)]) is rewritten


@pytest.mark.parametrize(
    "damage",
    [
        "CREATE OR REPLACE TRIGGER {0} BEFORE INSERT ON patients {1} {2}",
        "CREATE OR REPLACE TRIGGER {0} BEFORE INSERT OR UPDATE ON patients {1} WHEN (false) {2}",
        "ALTER FUNCTION {0}() SECURITY DEFINER",
        "ALTER FUNCTION {0}() RESET search_path",
    ],
)
def test_expand_makes_a_trigger_again_that_was_changed(
    moving: Moving, command: Command, damage: str
) -> None:
    """It compares with what fills a search column as `rls verify` does."""
    assert command("expand", "patients.insured").exit_code == 0
    name = keeper("patients", "insured_sealed")
    moving.run(damage.format(name, "FOR EACH ROW", f"EXECUTE FUNCTION {name}()"))
    [step] = command.json("expand", "patients.insured", "--dry-run", code=1)["steps"]
    assert step["what"] == "fill what is searched by, by a trigger"
    assert command("expand", "patients.insured").exit_code == 0
    assert command.json("expand", "patients.insured")["steps"] == []


def test_the_receipt_of_destroyed_keys_names_plaintext(moving: Moving, expanded: Command) -> None:
    """Crypto-shredding does not reach the column that the sealed one has not replaced yet."""
    expanded("backfill", NAME)

    def receipt() -> str:
        address = moving.admin.url.render_as_string(hide_password=False)
        arguments = ("--tenant", str(B), "--reason", "request 4711", "--yes")
        named = ("--guard", f"{MODULE}:guard", "--admin-url", address)
        result = CliRunner().invoke(main, ["keys", "destroy", *arguments, *named])
        assert result.exit_code == 0, result.output
        return result.output

    assert "without any key: what its rows hold in patients.name, the plaintext" in receipt()
    moving.run("ALTER TABLE patients DROP COLUMN name CASCADE")
    assert "patients.name," not in receipt()
    assert "patients.born," in receipt()
    moving.run("DELETE FROM tenantguard_keys")


def test_contract_can_keep_the_plaintext(moving: Moving, expanded: Command) -> None:
    """With --keep the column is renamed."""
    assert expanded("backfill", NAME).exit_code == 0
    assert expanded("contract", NAME, "--keep").exit_code == 0
    assert moving.run("SELECT count(name_plaintext) FROM patients") == [(MANY + 2,)]


def test_contract_refuses_what_was_written_after_the_comparison(
    moving: Moving, expanded: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plaintext that comes between comparing and dropping is found by the database itself.

    Older applications then can go on writing it.
    """
    assert expanded("backfill", NAME).exit_code == 0
    monkeypatch.setattr("tenantguard.cli.encrypt.migrate.failures", lambda _: 0)
    old_writes(moving, update(OldPatient).where(OldPatient.name == "patient 7").values(name="new"))
    assert_could_not_look(expanded("contract", NAME), "the check was dropped again")
    assert moving.run("SELECT count(*) FROM patients WHERE name = 'new'") == [(1,)]
    old_writes(moving, update(OldPatient).where(OldPatient.name == "new").values(name="newer"))


def test_rows_without_any_value_are_told_where_the_model_demands_one(
    moving: Moving, expanded: Command
) -> None:
    """Before `contract` changes anything; where the model demands none, they are fine."""
    moving.run("UPDATE patients SET name = NULL, visits = NULL WHERE name = 'patient 7'")
    assert expanded("backfill", NAME).exit_code == 0
    document = expanded.json("verify", NAME, code=1)
    assert document["rows"] == {"same": MANY + 1, "without-any-value": 1}
    for command in ("verify", "contract"):
        result = expanded(command, NAME)
        assert result.exit_code == 1
        assert "1 rows have no value in either column" in result.stdout
    assert moving.run("SELECT count(name) FROM patients") == [(MANY + 1,)]
    assert expanded("expand", "patients.visits").exit_code == 0
    assert expanded("backfill", "patients.visits").exit_code == 0
    assert "without-any-value" not in expanded.json("verify", "patients.visits")["rows"]


def test_rows_of_a_destroyed_tenant_are_told(moving: Moving, expanded: Command) -> None:
    """They cannot be compared any more: whoever erased the tenant erases its rows."""
    assert expanded("backfill", NAME).exit_code == 0
    moving.run("UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL")
    try:
        result = expanded("contract", NAME)
        assert result.exit_code == 1
        assert "rows are of tenants whose keys were destroyed" in result.stdout
        moving.run("DELETE FROM patients")
        assert expanded("contract", NAME).exit_code == 0
    finally:
        moving.run("DELETE FROM tenantguard_keys")


def test_a_contract_that_is_refused_leaves_no_check(
    moving: Moving, expanded: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a row lost both values meanwhile, older applications can go on writing plaintext."""
    moving.run("UPDATE patients SET name = NULL WHERE name = 'patient 7'")
    assert expanded("backfill", NAME).exit_code == 0
    monkeypatch.setattr("tenantguard.cli.encrypt.migrate.failures", lambda _: 0)
    assert_could_not_look(expanded("contract", NAME), "the check was dropped again")
    old_writes(moving, update(OldPatient).where(OldPatient.name == "patient 8").values(name="new"))


def killed(contract: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """End `contract` before its check is validated."""
    send, sent = changing._send, list[str]()

    def ended(engine: Engine, statements: Statements) -> None:
        if sent:
            raise KeyboardInterrupt
        sent.append(statements.what)
        send(engine, statements)

    with monkeypatch.context() as patched:
        patched.setattr(changing, "_send", ended)
        assert contract("contract", NAME).exit_code != 0
    assert sent


OLDER = "UPDATE patients SET name = 'changed' WHERE id = 1"


@pytest.mark.parametrize("verb", ["expand", "contract", "go on"])
def test_a_contract_that_was_ended_in_between_refuses_nobody_for_long(
    moving: Moving, expanded: Command, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """It goes on when it is run again; where it cannot, or is given up, its check is dropped."""
    assert expanded("backfill", NAME).exit_code == 0
    killed(expanded, monkeypatch)
    with pytest.raises(IntegrityError, match="moved"):
        moving.run(OLDER)
    if verb == "go on":
        assert expanded("contract", NAME).exit_code == 0
        return
    if verb == "contract":
        moving.run(
            "BEGIN; SET LOCAL tenantguard.encrypting = 'on';"
            "UPDATE patients SET name = 'another' WHERE id = 1; COMMIT"
        )
        assert expanded("contract", NAME, "--dry-run").exit_code == 1
        with pytest.raises(IntegrityError, match="moved"):
            moving.run(OLDER)
        assert expanded("contract", NAME).exit_code == 1
    else:
        [step] = expanded.json("expand", NAME)["steps"]
        assert step["what"] == "drop the checks that an earlier contract has left"
        assert expanded.json("expand", NAME)["steps"] == []
    moving.run(OLDER)


def test_backfill_needs_the_trigger(moving: Moving, expanded: Command) -> None:
    """Without it an older application's change would leave the old value sealed."""
    trigger = triggers_of_name(moving)[1]
    moving.run(f'DROP TRIGGER "{trigger}" ON patients')
    assert_could_not_look(expanded("backfill", NAME), "lacks the trigger")
    assert moving.run("SELECT count(name_sealed) FROM patients") == [(0,)]


def test_an_older_application_writes_during_the_backfill(moving: Moving, expanded: Command) -> None:
    """Whichever side is first, what it wrote last is what is sealed in the end."""
    made = create_engine(moving.admin.url.set(username=moving.roles.application))
    moving.old.protect(made)
    ids = [row[0] for row in moving.run("SELECT id FROM patients WHERE tenant_id = :a", a=A)]
    stop, written = Event(), dict[int, str]()

    def application() -> None:
        number = 0
        while not stop.is_set() or number < 50:
            at, name = ids[(number * 37) % MANY], f"writer {number}"
            with tenant_context(A), made.begin() as connection:
                connection.execute(update(OldPatient).where(OldPatient.id == at).values(name=name))
            written[at] = name
            number += 1

    thread = Thread(target=application)
    thread.start()
    for _ in range(3):
        assert expanded("backfill", NAME, "--batch", "10", "--workers", "2").exit_code in {0, 1}
    stop.set()
    thread.join()
    made.dispose()
    assert expanded("backfill", NAME).exit_code == 0
    assert expanded.json("verify", NAME)["rows"] == {"same": MANY + 2}
    found = dict(map(tuple, moving.run("SELECT id, name FROM patients")))
    assert {at: found[at] for at in written} == written


def test_a_row_that_stays_locked_is_told_by_the_same_run(
    moving: Moving, expanded: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another came in meanwhile, so that as many were sealed as there were to be."""
    late = insert(OldPatient).values(tenant_id=A, **{**VALUES, "name": "late"})
    coming, read = [late], Batch.read

    def while_others_write(*args: Any, **kwargs: Any) -> Any:
        while coming:
            old_writes(moving, coming.pop())
        return read(*args, **kwargs)

    monkeypatch.setattr(Batch, "read", while_others_write)
    with moving.admin.begin() as connection:
        connection.execute(text("SELECT FROM patients WHERE name = 'patient 7' FOR UPDATE"))
        document = expanded.json("backfill", NAME, "--tenant", str(A), code=1)
        assert (document["done"], document["locked"]) == (MANY, 1)
        result = expanded("backfill", NAME, "--tenant", str(A))
    assert result.exit_code == 1
    assert "✗ 1 rows are left: others kept them locked, or wrote them meanwhile." in result.stdout
    assert expanded.json("backfill", NAME, "--tenant", str(A))["done"] == 1


def test_keys_that_go_during_a_run_are_told(
    moving: Moving, expanded: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the rows that were locked are tried again without keys, the run does not end with 0."""
    keys_of, asked = Access.keys_of, []

    def once(access: Access, entry: Any, tenant: str, **options: Any) -> Any:
        asked.append(tenant)
        if len(asked) > 1:
            raise KeyUnavailableError("The keys are gone.")
        return keys_of(access, entry, tenant, **options)

    monkeypatch.setattr(Access, "keys_of", once)
    monkeypatch.setattr("tenantguard.encrypt.passes.is_fresh", lambda _: False)
    with moving.admin.begin() as connection:
        connection.execute(text("SELECT FROM patients WHERE name = 'patient 7' FOR UPDATE"))
        document = expanded.json("backfill", NAME, "--tenant", str(A), code=1)
    assert (document["done"], document["tenants_without_usable_keys"]) == (MANY - 1, 1)


def test_plaintext_is_not_sent_back(expanded: Command) -> None:
    """What the server has it sends, and is never sent: neither in a statement nor beside it."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        sent.append(f"{statement} {values!r}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        assert expanded.json("backfill", NAME, "--batch", "50")["done"] == MANY + 2
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)
    assert sum('SET "name_sealed"' in each for each in sent) == MANY // 50 + 2
    assert not [each for each in sent if re.search(r"patient \d|without the rest|Zoë", each)]


@pytest.mark.parametrize(
    "held", [Row(("1",), ["canary"]), Change(("1",), ["canary"], ["canary"], 1)]
)
def test_what_holds_values_does_not_show_them(held: Row | Change) -> None:
    """No log and no traceback with local variables repeats a value."""
    assert "canary" not in f"{held} {held!r}"


def test_a_value_that_cannot_be_read_is_not_shown(moving: Moving, expanded: Command) -> None:
    """A date that Python does not have ends the backfill with 2, in words without the date."""
    moving.run("UPDATE patients SET born = '19999-01-02' WHERE name = 'patient 3'")
    for name in ("backfill", "verify"):
        result = expanded(name, "patients.born")
        assert_could_not_look(result, "does not read, such as a name")
        assert "19999" not in f"{result.output}{result.exception!r}"


def test_the_encrypted_column_is_declared(command: Command) -> None:
    """Where no column is declared for it, the message says how to declare one."""
    assert_could_not_look(command("plan", "patients.city"), 'migrating="name"')


def test_the_class_in_the_docs_writes_reads_and_finds_both(
    moving: Moving, expanded: Command
) -> None:
    """What the page on it shows does what it says, for rows sealed and not sealed yet."""
    patient = documented()
    guard = TenantGuard(
        patient.metadata, tenants="practices", roles=moving.roles, keys=moving.new.keys
    )
    made = create_engine(moving.admin.url.set(username=moving.roles.application))
    guard.protect(made)
    with tenant_context(A), Session(made) as session:
        session.add(patient(tenant_id=A, name="Ada"))
        session.commit()
        [ada] = session.scalars(select(patient).where(patient.name == "Ada"))
        [third] = session.scalars(select(patient).where(patient.name == "patient 3"))
        assert (ada.plain_name, ada.sealed_name) == ("Ada", "Ada")
        assert (third.name, third.sealed_name) == ("patient 3", None)
        third.name = ada.name = "Eve"
        session.commit()
        assert session.scalars(select(patient).where(patient.sealed_name == "Eve")).all()
    made.dispose()
    assert expanded("backfill", NAME).exit_code == 0
    assert expanded.json("verify", NAME)["holds"]


def documented() -> Any:
    """The class of the page, in a model of its own beside the table's other columns."""
    page = Path(__file__).parents[2] / "docs" / "encrypt-existing.md"
    [shown] = re.findall(r"```python\n(class Patient.*?)```", page.read_text(), re.DOTALL)

    class Base(DeclarativeBase):
        pass

    class Practice(Base):
        __tablename__ = "practices"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

    class Rest(Base):
        __abstract__ = True
        __tablename__ = "patients"
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))

    del Practice
    names: dict[str, Any] = {**vars(sqlalchemy), **vars(sqlalchemy.orm), **vars(tenantguard)}
    names |= {"Base": Rest, "__name__": "documented"}
    exec(compile(shown, "docs", "exec", dont_inherit=True), names)
    return names["Patient"]


class _YesOrNo(TypeDecorator[bool]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: bool | None, dialect: object) -> str | None:  # noqa: ARG002, FBT001
        return None if value is None else "NY"[value]


@pytest.mark.parametrize(
    ("type_", "value", "written"),
    [
        (JSONB(), "123", '"123"'),
        (JSONB(), "a word", '"a word"'),
        (JSONB(), {"a": [1]}, '{"a": [1]}'),
        (_YesOrNo(), True, "Y"),
        (LargeBinary(), b"\x00\xff", "\\x00ff"),
    ],
)
def test_plaintext_is_put_back_as_its_type_writes_it(
    type_: TypeEngine[Any], value: object, written: str
) -> None:
    """What decrypting writes is what the application would have written."""
    assert writer(Column("plain", type_))(value) == written
