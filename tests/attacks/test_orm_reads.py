"""Reads through the ORM: every shape returns the tenant's rows, all of them and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacking import LOCKS, Stage
from practice import A, Order, Patient, Practice, Tag, User
from sqlalchemy import (
    Integer,
    and_,
    case,
    column,
    exists,
    func,
    lambda_stmt,
    lateral,
    or_,
    select,
    tablesample,
    true,
    union,
    union_all,
    values,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    Bundle,
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    contains_eager,
    defer,
    joinedload,
    query_expression,
    raiseload,
    registry,
    relationship,
    selectinload,
    subqueryload,
    synonym,
    undefer,
    with_expression,
    with_loader_criteria,
    with_polymorphic,
)

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytest_plugins = ["staging"]

patients = Patient.__table__
orders = Order.__table__
MINE = ["patient a0", "patient a1", "patient a2"]
ALL = [*MINE, "patient b0", "patient b1", "patient b2"]


class Cards(DeclarativeBase):
    pass


class Card(Cards):
    """Another way to map the patients, with what SQLAlchemy can put into a mapper."""

    __table__ = patients
    __mapper_args__ = {  # noqa: RUF012
        "polymorphic_on": case((patients.c.id % 2 == 0, "even"), else_="odd"),
        "polymorphic_identity": "card",
    }
    neighbours = column_property(
        select(func.string_agg(patients.alias("n").c.name, ",")).scalar_subquery(), deferred=True
    )
    given: Mapped[str] = query_expression()
    label = synonym("name")
    log = relationship(
        Order, primaryjoin=patients.c.id == orders.c.patient_id, lazy="dynamic", viewonly=True
    )
    book = relationship(
        Order, primaryjoin=patients.c.id == orders.c.patient_id, lazy="write_only", viewonly=True
    )

    @hybrid_property
    def twice(self) -> str:
        return str(self.label)

    @twice.inplace.expression
    @classmethod
    def _twice(cls) -> Any:
        other = patients.alias()
        one = select(other.c.name).where(other.c.id == patients.c.id)
        return one.correlate(patients).scalar_subquery()


class Even(Card):
    __mapper_args__ = {"polymorphic_identity": "even"}  # noqa: RUF012


class Odd(Card):
    __mapper_args__ = {"polymorphic_identity": "odd"}  # noqa: RUF012


mapped = registry()


@mapped.mapped
class FromSubquery:
    __table__ = select(patients).subquery("sub")
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012


@mapped.mapped
class FromJoin:
    __table__ = patients.join(orders, patients.c.id == orders.c.patient_id)
    id = column_property(patients.c.id, orders.c.patient_id)
    order_id = orders.c.id
    tenant_id = column_property(patients.c.tenant_id, orders.c.tenant_id)


def _distinct_on(statement: Any, wanted: Any) -> Any:
    if hasattr(postgresql, "distinct_on"):  # SQLAlchemy 2.1 and later
        return statement.ext(postgresql.distinct_on(wanted))
    return statement.distinct(wanted)


other: Any = aliased(Patient, name="other")
owned = select(Patient).subquery()
both_ways: Any = aliased(Patient, union_all(select(Patient), select(Patient)).subquery())
named = select(Patient.id, Patient.name).cte("named")
tree = select(Patient.id, Patient.name).cte("tree", recursive=True)
tree = tree.union(
    select(other.id, other.name).where(other.referred_by_id == tree.c.id)  # every patient, once
)
sampled: Any = aliased(Patient, tablesample(patients, func.bernoulli(100)))
ids = values(column("id", Integer), name="ids").data([(each,) for each in range(1, 50)])
side = lateral(select(Order.id).where(Order.patient_id == Patient.id), name="side")
counted = lateral(select(func.count(other.id).label("n")).where(other.id == Patient.id), name="c")
joined: Any = aliased(Patient.__mapper__, flat=True)

SELECTS: dict[str, Any] = {
    "columns": select(Patient.name),
    "where true or": select(Patient.name).where(or_(true(), Patient.id == 0)),
    "alias": select(other.name),
    "alias in where": select(other.name).where(or_(other.id > 0, other.tenant_id != A)),
    "flat alias": select(joined.name),
    "join": select(Patient.name).join(Patient.orders),
    "join the other way": select(Patient.name).select_from(Order).join(Order.patient),
    "join on true": select(Patient.name).select_from(Practice).join(Patient, true()).distinct(),
    "join on inequality": select(Patient.name).join(Order, Order.id > 0).distinct(),
    "outer join": select(Patient.name).outerjoin(Patient.orders),
    "outer join on true": select(other.name).select_from(Order).outerjoin(other, true()).distinct(),
    "outer join on or": select(other.name)
    .select_from(Order)
    .outerjoin(other, or_(other.id == Order.patient_id, true()))
    .distinct(),
    "nested outer join": select(Patient.name)
    .select_from(Practice)
    .outerjoin(patients.join(orders, patients.c.id == orders.c.patient_id), true())
    .distinct(),
    "full join": select(Patient.name).join(Order, Order.patient_id == Patient.id, full=True),
    "full join twice": select(Patient.name)
    .join(Order, Order.patient_id == Patient.id, full=True)
    .join(other, other.id == Patient.id, full=True),
    "self join": select(Patient.name).join(other, and_(other.id == Patient.id)),
    "self join by relationship": select(Patient.name).outerjoin(Patient.referred_by.of_type(other)),
    "secondary": select(Patient.name).join(Patient.orders).join(Order.tags),
    "entity and table": select(Patient.name).join(orders, orders.c.patient_id == Patient.id),
    "exists": select(Patient.name).where(exists().where(Order.patient_id == Patient.id)),
    "exists on alias": select(Patient.name).where(exists().where(other.id == Patient.id)),
    "not exists": select(Patient.name).where(~exists().where(other.id > 10_000)),
    "any": select(Patient.name).where(Patient.orders.any(Order.cents >= 0)),
    "has": select(Patient.name).join(Patient.orders).where(Order.patient.has(Patient.id > 0)),
    "in": select(Patient.name).where(Patient.id.in_(select(Order.patient_id))),
    "not in": select(Patient.name).where(Patient.id.not_in(select(Order.patient_id + 1000))),
    "order by scalar": select(Patient.name).order_by(
        select(func.count(other.id)).scalar_subquery()
    ),
    "cte": select(named.c.name),
    "nested cte": select(select(named.c.name).cte("outside").c.name),
    "recursive": select(tree.c.name),
    "subquery": select(owned.c.name),
    "entity on subquery": select(aliased(Patient, owned).name),
    "entity on union": select(both_ways.name).distinct(),
    "union": union(select(Patient.name), select(other.name)),
    "intersect": select(Patient.name).intersect(select(other.name)),
    "except": select(Patient.name).except_(select(Order.what)),
    "lateral": select(Patient.name).join(side, true()),
    "outer lateral": select(Patient.name).outerjoin(side, true()),
    "lateral count": select(Patient.name).join(counted, counted.c.n == 1),
    "window": select(func.first_value(Patient.name).over(partition_by=Patient.id)),
    "distinct on": _distinct_on(select(Patient.name).order_by(Patient.id), Patient.id),
    "group by key": select(Patient.name).outerjoin(Patient.orders).group_by(Patient.id),
    "having": select(Patient.name).group_by(Patient.id).having(func.count() > 0),
    "aggregate": select(func.unnest(func.array_agg(Patient.name))),
    "scalar subquery": select(func.unnest(select(func.array_agg(Patient.name)).scalar_subquery())),
    "values": select(Patient.name).join(ids, ids.c.id == Patient.id),
    "tablesample": select(sampled.name),
    "for update of": select(Patient.name).join(Patient.orders).with_for_update(of=Patient),
    "limit": select(Patient.name).order_by(Patient.id.desc()).limit(100).offset(0),
    "only": select(Patient.name).with_hint(Patient, "ONLY"),
    "loader criteria": select(Patient.name).options(
        with_loader_criteria(Patient, lambda each: each.id > 0)
    ),
    "hybrid": select(Card.twice).select_from(Card),
    "synonym": select(Card.label),
    "subclasses": select(with_polymorphic(Card, "*").name),
    "mapped subquery": select(FromSubquery.name),  # type: ignore[attr-defined]
    "mapped join": select(FromJoin.name),  # type: ignore[attr-defined]
    "own tenant in words": select(Patient.name).where(
        Patient.tenant_id.in_(select(Practice.id).where(Practice.name != ""))
    ),
}


def _named(session: Session, statement: Any) -> list[str]:
    return [each.name for each in session.scalars(statement).unique()]


def _bundled(session: Session) -> list[str]:
    rows: Any = session.execute(select(Bundle("b", Patient.name)))
    return [bundle.name for (bundle,) in rows]


WORK: dict[str, Callable[[Session], Iterable[str]]] = {
    "entity": lambda s: _named(s, select(Patient)),
    "from_statement": lambda s: _named(s, select(Patient).from_statement(select(Patient))),
    "from_statement union": lambda s: _named(
        s, select(Patient).from_statement(union(select(Patient), select(Patient)))
    ),
    "joinedload": lambda s: _patients_of(s, select(Order).options(joinedload(Order.patient))),
    "selectinload": lambda s: _patients_of(s, select(Order).options(selectinload(Order.patient))),
    "subqueryload": lambda s: _patients_of(s, select(Order).options(subqueryload(Order.patient))),
    "contains_eager": lambda s: _patients_of(
        s, select(Order).join(Order.patient).options(contains_eager(Order.patient))
    ),
    "lazy load": lambda s: _patients_of(s, select(Order)),
    "raiseload": lambda s: _named(s, select(Patient).options(raiseload("*"))),
    "deferred": lambda s: _named(s, select(Patient).options(defer(Patient.name))),
    "yield_per": lambda s: [
        each.name for each in s.scalars(select(Patient).execution_options(yield_per=2))
    ],
    "streamed": lambda s: _named(s, select(Patient).execution_options(stream_results=True)),
    "populate_existing": lambda s: _named(
        s, select(Patient).execution_options(populate_existing=True)
    ),
    "lambda": lambda s: s.scalars(lambda_stmt(lambda: select(Patient.name))),
    "bundle": _bundled,
    "query": lambda s: [each.name for each in s.query(Patient).all()],
    "query join": lambda s: [name for (name,) in s.query(Patient.name).join(Patient.orders)],
    "query from_statement": lambda s: [
        each.name for each in s.query(Patient).from_statement(select(Patient))
    ],
    "query exists": lambda s: [
        name for (name,) in s.query(Patient.name).filter(s.query(User).exists())
    ],
    "column_property": lambda s: _split(s.scalars(select(Card.neighbours).limit(1)).one()),
    "column_property loaded": lambda s: _split(
        s.scalars(select(Card).options(undefer(Card.neighbours)).limit(1)).one().neighbours
    ),
    "with_expression": lambda s: [
        each.given
        for each in s.scalars(select(Card).options(with_expression(Card.given, _self_name())))
    ],
    "dynamic": lambda s: [
        order.patient.name for card in s.scalars(select(Card)) for order in card.log
    ],
    "write_only": lambda s: [
        order.patient.name
        for card in s.scalars(select(Card))
        for order in s.scalars(card.book.select())
    ],
    "subclass entities": lambda s: [*_named(s, select(Even)), *_named(s, select(Odd))],
    "tags' orders": lambda s: [
        order.patient.name for order in s.scalars(select(Order).join(Order.tags).where(Tag.id > 0))
    ],
}


def _patients_of(session: Session, statement: Any) -> list[str]:
    return [order.patient.name for order in session.scalars(statement).unique()]


def _split(text: str) -> list[str]:
    return text.split(",")


def _self_name() -> Any:
    again = patients.alias()
    return select(again.c.name).where(again.c.id == Card.__table__.c.id).scalar_subquery()


SHAPES: dict[str, Callable[[Session], Iterable[str]]] = {
    **{name: lambda s, each=each: s.scalars(each) for name, each in SELECTS.items()},  # type: ignore[misc]
    **WORK,
}


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_read_returns_own_rows_only(stage: Stage, shape: str, lock: str) -> None:
    """Whatever the query's shape, a tenant gets its own rows, all of them, and nobody else's."""
    with tenant_context(A), Session(stage.engine(lock)) as session:
        assert sorted(SHAPES[shape](session)) == MINE


@pytest.mark.parametrize("shape", SHAPES)
def test_without_locks_the_read_sees_everybody(stage: Stage, shape: str) -> None:
    """Negative control: each of these shapes reads all tenants when nothing stops it."""
    with Session(stage.engine("none")) as session:
        assert sorted(SHAPES[shape](session)) == ALL
