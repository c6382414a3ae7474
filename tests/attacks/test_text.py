"""Text is refused by the first lock alone, wherever it hides, and contained by the second."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from attacking import BINDING, Stage, Target, outcome
from drivers import ASYNC
from practice import A, Order, Patient
from sqlalchemy import (
    Column,
    Integer,
    String,
    and_,
    bindparam,
    cast,
    column,
    extract,
    func,
    literal,
    literal_column,
    or_,
    select,
    tablesample,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from sqlalchemy.orm import Session
from sqlalchemy.sql import quoted_name
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.types import UserDefinedType
from sqlalchemy.util import compat

from tenantguard import TenantNotSetError, UnscopedStatementError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytest_plugins = ["staging"]

patients: Any = Patient.__table__
orders: Any = Order.__table__
EVERY_NAME = "(SELECT string_agg(name, ',') FROM patients)"
THEIRS = "patient b0"
word = literal_column


anything: Any = text("system(100)) UNION SELECT 1, 'x'::uuid, name FROM (patients")


class Spliced(UserDefinedType[str]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "TEXT), name FROM patients --"


def _swallowed() -> Any:
    """Open a comment in ON and close it behind the predicates."""
    opened = func.coalesce(word("1").op("/*")(word("1")))
    on = orders.join(patients, and_(orders.c.id > 0, opened))
    return select(patients.c.name).select_from(on).where(word("1").op("*/=")(word("1")))


def _derived() -> Any:
    """Give a function's column a type whose text goes on with another table."""
    spliced = column("x", INTERVAL(fields="), patients AS y(a, b, name) --"))
    record = func.jsonb_to_record(cast(word("'{}'"), JSONB)).table_valued(spliced, name="q")
    return select(word("y.name")).select_from(record.render_derived(with_types=True))


# Each of these reads every tenant's names when nothing stops it.
SMUGGLED: dict[str, Callable[[], Any]] = {
    "text": lambda: text("SELECT name FROM patients"),
    "text with columns": lambda: text("SELECT name FROM patients").columns(Column("name", String)),
    "text's subquery": lambda: select(
        text("SELECT name FROM patients").columns(Column("name", String)).subquery().c.name
    ),
    "text's cte": lambda: select(
        text("SELECT name FROM patients").columns(Column("name", String)).cte().c.name
    ),
    "from_statement": lambda: select(Patient.name).from_statement(
        text("SELECT name FROM patients")
    ),
    "column": lambda: select(text(EVERY_NAME)),
    "literal column": lambda: select(literal_column(EVERY_NAME)),
    "from": lambda: select(literal_column("name")).select_from(text("patients")),
    "from two": lambda: select(literal_column("p.name")).select_from(text("orders, patients p")),
    "joined text": lambda: select(literal_column("patients.name")).select_from(
        orders.join(text("patients"), true())
    ),
    "where": lambda: select(patients.c.name).where(text("1=1) OR (1=1")),
    "where and or": lambda: select(patients.c.name).where(
        or_(text("FALSE) UNION SELECT name FROM patients WHERE (TRUE"), patients.c.id == 0)
    ),
    "on": lambda: select(patients.c.name).join(
        orders, text("TRUE UNION SELECT name FROM patients p2 JOIN orders o2 ON TRUE")
    ),
    "order by": lambda: select(patients.c.name, text(EVERY_NAME)).order_by(
        text(f"{EVERY_NAME} desc")
    ),
    "group by": lambda: select(text(EVERY_NAME)).group_by(text("1")).select_from(patients),
    "having": lambda: (
        select(patients.c.name)
        .group_by(patients.c.id)
        .having(text("TRUE UNION ALL SELECT name FROM patients"))
    ),
    "prefix": lambda: select(patients.c.name).prefix_with("name FROM patients UNION ALL SELECT"),
    "prefixes of words": lambda: select(patients.c.name).prefix_with(
        "name", "FROM", "patients", "UNION", "ALL", "SELECT"
    ),
    "suffix": lambda: select(patients.c.name).suffix_with("UNION SELECT name FROM patients"),
    "suffixes of words": lambda: select(word("name")).suffix_with("FROM").suffix_with("patients"),
    "statement hint": lambda: select(patients.c.name).with_statement_hint(
        "UNION SELECT name FROM patients"
    ),
    "operator": lambda: select(patients.c.name).where(patients.c.id.op("= 0 OR TRUE) OR (1 =")(1)),
    "operator as from": lambda: select(word("name").op("FROM")(word("patients"))),
    "prefix operator": lambda: select(
        UnaryExpression(word("1"), operator=custom_op(f"{EVERY_NAME},"))
    ),
    "postfix operator": lambda: select(
        UnaryExpression(word("name"), modifier=custom_op("FROM patients"))
    ),
    "boolean operator": lambda: select(patients.c.name).where(
        patients.c.id.bool_op("= 0) OR (TRUE OR 1 =")(1)
    ),
    "comment marks": _swallowed,
    "extract": lambda: select(extract(f"day FROM now()), {EVERY_NAME}, extract(day", func.now())),
    "interval": lambda: select(cast(word("'1'"), INTERVAL(fields=f"), {EVERY_NAME}, ('1'"))),
    "interval's tail": lambda: select(
        cast(word("'1'"), INTERVAL(fields="), name FROM patients --"))
    ),
    "bound interval": lambda: select(
        literal(timedelta(1), INTERVAL(fields=", name FROM patients --"))
    ),
    "collation of a type": lambda: select(
        cast(word("'1'"), String(collation='C"), name FROM patients --'))
    ),
    "type of a derived column": _derived,
    "user's type": lambda: select(cast(word("'1'"), Spliced())),
    "sampling": lambda: select(tablesample(patients, anything).c.name),
    "function that runs text": lambda: select(
        func.ts_rewrite(
            func.to_tsquery("simple", "zz"),
            "SELECT to_tsquery('simple', 'zz'), to_tsquery('simple', "
            "replace(string_agg(name, '&'), ' ', '&')) FROM patients",
        ).cast(String)
    ),
    "statistics of text": lambda: select(
        func.string_agg(
            func.ts_stat("SELECT to_tsvector('simple', name) FROM patients")
            .table_valued(column("w", String), name="w(w)")
            .render_derived()
            .c.w,
            ",",
        )
    ),
}

# These fit the parentheses that the first lock puts around conditions, or no place at all.
FITTED = {
    "boolean operator",
    "collation of a type",
    "comment marks",
    "on",
    "operator",
    "sampling",
    "statistics of text",
    "where",
    "where and or",
}


# psycopg2 does not cast its parameters in the statement.
NEEDS_CASTS = {"bound interval": pytest.mark.drivers("psycopg", *ASYNC)}


def _shapes(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=NEEDS_CASTS.get(name, ())) for name in names]


def _read(engine: Any, shape: str) -> str:
    with Session(engine) as session:
        return str(session.execute(SMUGGLED[shape]()).all())


@pytest.mark.parametrize("shape", _shapes(SMUGGLED))
def test_text_is_refused_by_the_first_lock_alone(stage: Stage, shape: str) -> None:
    """A statement with text in it is not sent where row-level security was not proven."""
    with tenant_context(A), pytest.raises(UnscopedStatementError):
        _read(stage.engine("first_alone"), shape)


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("shape", _shapes(sorted(set(SMUGGLED) - FITTED)))
def test_text_is_contained_by_the_second_lock(stage: Stage, shape: str, lock: str) -> None:
    """Where the policies hold, text runs, and reads the tenant's own rows."""
    with tenant_context(A):
        answer = _read(stage.engine(lock), shape)
    assert "a0" in answer
    assert "b0" not in answer


@pytest.mark.parametrize("shape", _shapes(sorted(set(SMUGGLED) - FITTED)))
def test_without_locks_text_reads_everybody(stage: Stage, shape: str) -> None:
    """Negative control: each of these texts reads the other tenant's rows."""
    assert "b0" in _read(stage.engine("none"), shape)


NAMES: dict[str, tuple[str, Callable[[], Any]]] = {
    "column": ("42703", lambda: select(column(quoted_name(EVERY_NAME, quote=False)))),
    "label": (
        "[(1,)]",
        lambda: select(literal(1).label(quoted_name(f"x, {EVERY_NAME} y", quote=False))),
    ),
}


@pytest.mark.parametrize("shape", NAMES)
def test_a_name_is_a_name(stage: Stage, shape: str) -> None:
    """`quoted_name(…, quote=False)` hides no SQL: what is no plain name is quoted all the same."""
    ends, statement = NAMES[shape]

    def work(session: Session, _at: Target) -> object:
        return session.execute(statement()).all()

    for lock in ("first_alone", "both"):
        assert outcome(stage.engine(lock), work, stage.theirs) == ends
    assert "b0" in outcome(stage.engine("none"), work, stage.theirs)


def _commit(session: Session) -> object:
    return session.execute(text("commit"))


def _driver_sql(session: Session) -> object:
    return session.connection().exec_driver_sql("SELECT name FROM patients").all()


def _harmless(session: Session) -> object:
    return session.execute(text("SELECT 1")).all()


def _template(session: Session) -> object:
    """A template string, which SQLAlchemy has from 2.1; before, a text."""
    query = "SELECT name FROM patients"
    if not hasattr(sqlalchemy, "tstring"):
        return session.execute(text(query)).all()
    return session.execute(sqlalchemy.tstring(compat.Template(query))).all()


WHOLE = [_commit, _driver_sql, _harmless, _template]


@pytest.mark.parametrize("work", WHOLE)
def test_text_as_a_whole_statement_is_refused(stage: Stage, work: Any) -> None:
    """The first lock alone sends no statement that is text, however short."""
    with (
        tenant_context(A),
        Session(stage.engine("first_alone")) as session,
        pytest.raises(UnscopedStatementError),
    ):
        work(session)


@pytest.mark.parametrize("work", WHOLE)
def test_text_needs_a_tenant(stage: Stage, work: Any) -> None:
    """Also where the policies hold, text without a tenant is an error, not an empty answer."""
    with Session(stage.engine("both")) as session, pytest.raises(TenantNotSetError):
        work(session)


HARMLESS: dict[str, Callable[[], Any]] = {
    "operator": lambda: select(patients.c.name).where(patients.c.id.op(">")(0)),
    "json": lambda: select(cast('{"name": "patient a0"}', String).cast(JSONB).op("->>")("name")),
    "extract": lambda: select(patients.c.name).where(extract("year", func.now()) > 2000),
    "cast": lambda: select(cast(patients.c.name, String(50))).where(cast(1, Integer) == 1),
    "interval": lambda: select(patients.c.name).where(
        func.age(func.now(), func.now()) < cast(word("'1 day'"), INTERVAL(precision=3))
    ),
    "literal column": lambda: select(literal_column("name")).select_from(patients),
    "order by": lambda: select(patients.c.name).order_by(text("patients.name desc")),
    "collate": lambda: select(patients.c.name.collate("C")),
    "bind": lambda: select(patients.c.name).where(patients.c.id > bindparam("least", 0)),
}


@pytest.mark.parametrize("shape", HARMLESS)
def test_what_only_looks_like_text_is_allowed(stage: Stage, shape: str) -> None:
    """Positive control: names, symbols and types that can hide nothing are not refused as text."""
    with tenant_context(A), Session(stage.engine("first_alone")) as session:
        assert "patient a0" in session.scalars(HARMLESS[shape]()).all()
