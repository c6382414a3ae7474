"""Observing: what would be refused or scoped is counted by its kind; no statement is changed."""

from __future__ import annotations

from sysconfig import get_path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from practice import A, B, Base, Material, Order, Patient
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    delete,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.schema import CreateTable

from tenantguard import TenantGuard, tenant_context
from tenantguard.scoping import observer

if TYPE_CHECKING:
    from locks import Locks

patients: Any = Patient.__table__
orders: Any = Order.__table__
UPSERT = postgresql.insert(patients).values(id=1, name="x", tenant_id=A)


def _guard(locks: Locks) -> TenantGuard:
    return TenantGuard(
        Base.metadata,
        tenants="practices",
        shared={"materials": "price list"},
        roles=locks.world.guard.roles,
        mode="observe",
    )


@pytest.fixture
def observing(locks: Locks) -> tuple[TenantGuard, Engine]:
    guard = _guard(locks)
    engine = locks._engine(locks.world.app_url, {})
    guard.protect(engine)
    return guard, engine


def test_each_kind_of_refusal_is_noted(
    observing: tuple[TenantGuard, Engine], caplog: pytest.LogCaptureFixture
) -> None:
    """What enforcing would refuse is told before the database answers, each by its kind."""
    guard, engine = observing
    counts = guard.observations.counts
    temporary = Table("observed", MetaData(), Column("id", Integer), prefixes=["TEMPORARY"])
    with tenant_context(A), engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        assert counts == {"text": 1}
        connection.execute(CreateTable(temporary))
        assert counts == {"text": 1, "schema change": 1}
        connection.execute(insert(patients).values(name="x"))
        assert counts["unscoped"] == 1
        assert "a row of 'patients' is inserted without its tenant" in caplog.text
        with pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(insert(Material).values(name="x"))
        assert counts["refused"] == 1


def test_the_places_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are counted; places in the code are logged and kept up to a number."""
    monkeypatch.setattr(observer, "_MAX_PLACES", 1)
    counting = observer.Observer()
    for kind in ("text", "refused", "text"):
        counting(kind, "nothing")
    assert counting.counts == {"text": 2, "refused": 1}
    assert [kind for kind, _ in counting.places] == ["text"]


def test_a_place_in_packages_is_the_one_that_sends() -> None:
    """Where no code of the application is on the stack, the innermost place is named."""
    counting = observer.Observer()
    sending = compile("note('text', 'nothing')", f"{get_path('purelib')}/package.py", "exec")
    thread = Thread(target=exec, args=(sending, {"note": counting}))
    thread.start()
    thread.join()
    assert [place.rpartition("/")[2] for _, place in counting.places] == ["package.py:1"]


def test_a_foreign_connection_is_used_as_before(locks: Locks) -> None:
    """One that the guard has not made is counted; its savepoints are rolled back."""
    guard, engine = _guard(locks), locks._engine(locks.world.app_url, {})

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, args: Any, params: Any) -> Any:
        return dialect.connect(*args, **params)

    guard.protect(engine)
    with tenant_context(A), engine.connect() as connection:
        savepoint = connection.begin_nested()
        connection.execute(text("SET LOCAL work_mem = '65kB'"))
        savepoint.rollback()
        assert connection.scalar(text("SHOW work_mem")) != "65kB"
    assert guard.observations.counts["foreign connection"] == 1


def _rows(tenant: Any) -> dict[str, tuple[Any, ...]]:
    """INSERTs that say whose the row is."""
    row = {"name": "x", "tenant_id": tenant}
    copied = select(patients.c.name, patients.c.tenant_id).where(patients.c.tenant_id == tenant)
    return {
        "values": (insert(patients).values(row),),
        "rows of values": (insert(patients).values([row, row]),),
        "parameters": (insert(patients), row),
        "select": (insert(patients).from_select(list(row), copied),),
    }


@pytest.mark.parametrize("way", _rows(A))
def test_whose_row_is_inserted_is_noted(observing: tuple[TenantGuard, Engine], way: str) -> None:
    """The own tenant's, given whatever way, is as it should be; another's would be refused."""
    guard, engine = observing
    with tenant_context(A), engine.connect() as connection:
        connection.execute(*_rows(A)[way])
        assert guard.observations.counts == {}
        if way != "select":
            with pytest.raises(DBAPIError, match="row-level security"):
                connection.execute(*_rows(B)[way])
            assert guard.observations.counts == {"refused": 1}


def test_a_flush_is_left_alone(observing: tuple[TenantGuard, Engine]) -> None:
    """The unit of work writes what the application gave it; the database answers."""
    with tenant_context(A), Session(observing[1]) as session:
        session.add(Patient(name="x", tenant_id=B))
        with pytest.raises(DBAPIError, match="row-level security"):
            session.flush()


UNCHANGED: dict[str, Any] = {
    "select": select(patients),
    "join": select(patients).join(orders),
    "outer join": select(patients).outerjoin(orders),
    "full join": select(patients).join(orders, full=True),
    "insert": insert(patients).values(name="x"),
    "insert of rows": insert(patients).values([{"name": "x"}, {"name": "y"}]),
    "insert from select": insert(patients).from_select(["name"], select(orders.c.what)),
    "upsert": UPSERT.on_conflict_do_update(index_elements=["id"], set_={"name": "x"}),
    "update": update(patients).values(name="x"),
    "update of the tenant": update(patients).values(tenant_id=B),
    "delete": delete(patients),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_no_statement_is_changed(
    observing: tuple[TenantGuard, Engine], locks: Locks, name: str
) -> None:
    """Observed, each compiles to the same text, with the same parameters, as without a guard."""
    observed = UNCHANGED[name].compile(observing[1])
    plain = UNCHANGED[name].compile(locks.none())
    assert str(observed) == str(plain)
    with tenant_context(A):
        assert observed.params == plain.params


@pytest.mark.parametrize("name", ["full join", "upsert", "update of the tenant"])
def test_enforcing_changes_it(locks: Locks, name: str) -> None:
    """Positive control: these are compiled differently where the guard enforces."""
    assert str(UNCHANGED[name].compile(locks.both())) != str(UNCHANGED[name].compile(locks.none()))
