"""A session and what it holds serve one tenant: warm, stale, shared, nested or half open."""

from __future__ import annotations

import contextvars
import gc
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from attacking import BINDING, LOCKS, SCOPING, Stage
from drivers import ASYNC, SYNC
from practice import A, B, Order, Patient
from sqlalchemy import inspect, select, text
from sqlalchemy.orm import (
    Session,
    joinedload,
    make_transient_to_detached,
    scoped_session,
    sessionmaker,
)

from tenantguard import CrossTenantError, TenantNotSetError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


pytest_plugins = ["staging"]


@pytest.fixture(params=SCOPING)
def session(request: pytest.FixtureRequest, stage: Stage) -> Iterator[Session]:
    """A session that has loaded one of A's patients with an order, inside its transaction."""
    engine = stage.engine(request.param)
    with tenant_context(A), Session(engine) as opened:
        found = opened.get_one(Patient, stage.mine.patient, options=[joinedload(Patient.orders)])
        # An object nobody holds leaves the identity map at once.
        opened.info["held"] = [found, *found.orders]
        yield opened


def _flushed(session: Session) -> None:
    session.add(Patient(name="x"))
    session.flush()


def _detached() -> Patient:
    patient = Patient(id=4711)
    make_transient_to_detached(patient)
    return patient


def _unpresent(session: Session, state: Any) -> None:
    """Do what SQLAlchemy does with an object that it has just loaded."""
    session.identity_map._add_unpresent(state, state.key)


WARM: dict[str, Callable[[Session, Any], object]] = {
    "get": lambda s, at: s.get(Patient, at.patient),
    "get_one": lambda s, at: s.get_one(Patient, at.patient),
    "query get": lambda s, at: s.query(Patient).filter_by(id=at.patient).one(),
    "membership": lambda s, at: s.identity_map[s.identity_key(Patient, at.patient)],
    "iteration": lambda s, _: list(s),
    "values": lambda s, _: list(s.identity_map.values()),
    "items": lambda s, _: list(s.identity_map.items()),  # type: ignore[attr-defined]
    "keys": lambda s, _: list(s.identity_map.keys()),
    "presence": lambda s, at: s.identity_key(Patient, at.patient) in s.identity_map,
    "attach": lambda s, _: s.add(_detached()),
    "put back": lambda s, _: s.identity_map.replace(inspect(s.info["held"][0])),
    "load": lambda s, _: _unpresent(s, inspect(s.info["held"][0])),
    "select": lambda s, _: s.scalars(select(Patient)).all(),
    "refresh": lambda s, _: s.refresh(s.info["held"][0]),
    "merge": lambda s, at: s.merge(Patient(id=at.patient)),
    "merge without load": lambda s, _: s.merge(s.info["held"][0], load=False),
    "connection": lambda s, _: s.connection().execute(select(Patient.id)).all(),
    "nested": lambda s, _: s.begin_nested() and s.scalars(select(Patient.id)).all(),
    "bulk": lambda s, _: s.bulk_insert_mappings(Patient, [{"name": "x"}]),
    "flush": lambda s, _: _flushed(s),
}


@pytest.mark.parametrize("way", WARM)
def test_a_switch_inside_the_transaction_is_refused(
    stage: Stage, session: Session, way: str
) -> None:
    """While A's transaction is open, B gets nothing from A's session, loaded or not."""
    with tenant_context(B), pytest.raises(CrossTenantError):
        WARM[way](session, stage.mine)
    session.rollback()


@pytest.mark.parametrize("way", WARM)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_switch_after_the_transaction_is_refused(
    stage: Stage, session: Session, way: str, end: str
) -> None:
    """A session stays with its tenant after commit and rollback, as its identity map does."""
    getattr(session, end)()
    with tenant_context(B), pytest.raises(CrossTenantError):
        WARM[way](session, stage.mine)
    session.rollback()


LOADS: dict[str, Callable[[Patient], object]] = {
    "expired column": lambda patient: patient.name,
    "lazy collection": lambda patient: patient.orders,
    "lazy parent": lambda patient: patient.referred_by,
}


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("end", ["commit", "expire_all"])
def test_expired_attributes_stay_with_the_tenant(session: Session, load: str, end: str) -> None:
    """What an attribute loads later is loaded for the session's tenant or not at all."""
    patient = next(one for one in session.info["held"] if isinstance(one, Patient))
    getattr(session, end)()
    with tenant_context(B), pytest.raises(CrossTenantError):
        LOADS[load](patient)
    session.rollback()
    LOADS[load](patient)


@pytest.mark.parametrize("lock", SCOPING)
def test_a_session_begun_without_a_tenant_is_pinned_by_its_first(stage: Stage, lock: str) -> None:
    """Taking the connection early does not leave a session open to two tenants."""
    with Session(stage.engine(lock)) as session:
        session.connection()
        with tenant_context(A):
            held = session.get(Patient, stage.mine.patient)
        with tenant_context(B), pytest.raises(CrossTenantError):
            session.get(Patient, stage.mine.patient)
        assert held is not None
        with tenant_context(A):
            session.rollback()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_closed_session_may_serve_the_next_tenant(stage: Stage, lock: str) -> None:
    """Positive control: after close(), the same session serves another tenant's rows."""
    session = Session(stage.engine(lock))
    with tenant_context(A):
        assert session.get(Patient, stage.mine.patient)
        session.close()
    with tenant_context(B):
        assert session.get(Patient, stage.mine.patient) is None
        assert session.get(Patient, stage.theirs.patient)
        session.close()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_scoped_session_is_pinned_too(stage: Stage, lock: str) -> None:
    """The registry of sessions hands the same session to both tenants; it refuses the second."""
    registry = scoped_session(sessionmaker(stage.engine(lock)))
    with tenant_context(A):
        assert registry.get(Patient, stage.mine.patient)
    with tenant_context(B), pytest.raises(CrossTenantError):
        registry.scalars(select(Patient)).all()
    with tenant_context(A):
        registry.remove()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_session_on_a_shared_connection_is_pinned(stage: Stage, lock: str) -> None:
    """A session joined to a connection's transaction belongs to that transaction's tenant."""
    join = sessionmaker(join_transaction_mode="create_savepoint")
    with (
        stage.engine(lock).connect() as connection,
        tenant_context(A),
        connection.begin(),
        join(bind=connection) as one,
    ):
        assert one.get(Patient, stage.mine.patient)
        with (
            tenant_context(B),
            join(bind=connection) as two,
            pytest.raises(CrossTenantError),
        ):
            two.scalars(select(Patient)).all()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_savepoint_rolled_back_keeps_the_tenant(stage: Stage, lock: str) -> None:
    """Rolling a savepoint back undoes its work and nothing of the tenant's binding."""
    with tenant_context(A), Session(stage.engine(lock)) as session:
        for _ in range(2):
            savepoint = session.begin_nested()
            assert len(session.scalars(select(Patient.id)).all()) == 3
            savepoint.rollback()
            assert len(session.scalars(select(Patient.id)).all()) == 3


@pytest.mark.parametrize("lock", LOCKS)
def test_a_commit_in_between_keeps_the_tenant(stage: Stage, lock: str) -> None:
    """Each transaction of a session is bound anew."""
    with tenant_context(A), Session(stage.engine(lock)) as session:
        for end in (session.commit, session.rollback, session.commit):
            assert len(session.scalars(select(Patient.id)).all()) == 3
            end()


@pytest.mark.parametrize("lock", SCOPING)
def test_a_pickled_foreign_object_stays_foreign(stage: Stage, lock: str) -> None:
    """An object that comes back from a cache or queue is written for its own tenant only."""
    with Session(stage.engine("none")) as open_session:
        data = pickle.dumps(open_session.get(Patient, stage.theirs.patient))
    patient = pickle.loads(data)
    with tenant_context(A), Session(stage.engine(lock)) as session:
        session.add(patient)
        patient.name = "evil"
        with pytest.raises(CrossTenantError):
            session.flush()


@pytest.mark.parametrize("lock", SCOPING)
def test_no_tenant_is_an_error_for_every_use(stage: Stage, lock: str) -> None:
    """Without a tenant the first lock answers nothing, not even from the identity map."""
    session = Session(stage.engine(lock))
    with tenant_context(A):
        held = session.get(Patient, stage.mine.patient)
    for work in (
        lambda: session.get(Patient, stage.mine.patient),
        lambda: session.scalars(select(Patient)).all(),
        lambda: session.execute(text("SELECT 1")),
    ):
        with pytest.raises((TenantNotSetError, CrossTenantError)):
            work()
    assert held is not None
    with tenant_context(A):
        session.close()


@pytest.mark.drivers(*SYNC)
def test_a_context_does_not_leak_through_objects(stage: Stage) -> None:
    """Work copied into a context of its own keeps the tenant it was copied with."""
    with tenant_context(A):
        copied = contextvars.copy_context()

    def names() -> set[str]:
        with Session(stage.engine("both")) as session:
            return {order.what[:7] for order in session.scalars(select(Order))}

    with tenant_context(B):
        assert copied.run(names) == {"crown a"}
        assert names() == {"crown b"}
    gc.collect()


@pytest.mark.drivers(*ASYNC)
@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("statement", [select(Order.what), text("SELECT what FROM orders")])
def test_a_context_inside_a_task_is_refused(stage: Stage, lock: str, statement: Any) -> None:
    """The driver runs in the task's context: a statement from another would mix two tenants."""
    with tenant_context(A):
        copied = contextvars.copy_context()

    def work() -> None:
        with Session(stage.engine(lock)) as session, pytest.raises(CrossTenantError, match="task"):
            session.execute(statement)

    with tenant_context(B):
        copied.run(work)
