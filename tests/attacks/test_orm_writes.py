"""Writes through sessions: unit of work, ORM-enabled bulk statements and the legacy bulk methods."""

# ruff: noqa: E501  (the tables have an attack a line)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacking import (
    COUNTING,
    CROSSED,
    LOCKS,
    ROW_SECURITY,
    STALE,
    UNIQUE,
    UNMATCHED,
    Attack,
    Stage,
    Target,
    cases,
)
from practice import A, Patient, Tag, User
from sqlalchemy import String, Uuid, cast, delete, event, insert, literal, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import (
    Session,
    make_transient,
    make_transient_to_detached,
)
from sqlalchemy.orm.attributes import set_committed_value

if TYPE_CHECKING:
    from collections.abc import Callable


pytest_plugins = ["staging"]


def _loaded(session: Session, model: Any, key: int, tenant: Any, **values: Any) -> Any:
    """An object as another session, a cache or a pickle would hand it over, re-attached."""
    found = model(id=key, tenant_id=tenant, **values)
    make_transient_to_detached(found)
    session.add(found)
    return found


def _added(make: Callable[[Target], Any]) -> Callable[[Session, Target], int]:
    def work(session: Session, at: Target) -> int:
        session.add(make(at))
        session.flush()
        return 1

    return work


def _changed(name: str, value: Callable[[Target], Any]) -> Callable[[Session, Target], int]:
    def work(session: Session, at: Target) -> int:
        found = _loaded(session, Patient, at.patient, at.tenant, name="old")
        setattr(found, name, value(at))
        session.flush()
        return 1

    return work


def _moved(value: Callable[[Target], Any]) -> Callable[[Session, Target], int]:
    def work(session: Session, at: Target) -> int:
        tag = session.scalars(select(Tag).where(Tag.name == "loose a")).one()
        tag.tenant_id = value(at)
        session.flush()
        return 1

    return work


def _stolen(session: Session, at: Target) -> int:
    found = _loaded(session, Tag, at.loose, at.tenant, name="loose")
    found.tenant_id = A
    found.name = "stolen"
    session.flush()
    return 1


def _forged(session: Session, at: Target) -> int:
    found = _loaded(session, Tag, at.loose, at.tenant, name="loose")
    set_committed_value(found, "tenant_id", A)
    found.name = "stolen"
    session.flush()
    return 1


def _deleted(session: Session, at: Target) -> int:
    session.delete(_loaded(session, User, at.user, at.tenant, email="x", password_hash="x"))
    session.flush()
    return 1


def _forged_delete(session: Session, at: Target) -> int:
    session.delete(_loaded(session, User, at.user, A, email="x", password_hash="x"))
    session.flush()
    return 1


def _transient(session: Session, at: Target) -> int:
    found = _loaded(session, Tag, at.loose, at.tenant, name="loose")
    session.expunge(found)
    make_transient(found)
    found.id, found.name = None, "copy"
    session.add(found)
    session.flush()
    return 1


def _merged(session: Session, at: Target) -> int:
    session.merge(Tag(id=at.loose, tenant_id=at.tenant, name="merged"))
    session.flush()
    return 1


def _merged_without_tenant(session: Session, at: Target) -> int:
    session.merge(Tag(id=at.loose, name="merged"))
    session.flush()
    return 1


def _merged_unloaded(session: Session, at: Target) -> int:
    detached = Tag(id=at.loose, tenant_id=at.tenant, name="loose")
    make_transient_to_detached(detached)
    session.merge(detached, load=False).name = "merged"
    session.flush()
    return 1


def _by_event(session: Session, at: Target) -> int:
    def give_away(_mapper: Any, _connection: Any, tag: Tag) -> None:
        tag.tenant_id = at.tenant

    event.listen(Tag, "before_insert", give_away)
    try:
        return _added(lambda _: Tag(name="by event"))(session, at)
    finally:
        event.remove(Tag, "before_insert", give_away)


def _by_update_event(session: Session, at: Target) -> int:
    def give_away(_mapper: Any, _connection: Any, tag: Tag) -> None:
        tag.tenant_id = at.tenant

    event.listen(Tag, "before_update", give_away)
    try:
        tag = session.scalars(select(Tag).where(Tag.name == "loose a")).one()
        tag.name = "by event"
        session.flush()
        return 1
    finally:
        event.remove(Tag, "before_update", give_away)


def _bulk(method: str, rows: Callable[[Target], list[Any]], *model: Any) -> Any:
    def work(session: Session, at: Target) -> int:
        getattr(session, method)(*model, rows(at))
        return 1

    return work


def _executed(
    statement: Callable[[Target], Any], rows: Callable[[Target], Any] | None = None
) -> Any:
    def work(session: Session, at: Target) -> int:
        result: Any = session.execute(statement(at), rows(at) if rows else None)
        return 1 if rows or statement(at).is_insert else int(result.rowcount)

    return work


def _returned(statement: Callable[[Target], Any]) -> Any:
    return lambda session, at: len(session.execute(statement(at)).all())


def _row(at: Target, **more: Any) -> dict[str, Any]:
    return {"tenant_id": at.tenant, "name": "new", **more}


def _as_expression(at: Target) -> Any:
    return cast(literal(str(at.tenant), String), Uuid)


# A tenant given as an SQL expression is refused whatever its value, so it has no control.
EXPRESSIONS = [
    Attack("add, expression", _added(lambda at: Tag(tenant_id=_as_expression(at), name="x")), CROSSED, ROW_SECURITY),
    Attack("change, expression", _moved(_as_expression), CROSSED, ROW_SECURITY),
    Attack("bulk insert, expression", _executed(lambda at: insert(Tag).values(tenant_id=_as_expression(at)), lambda _: [{"name": "x"}]), CROSSED, ROW_SECURITY),
    Attack("bulk update, expression", _executed(lambda at: update(Tag).where(Tag.name == "loose a").values(tenant_id=_as_expression(at))), CROSSED, ROW_SECURITY),
]  # fmt: skip

ATTACKS = [
    Attack("add", _added(lambda at: Tag(tenant_id=at.tenant, name="new")), CROSSED, ROW_SECURITY),
    Attack("add, tenant as text", _added(lambda at: Tag(tenant_id=str(at.tenant), name="new")), CROSSED, ROW_SECURITY),
    Attack("add with a taken key", _added(lambda at: Tag(id=at.loose, tenant_id=A, name="new")), UNIQUE, UNIQUE, control=UNIQUE),
    Attack("change", _changed("name", lambda _: "evil"), CROSSED, STALE),
    Attack("move", _moved(lambda at: at.tenant), CROSSED, ROW_SECURITY),
    Attack("steal", _stolen, CROSSED, STALE),
    Attack("steal with a forged past", _forged, STALE, STALE),
    Attack("delete", _deleted, CROSSED, UNMATCHED),
    Attack("delete with a forged past", _forged_delete, UNMATCHED, UNMATCHED),
    Attack("make_transient", _transient, CROSSED, ROW_SECURITY),
    Attack("merge", _merged, CROSSED, ROW_SECURITY),
    Attack("merge without tenant", _merged_without_tenant, UNIQUE, ROW_SECURITY),
    Attack("merge without load", _merged_unloaded, CROSSED, STALE),
    Attack("mapper event, insert", _by_event, CROSSED, ROW_SECURITY),
    Attack("mapper event, update", _by_update_event, CROSSED, ROW_SECURITY),
    Attack("bulk_save_objects", _bulk("bulk_save_objects", lambda at: [Tag(**_row(at))]), CROSSED, ROW_SECURITY),
    Attack("bulk_insert_mappings", _bulk("bulk_insert_mappings", lambda at: [_row(at)], Tag), CROSSED, ROW_SECURITY),
    Attack("bulk_insert_mappings, second row", _bulk("bulk_insert_mappings", lambda at: [{"tenant_id": A, "name": "n"}, _row(at)], Tag), CROSSED, ROW_SECURITY),
    Attack("bulk_update_mappings", _bulk("bulk_update_mappings", lambda at: [{"id": at.loose, "name": "evil"}], Tag), STALE, STALE),
    Attack("bulk_update_mappings, moves", _bulk("bulk_update_mappings", lambda at: [{"id": at.loose, "tenant_id": at.tenant}], Tag), CROSSED, STALE),
    Attack("bulk insert", _executed(lambda _: insert(Tag), lambda at: [_row(at)]), CROSSED, ROW_SECURITY),
    Attack("bulk insert, second row", _executed(lambda _: insert(Tag), lambda at: [{"tenant_id": A, "name": "n"}, _row(at)]), CROSSED, ROW_SECURITY),
    Attack("bulk insert, values", _executed(lambda at: insert(Tag).values(_row(at))), CROSSED, ROW_SECURITY),
    Attack("bulk insert, attributes", _executed(lambda at: insert(Tag).values({Tag.tenant_id: at.tenant, Tag.name: "x"})), CROSSED, ROW_SECURITY),
    Attack("bulk insert, list of values", _executed(lambda at: insert(Tag).values([_row(at), {**_row(at), "name": "n"}])), CROSSED, ROW_SECURITY),
    Attack("bulk insert, returning", _returned(lambda at: insert(Tag).values(_row(at)).returning(Tag)), CROSSED, ROW_SECURITY),
    Attack("bulk update by key", _executed(lambda _: update(Tag), lambda at: [{"id": at.loose, "name": "evil"}]), STALE, STALE),
    Attack("bulk update by key, two", _executed(lambda _: update(Tag), lambda at: [{"id": at.loose, "name": "e"}, {"id": at.tag, "name": "f"}]), STALE, STALE, drivers=COUNTING),
    Attack("update", _executed(lambda at: update(Tag).where(Tag.id == at.loose).values(name="evil")), "0", "0"),
    Attack("update, tenant named", _executed(lambda at: update(User).where(User.tenant_id == at.tenant).values(email="evil")), "0", "0"),
    Attack("update, moves", _executed(lambda at: update(Tag).where(Tag.name == "loose a").values(tenant_id=at.tenant)), CROSSED, ROW_SECURITY),
    Attack("update, moves by attribute", _executed(lambda at: update(Tag).where(Tag.name == "loose a").values({Tag.tenant_id: at.tenant})), CROSSED, ROW_SECURITY),
    Attack("update, fetched", _executed(lambda at: update(Tag).where(Tag.id == at.loose).values(name="e").execution_options(synchronize_session="fetch")), "0", "0"),
    Attack("update, evaluated", _executed(lambda at: update(Tag).where(Tag.id == at.loose).values(name="e").execution_options(synchronize_session="evaluate")), "0", "0"),
    Attack("update, returning", _returned(lambda at: update(Tag).where(Tag.id == at.loose).values(name="e").returning(Tag.name)), "0", "0"),
    Attack("update from", _executed(lambda at: update(Tag).where(Tag.id == at.loose, User.id == at.user, User.tenant_id == Tag.tenant_id).values(name=User.email)), "0", "0"),
    Attack("update, subquery", _executed(lambda at: update(Tag).where(Tag.id.in_(select(Tag.id).where(Tag.id == at.loose))).values(name="e")), "0", "0"),
    Attack("delete statement", _executed(lambda at: delete(User).where(User.id == at.user)), "0", "0"),
    Attack("delete, fetched", _executed(lambda at: delete(User).where(User.id == at.user).execution_options(synchronize_session="fetch")), "0", "0"),
    Attack("delete, returning", _returned(lambda at: delete(User).where(User.id == at.user).returning(User.email)), "0", "0"),
    Attack("delete using", _executed(lambda at: delete(User).where(User.tenant_id == Tag.tenant_id, Tag.id == at.loose)), "0", "0"),
    Attack("legacy update", lambda s, at: s.query(Tag).filter(Tag.id == at.loose).update({"name": "e"}), "0", "0"),
    Attack("legacy delete", lambda s, at: s.query(User).filter(User.id == at.user).delete(), "0", "0"),
    Attack("legacy delete, fetched", lambda s, at: s.query(User).filter_by(id=at.user).delete(synchronize_session="fetch"), "0", "0"),
    Attack("upsert", _executed(lambda at: postgresql.insert(Tag).values(id=at.loose, tenant_id=A, name="e").on_conflict_do_update(index_elements=["id"], set_={"name": "e"})), CROSSED, ROW_SECURITY),
    Attack("insert from select", _returned(lambda at: insert(Tag).from_select(["tenant_id", "name"], select(User.tenant_id, User.email).where(User.id == at.user)).returning(Tag.id)), "0", "0"),
    Attack("insert from select, value", _executed(lambda at: insert(Tag).from_select(["tenant_id", "name"], select(literal(at.tenant, Uuid), literal("x")))), CROSSED, ROW_SECURITY),
]  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_a_foreign_write_is_refused(stage: Stage, attack: Attack, lock: str) -> None:
    """A session writes its tenant's rows as ever, and no row of another tenant, in no way."""
    stage.ends(attack, lock)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(EXPRESSIONS))
def test_a_tenant_is_no_expression(stage: Stage, attack: Attack, lock: str) -> None:
    """A tenant computed by SQL is refused: nobody can tell beforehand whose it is."""
    attacked = Attack(
        attack.name,
        attack.work,
        attack.first,
        attack.second,
        control="1" if lock == "second_alone" else CROSSED,
    )
    stage.ends(attacked, lock)


@pytest.mark.parametrize("attack", cases([*ATTACKS, *EXPRESSIONS]))
def test_without_locks_the_write_succeeds(stage: Stage, attack: Attack) -> None:
    """Negative control: each write reaches the foreign row when nothing stops it."""
    stage.is_real(attack)
