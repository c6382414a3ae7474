"""Search by equality finds what is equal, from wherever it is asked, and uses the index."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from drivers import DRIVERS
from sqlalchemy import (
    and_,
    bindparam,
    delete,
    event,
    exists,
    func,
    insert,
    lambda_stmt,
    literal,
    null,
    or_,
    select,
    true,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.orm import Bundle, Session, aliased, joinedload, with_loader_criteria
from vault import A, B, Patient, Severity, Visit

from tenantguard import EncryptedQueryError, NotEncryptedError, tenant_context
from tenantguard.classification import SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault import Vault

    Find = Callable[[str], Any]

every_driver = pytest.mark.parametrize("driver", DRIVERS)
TABLE: Any = Patient.__table__
MANY = 4000


@pytest.fixture(scope="module", autouse=True)
def rows(vault: Vault) -> None:
    """Three patients of A with a visit each, and one of B."""
    engine = vault.engine()
    people = [("Müller", "030/1", "Zahn"), ("MÜLLER", None, "Krone"), ("Meier", "0 40 2", "Zahn")]
    with tenant_context(A), Session(engine) as session:
        for name, phone, reason in people:
            session.add(Patient(name=name, phone=phone, visits=[Visit(reason=reason)]))
            session.flush()
        session.commit()
    with tenant_context(B), Session(engine) as session:
        session.add(Patient(name="Müller"))
        session.commit()


@pytest.fixture
def session(vault: Vault, driver: str) -> Iterator[Session]:
    engine = vault.engine(driver)
    with tenant_context(A), Session(engine) as opened:
        yield opened
    engine.dispose()


def found(session: Session, statement: Any) -> list[int]:
    """The first columns of what is found: the ids of patients."""
    return sorted(row[0] for row in session.execute(statement))


def _sub() -> Any:
    return select(Patient.id, Patient.name).subquery()


def _cte() -> Any:
    return select(Patient.id, Patient.name).cte()


def _recursive() -> Any:
    base = select(Patient.id, Patient.name).cte(recursive=True)
    return base.union_all(select(base.c.id, base.c.name).where(base.c.id < 0))


def _lateral() -> Any:
    return select(Patient.name).where(Patient.id == Visit.patient_id).lateral()


def _in_a_lambda(name: str) -> Any:
    return lambda_stmt(lambda: select(Patient.id).where(Patient.name == name))


def _in_a_list_of_a_lambda(name: str) -> Any:
    names = [name, "nobody"]
    return lambda_stmt(lambda: select(Patient.id).where(Patient.name.in_(names)))


def _by_criteria(name: str) -> Any:
    return select(Patient.id).options(
        with_loader_criteria(Patient, lambda entity: entity.name == name)
    )


ALIAS: Any = aliased(Patient)
FINDS: dict[str, Find] = {
    "entity": lambda n: select(Patient.id).where(Patient.name == n),
    "table": lambda n: select(TABLE.c.id).where(TABLE.c.name == n),
    "reversed": lambda n: select(TABLE.c.id).where(n == TABLE.c.name),
    "not unequal": lambda n: select(Patient.id).where(~(Patient.name != n)),
    "alias": lambda n: select(ALIAS.id).where(ALIAS.name == n),
    "table's alias": lambda n: select((t := TABLE.alias()).c.id).where(t.c.name == n),
    "flat alias": lambda n: select((p := aliased(Patient, flat=True)).id).where(p.name == n),
    "alias of a sub-query": lambda n: select(
        (p := aliased(Patient, select(Patient).subquery())).id
    ).where(p.name == n),
    "alias of a union": lambda n: select(
        (
            p := aliased(
                Patient,
                union_all(
                    select(Patient).where(Patient.phone.is_(None)),
                    select(Patient).where(Patient.phone.is_not(None)),
                ).subquery(),
            )
        ).id
    ).where(p.name == n),
    "filter by": lambda n: select(Patient.id).filter_by(name=n),
    "in": lambda n: select(Patient.id).where(Patient.name.in_([n, "nobody"])),
    "not not in": lambda n: select(Patient.id).where(~Patient.name.not_in([n])),
    "or": lambda n: select(Patient.id).where(or_(Patient.name == n, Patient.name == "nobody")),
    "and": lambda n: select(Patient.id).where(and_(Patient.name == n, Patient.id > 0)),
    "parameter": lambda n: select(Patient.id).where(Patient.name == bindparam("x", n)),
    "expanding parameter": lambda n: select(Patient.id).where(
        Patient.name.in_(bindparam("x", [n], expanding=True))
    ),
    "literal": lambda n: select(Patient.id).where(Patient.name == literal(n)),
    "sub-query": lambda n: select((s := _sub()).c.id).where(s.c.name == n),
    "label in a sub-query": lambda n: select(
        (s := select(Patient.id, Patient.name.label("x")).subquery()).c.id
    ).where(s.c.x == n),
    "cte": lambda n: select((s := _cte()).c.id).where(s.c.name == n),
    "recursive cte": lambda n: select((s := _recursive()).c.id).where(s.c.name == n),
    "lateral": lambda n: (
        select(Visit.patient_id).join(s := _lateral(), true()).where(s.c.name == n)
    ),
    "value of a sub-query": lambda n: select(Patient.id).where(
        select(ALIAS.name).where(ALIAS.id == Patient.id).scalar_subquery() == n
    ),
    "id in a sub-query": lambda n: select(Patient.id).where(
        Patient.id.in_(select(ALIAS.id).where(ALIAS.name == n))
    ),
    "exists": lambda n: select(Patient.id).where(
        exists().where(ALIAS.id == Patient.id, ALIAS.name == n)
    ),
    "has": lambda n: select(Visit.patient_id).where(Visit.patient.has(name=n)),
    "join": lambda n: select(Visit.patient_id).join(Visit.patient).where(Patient.name == n),
    "outer join's condition": lambda n: (
        select(Patient.id)
        .outerjoin(ALIAS, and_(ALIAS.id == Patient.id, ALIAS.name == n))
        .where(ALIAS.id.is_not(None))
    ),
    "lambda": _in_a_lambda,
    "list of a lambda": _in_a_list_of_a_lambda,
    "loader criteria": lambda n: select(Patient.id).options(
        with_loader_criteria(Patient, Patient.name == n)
    ),
    "loader criteria in a lambda": _by_criteria,
    "with only columns": lambda n: (
        select(Patient).where(Patient.name == n).with_only_columns(Patient.id)
    ),
    "added columns": lambda n: select(Patient.id).add_columns(Patient.name).filter_by(name=n),
    "bundle": lambda n: select(Patient.id, Bundle("b", Patient.name)).where(Patient.name == n),
    "joined loading with a limit": lambda n: (
        select(Patient.id, Patient)
        .options(joinedload(Patient.visits))
        .where(Patient.name == n)
        .limit(9)
    ),
    "sample": lambda n: select((t := TABLE.tablesample(func.bernoulli(100))).c.id).where(
        t.c.name == n
    ),
}


@every_driver
def test_every_shape_finds_what_is_equal(vault: Vault, session: Session) -> None:
    """The statement is compiled once; each execution finds its own value, and only A's."""
    ids = [
        row[0] for row in vault.run(f"SELECT id FROM patients WHERE tenant_id = '{A}' ORDER BY 1")
    ]
    for name, find in FINDS.items():
        for sought, expected in (
            ("müller", ids[:2]),
            ("MEIER", ids[2:]),
            ("Mu\u0308ller", ids[:2]),
            ("mueller", []),
        ):
            statement = find(sought)
            rows = session.execute(statement)
            rows = rows.unique() if name.startswith("joined") else rows
            assert sorted(row[0] for row in rows) == expected, name


@every_driver
def test_what_is_not_equal_is_told_apart(session: Session) -> None:
    """!= and NOT IN leave out NULL, as they do for any column."""
    ids = found(session, select(Patient.id))
    first = ids[0]
    for statement, expected in (
        (select(Patient.id).where(Patient.name != "müller"), ids[2:]),
        (select(Patient.id).where(Patient.name.not_in(["müller", "x"])), ids[2:]),
        (select(Patient.id).where(Patient.phone != "0301"), ids[2:]),
        (select(Patient.id).where(Patient.name.in_([])), []),
        (select(Patient.id).where(Patient.name.not_in([])), ids),
        (select(Patient.id).where(Patient.phone.is_(None)), ids[1:2]),
        (select(Patient.id).where(Patient.phone == None), ids[1:2]),  # noqa: E711
        (select(Patient.id).where(Patient.phone == null()), ids[1:2]),
        (select(Patient.id).where(Patient.phone.is_not(None)), [first, ids[2]]),
        (select(Patient.id).where(~Patient.phone.is_(None)), [first, ids[2]]),
        (select(Patient.id).where(Patient.notes.is_(None)), ids),
        (select(Patient.id).where(Patient.visits.any(Visit.reason == "Zahn")), [first, ids[2]]),
        (select(Patient.id).where(~Patient.visits.any(reason="Zahn")), ids[1:2]),
        (select(Patient.id).where(Patient.name == bindparam("x", None)), []),
    ):
        assert found(session, statement) == expected
    assert session.scalar(select(func.count(Patient.phone))) == 2
    counted = select(func.count()).where(Patient.phone.is_(None))
    assert session.scalar(counted) == 1


@every_driver
def test_bulk_changes_find_their_rows(session: Session) -> None:
    """UPDATE and DELETE search as SELECT does, in the ORM and in Core."""
    changed = session.execute(
        update(Patient).where(Patient.name == "müller").values(city="B").returning(Patient.id)
    )
    assert len(changed.all()) == 2
    core = update(TABLE).where(TABLE.c.name.in_(["meier", "x"])).values(city="K")
    assert session.connection().execute(core).rowcount == 1
    visits = delete(Visit).where(Visit.reason == "Zahn").returning(Visit.id)
    assert len(session.execute(visits).all()) == 2
    unlucky = delete(Visit).where(Visit.patient_id == Patient.id, Patient.name == "meier")
    assert session.execute(unlucky).rowcount == 0  # type: ignore[attr-defined]
    left = delete(Visit).where(Visit.patient_id == Patient.id, Patient.name == "müller")
    assert session.execute(left).rowcount == 1  # type: ignore[attr-defined]


@every_driver
def test_the_legacy_query_finds(session: Session) -> None:
    """`session.query()` searches too."""
    query = session.query(Patient).filter(Patient.name == "müller")
    assert query.count() == 2
    assert session.query(Patient).filter_by(name="meier").one().name == "Meier"
    assert session.query(query.exists()).scalar()


MOMENT = datetime(2024, 5, 6, 12, tzinfo=UTC)
NOON = time(12, tzinfo=UTC)
EQUALS: dict[str, tuple[Any, Any, Any]] = {
    "name": ("Straße", "STRASSE", "Strase"),
    "phone": ("+49 (30) 12-34", "493 01234", "4930 1235"),
    "email": ("Jane@Example.com", " jane@example.COM ", "jane@example.org"),
    "born": (date(1970, 1, 2), date(1970, 1, 2), date(1970, 2, 1)),
    "insured": (UUID(int=1), UUID(int=1), UUID(int=2)),
    "fee": (Decimal("1.10"), Decimal("1.1"), Decimal("1.11")),
    "number": (-1, -1, 1),
    "smoker": (True, True, False),
    "seen_at": (MOMENT, MOMENT.astimezone(timezone(timedelta(hours=5))), MOMENT.replace(hour=7)),
    "scan": (b"\x00", bytearray(b"\x00"), b""),
    "weight": (-0.0, 0, 5e-324),
    "wakes": (NOON, NOON.replace(hour=17, tzinfo=timezone(timedelta(hours=5))), time(12)),
    "severity": (Severity.MILD, Severity("mild"), Severity.SEVERE),
}


@every_driver
@pytest.mark.parametrize("column", EQUALS)
def test_every_type_is_found_by_what_equals_it(session: Session, column: str) -> None:
    """Each type has its own equality, and finds nothing else."""
    stored, equal, other = EQUALS[column]
    attribute = getattr(Patient, column)
    session.execute(insert(Patient).values({"name": "x", column: stored}))
    for sought, count in ((stored, 1), (equal, 1), (other, 0)):
        query = select(func.count()).select_from(Patient)
        assert session.scalar(query.where(attribute == sought)) == count
        assert session.scalar(query.where(attribute.in_([sought]))) == count


@every_driver
def test_a_naive_datetime_is_no_aware_one(session: Session) -> None:
    """The same digits without a zone are another value."""
    session.execute(insert(Patient).values(name="x", seen_at=MOMENT))
    naive = MOMENT.replace(tzinfo=None)
    assert session.scalar(select(Patient.id).where(Patient.seen_at == naive)) is None


@pytest.fixture(scope="module")
def crowd(vault: Vault) -> int:
    """Some thousand patients more, and fresh statistics."""
    with tenant_context(A), Session(vault.engine()) as session:
        session.execute(insert(Patient), [{"name": f"p {number}"} for number in range(MANY)])
        session.commit()
    vault.run("ANALYZE patients")
    return MANY


@every_driver
@pytest.mark.parametrize("shape", ["entity", "alias", "in", "table's alias", "lambda"])
def test_the_search_uses_the_index(crowd: int, session: Session, shape: str) -> None:
    """Under row-level security too: the plan has the index that begins with the tenant."""

    def explain(*args: Any) -> Any:
        return f"EXPLAIN {args[2]}", args[3]

    engine: Any = session.get_bind()
    event.listen(engine, "before_cursor_execute", explain, retval=True)
    plan = "\n".join(str(row[0]) for row in session.execute(FINDS[shape](f"p {crowd // 2}")))
    event.remove(engine, "before_cursor_execute", explain)
    assert "ix_patients_name_bidx" in plan
    assert "Seq Scan" not in plan


@pytest.mark.parametrize("shape", ["entity", "in"])
def test_the_generic_plan_uses_the_index_too(crowd: int, vault: Vault, shape: str) -> None:
    """What a server plans once, for any value, is the same scan: it looks at no other rows."""
    with tenant_context(A), Session(vault.engine()) as session:
        sent: list[str] = []
        engine: Any = session.get_bind()
        event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
        session.execute(FINDS[shape](f"p {crowd // 2}"))
    [statement] = sent
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)))
    for number, name in enumerate(names, 1):
        statement = statement.replace(f"%({name})s", f"${number}")
    with vault.admin.begin() as connection:
        for setup in (
            f"SET LOCAL ROLE {vault.guard.roles.application}",
            f"SET LOCAL {SETTING} = '{A}'",
            "SET LOCAL plan_cache_mode = force_generic_plan",
            f"PREPARE search AS {statement}",
        ):
            connection.exec_driver_sql(setup)
        values = ", ".join("NULL" for _ in names)
        plan = connection.exec_driver_sql(f"EXPLAIN EXECUTE search ({values})").fetchall()
        connection.exec_driver_sql("DEALLOCATE search")
    shown = "\n".join(row[0] for row in plan)
    assert re.search(r"Index Cond: \(.*tenant_id = .* AND \(name_bidx = ANY \(.*\$", shown), shown
    assert "ix_patients_name_bidx" in shown
    assert "Seq Scan" not in shown


@every_driver
def test_null_among_the_values_is_as_in_sql(session: Session) -> None:
    """It equals nothing and nothing is unlike it; a parameter without a value likewise."""
    some: Any = bindparam("x", ["meier", None])
    nothing: Any = bindparam("x", None)
    [meier] = found(session, select(Patient.id).where(Patient.name == "meier"))
    for condition, expected in (
        (Patient.name.in_(["meier", None]), [meier]),
        (Patient.name.in_(some), [meier]),
        (~Patient.name.in_(["meier", None]), []),
        (Patient.name.not_in(["meier", None]), []),
        (~Patient.name.not_in(["meier", None]), [meier]),
        (Patient.name != nothing, []),
        (~(Patient.name == nothing), []),
        (Patient.name.in_(nothing), []),
        (Patient.name.not_in(nothing), []),
    ):
        assert found(session, select(Patient.id).where(condition)) == expected


@every_driver
def test_one_value_and_a_list_are_two_statements(session: Session) -> None:
    """What was compiled for one of them is not taken for the other, nor for its opposite."""
    [meier] = found(session, select(Patient.id).where(Patient.name == "meier"))
    others = set(found(session, select(Patient.id))) - {meier}
    for _ in range(2):
        for names in (["meier"], ["meier", "x"], ("x", "y", "meier"), {"meier"}):
            assert found(session, select(Patient.id).where(Patient.name.in_(names))) == [meier]
            left = found(session, select(Patient.id).where(Patient.name.not_in(names)))
            assert set(left) == others
        assert found(session, select(Patient.id).where(Patient.name == "meier")) == [meier]
        assert set(found(session, select(Patient.id).where(Patient.name != "meier"))) == others


@every_driver
def test_a_list_is_one_parameter(session: Session) -> None:
    """So lists of any length are one prepared statement."""
    sent: list[str] = []
    engine: Any = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    for names in ([], ["a"], ["a"] * 500):
        assert found(session, select(Patient.id).where(Patient.name.in_(names))) == []
    assert len(set(sent)) == 1


@every_driver
def test_what_is_no_list_is_refused_where_it_is_sent(session: Session) -> None:
    """A text in a parameter would be looked for letter by letter."""
    statement = select(Patient.id).where(Patient.name.in_(bindparam("x", expanding=True)))
    for value in ("Meier", b"Meier", 7, {"Meier": 1}):
        with pytest.raises(EncryptedQueryError, match="takes a list of values") as caught:
            session.execute(statement, {"x": value})
        assert "Meier" not in str(caught.value)


@pytest.mark.parametrize("plain", [Patient.city, Patient.id])
def test_what_claims_to_be_sealed_is_refused(session: Session, plain: Any) -> None:
    """An expression can say that it has an encrypted column's type; what it gives is no value."""
    statement = select(type_coerce(plain, Patient.__table__.c.name.type))
    with pytest.raises(NotEncryptedError):
        session.execute(statement).all()
