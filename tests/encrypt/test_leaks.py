"""`tenantguard encrypt leaks`: what somebody without a key learns, and that no more is printed."""

from __future__ import annotations

import re
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import pytest
from commanding import Command, assert_could_not_look, serve
from sqlalchemy import insert
from vault import A, B, Patient

from tenantguard import tenant_context
from tenantguard.encrypt.leaks import Groups, Indexed, Leak
from tenantguard.encrypt.statistics import Statistics, _Facts, _Spread
from tenantguard.encrypt.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault import Vault

IDS = re.compile(f"{A}|{B}")
NAMES, OTHERS = 400, 40
PATIENTS = "patients.name"


def first_names() -> list[str]:
    """Names as they are given: the second most frequent half as often as the first, and so on."""
    ranks = range(1, NAMES + 1)
    return [f"name {rank}" for rank in ranks for _ in range(max(1, round(300 / rank)))]


ROWS = len(first_names())


@pytest.fixture(scope="module", autouse=True)
def rows(vault: Vault) -> Iterator[None]:
    """A has many patients with frequent names, B few, whose names are all different; analyzed."""
    vault.run("ALTER TABLE patients SET (autovacuum_enabled = false)")
    of_a = [
        {
            "name": name,
            "number": number,
            "smoker": number % 2 == 0,
            "email": f"{number % 3}@example.org",
            "policy": f"{number % 700:03}{number:05}" if number % 4 else None,
            "notes": "Ja" if number % 3 else "Nein",
        }
        for number, name in enumerate(first_names())
    ]
    of_b = [
        {"name": f"only {number}", "number": number, "smoker": None, "email": None}
        | {"policy": None, "notes": None}
        for number in range(OTHERS)
    ]
    for tenant, values in ((A, of_a), (B, of_b)):
        with tenant_context(tenant), vault.fresh_engine().begin() as connection:
            connection.execute(insert(Patient), [{**each, "tenant_id": tenant} for each in values])
    settled(vault)
    analyze(vault, "patients")
    analyze(vault, "visits")
    yield
    vault.run("DELETE FROM patients")


def settled(vault: Vault) -> None:
    """Wait until every other connection has ended, and with it has told its changes."""
    vault.close_engines()
    vault.admin.dispose()
    others = (
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() "
        "AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    wait_until(vault, others)


def analyze(vault: Vault, table: str) -> None:
    vault.run(f"ANALYZE {table}")
    noted = "last_analyze IS NOT NULL AND n_mod_since_analyze = 0"
    wait_until(vault, f"SELECT {noted} FROM pg_stat_all_tables WHERE relname = '{table}'")


def wait_until(vault: Vault, question: str) -> None:
    end = monotonic() + 60
    while vault.run(question) != [(True,)]:
        assert monotonic() < end
        sleep(0.01)


@pytest.fixture
def command(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> Command:
    serve(monkeypatch, guard=vault.another_guard())
    return Command(vault.admin)


def search(document: dict[str, Any], column: str, name: str | None = None) -> dict[str, Any]:
    [found] = [
        each for each in document["searches"] if (each["column"], each["search"]) == (column, name)
    ]
    return dict(found)


def told(document: dict[str, Any]) -> set[str]:
    return {each["object"] for each in document["findings"]}


def test_frequent_names_are_told_from_unique_numbers(command: Command) -> None:
    """Each tenant is counted apart: names of many repeat and are a finding, numbers are unique."""
    document = command.json("leaks", "--exact", code=1)
    name, number = search(document, PATIENTS), search(document, "patients.number")
    largest = first_names().count("name 1")
    assert (name["tells"], name["tenants_told"], name["tenants"]) == ("frequencies tell", 1, 2)
    assert (name["rows"], name["indexes"]) == (ROWS + OTHERS, NAMES + OTHERS)
    assert (name["largest"], name["smallest"]) == (largest, 1)
    assert name["most_frequent"] == round(largest / ROWS, 4)
    assert (number["tells"], number["alone"]) == ("unique", ROWS + OTHERS)
    assert number["most_frequent"] == round(1 / ROWS, 4)
    assert told(document) == {PATIENTS, "patients.email"}
    assert search(document, "patients.phone")["tells"] == "no value"
    assert search(document, "patients.policy", "last4")["no_value"] == -(-ROWS // 4) + OTHERS
    assert search(document, "visits.reason")["tenants"] == 0


def test_a_stated_reason_makes_it_a_note(command: Command) -> None:
    """A column that says why it has few values is not a finding; the reason is quoted."""
    document = command.json("leaks", "patients.smoker", "--exact")
    assert search(document, "patients.smoker")["tells"] == "frequencies tell"
    [note] = [each for each in document["notes"] if each["code"] == "frequencies-tell"]
    assert note["message"].endswith("The stated reason: two values; the tests search for them")
    assert "· patients.smoker: " in command("leaks", "patients.smoker", "--exact").stdout


def test_few_values_are_told(command: Command) -> None:
    """Three values, none more frequent than the others, are a finding as well."""
    result = command("leaks", "patients.email", "--exact")
    assert result.exit_code == 1
    assert f"has 3 different values in {ROWS:,} rows" in result.stdout
    assert "tells the values of 1 of 2 tenants to whoever reads the database" in result.stdout
    assert "Exact(few_values='…')" in result.stdout


def test_statistics_tell_the_same_apart(command: Command) -> None:
    """Without a look at the rows, and with a word on what statistics cannot tell."""
    document = command.json("leaks", code=1)
    assert told(document) == {PATIENTS, "patients.email"}
    name = search(document, PATIENTS)
    assert (name["tells"], name["tenants_told"], name["alone"]) == ("frequencies tell", None, None)
    assert name["indexes"] == NAMES + OTHERS
    assert search(document, "patients.number")["tells"] == "unique"
    assert search(document, "patients.smoker")["no_value"] == OTHERS
    assert command.json("leaks", "patients.number")["findings"] == []
    said = command("leaks").stdout
    assert "cannot rule it out: --exact counts each tenant's rows" in said
    assert "the most frequent in about 1" in said


@pytest.mark.parametrize("exact", [True, False])
def test_nothing_but_counts_is_printed(vault: Vault, command: Command, exact: bool) -> None:  # noqa: FBT001
    """No tenant, no value, no index: not those that PostgreSQL's statistics repeat either."""
    arguments = ["--exact"] if exact else []
    document = command.json("leaks", *arguments, code=1)
    said = command("leaks", *arguments).output + str(document)
    columns = ("name_bidx", "email_bidx", "number_bidx", "smoker_bidx")
    hexed = ", ".join(f"encode({each}, 'hex')" for each in columns)
    indexes = {each for row in vault.run(f"SELECT {hexed} FROM patients") for each in row if each}
    assert len(indexes) > NAMES + ROWS
    assert not [each for each in indexes if each in said]
    assert not IDS.search(said)
    assert not re.search(r"name 1|example\.org|Nein", said)


def test_tenants_are_named_only_when_asked(command: Command) -> None:
    """Their rows are counted, so statistics are not enough for it."""
    document = command.json("leaks", PATIENTS, "--exact", "--tenants", code=1)
    found = {each["tenant"]: each for each in search(document, PATIENTS)["by_tenant"]}
    assert found[str(A)]["tells"] == "frequencies tell"
    assert (found[str(B)]["tells"], found[str(B)]["alone"]) == ("unique", OTHERS)
    assert str(B) in command("leaks", PATIENTS, "--exact", "--tenants").stdout
    assert_could_not_look(command("leaks", "--tenants"), "Give --exact with --tenants")


def test_lengths_that_stand_for_values_are_noted(command: Command) -> None:
    """Two lengths, for Ja and Nein, are no finding; padding is suggested where there is none."""
    document = command.json("leaks", "patients.notes", "patients.policy", "--exact")
    notes, policy = sorted(document["lengths"], key=lambda each: str(each["column"]))
    assert (notes["lengths"], notes["rarest"], notes["tell"]) == (2, -(-ROWS // 3), True)
    assert (policy["padded"], policy["tell"]) == (True, False)
    assert [each["object"] for each in document["notes"]] == ["patients.notes"]
    said = command("leaks", "patients.notes", "--exact").stdout
    assert re.search(r"patients.notes +2 +66.\d% +33.\d% +values or rows", said), said
    assert "padding=16 stores texts of up to 14 bytes alike" in said
    mean = command.json("leaks", "patients.notes")["lengths"][0]["mean"]
    assert 38 + 2 <= mean <= 38 + 4
    assert "bytes on average" in command("leaks", "patients.notes").stdout


def test_old_statistics_are_not_believed(vault: Vault, command: Command) -> None:
    """After many changes it says so and ends with 2; the rows can be counted all the same."""
    assert command("leaks", "patients.number").exit_code == 0
    vault.run("UPDATE patients SET city = 'Ulm'")
    settled(vault)
    changes = "SELECT n_mod_since_analyze > 0 FROM pg_stat_all_tables WHERE relname = 'patients'"
    wait_until(vault, changes)
    result = command("leaks", "patients.number")
    assert_could_not_look(result, "missing or old")
    assert "More than 20% of the table's rows have changed" in result.stdout
    assert command.json("leaks", "patients.number", "--exact")["findings"] == []
    analyze(vault, "patients")
    assert command("leaks", "patients.number").exit_code == 0


def test_missing_statistics_are_not_believed(vault: Vault, command: Command) -> None:
    """A column that was not analyzed is not taken for one that tells nothing."""
    vault.run("ALTER TABLE patients ALTER number_bidx SET STATISTICS 0")
    analyze(vault, "patients")
    vault.run(
        "DELETE FROM pg_statistic WHERE starelid = 'patients'::regclass AND staattnum = "
        "(SELECT attnum FROM pg_attribute WHERE attrelid = 'patients'::regclass "
        "AND attname = 'number_bidx')"
    )
    document = command.json("leaks", "patients.number", code=2)
    vault.run("ALTER TABLE patients ALTER number_bidx SET STATISTICS -1")
    analyze(vault, "patients")
    assert [each["column"] for each in document["not_known"]] == ["patients.number"]
    assert document["searches"] == []


def test_statistics_that_postgresql_hides_are_not_taken_for_none(
    vault: Vault, command: Command
) -> None:
    """The maintenance role sees all rows and no statistics; the application's sees neither."""
    made = f"{vault.admin.url.database}_looker"
    url = vault.admin.url.set(username=made, drivername="postgresql+psycopg2")
    vault.run(f'CREATE ROLE "{made}" LOGIN NOINHERIT')
    try:
        vault.run(f'GRANT "{vault.guard.roles.maintenance}" TO "{made}"')
        result = command("leaks", "patients.number", url=url)
        assert_could_not_look(result, "missing or old")
        assert "hides a table's statistics" in result.stdout
        assert command("leaks", "patients.number", "--exact", url=url).exit_code == 0
        vault.run(f'GRANT "{vault.guard.roles.backup}" TO "{made}"')
        assert command("leaks", "patients.number", url=url).exit_code == 0
    finally:
        vault.run(f'DROP ROLE "{made}"')
    assert_could_not_look(command("leaks", "--exact", url=vault.app_url), "hide rows")


def test_a_missing_column_is_said_to_be_missing(vault: Vault, command: Command) -> None:
    """A table that was not migrated is not a table without statistics."""
    vault.run("ALTER TABLE visits RENAME reason_bidx TO other")
    try:
        for arguments in ((), ("--exact",)):
            result = command("leaks", "visits.reason", *arguments)
            assert_could_not_look(result, "lacks a table or column of the models")
    finally:
        vault.run("ALTER TABLE visits RENAME other TO reason_bidx")


@pytest.mark.parametrize(
    ("rows", "number", "largest", "alone", "telling"),
    [
        (0, 0, 0, 0, Telling.NOTHING),
        (1, 1, 1, 1, Telling.UNIQUE),
        (1000, 995, 6, 994, Telling.UNIQUE),
        (1000, 900, 6, 800, Telling.SHARED),
        (1000, 981, 20, 980, Telling.FREQUENCIES),
        (30, 2, 19, 0, Telling.SHARED),
        (30, 2, 20, 0, Telling.FREQUENCIES),
        (3000, 50, 61, 0, Telling.FREQUENCIES),
        (3000, 51, 61, 0, Telling.EVEN),
        (36500, 365, 499, 0, Telling.EVEN),
        (36500, 365, 500, 0, Telling.FREQUENCIES),
    ],
)
def test_thresholds(rows: int, number: int, largest: int, alone: int, telling: Telling) -> None:
    """A placeholder among unique values tells; small groups, and days of a year, do not."""
    assert Groups("", rows, 0, number, 1, largest, alone).telling is telling


INDEXED: Any = Patient.__table__


def estimated(rows: int, tenants: _Spread, index: _Spread) -> Leak:
    entry: Any = type("Entry", (), {"column": INDEXED.c.tenant_id})
    facts = _Facts(
        partitioned=False, rows=rows, hidden=False, analyzed=True, changes=0, sample=30_000
    )
    spreads = {"tenant_id": tenants, "name_bidx": index}
    of = Indexed(INDEXED.c.name, INDEXED.c.name_bidx, INDEXED.c.name.type.field.search[0])
    return Statistics(entry, facts, spreads).leak(of)


@pytest.mark.parametrize(
    ("tenants", "index", "telling", "share"),
    [
        # Ten tenants of the same size, the names of each being as frequent as elsewhere.
        (_Spread(0, 10, 0.1, 16), _Spread(0, 4000, 0.01, 16), Telling.FREQUENCIES, 0.1),
        # One of 99 % of the rows, with 365 days, and a hundred small ones that have more together.
        (_Spread(0, 101, 0.99, 16), _Spread(0, 1300, 0.003, 16), Telling.EVEN, 0.00303),
        # One tenant, seven of 30,000 rows in the sample being the same by chance.
        (_Spread(0, 1, 1.0, 16), _Spread(0, 30000, 0.00023, 16), Telling.EVEN, 0.00023),
        # Ten tenants with the same three answers: the indexes are thirty.
        (_Spread(0, 10, 0.1, 16), _Spread(0.5, 30, 0.02, 16), Telling.FREQUENCIES, 0.4),
        # One tenant, each value once.
        (_Spread(0, 1, 1.0, 16), _Spread(0, -1, None, 16), Telling.UNIQUE, 0.00001),
        (_Spread(0, 1, 1.0, 16), _Spread(1, 0, None, 16), Telling.NOTHING, 0.0),
    ],
)
def test_statistics_of_all_tenants_find_only_what_each_split_tells(
    tenants: _Spread, index: _Spread, telling: Telling, share: float
) -> None:
    """What is frequent among all rows is more frequent in its tenant; no guess is a finding."""
    leak = estimated(100_000, tenants, index)
    assert (leak.telling, round(leak.share, 5)) == (telling, share)


@pytest.mark.parametrize(
    "changed",
    [{"hidden": True}, {"partitioned": True}, {"analyzed": False}, {"rows": -1}, {"changes": 201}],
)
def test_statistics_say_why_they_say_nothing(changed: dict[str, Any]) -> None:
    """Whatever makes statistics unfit is named, with what to do; fit ones are used."""
    entry: Any = type("Entry", (), {"column": INDEXED.c.tenant_id})
    fit = _Facts(partitioned=False, rows=1000, hidden=False, analyzed=True, changes=200, sample=9)
    spread = _Spread(0, 1, 1.0, 16)
    assert Statistics(entry, fit, {"tenant_id": spread}).lacking([]) is None
    missing = Statistics(entry, fit._replace(**changed), {"tenant_id": spread}).lacking([])
    assert missing is not None
    assert "--exact" in missing
