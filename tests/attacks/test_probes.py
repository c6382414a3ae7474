"""Reads aimed at one row: a foreign key value finds nothing, however it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from attacking import GONE, LOCKS, Attack, Stage, cases
from practice import Order, Patient, Practice, User, order_tags
from sqlalchemy import Uuid, and_, case, exists, func, literal, literal_column, or_, select, true
from sqlalchemy.orm import Session, aliased, make_transient_to_detached, with_loader_criteria

pytest_plugins = ["staging"]

other: Any = aliased(Patient)


def _stub(session: Session, at: Any) -> Patient:
    """Re-attach an object that was never loaded, as a cache or a form might hold it."""
    stub = Patient(id=at.patient)
    make_transient_to_detached(stub)
    session.add(stub)
    return stub


def _refreshed(session: Session, at: Any) -> int:
    session.refresh(_stub(session, at))
    return 1


def _merged_lazily(session: Session, at: Any) -> int:
    detached = Patient(id=at.patient)
    make_transient_to_detached(detached)
    return len(session.merge(detached, load=False).orders)


def _probe(name: str, work: Any, *, control: str = "1", refused: str = "0", **more: Any) -> Attack:
    return Attack(name, work, first=refused, second=refused, control=control, **more)


def _count(statement: Any) -> Any:
    return lambda s, at: len(s.execute(statement(at)).all())


PROBES = [
    _probe("get", lambda s, at: int(s.get(Patient, at.patient) is not None)),
    _probe(
        "get for update", lambda s, at: int(bool(s.get(Patient, at.patient, with_for_update=True)))
    ),
    _probe(
        "get populate_existing",
        lambda s, at: int(bool(s.get(Patient, at.patient, populate_existing=True))),
    ),
    _probe("get the registry's row", lambda s, at: int(s.get(Practice, at.tenant) is not None)),
    _probe("get_one", lambda s, at: s.get_one(Patient, at.patient) and 1, refused="NoResultFound"),
    _probe("query get", lambda s, at: s.query(Patient).filter_by(id=at.patient).count()),
    _probe("stub's attribute", lambda s, at: len(_stub(s, at).name) // 10, refused=GONE),
    _probe("stub's children", lambda s, at: len(_stub(s, at).orders)),
    _probe("refreshed stub", _refreshed, refused="InvalidRequestError"),
    _probe("merge without load", _merged_lazily),
    _probe("where key", _count(lambda at: select(Patient).where(Patient.id == at.patient))),
    _probe("where tenant", _count(lambda at: select(User).where(User.tenant_id == at.tenant))),
    _probe(
        "where own tenant or theirs",
        _count(
            lambda at: select(Patient).where(
                or_(Patient.tenant_id == at.tenant, true()), Patient.id == at.patient
            )
        ),
    ),
    _probe(
        "loader criteria",
        _count(
            lambda at: select(User).options(
                with_loader_criteria(
                    User, lambda user: user.tenant_id == at.tenant, track_closure_variables=False
                )
            )
        ),
        control="1",
    ),
    _probe(
        "exists elsewhere",
        _count(lambda at: select(literal(1)).where(exists().where(Order.id == at.order))),
    ),
    _probe(
        "alias exists elsewhere",
        _count(
            lambda at: select(literal(1)).where(
                select(other).where(other.id == at.patient).exists()
            )
        ),
    ),
    _probe(
        "in a case",
        lambda s, at: s.scalar(
            select(case((literal(at.order).in_(select(Order.id)), literal_column("1")), else_=0))
        ),
    ),
    _probe(
        "scalar subquery",
        lambda s, at: s.scalar(
            select(func.coalesce(select(1).where(Order.id == at.order).scalar_subquery(), 0))
        ),
    ),
    _probe(
        "outer join's on",
        lambda s, at: s.scalar(
            select(func.count(other.id))
            .select_from(Practice)
            .outerjoin(other, or_(other.id == at.patient, and_(other.id == at.patient, true())))
            .where(Practice.id == at.tenant)
        ),
    ),
    _probe(
        "full join's side",
        lambda s, at: s.scalar(
            select(func.count(Order.id))
            .select_from(other)
            .join(Order, and_(Order.id == at.order, other.id == Order.patient_id), full=True)
            .where(or_(Order.id == at.order, other.id == at.patient))
        ),
    ),
    _probe(
        "association row",
        lambda s, at: s.scalar(
            select(func.count()).select_from(order_tags).where(order_tags.c.order_id == at.order)
        ),
    ),
    _probe(
        "tenant as expression",
        _count(lambda at: select(User).where(literal(at.tenant, Uuid) == User.tenant_id)),
    ),
    _probe("legacy filter", lambda s, at: s.query(User).filter(User.id == at.user).count()),
]


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(PROBES))
def test_a_foreign_row_is_not_found(stage: Stage, attack: Attack, lock: str) -> None:
    """Asking for a foreign row is answered as if it did not exist; the own row is found."""
    stage.ends(attack, lock)


@pytest.mark.parametrize("attack", cases(PROBES))
def test_without_locks_the_row_is_found(stage: Stage, attack: Attack) -> None:
    """Negative control: each probe finds the foreign row when nothing stops it."""
    stage.is_real(attack)
