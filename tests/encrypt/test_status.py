"""`tenantguard encrypt status`: rows of encrypted columns by the key that sealed them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from commanding import Command, assert_could_not_look, serve, without_check
from rotating import data_keyset, rotate
from sqlalchemy.orm import Session
from vault import A, B, Patient, make_guard

from tenantguard import tenant_context
from tenantguard.encrypt.counting import Form, head_sql, rows_by_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vault import Vault

IDS = re.compile(f"{A}|{B}")


@pytest.fixture
def command(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Iterator[Command]:
    """The command, on a vault in which A has two patients and B one."""
    serve(monkeypatch, guard=vault.another_guard())
    write(vault, A, "Anna", "Bert")
    write(vault, B, "Carl")
    yield Command(vault.admin)
    vault.run("DELETE FROM patients")
    vault.run("DELETE FROM tenantguard_keys")


def write(vault: Vault, tenant: Any, *names: str) -> None:
    with tenant_context(tenant), Session(vault.fresh_engine()) as session:
        session.add_all(Patient(tenant_id=tenant, name=name, notes=f"of {name}") for name in names)
        session.commit()


def column(document: dict[str, Any], name: str) -> dict[str, Any]:
    [found] = [each for each in document["columns"] if each["column"] == name]
    return dict(found)


def test_status_counts_every_column_by_its_key(command: Command) -> None:
    """Each value counts once under its key, NULL apart; no tenant is named."""
    document = command.json("status")
    name = column(document, "patients.name")
    assert (name["rows"], name["no_value"], name["not_sealed"]) == (3, 0, 0)
    assert sorted(each["rows"] for each in name["keys"]) == [1, 2]
    assert {each["standing"] for each in name["keys"]} == {"primary"}
    assert column(document, "patients.phone")["no_value"] == 3
    assert document["findings"] == []
    text = command("status").stdout
    assert re.search(r"patients.name +primary +2 keys +3 +█+ 100.0%", text), text
    assert "6 of 6 values are under their tenants' primary keys.\n" in text
    assert not IDS.search(text + str(document))


def test_status_names_tenants_only_when_asked(command: Command) -> None:
    """With --tenants every line says whose it is."""
    document = command.json("status", "--tenants")
    keys = column(document, "patients.name")["keys"]
    assert {(each["tenant"], each["rows"]) for each in keys} == {(str(A), 2), (str(B), 1)}
    assert str(A) in command("status", "--tenants").stdout


def test_status_tells_older_keys_from_the_primary_one(vault: Vault, command: Command) -> None:
    """After a rotation the values of old are counted, and the command says what seals them anew."""
    rotate(vault, A)
    write(vault, A, "Dora")
    keys = column(command.json("status"), "patients.name")["keys"]
    found = sorted((each["standing"], each["rows"]) for each in keys)
    assert found == [("older", 2), ("primary", 1), ("primary", 1)]
    text = command("status").stdout
    assert "4 of 8 values" in text
    assert "`tenantguard encrypt rewrite` seals 4 anew" in text


def test_status_finds_keys_that_the_keyset_does_not_have(vault: Vault, command: Command) -> None:
    """A value moved to another tenant cannot be read there; it is a finding."""
    vault.run("UPDATE patients SET tenant_id = :b WHERE tenant_id = :a", a=A, b=B)
    document = command.json("status", code=1)
    assert {each["code"] for each in document["findings"]} == {"value-of-unknown-key"}
    assert "2 values were sealed with keys" in command("status").stdout


def test_status_finds_what_is_not_sealed_and_does_not_read_it(
    vault: Vault, command: Command
) -> None:
    """Plaintext in the column is a finding, and never printed."""
    with without_check(vault, "patients", "patients_notes_sealed"):
        vault.run("UPDATE patients SET notes = 'canary'::bytea WHERE tenant_id = :b", b=B)
        result = command("status", "--tenants")
        vault.run("DELETE FROM patients")
    assert result.exit_code == 1
    assert "value-not-sealed patients.notes: 1 rows" in result.stdout
    assert "canary" not in result.output


def test_status_says_when_keysets_do_not_open(
    vault: Vault, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the rank of keys is unknown, the rows are listed all the same, and it ends with 2."""
    vault.run("UPDATE tenantguard_keys SET kek_uri = 'file:test/other' WHERE tenant_id = :a", a=A)
    serve(monkeypatch, guard=make_guard(vault.guard.roles, vault.key_file))
    result = command("status")
    assert_could_not_look(result, "keys list --verify")
    assert re.search(r"patients.name +primary .*\n +not opened", result.stdout)


def test_status_refuses_to_count_what_policies_hide(vault: Vault, command: Command) -> None:
    """A login that sees one tenant's rows, or none, is refused: a small number would look fine."""
    assert_could_not_look(command("status", url=vault.app_url), "hide rows")


def test_numbers_are_tinks(vault: Vault, command: Command) -> None:
    """What SQL reads out of the bytes is the number that the keyset gives the key."""
    del command
    counted = [
        rows for rows in rows_by_key(vault.run, vault.guard.catalog) if rows.tenant == str(A)
    ]
    sealed = {rows.key for rows in counted if rows.form is Form.SEALED}
    assert sealed == {data_keyset(vault, A).numbers[0]}


def test_counting_can_be_narrowed(vault: Vault, command: Command) -> None:
    """One tenant and one column are counted alone."""
    del command
    catalog = vault.guard.catalog
    name = vault.guard.catalog.metadata.tables["patients"].c.name
    [rows] = rows_by_key(vault.run, catalog, columns=[name], tenant=str(B))
    assert (rows.table, rows.column, rows.tenant, rows.rows) == ("patients", "name", str(B), 1)
    assert rows.header == b"\x9eT\x01\x01"


@pytest.mark.parametrize(
    "hexed",
    [
        "",
        "9e",
        "9e54",
        "9e5401",
        "9e540100",
        "9e54010001",
        "9e54010001123450",
        "9e540101" + "00" * 16,
        "9e540200" + "01" * 40,
        "9e5401ff" + "01" * 40,
        "6d7574696e79206f6e",
    ],
)
def test_no_bytes_are_an_error(vault: Vault, hexed: str) -> None:
    """Whatever stands in a column, it is counted as not sealed, and counting goes on."""
    stored = "'\\x" + hexed + "'::bytea"
    [[head]] = vault.run(f"SELECT {head_sql(stored)}")
    assert head is None or len(hexed) >= 18
