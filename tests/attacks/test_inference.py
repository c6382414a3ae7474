"""What could be inferred of another tenant's rows: errors that exist only if a row does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacking import BINDING, CROSSED, FOREIGN_KEY, LOCKS, Stage, Target, outcome
from practice import A, Order, Patient, Tag, User, order_tags
from sqlalchemy import func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tenantguard import CrossTenantError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["staging"]

NOBODY = 999_999


def _child(key: int) -> Any:
    row = insert(Order).values(tenant_id=A, patient_id=key, what="crown")
    return lambda session, _at: session.execute(row) and 1


def _link(key: int) -> Any:
    def work(session: Session, _at: Target) -> object:
        order = session.scalars(select(Order.id).where(Order.tenant_id == A)).first()
        row = order_tags.insert().values(tenant_id=A, order_id=order, tag_id=key)
        return session.execute(row) and 1

    return work


def _refer(key: int) -> Any:
    own = update(Patient).where(Patient.name == "patient a2").values(referred_by_id=key)
    return lambda session, _at: session.execute(own) and 1


REFERENCES: dict[str, tuple[Callable[[int], Any], str]] = {
    "child": (_child, "patient"),
    "association": (_link, "loose"),
    "reference to its own table": (_refer, "patient"),
}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("way", REFERENCES)
def test_a_foreign_key_tells_no_foreign_row_from_none(stage: Stage, way: str, lock: str) -> None:
    """A reference to another tenant's row fails just as one to a row that does not exist."""
    refer, name = REFERENCES[way]
    engine = stage.engine(lock)
    assert outcome(engine, refer(getattr(stage.mine, name)), stage.mine) == "1"
    assert outcome(engine, refer(getattr(stage.theirs, name)), stage.theirs) == FOREIGN_KEY
    assert outcome(engine, refer(NOBODY), stage.theirs) == FOREIGN_KEY


@pytest.mark.parametrize("lock", LOCKS)
def test_a_unique_key_with_the_tenant_tells_nothing(stage: Stage, lock: str) -> None:
    """A name that another tenant has taken is free; one of the tenant's own is taken."""

    def add(name: str) -> Any:
        row = insert(Tag).values(tenant_id=A, name=name)
        return lambda session, _at: session.execute(row) and 1

    with stage.world.admin.begin() as admin:
        admin.execute(text("UPDATE tags SET name = 'theirs' WHERE name = 'loose b'"))
    try:
        engine = stage.engine(lock)
        assert outcome(engine, add("theirs"), stage.theirs) == "1"
        assert outcome(engine, add("loose a"), stage.mine) == "23505"
    finally:
        with stage.world.admin.begin() as admin:
            admin.execute(text("UPDATE tags SET name = 'loose b' WHERE name = 'theirs'"))


ERRORS: dict[str, Callable[[Session, Target], object]] = {
    "unique key": lambda s, at: s.execute(
        text("UPDATE users SET email = :taken WHERE tenant_id = :own"), {"taken": at.name, "own": A}
    ),
    "division": lambda s, _: s.execute(
        select(Patient.id).where(func.length(Patient.name) / literal(0) == 1)
    ),
    "cast": lambda s, _: s.execute(text("SELECT CAST(name AS int) FROM patients")),
    "cast of an aggregate": lambda s, _: s.execute(
        text("SELECT CAST(string_agg(name, ',') AS int) FROM patients")
    ),
    "foreign row": lambda s, at: s.execute(
        text("INSERT INTO tags (tenant_id, name) VALUES (:tenant, :name)"),
        {"tenant": at.tenant, "name": "new"},
    ),
    "foreign key": lambda s, at: s.execute(
        text("UPDATE orders SET patient_id = :key"), {"key": at.patient}
    ),
    "missing value": lambda s, _: s.execute(text("UPDATE patients SET name = NULL")),
    "exception of a function": lambda s, _: s.execute(
        text(
            "DO $$ DECLARE found text; BEGIN SELECT string_agg(name, ',') INTO found FROM patients;"
            " RAISE EXCEPTION '%', found; END $$"
        )
    ),
}


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_shows_nothing_of_another_tenant(stage: Stage, error: str, lock: str) -> None:
    """Whatever PostgreSQL says of a failed statement, it does not speak of another's rows."""
    theirs = {
        str(value) for row in stage.world.rows("patients", stage.theirs.tenant) for value in row
    }
    address = stage.world.rows("users", stage.theirs.tenant)[0][2]
    secret = {name for name in theirs if name.startswith("patient")} | {str(address)}
    with tenant_context(A), Session(stage.engine(lock)) as session:
        taken = Target(**{**_fields(stage.theirs), "name": str(address)})
        with pytest.raises((DBAPIError, CrossTenantError)) as refused:
            ERRORS[error](session, taken)
    sent = {str(address)} if error == "unique key" else set()
    said = _said(refused.value)
    assert not any(word in said for word in secret - sent)


def _fields(at: Target) -> dict[str, Any]:
    return {name: getattr(at, name) for name in Target.__slots__}


def _said(error: BaseException) -> str:
    original = getattr(error, "orig", None) or error
    diagnosis = getattr(original, "diag", None)
    detail = getattr(diagnosis, "message_detail", None) or getattr(original, "detail", "")
    return f"{original} {detail}"


@pytest.mark.parametrize("error", ["cast of an aggregate", "exception of a function"])
def test_without_locks_the_error_shows_everybody(stage: Stage, error: str) -> None:
    """Negative control: the same statements show the other's values when nothing stops them."""
    with Session(stage.engine("none")) as session, pytest.raises(DBAPIError) as refused:
        ERRORS[error](session, stage.theirs)
    assert stage.theirs.name in _said(refused.value)


@pytest.mark.parametrize("lock", LOCKS)
def test_an_upsert_says_whose_row_it_was_not(stage: Stage, lock: str) -> None:
    """A conflict with another tenant's row is refused without a word of that row."""
    row = upsert(User).values(
        id=stage.theirs.user, tenant_id=A, email="mine@lab.example", password_hash="x"
    )
    statement = row.on_conflict_do_update(index_elements=["id"], set_={"email": "e"})
    with (
        tenant_context(A),
        Session(stage.engine(lock)) as session,
        pytest.raises((DBAPIError, CrossTenantError)) as refused,
    ):
        session.execute(statement)
    kinds = {"both": CROSSED, "first_alone": CROSSED}
    assert type(refused.value).__name__ == kinds.get(lock, "ProgrammingError")
    assert "b@lab.example" not in _said(refused.value)
