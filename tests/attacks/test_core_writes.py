"""Writes through Core, the tenant column under other names, and references to foreign rows."""

# ruff: noqa: E501  (the tables have an attack a line)

from __future__ import annotations

from typing import Any

import pytest
from attacking import (
    COUNTING,
    CROSSED,
    FOREIGN_KEY,
    LOCKS,
    ROW_SECURITY,
    Attack,
    Stage,
    Target,
    cases,
)
from practice import A, Order, Patient, Tag, User, order_tags
from sqlalchemy import (
    Column,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    select,
    table,
    text,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, make_transient_to_detached
from sqlalchemy.sql import quoted_name

pytest_plugins = ["staging"]

tags: Any = Tag.__table__
users: Any = User.__table__
LOOSE = tags.c.name == "loose a"
light = table("tags", column("id"), column("tenant_id", Uuid), column("name"))
renamed = Table(
    "tags",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant_id", Uuid, key="owner"),
    Column("name", String),
)
folded = Table(
    "tags",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("tenant_id", Uuid),
    Column(quoted_name("TENANT_ID", quote=False), Uuid),
    Column("name", String),
)
upsert = postgresql.insert


def _run(statement: Any) -> Any:
    """Execute on a Core connection; the result is the number of rows, 1 for an INSERT."""

    def work(session: Session, at: Target) -> int:
        built = statement(at)
        built, rows = built if isinstance(built, tuple) else (built, None)
        result = session.connection().execute(built, rows)
        return 1 if built.is_insert else int(result.rowcount)

    return work


def _rows(statement: Any) -> Any:
    return lambda session, at: len(session.connection().execute(statement(at)).all())


def _onupdate(at: Target) -> Any:
    given = Table(
        "tags",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Uuid, onupdate=at.tenant),
        Column("name", String),
    )
    return update(given).where(given.c.name == "loose a").values(name="moved")


def _conflict(at: Target, **set_: Any) -> Any:
    row = upsert(tags).values(id=at.loose, tenant_id=A, name="conflict")
    return row.on_conflict_do_update(index_elements=["id"], set_=set_ or {"name": "evil"})


def _move_by_conflict(key: Any) -> Any:
    def statement(at: Target) -> Any:
        own = select(tags.c.id).where(LOOSE).scalar_subquery()
        row = upsert(tags).values(id=own, tenant_id=A, name="conflict")
        return row.on_conflict_do_update(index_elements=["id"], set_={key: at.tenant})

    return _run(statement)


def _cte(changed: Any) -> Any:
    named = changed.returning(tags.c.id).cte("changed")
    return select(named.c.id)


def _row(at: Target, **more: Any) -> dict[str, Any]:
    return {"tenant_id": at.tenant, "name": "new", **more}


def _given(*keys: Any) -> list[Attack]:
    """Insert, and move an own row, with the tenant given under *keys*."""
    made = []
    for key in keys:
        word = f"{getattr(key, 'table', None)}.{key}"
        made += [
            Attack(f"insert {word}", _run(lambda at, k=key: insert(tags).values({k: at.tenant, "name": "new"})), CROSSED, ROW_SECURITY),
            Attack(f"move {word}", _run(lambda at, k=key: update(tags).where(LOOSE).values({k: at.tenant})), CROSSED, ROW_SECURITY),
            Attack(f"upsert {word}", _move_by_conflict(key), CROSSED, ROW_SECURITY),
        ]  # fmt: skip
    return made


ATTACKS = [
    *_given("tenant_id", tags.c.tenant_id),
    Attack("insert", _run(lambda at: (insert(tags), _row(at))), CROSSED, ROW_SECURITY),
    Attack("executemany", _run(lambda at: (insert(tags), [{"tenant_id": A, "name": "n"}, _row(at)])), CROSSED, ROW_SECURITY),
    Attack("insertmanyvalues", _rows(lambda at: insert(tags).values([{"tenant_id": A, "name": "n"}, _row(at)]).returning(tags.c.id)), CROSSED, ROW_SECURITY, control="2"),
    Attack("values by position", _run(lambda at: insert(tags).values([(10_001, at.tenant, "n")])), CROSSED, ROW_SECURITY),
    Attack("values by bind", _run(lambda at: (insert(tags).values(tenant_id=bindparam("whose"), name="x"), {"whose": at.tenant})), CROSSED, ROW_SECURITY),
    Attack("values by callable bind", _run(lambda at: insert(tags).values(tenant_id=bindparam(None, callable_=lambda: at.tenant, type_=Uuid), name="x")), CROSSED, ROW_SECURITY),
    Attack("default by callable", _run(lambda at: insert(Table("tags", MetaData(), Column("id", Integer, primary_key=True), Column("tenant_id", Uuid), Column("name", String, default=lambda: "made"))).values(tenant_id=at.tenant)), CROSSED, ROW_SECURITY),
    Attack("light insert", _run(lambda at: insert(light).values(_row(at))), CROSSED, ROW_SECURITY),
    Attack("light move", _run(lambda at: update(light).where(light.c.name == "loose a").values(tenant_id=at.tenant)), CROSSED, ROW_SECURITY),
    Attack("light update", _run(lambda at: update(light).where(light.c.id == at.loose).values(name="e")), "0", "0"),
    Attack("light delete", _run(lambda at: delete(light).where(light.c.id == at.loose)), "0", "0"),
    Attack("other key, insert", _run(lambda at: insert(renamed).values(owner=at.tenant, name="e")), CROSSED, ROW_SECURITY),
    Attack("other key, rows", _run(lambda at: (insert(renamed), [{"owner": at.tenant, "name": "e"}])), CROSSED, ROW_SECURITY),
    Attack("other key, move", _run(lambda at: update(renamed).where(renamed.c.name == "loose a").values(owner=at.tenant)), CROSSED, ROW_SECURITY),
    Attack("ordered move", _run(lambda at: update(tags).where(LOOSE).ordered_values((tags.c.name, "m"), (tags.c.tenant_id, at.tenant))), CROSSED, ROW_SECURITY),
    Attack("move by rows", _run(lambda at: (update(tags).where(tags.c.name == bindparam("n")), [{"n": "loose a", "tenant_id": at.tenant}])), CROSSED, ROW_SECURITY),
    Attack("update", _run(lambda at: update(tags).where(tags.c.id == at.loose).values(name="e")), "0", "0"),
    Attack("update by rows", _run(lambda at: (update(tags).where(tags.c.id == bindparam("k")).values(name="e"), [{"k": at.loose}, {"k": 0}])), "0", "0", drivers=COUNTING),
    Attack("update where true", _run(lambda at: update(users).where((users.c.id == at.user) | (users.c.tenant_id == at.tenant)).values(email="e")), "0", "0"),
    Attack("update alias", _run(lambda at: update(named := tags.alias("t")).where(named.c.id == at.loose).values(name="e")), "0", "0"),
    Attack("update from", _run(lambda at: update(tags).where(tags.c.id == at.loose, users.c.tenant_id == tags.c.tenant_id).values(name=users.c.email)), "0", "0"),
    Attack("update from, foreign source", _run(lambda at: update(tags).where(tags.c.name.like("loose%"), users.c.id == at.user, users.c.tenant_id == tags.c.tenant_id).values(name=users.c.email)), "0", "0"),
    Attack("update returning", _rows(lambda at: update(tags).where(tags.c.id == at.loose).values(name="e").returning(tags.c.name)), "0", "0"),
    Attack("delete", _run(lambda at: delete(tags).where(tags.c.id == at.loose)), "0", "0"),
    Attack("delete alias", _run(lambda at: delete(named := tags.alias("t")).where(named.c.id == at.loose)), "0", "0"),
    Attack("delete using", _run(lambda at: delete(tags).where(tags.c.id == at.loose, users.c.tenant_id == tags.c.tenant_id)), "0", "0"),
    Attack("delete returning", _rows(lambda at: delete(users).where(users.c.id == at.user).returning(users.c.email)), "0", "0"),
    Attack("delete association", _run(lambda at: delete(order_tags).where(order_tags.c.order_id == at.order)), "0", "0"),
    Attack("upsert", _run(_conflict), CROSSED, ROW_SECURITY),
    Attack("upsert excluded", _run(lambda at: _conflict(at, name=literal("x") + "y")), CROSSED, ROW_SECURITY),
    Attack("upsert takes it over", _run(lambda at: _conflict(at, tenant_id=A)), CROSSED, ROW_SECURITY),
    Attack("upsert by rows", _run(lambda at: ((row := upsert(tags)).on_conflict_do_update(index_elements=["id"], set_={"name": row.excluded.name}), [{"id": 10_001, "tenant_id": A, "name": "n"}, {"id": at.loose, "tenant_id": A, "name": "e"}])), CROSSED, ROW_SECURITY),
    Attack("do nothing", _rows(lambda at: upsert(tags).values(id=at.loose + 10_000 * (at.tenant == A), tenant_id=A, name="n").on_conflict_do_nothing().returning(tags.c.id)), "0", "0", real="0"),
    Attack("insert from select", _rows(lambda at: insert(tags).from_select(["tenant_id", "name"], select(users.c.tenant_id, users.c.email).where(users.c.id == at.user)).returning(tags.c.id)), "0", "0"),
    Attack("insert from cte", _rows(lambda at: insert(tags).from_select(["tenant_id", "name"], select((found := select(users).where(users.c.id == at.user).cte("f")).c.tenant_id, found.c.email)).returning(tags.c.id)), "0", "0"),
    Attack("insert from value", _run(lambda at: insert(tags).from_select(["tenant_id", "name"], select(literal(at.tenant, Uuid), literal("x")))), CROSSED, ROW_SECURITY),
    Attack("subquery in VALUES", _rows(lambda at: select((made := insert(tags).values(tenant_id=A, name=func.coalesce(select(users.c.email).where(users.c.id == at.user).scalar_subquery(), "none")).returning(tags.c.name).cte("n")).c.name).where(made.c.name != "none")), "0", "0"),
    Attack("subquery in RETURNING", _rows(lambda at: select((made := insert(tags).values(tenant_id=A, name="n").returning(select(users.c.email).where(users.c.id == at.user).scalar_subquery().label("e")).cte("n")).c.e).where(made.c.e.is_not(None))), "0", "0"),
    Attack("subquery in ON CONFLICT", _rows(lambda at: select((made := upsert(tags).values(id=select(tags.c.id).where(LOOSE).scalar_subquery(), tenant_id=A, name="c").on_conflict_do_update(index_elements=["id"], set_={"name": func.coalesce(select(users.c.email).where(users.c.id == at.user).scalar_subquery(), "none")}).returning(tags.c.name).cte("n")).c.name).where(made.c.name != "none")), "0", "0"),
    Attack("insert in a cte", _rows(lambda at: _cte(insert(tags).values(_row(at)))), CROSSED, ROW_SECURITY),
    Attack("update in a cte", _rows(lambda at: _cte(update(tags).where(tags.c.id == at.loose).values(name="e"))), "0", "0"),
    Attack("move in a cte", _rows(lambda at: _cte(update(tags).where(LOOSE).values(tenant_id=at.tenant))), CROSSED, ROW_SECURITY),
    Attack("delete in a cte", _rows(lambda at: _cte(delete(tags).where(tags.c.id == at.loose))), "0", "0"),
]  # fmt: skip

# What no application writes; a control under each lock would say nothing about ordinary use.
ODD = [
    *_given(column("tenant_id"), tags.alias("other").c.tenant_id, light.c.tenant_id),
    Attack("onupdate", _run(_onupdate), "1", ROW_SECURITY, both="1"),
    Attack("folded name, insert", _run(lambda at: insert(folded).values(TENANT_ID=at.tenant, name="e")), "42703", ROW_SECURITY),
    Attack("folded name, move", _run(lambda at: update(folded).where(folded.c.name == "loose a").values(TENANT_ID=at.tenant)), "42703", ROW_SECURITY),
]  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_a_foreign_write_is_refused(stage: Stage, attack: Attack, lock: str) -> None:
    """Core statements write the tenant's rows as ever, and no row of another tenant."""
    stage.ends(attack, lock)


@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_without_locks_the_write_succeeds(stage: Stage, attack: Attack) -> None:
    """Negative control: each write reaches the foreign row when nothing stops it."""
    stage.is_real(attack)


@pytest.mark.filterwarnings("ignore:Additional column names")
@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(ODD))
def test_the_tenant_column_has_no_second_name(stage: Stage, attack: Attack, lock: str) -> None:
    """However a statement names the tenant column, no row is written for another tenant."""
    found = stage.attacked(attack, lock)
    assert found in {attack.refusal(lock), CROSSED, "CompileError", "42703"}


def _child(session: Session, at: Target) -> int:
    session.add(Order(patient_id=at.patient, tenant_id=A, what="crown"))
    session.flush()
    return 1


def _adopted(session: Session, at: Target) -> int:
    order = session.scalars(select(Order).where(Order.tenant_id == A)).first()
    assert order is not None
    order.patient_id = at.patient
    session.flush()
    return 1


def _appended(session: Session, at: Target) -> int:
    parent = Patient(id=at.patient, tenant_id=at.tenant)
    make_transient_to_detached(parent)
    session.add(parent)
    session.add(Order(patient=parent, tenant_id=A, what="crown"))
    session.flush()
    return 1


def _tagged(session: Session, at: Target) -> int:
    values = {"tenant_id": A, "order_id": at.order, "tag_id": at.loose}
    session.execute(order_tags.insert(), values)
    return 1


def _linked(session: Session, at: Target) -> int:
    order = session.scalars(select(Order).where(Order.tenant_id == A)).first()
    tag = Tag(id=at.loose, tenant_id=at.tenant, name="loose")
    make_transient_to_detached(tag)
    session.add(tag)
    assert order is not None
    # The association's tenant is filled by the first lock; the second alone refuses NULL.
    session.execute(order_tags.insert(), {"tenant_id": A, "order_id": order.id, "tag_id": tag.id})
    return 1


def _referred(session: Session, at: Target) -> int:
    found = update(Patient).where(Patient.name == "patient a2").values(referred_by_id=at.patient)
    session.execute(found)
    return 1


REFERENCES = [
    Attack("child of a foreign parent", _child, FOREIGN_KEY, FOREIGN_KEY),
    Attack("child moved to a foreign parent", _adopted, FOREIGN_KEY, FOREIGN_KEY),
    Attack("child appended to a foreign parent", _appended, CROSSED, FOREIGN_KEY),
    Attack("association of two tenants", _tagged, FOREIGN_KEY, FOREIGN_KEY),
    Attack("association with a foreign tag", _linked, FOREIGN_KEY, FOREIGN_KEY),
    Attack("reference to a foreign row", _referred, FOREIGN_KEY, FOREIGN_KEY),
]


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(REFERENCES))
def test_a_reference_stays_inside_the_tenant(stage: Stage, attack: Attack, lock: str) -> None:
    """No row of a tenant can point to another tenant's, because the keys contain the tenant."""
    stage.ends(attack, lock)


@pytest.mark.parametrize("attack", cases(REFERENCES))
def test_without_the_keys_the_reference_is_made(stage: Stage, attack: Attack) -> None:
    """Negative control: without the composite keys each reference crosses the border."""
    work = attack.work

    def unlocked(session: Session, at: Target) -> object:
        for name, owner in session.execute(
            text(
                "SELECT conname, conrelid::regclass FROM pg_constraint WHERE contype = 'f' AND "
                "array_length(conkey, 1) > 1"
            )
        ).all():
            session.execute(text(f'ALTER TABLE {owner} DROP CONSTRAINT "{name}"'))
        return work(session, at)

    stage.is_real(Attack(attack.name, unlocked, "", ""))


@pytest.mark.parametrize("lock", LOCKS)
def test_deleting_a_parent_takes_own_children_only(stage: Stage, lock: str) -> None:
    """A cascade of the unit of work removes the parent's children and no row of another tenant."""

    def work(session: Session, at: Target) -> int:
        parent = session.get_one(Patient, at.patient)
        for order in parent.orders:
            order.tags.clear()
        session.delete(parent)
        session.flush()
        return int(session.query(Order).filter_by(patient_id=at.patient).count())

    stage.ends(Attack("cascade", work, "NoResultFound", "NoResultFound", control="0"), lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_links_of_a_foreign_order_stay(stage: Stage, lock: str) -> None:
    """Clearing the collection of a re-attached foreign order removes no association row."""

    def work(session: Session, at: Target) -> int:
        order = Order(id=at.order, tenant_id=A)
        tag = Tag(id=at.tag, tenant_id=A)
        for one in (order, tag):
            make_transient_to_detached(one)
            session.add(one)
        session.execute(
            delete(order_tags).where(
                order_tags.c.order_id == order.id, order_tags.c.tag_id == tag.id
            )
        )
        return int(session.query(order_tags).count())

    stage.ends(Attack("links", work, "3", "3", control="2"), lock)
