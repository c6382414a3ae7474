"""Objects that outlive their session: pickled, detached, transient, in another tenant's hands."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import pytest
from attacking import CROSSED, GONE, SCOPING, Stage, kind
from practice import A, B, Patient
from sqlalchemy import inspect, select
from sqlalchemy.ext import baked
from sqlalchemy.orm import Session, make_transient, make_transient_to_detached, selectinload
from sqlalchemy.orm.attributes import set_committed_value

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

pytest_plugins = ["staging"]

UNREFRESHED = "InvalidRequestError"
CHANGED = "changed"


def _pickled(stage: Stage, tenant: UUID, key: int) -> Patient:
    """The patient *key* as its own tenant loaded it, by way of a cache or a queue."""
    query = select(Patient).filter_by(id=key).options(selectinload(Patient.orders))
    with tenant_context(tenant), Session(stage.engine("both")) as session:
        data = pickle.dumps(session.scalars(query).one())
    found: Patient = pickle.loads(data)
    return found


def _written(session: Session, patient: Patient, **values: Any) -> str:
    for name, value in values.items():
        setattr(patient, name, value)
    session.flush()
    return patient.name


def _changed(session: Session, patient: Patient) -> str:
    session.add(patient)
    return _written(session, patient, name=CHANGED)


def _claimed(session: Session, patient: Patient) -> str:
    session.add(patient)
    return _written(session, patient, name=CHANGED, tenant_id=A)


def _deleted(session: Session, patient: Patient) -> str:
    session.add(patient)
    session.delete(patient)
    session.flush()
    return CHANGED


def _merged(session: Session, patient: Patient) -> str:
    return _written(session, session.merge(patient), name=CHANGED)


def _merged_after_a_change(session: Session, patient: Patient) -> str:
    patient.name = CHANGED
    return _written(session, session.merge(patient))


def _merged_unloaded(session: Session, patient: Patient) -> str:
    return _written(session, session.merge(patient, load=False), name=CHANGED)


def _child_changed(session: Session, patient: Patient) -> str:
    session.add(patient)
    patient.orders[0].what = CHANGED
    session.flush()
    return patient.orders[0].what


def _refreshed(session: Session, patient: Patient) -> str:
    session.add(patient)
    session.refresh(patient)
    return CHANGED if patient.name else ""


def _expired(session: Session, patient: Patient) -> str:
    session.add(patient)
    session.expire(patient)
    return CHANGED if patient.name else ""


def _renewed(session: Session, patient: Patient) -> str:
    """Make a row of its own of *patient*, with all that it has but its key."""
    make_transient(patient)
    patient.id, patient.name = None, CHANGED  # type: ignore[assignment]
    set_committed_value(patient, "orders", [])
    session.add(patient)
    return _written(session, patient)


def _detached_again(session: Session, patient: Patient) -> str:
    make_transient(patient)
    make_transient_to_detached(patient)
    session.add(patient)
    return _written(session, patient, name=CHANGED)


USES: dict[str, tuple[Callable[[Session, Patient], str], str]] = {
    "change": (_changed, CROSSED),
    "claim": (_claimed, CROSSED),
    "delete": (_deleted, CROSSED),
    "change of a child": (_child_changed, CROSSED),
    "merge": (_merged, CROSSED),
    "merge after a change": (_merged_after_a_change, CROSSED),
    "merge without load": (_merged_unloaded, CROSSED),
    "refresh": (_refreshed, UNREFRESHED),
    "expired attribute": (_expired, GONE),
    "make_transient": (_renewed, CROSSED),
    "make_transient_to_detached": (_detached_again, CROSSED),
}


def _ends(stage: Stage, lock: str, patient: Patient, use: str) -> str:
    with tenant_context(A), Session(stage.engine(lock)) as session:
        try:
            return USES[use][0](session, patient)
        except Exception as error:  # noqa: BLE001  (the kind is what is asserted)
            return kind(error)


@pytest.mark.parametrize("lock", SCOPING)
@pytest.mark.parametrize("use", USES)
def test_a_pickled_object_stays_its_tenants(stage: Stage, use: str, lock: str) -> None:
    """An object of B that comes out of a pickle is of no use to A; one of A's own is."""
    own = _pickled(stage, A, stage.mine.patient)
    assert _ends(stage, lock, own, use) == CHANGED
    foreign = _pickled(stage, B, stage.theirs.patient)
    assert _ends(stage, lock, foreign, use) == USES[use][1]


@pytest.mark.parametrize("lock", SCOPING)
def test_a_foreign_object_loads_nothing_more(stage: Stage, lock: str) -> None:
    """A re-attached object of B has the values it came with; what it loads, A does not get."""
    foreign = _pickled(stage, B, stage.theirs.patient)
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.add(foreign)
        session.expire(foreign, ["orders"])
        assert foreign.orders == []
        session.rollback()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_copy_whose_tenant_was_cleared_is_a_new_row_of_ones_own(stage: Stage, lock: str) -> None:
    """`make_transient` and a cleared tenant say: this is a new object. It gets the active tenant.

    B's own row is not touched by it.
    """
    copy = _pickled(stage, B, stage.theirs.patient)
    make_transient(copy)
    copy.id = copy.tenant_id = None  # type: ignore[assignment]
    set_committed_value(copy, "orders", [])
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.add(copy)
        session.flush()
        assert copy.tenant_id == A
        assert copy.id != stage.theirs.patient
        session.rollback()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_session_with_a_foreign_object_writes_nothing_of_it(stage: Stage, lock: str) -> None:
    """Re-attached and unchanged, B's object is not written, and the session stays A's."""
    foreign = _pickled(stage, B, stage.theirs.patient)
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.add(foreign)
        assert session.scalars(select(Patient.tenant_id)).all() == [A, A, A]
        session.commit()
        assert inspect(foreign).persistent


@pytest.mark.parametrize("lock", SCOPING)
def test_a_baked_query_serves_each_tenant(stage: Stage, lock: str) -> None:
    """A query that was baked under A gives B its own rows."""
    bakery: Any = baked.bakery()  # type: ignore[no-untyped-call]
    query = bakery(lambda session: session.query(Patient.tenant_id))
    for tenant in (A, B, A):
        with tenant_context(tenant), Session(stage.engine(lock)) as session:
            assert {row.tenant_id for row in query(session)} == {tenant}
