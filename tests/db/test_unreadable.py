"""One row that cannot be opened need not abort a list: `on_error="placeholder"`."""

from __future__ import annotations

import copy
import logging
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS
from masking import Patient
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session
from vault import A

from tenantguard import (
    KeyUnavailableError,
    MaskedError,
    TamperedError,
    TenantNotSetError,
    Unreadable,
    is_masked,
    tenant_context,
)
from tenantguard.columns import guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vault import Vault

every_driver = pytest.mark.parametrize("driver", DRIVERS)
CARE = "treatment"
LETTERS = select(Patient.letter).order_by(Patient.id)
ALTER = "set_byte({0}, length({0}) - 1, get_byte({0}, length({0}) - 1) # 1)"

DAMAGES = {
    "TamperedError": f"UPDATE patients SET letter = {ALTER.format('letter')} WHERE id = 2",
    "UnknownKeyError": (
        "UPDATE patients SET letter = set_byte(letter, 6, get_byte(letter, 6) # 1) WHERE id = 2"
    ),
    "NotEncryptedError": "UPDATE patients SET letter = '\\x9e54ff00' WHERE id = 2",
}


@pytest.fixture
def engine(masked: Vault, driver: str) -> Iterator[Engine]:
    """An engine of each driver, with a guard of its own, and three patients."""
    guard = masked.another_guard()
    made = masked.protected_by(guard, driver)
    with tenant_context(A), made.begin() as connection:
        rows = [{"id": n, "name": "x", "letter": f"l{n}", "report": f"r{n}"} for n in (1, 2, 3)]
        connection.execute(insert(Patient), rows)
    yield made
    made.dispose()
    masked.run("DELETE FROM patients")


@pytest.fixture
def tenant(masked: Vault) -> uuid.UUID:
    """A tenant of the test's own, whose keys it may destroy."""
    made = uuid.uuid4()
    masked.run("INSERT INTO practices (id) VALUES (:id)", id=made)
    return made


def damaged(masked: Vault, engine: Engine) -> Any:
    """Return the placeholder of a value that was altered."""
    masked.run(DAMAGES["TamperedError"])
    with tenant_context(A), engine.connect() as connection:
        return connection.scalars(LETTERS).all()[1]


@every_driver
@pytest.mark.parametrize("reason", DAMAGES)
def test_a_list_is_read_around_an_unreadable_value(
    masked: Vault, engine: Engine, reason: str
) -> None:
    """The others come back; the placeholder says which kind of error it was."""
    masked.run(DAMAGES[reason])
    with tenant_context(A), Session(engine) as session:
        found: list[Any] = list(session.scalars(LETTERS))
        assert (found[0], found[2]) == ("l1", "l3")
        assert isinstance(found[1], Unreadable)
        assert (found[1].column, found[1].reason) == ("patients.letter", reason)
        patient = session.get_one(Patient, 2)
        patient.city = "Bonn"
        session.commit()
        assert is_masked(patient.letter)
    assert masked.run("SELECT city FROM patients WHERE id = 2") == [("Bonn",)]


@every_driver
def test_other_columns_raise(masked: Vault, engine: Engine) -> None:
    """Which is the default."""
    masked.run(f"UPDATE patients SET name = {ALTER.format('name')} WHERE id = 2")
    with (
        tenant_context(A),
        engine.connect() as connection,
        pytest.raises(TamperedError, match=r"patients\.name"),
    ):
        connection.execute(select(Patient.name)).all()


def test_a_placeholder_shows_nothing(masked: Vault, engine: Engine) -> None:
    """Text and formats say that it is unreadable, and what Python would answer is refused."""
    value = damaged(masked, engine)
    assert {str(value), repr(value), f"{value:>9}"} == {"(unreadable)"}
    assert copy.deepcopy(value) is value
    for ask in (bool, pickle.dumps, lambda each: each == "l2"):
        with pytest.raises(MaskedError, match=r"column patients\.letter is unreadable, and"):
            ask(value)


@every_driver
def test_placeholders_are_not_written_back(masked: Vault, engine: Engine) -> None:
    """Neither they nor their text; a new value takes their place."""
    value = damaged(masked, engine)
    before = masked.run("SELECT * FROM patients ORDER BY id")
    with tenant_context(A), Session(engine) as session:
        for given in (value, str(value), f" {value}\n"):
            with pytest.raises(MaskedError, match=r"into column patients\.letter"):
                session.execute(update(Patient).values(letter=given))
            session.rollback()
            session.get_one(Patient, 1).letter = given
            with pytest.raises(MaskedError, match=r"into column patients\.letter"):
                session.flush()
            session.rollback()
        assert masked.run("SELECT * FROM patients ORDER BY id") == before
        session.get_one(Patient, 2).letter = "new"
        session.commit()
        assert session.get_one(Patient, 2).letter == "new"


@every_driver
def test_restricted_columns_are_masked_first(masked: Vault, engine: Engine) -> None:
    """Who may not read does not learn either whether a value opens."""
    masked.run(f"UPDATE patients SET report = {ALTER.format('report')} WHERE id = 2")
    query = select(Patient.report).order_by(Patient.id)
    with engine.connect() as connection:
        with tenant_context(A):
            assert list(map(str, connection.scalars(query))) == ["•••"] * 3
        connection.rollback()
        with tenant_context(A, purpose=CARE):
            assert list(map(str, connection.scalars(query))) == ["r1", "(unreadable)", "r3"]


@every_driver
def test_a_shredded_tenants_list_has_placeholders(
    masked: Vault, tenant: uuid.UUID, engine: Engine
) -> None:
    """What was destroyed on purpose stays unreadable, and need not break every page."""
    with tenant_context(tenant), engine.begin() as connection:
        connection.execute(insert(Patient).values(id=7, name="x", letter="l7"))
    masked.run(
        "UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL, check_value = NULL "
        "WHERE tenant_id = :t",
        t=tenant,
    )
    with (
        tenant_context(tenant),
        masked.protected_by(masked.another_guard()).connect() as connection,
    ):
        found: Any = connection.scalars(select(Patient.letter)).one()
        assert isinstance(found, Unreadable)
        assert found.reason == "TenantShreddedError"


@every_driver
def test_what_ails_the_application_is_raised(
    masked: Vault, tenant: uuid.UUID, engine: Engine
) -> None:
    """Missing keys, or no tenant, are no property of a row: all rows would look lost."""
    with tenant_context(tenant), engine.begin() as connection:
        connection.execute(insert(Patient).values(id=8, name="x", letter="l8"))
    masked.run("DELETE FROM tenantguard_keys WHERE tenant_id = :t", t=tenant)
    with (
        tenant_context(tenant),
        masked.protected_by(masked.another_guard()).connect() as connection,
        pytest.raises(KeyUnavailableError),
    ):
        connection.execute(select(Patient.letter)).all()
    with engine.connect() as connection:
        with tenant_context(A):
            result = connection.execute(LETTERS)
        with pytest.raises(TenantNotSetError):
            result.all()


def test_values_are_counted_and_warned_of_once_a_minute(
    masked: Vault, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The guard counts each; the log has one line a minute for a column and a kind of error."""
    guard = masked.another_guard()
    now = 0.0
    monkeypatch.setattr(guarded, "monotonic", lambda: now)
    with tenant_context(A), masked.protected_by(guard).connect() as connection:
        connection.execute(insert(Patient), [{"id": n, "name": "x", "letter": "l"} for n in (1, 2)])
        connection.commit()
        masked.run("UPDATE patients SET letter = '\\x9e54ff00'")
        for now in (10.0, 69.9, 70.0, 70.1):  # noqa: B007  (the clock reads it)
            connection.execute(LETTERS).all()
    masked.run("DELETE FROM patients")
    assert guard.counts["unreadable"] == 8
    assert [each.levelno for each in caplog.records] == [logging.WARNING] * 2
    first, second = caplog.messages
    assert first.startswith("Unreadable values in column patients.letter: 1 since the last warning")
    assert second.startswith("Unreadable values in column patients.letter: 4 since the last")
    assert all("(NotEncryptedError)" in each and str(A) not in each for each in caplog.messages)
