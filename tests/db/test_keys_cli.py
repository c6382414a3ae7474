"""`tenantguard keys` on the command line and against a database."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import pytest
from click.testing import CliRunner
from key_commands import IDS, C, assert_could_not_look, serve
from sqlalchemy import event
from sqlalchemy.orm import Session
from vault import A, B, Patient, Visit, make_guard

from tenantguard import TenantGuard
from tenantguard.cli import main
from tenantguard.cli.keys.judging import verify
from tenantguard.cli.keys.rows import read_tenants
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    import uuid
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from key_commands import Keys
    from sqlalchemy import URL

    from tenantguard.crypto.keyfile import KeyProvider

# -- init -----------------------------------------------------------------------------------------


def test_init_makes_a_key_that_works(tmp_path: Path) -> None:
    """The file can be given to a guard as the command says; only its owner reads it."""
    path = tmp_path / "key.json"
    result = CliRunner().invoke(main, ["keys", "init", str(path), "--environment", "production"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert path.stat().st_mode & 0o777 == 0o600
    assert f'keys=KeyFile("{path}", environment="production")' in result.stdout
    for said in ("loses every encrypted field of every tenant", "Back it up", "Never commit"):
        assert said in result.stdout


@pytest.mark.parametrize("output", ["text", "json"])
def test_init_never_prints_the_key(tmp_path: Path, output: str) -> None:
    """Nothing of the keyset is printed; the URI is, because the database has it too."""
    path = tmp_path / "key.json"
    arguments = ["keys", "init", str(path), "--environment", "test", "--format", output]
    result = CliRunner().invoke(main, arguments)
    document = json.loads(path.read_bytes())
    assert document["keyset"]["key"][0]["keyData"]["value"] not in result.output
    assert str(document["keyset"]["primaryKeyId"]) not in result.output
    uri = f"file:test/{document['name']}"
    assert uri in result.stdout
    if output == "json":
        assert json.loads(result.stdout) == {
            "version": 1,
            "file": str(path),
            "environment": "test",
            "kek_uri": uri,
        }


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    """An existing file ends with 2 and is unchanged."""
    path = tmp_path / "key.json"
    path.write_bytes(b"older")
    result = CliRunner().invoke(main, ["keys", "init", str(path), "--environment", "test"])
    assert_could_not_look(result, "never overwritten.*Name another file")
    assert path.read_bytes() == b"older"


# -- create ---------------------------------------------------------------------------------------


def test_create_makes_what_is_missing_once(keys: Keys) -> None:
    """Counted, made, and nothing left to do: a second run changes no row."""
    counted = keys("create", "--dry-run")
    assert (counted.exit_code, keys.rows()) == (0, [])
    assert "2 tenants without keys. Run the command without --dry-run" in counted.stdout
    made = keys("create")
    assert (made.exit_code, made.stdout) == (0, "made: keys of 2 of 2 tenants.\n")
    rows = keys.rows()
    assert [(row[0], row[1]) for row in rows] == [
        (str(tenant), purpose) for tenant in (A, B) for purpose in ("data", "index")
    ]
    again = keys("create")
    assert (again.exit_code, again.stdout) == (0, "Nothing to do: no tenant is without keys.\n")
    assert keys.rows() == rows


def test_application_uses_the_keys_that_were_made(keys: Keys) -> None:
    """A value is sealed, found and opened with them, and no other key is made."""
    keys("create")
    rows = keys.rows()
    with keys.vault.guard.tenant_context(A), Session(keys.vault.fresh_engine()) as session:
        session.add(Patient(name="Erika"))
        session.commit()
        assert session.query(Patient).filter(Patient.name == "ERIKA").one().name == "Erika"
    assert keys.rows() == rows


def test_create_says_it_as_json(keys: Keys) -> None:
    """The document counts; nobody's id is in it."""
    assert keys.json("create", "--dry-run") == {
        "version": 1,
        "dry_run": True,
        "without_keys": 2,
        "made": 0,
        "failed": [],
        "findings": [],
    }
    document = keys.json("create")
    assert (document["dry_run"], document["without_keys"], document["made"]) == (False, 2, 2)


def test_one_tenants_failure_is_its_own(keys: Keys) -> None:
    """The others get their keys; the failed one is counted, and named only if asked for."""
    keys.vault.run(f"ALTER TABLE tenantguard_keys ADD CONSTRAINT no_a CHECK (tenant_id <> '{A}')")
    try:
        result = keys("create")
        assert result.exit_code == 1
        assert "failed: 1 tenants: PostgreSQL did not let" in result.stdout
        assert "made: keys of 1 of 2 tenants." in result.stdout
        assert not IDS.search(result.output)
        assert [row[0] for row in keys.rows()] == [str(B), str(B)]
        named = keys("create", "--tenants")
        assert (named.exit_code, IDS.findall(named.output)) == (1, [str(A)])
        [failed] = keys.json("create", "--tenants", code=1)["failed"]
        assert (failed["tenants"], failed["listed"]) == (1, [str(A)])
        [failed] = keys.json("create", code=1)["failed"]
        assert (failed["tenants"], failed["listed"]) == (1, None)
    finally:
        keys.vault.run("ALTER TABLE tenantguard_keys DROP CONSTRAINT no_a")


def test_lost_keyset_is_not_made_again(keys: Keys) -> None:
    """A new keyset in the place of a lost one would hide the loss: it is a finding instead."""
    keys("create")
    keys.vault.run("DELETE FROM tenantguard_keys WHERE purpose = 'index' AND tenant_id = :a", a=A)
    rows = keys.rows()
    result = keys("create")
    assert result.exit_code == 1
    assert "key-incomplete: 1 tenants have one keyset of two" in result.stdout
    assert keys.rows() == rows


def test_lost_keysets_are_not_made_again(keys: Keys) -> None:
    """Whose values need the old keysets gets no new ones; who never had any does."""
    write_values(keys, A)
    lose_keys(keys, A)
    counted = keys("create", "--dry-run")
    assert (counted.exit_code, keys.rows()) == (1, [])
    assert "1 other tenants without keys. Run the command without" in counted.stdout
    document = keys.json("create", code=1)
    assert (document["without_keys"], document["made"], document["failed"]) == (2, 1, [])
    assert [each["code"] for each in document["findings"]] == ["key-lost"]
    assert [row[0] for row in keys.rows()] == [str(B), str(B)]
    again = keys("create")
    assert again.exit_code == 1
    assert "key-lost: 1 tenants have encrypted values and no keyset" in again.stdout
    assert "Nothing to do: no other tenant is without keys.\n" in again.stdout


def test_nothing_is_made_with_the_wrong_key(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A guard with another key than the database's rows have makes none beside them."""
    keys("create")
    keys.add_tenant(C)
    rows = keys.rows()
    serve(monkeypatch, guard=with_another_key(keys, tmp_path))
    result = keys("create")
    assert result.exit_code == 1
    assert "key-of-another-kek: 4 keysets" in result.stdout
    assert "Nothing was made: 1 tenants without keys wait for the right key." in result.stdout
    assert keys.rows() == rows


def with_another_key(keys: Keys, directory: Path) -> TenantGuard:
    path = directory / "another.json"
    make_key_file(path, environment="test")
    return make_guard(keys.vault.guard.roles, path)


def test_lost_connection_stops_and_says_so(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would meet every tenant is not tried with each: 2, and what was made stays."""
    make = TenantGuard.create_keys

    def once(guard: TenantGuard, connection: Any, tenant: Any) -> bool:
        made = make(guard, connection, tenant)

        def end(other: Any, *_: object) -> None:
            other.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

        event.listen(connection.engine, "begin", end)
        return made

    monkeypatch.setattr(TenantGuard, "create_keys", once)
    result = keys("create")
    assert result.exit_code == 2
    # The server's last words may be lost with the connection.
    assert re.search(r"(57P01|was lost).*again; what was made stays\.$", result.stderr)
    assert "made: keys of 1 of 2 tenants." in result.stdout
    assert len(keys.rows()) == 2


def test_create_takes_the_maintenance_role(keys: Keys, login: Callable[..., URL]) -> None:
    """A login that is granted it makes the keys of all tenants, and no superuser is needed."""
    result = keys("create", url=login(keys.vault.guard.roles.maintenance))
    assert (result.exit_code, len(keys.rows())) == (0, 4), result.output


def test_create_does_not_take_the_backup_role(keys: Keys, login: Callable[..., URL]) -> None:
    """A role that only reads is told which one writes."""
    result = keys("create", url=login(keys.vault.guard.roles.backup))
    assert_could_not_look(result, "may not add keys.*granted the maintenance role")
    assert keys.rows() == []


# -- list -----------------------------------------------------------------------------------------


def test_list_counts_and_names_nobody(keys: Keys) -> None:
    """Tenants are counted by purpose, state and key; those without keys get a hint."""
    keys("create")
    keys.add_tenant(C)
    result = keys("list")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.search(r"data +active +file:test/[0-9a-f]{16} +2 +20\S+Z +20\S+Z", result.stdout)
    assert "3 tenants in the registry, 1 without keys.\n`tenantguard keys create`" in result.stdout
    assert "All keysets are wrapped by the guard's key; --verify" in result.stdout
    assert not IDS.search(result.output)


def test_list_says_it_as_json(keys: Keys) -> None:
    """The document has the same, with nobody's id."""
    keys("create")
    keys.add_tenant(C)
    document = keys.json("list")
    assert {key: document[key] for key in ("tenants", "without_keys", "verified", "listed")} == {
        "tenants": 3,
        "without_keys": 1,
        "verified": False,
        "listed": None,
    }
    assert [(each["purpose"], each["tenants"]) for each in document["keys"]] == [
        ("data", 2),
        ("index", 2),
    ]
    assert {each["kek_uri"] for each in document["keys"]} == {document["kek_uri"]}
    assert (document["findings"], document["not_looked_at"]) == ([], [])
    assert not IDS.search(json.dumps(document))


def test_tenants_are_named_where_asked_for(keys: Keys) -> None:
    """With --tenants each tenant has a line, also one without keys."""
    keys("create")
    keys.add_tenant(C)
    lines = keys("list", "--tenants").stdout.splitlines()
    assert re.match(rf"{A} +active +active +file:test/\S+ +20\S+Z", lines[1])
    assert re.match(rf"{C} +- +- +- +- *$", lines[3])
    listed = keys.json("list", "--tenants")["listed"]
    assert [(each["tenant"], len(each["keys"])) for each in listed] == [
        (str(A), 2),
        (str(B), 2),
        (str(C), 0),
    ]


def test_rows_of_another_key_are_a_finding(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both keys are named, and what to do; a destroyed keyset has no key any more."""
    keys("create")
    keys.vault.run(
        "UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL WHERE tenant_id = :b", b=B
    )
    serve(monkeypatch, guard=with_another_key(keys, tmp_path))
    result = keys("list", "--verify")
    assert result.exit_code == 1
    assert re.search(
        r"key-of-another-kek: 2 keysets are wrapped by file:test/\w+, and .* has file:test/\w+",
        result.stdout,
    )
    assert "mend: Give keys= the key that wrapped them" in result.stdout
    assert "Findings: 1." in result.stdout
    assert "key-unusable" not in result.stdout


def test_keysets_are_verified(keys: Keys) -> None:
    """--verify opens all; a row of another tenant, an altered and an emptied one do not open."""
    keys("create")
    good = keys("list", "--verify")
    assert (good.exit_code, "and it opens them" in good.stdout) == (0, True)
    assert keys.json("list", "--verify")["verified"] is True
    before = keys.rows()
    keys.vault.run(
        "UPDATE tenantguard_keys k SET wrapped = o.wrapped, check_value = o.check_value "
        "FROM tenantguard_keys o WHERE o.purpose = k.purpose AND o.tenant_id <> k.tenant_id"
    )
    assert keys.rows() != before
    assert keys("list").exit_code == 0
    swapped = keys("list", "--verify")
    assert swapped.exit_code == 1
    assert "key-unusable: 2 tenants have a keyset that the key does not open" in swapped.stdout
    assert not IDS.search(swapped.output)


@pytest.mark.parametrize(
    "change",
    ["check_value = NULL", "wrapped = '\\x00'", "wrapped = ''", "check_value = wrapped"],
)
@pytest.mark.parametrize("purpose", ["data", "index"])
def test_one_altered_row_is_found(keys: Keys, purpose: str, change: str) -> None:
    """A damaged row is a finding, and named where ids may be shown."""
    keys("create")
    keys.vault.run(
        f"UPDATE tenantguard_keys SET {change} WHERE purpose = :p AND tenant_id = :a",
        p=purpose,
        a=A,
    )
    document = keys.json("list", "--verify", "--tenants", code=1)
    assert [(each["tenant"], each["findings"]) for each in document["listed"]] == [
        (str(A), ["key-unusable"]),
        (str(B), []),
    ]
    assert [each["code"] for each in document["findings"]] == ["key-unusable"]


def test_malformed_id_is_a_finding(keys: Keys) -> None:
    """A row whose tenant cannot be one of the registry's opens nothing, and ends nothing."""
    keys("create")
    guard = keys.vault.another_guard()
    guard._open_keystore()
    tenants = read_tenants(guard, keys.vault.admin, wrapped=True)
    tenants[0].id = "nobody"
    for tenant in tenants:
        verify(guard, tenant, cast("KeyProvider", guard.keys))
    assert [tenant.faults for tenant in tenants] == [{"key-unusable"}, set()]


def test_lost_keyset_is_a_finding(keys: Keys) -> None:
    """A tenant with one keyset of two has lost one; a tenant with none and no values has not."""
    keys("create")
    keys.add_tenant(C)
    keys.vault.run("DELETE FROM tenantguard_keys WHERE purpose = 'data' AND tenant_id = :a", a=A)
    document = keys.json("list", code=1)
    [finding] = document["findings"]
    assert finding["code"] == "key-incomplete"
    assert finding["message"].startswith("1 tenants have one keyset of two")
    assert "from a backup" in finding["mend"]
    assert document["without_keys"] == 1


def write(keys: Keys, tenant: uuid.UUID, patient: Patient) -> None:
    """Add *patient* as the application does."""
    with keys.vault.guard.tenant_context(tenant), Session(keys.vault.fresh_engine()) as session:
        session.add(patient)
        session.commit()


def write_values(keys: Keys, *tenants: uuid.UUID) -> None:
    """Give each of *tenants* a row with encrypted values."""
    for tenant in tenants:
        write(keys, tenant, Patient(name="Erika"))


def lose_keys(keys: Keys, *tenants: uuid.UUID) -> None:
    """Leave *tenants* as a restore of the rows without the keys does."""
    for tenant in tenants:
        keys.vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :t", t=tenant)


@pytest.mark.parametrize("options", [(), ("--verify",)])
def test_values_without_keysets_are_a_finding(keys: Keys, options: tuple[str, ...]) -> None:
    """Rows restored without their keysets: not well, and nobody is sent to make new ones."""
    write_values(keys, A, B)
    lose_keys(keys, A, B)
    result = keys("list", *options)
    assert result.exit_code == 1, result.output
    assert "key-lost: 2 tenants have encrypted values and no keyset: rows of" in result.stdout
    assert "mend: Restore tenantguard_keys from the backup that the rows came" in result.stdout
    assert "2 tenants in the registry, 2 without keys.\n" in result.stdout
    assert "keys create" not in result.output
    assert "Findings: 1.\n" in result.stdout
    assert not IDS.search(result.output)


def test_lost_keys_are_named_where_asked_for(keys: Keys) -> None:
    """Who has lost keysets is told from who never had any; others keep their good report."""
    write_values(keys, A, B)
    lose_keys(keys, A)
    keys.add_tenant(C)
    document = keys.json("list", "--verify", "--tenants", code=1)
    assert {each["tenant"]: each["findings"] for each in document["listed"]} == {
        str(A): ["key-lost"],
        str(B): [],
        str(C): [],
    }
    assert document["without_keys"] == 2
    assert [each["code"] for each in document["findings"]] == ["key-lost"]
    assert "makes those of 1, without values; else" in keys("list").stdout


@pytest.fixture
def nullable(keys: Keys) -> Iterator[Keys]:
    """Every encrypted column may be empty."""
    columns = (("patients", "name"), ("visits", "reason"))
    for table, column in columns:
        keys.vault.run(f"ALTER TABLE {table} ALTER {column} DROP NOT NULL")
    yield keys
    for table, column in reversed(columns):
        keys.vault.run(f"DELETE FROM {table}")
        keys.vault.run(f"ALTER TABLE {table} ALTER {column} SET NOT NULL")


@pytest.mark.parametrize(
    ("kept", "code"), [(None, 0), ("patients.name", 1), ("patients.notes", 1), ("visits.reason", 1)]
)
def test_one_value_in_any_column_is_enough(nullable: Keys, kept: str | None, code: int) -> None:
    """Each encrypted column of each table counts; rows without values do not."""
    visit = Visit(reason="cough")
    write(nullable, A, Patient(name="Erika", notes="none", visits=[visit]))
    for column in {"patients.name", "patients.notes", "visits.reason"} - {kept}:
        table, _, name = column.partition(".")
        nullable.vault.run(f"UPDATE {table} SET {name} = NULL")
    lose_keys(nullable, A)
    assert nullable("list").exit_code == code


def test_lost_keys_are_found_without_the_key(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the key file is lost as well, the loss of keysets is still reported."""
    write_values(keys, A)
    lose_keys(keys, A)
    serve(monkeypatch, guard=make_guard(keys.vault.guard.roles, tmp_path / "absent"))
    document = keys.json("list", code=2)
    assert [each["code"] for each in document["findings"]] == ["key-lost"]


def test_destroyed_keys_are_not_lost(keys: Keys) -> None:
    """Whose keys were destroyed has values that nobody opens, as was meant."""
    write_values(keys, A)
    keys.vault.run("UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL")
    assert keys.json("list", "--verify")["findings"] == []


@pytest.mark.parametrize("role", ["maintenance", "backup"])
def test_granted_role_sees_lost_keys(keys: Keys, login: Callable[..., URL], role: str) -> None:
    """The roles that see all keysets see all values too."""
    write_values(keys, A)
    lose_keys(keys, A)
    result = keys("list", url=login(getattr(keys.vault.guard.roles, role)))
    assert "key-lost: 1 tenants" in result.stdout, result.output


def test_missing_column_is_told(keys: Keys) -> None:
    """Where the models encrypt what the database does not have yet, there is no answer."""
    keys.vault.run("ALTER TABLE visits RENAME reason TO reasons")
    try:
        for name in ("list", "create"):
            assert_could_not_look(keys(name), "Run your migrations, then `tenantguard rls apply`")
    finally:
        keys.vault.run("ALTER TABLE visits RENAME reasons TO reason")


def test_keys_without_a_tenant_are_a_finding(keys: Keys) -> None:
    """Keysets that outlived their tenant, or the foreign key, are counted too."""
    keys("create")
    with keys.vault.admin.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql(f"DELETE FROM practices WHERE id = '{B}'")
    try:
        document = keys.json("list", "--tenants", code=1)
        assert [each["code"] for each in document["findings"]] == ["key-of-unknown-tenant"]
        assert document["tenants"] == 1
        assert len(document["listed"]) == 2
    finally:
        keys.add_tenant(B)


def test_what_a_row_says_does_not_reach_the_terminal(keys: Keys) -> None:
    """The application's role writes these rows: no character of theirs moves a cursor."""
    keys("create")
    keys.vault.run(
        "UPDATE tenantguard_keys SET kek_uri = E'\\x1b[2J[red]x\\u009b' WHERE tenant_id = :a", a=A
    )
    for arguments in (("list",), ("list", "--tenants"), ("create",)):
        result = keys(*arguments)
        assert result.exit_code == 1
        assert "\x1b" not in result.output
        assert "\x9b" not in result.output
        assert "\\x1b[2J[red]x" in result.stdout


def test_far_away_time_is_only_a_text(keys: Keys) -> None:
    """A time that Python cannot hold does not keep the rows from being listed."""
    keys("create")
    keys.vault.run("UPDATE tenantguard_keys SET created_at = 'infinity' WHERE tenant_id = :a", a=A)
    assert {each["newest"] for each in keys.json("list")["keys"]} == {"infinity"}


@pytest.mark.parametrize("name", ["list", "create"])
def test_owner_under_force_is_told_that_it_sees_nothing(
    keys: Keys, login: Callable[..., URL], name: str
) -> None:
    """An empty answer because of policies is no answer: 2, and who sees all."""
    keys("create")
    url = login()
    for table in ("practices", "tenantguard_keys"):
        keys.vault.run(f'ALTER TABLE {table} OWNER TO "{url.username}"')
    result = keys(name, url=url)
    assert_could_not_look(
        result, "hide rows of .*public.practices, public.tenantguard_keys.*superuser"
    )


def test_application_is_told_that_it_sees_nothing(keys: Keys) -> None:
    """With the application's own address there is no answer either."""
    assert_could_not_look(keys("list", url=keys.vault.app_url), "hide rows of.*tenantguard_keys")


@pytest.mark.parametrize("role", ["maintenance", "backup"])
def test_granted_role_sees_all(keys: Keys, login: Callable[..., URL], role: str) -> None:
    """A login that is granted the maintenance or the backup role sees every tenant's rows."""
    keys("create")
    result = keys("list", "--verify", url=login(getattr(keys.vault.guard.roles, role)))
    assert result.exit_code == 0, result.output
    assert "2 tenants in the registry, 0 without keys." in result.stdout


@pytest.mark.parametrize("driver", ["psycopg2", "asyncpg"])
def test_address_of_any_driver_is_taken(keys: Keys, driver: str) -> None:
    """The address may be the one that the application has, whatever its driver."""
    url = keys.vault.admin.url.set(drivername=f"postgresql+{driver}")
    assert keys("create", url=url).exit_code == 0
    assert keys("list", "--verify", url=url).exit_code == 0


def test_key_that_is_not_there_is_not_looked_at(
    keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the key nothing is compared: the rows are listed, and it ends with 2."""
    keys("create")
    serve(monkeypatch, guard=make_guard(keys.vault.guard.roles, tmp_path / "absent"))
    result = keys("list", "--verify")
    assert result.exit_code == 2
    assert "Not compared with a key." in result.stdout
    assert re.search("were not compared with a key. .*cannot be read.*backup", result.stderr)
    document = keys.json("list", "--verify", code=2)
    assert (document["kek_uri"], document["verified"]) == (None, False)
    assert len(document["not_looked_at"]) == 1
    assert_could_not_look(keys("create"), "The key file .* cannot be read")


@pytest.mark.parametrize("name", ["list", "create"])
def test_guard_without_encrypted_columns_is_told(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Models without encrypted columns are probably not all imported; no key is asked for."""
    from practice import make_guard as make_plain_guard  # noqa: PLC0415

    serve(monkeypatch, guard=make_plain_guard(keys.vault.guard.roles))
    assert_could_not_look(keys(name), "no encrypted columns.*import the modules")


def test_database_without_the_table_is_told(keys: Keys, new_database: Callable[[], URL]) -> None:
    """Before `rls apply` there is nothing to list, and that is not an empty list."""
    assert_could_not_look(keys("list", url=new_database()), "then `tenantguard rls apply`")


@pytest.mark.parametrize("output", ["text", "json"])
def test_progress_is_only_shown_on_a_terminal(
    keys: Keys, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """In a pipe, and beside JSON, there is no bar and no escape sequence on either stream."""
    for terminal in (False, True):
        # Rich takes this for a terminal.
        monkeypatch.setenv("FORCE_COLOR", "1" if terminal else "")
        for arguments, said in (
            (("create",), "making keysets"),
            (("list", "--verify"), "opening keysets"),
        ):
            if said == "making keysets":
                keys.vault.run("DELETE FROM tenantguard_keys")
            result = keys(*arguments, "--format", output)
            assert result.exit_code == 0
            shown = terminal and output == "text"
            assert (said in result.stderr) is shown
            assert ("\x1b" in result.output) is shown
