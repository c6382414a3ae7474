"""A scoped statement answers as the same statement would in a database of the tenant's own."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from practice import A, B, Order, Patient, Tag
from sqlalchemy import Engine, create_engine, exists, func, select, text, union_all

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from locks import Locks
    from sqlalchemy import URL

TABLES = {"patients": Patient.__table__, "orders": Order.__table__, "tags": Tag.__table__}

Draw = Any


@st.composite
def statements(draw: Draw) -> Any:
    """A select over up to four sources, joined, nested, filtered, grouped and united at random."""
    numbers = count()
    if draw(st.booleans()):
        return _select(draw, numbers)
    return union_all(_select(draw, numbers).limit(None), _select(draw, numbers))


def _select(draw: Draw, numbers: Iterator[int]) -> Any:
    source, ids = _source(draw, numbers, depth=2)
    statement = select(func.count(), func.sum(sum_of(ids))).select_from(source)
    if draw(st.booleans()):
        inner, inner_ids = _source(draw, numbers, depth=1)
        condition = exists(select(1).select_from(inner).where(inner_ids[0] == ids[0]))
        statement = statement.where(draw(st.sampled_from([condition, ~condition])))
    if draw(st.booleans()):
        inner, inner_ids = _source(draw, numbers, depth=1)
        statement = statement.where(ids[-1].in_(select(inner_ids[0]).select_from(inner)))
    if draw(st.booleans()):
        statement = statement.group_by(ids[0])
    return statement


def sum_of(ids: list[Any]) -> Any:
    return sum((func.coalesce(each, 1000) for each in ids[1:]), func.coalesce(ids[0], 100))


def _source(draw: Draw, numbers: Iterator[int], *, depth: int) -> tuple[Any, list[Any]]:
    if depth == 0 or draw(st.booleans()):
        return _leaf(draw, numbers, depth)
    left, left_ids = _source(draw, numbers, depth=depth - 1)
    right, right_ids = _source(draw, numbers, depth=depth - 1)
    kind = draw(st.sampled_from([{}, {"isouter": True}, {"full": True}]))
    return left.join(right, left_ids[-1] == right_ids[0], **kind), [*left_ids, *right_ids]


def _leaf(draw: Draw, numbers: Iterator[int], depth: int) -> tuple[Any, list[Any]]:
    table = TABLES[draw(st.sampled_from(sorted(TABLES)))]
    name = f"t{next(numbers)}"
    form = draw(st.sampled_from(["alias", "subquery", "cte", "nested"]))
    if form == "alias" or (form == "nested" and depth == 0):
        alias = table.alias(name)
        return alias, [alias.c.id]
    inner: Any = select(table.c.id)
    if form == "nested":
        source, ids = _source(draw, numbers, depth=depth - 1)
        inner = select(ids[0].label("id")).select_from(source)
    derived = inner.cte(name) if form == "cte" else inner.subquery(name)
    return derived, [derived.c.id]


@pytest.fixture(scope="module")
def own_database(new_database: Callable[[], URL]) -> Iterator[Engine]:
    """The same application's database in which no other tenant ever was."""
    from locks import fill  # noqa: PLC0415
    from practice import Base  # noqa: PLC0415

    engine = create_engine(new_database())
    Base.metadata.create_all(engine)
    fill(engine)
    with engine.begin() as connection:
        for table in ("order_tags", "orders", "patients", "tags"):
            connection.execute(text(f"DELETE FROM {table} WHERE tenant_id = :b"), {"b": B})
    yield engine
    engine.dispose()


@pytest.mark.parametrize("lock", ["first_alone", "second_alone", "both"])
def test_answers_are_those_of_a_database_of_its_own(
    locks: Locks, own_database: Engine, lock: str
) -> None:
    """Whatever the query's shape, the tenant's rows count as if there were no others."""
    engine: Engine = getattr(locks, lock)()

    @settings(
        max_examples=150,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(statement=statements())
    def check(statement: Any) -> None:
        with own_database.connect() as connection:
            expected = sorted(map(repr, connection.execute(statement)))
        with tenant_context(A), engine.connect() as connection:
            assert sorted(map(repr, connection.execute(statement))) == expected

    check()
