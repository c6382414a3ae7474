"""Values that are bound to their row open there, however they are read, and nowhere else."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from drivers import DRIVERS
from rowbound import Account, Base, Doctor, Letter, Page, Person, Shelf
from sqlalchemy import (
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    text,
    type_coerce,
    union_all,
    update,
    values,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import (
    Bundle,
    Session,
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    load_only,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_polymorphic,
)
from vault import A, B, build_vault

from tenantguard import (
    EncryptedQueryError,
    EncryptedValueError,
    TamperedError,
    tenant_context,
)
from tenantguard.crypto.format import is_bound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine
    from vault import Vault

    Read = Callable[[Session], Any]

every_driver = pytest.mark.parametrize("driver", DRIVERS)
# Parameters by their names, and by their places.
each_form = pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
TABLE: Any = Letter.__table__
ACCOUNTS: Any = Account.__table__
FIRST, SECOND = uuid.UUID(int=1), uuid.UUID(int=2)
SUBJECTS = ["Anna", "Ben"]


@pytest.fixture(scope="module")
def bound(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """Two tenants with equal rows; the second's values stand in each other's rows."""
    built = build_vault(admin_url, tmp_path_factory.mktemp("keys"), base=Base)
    for tenant, offset in ((A, 0), (B, 10)):
        with tenant_context(tenant), Session(built.engine()) as session:
            for number, subject in enumerate(SUBJECTS, 1):
                _write(session, number, offset, subject)
            session.commit()
    for table, column in (
        *(("letters", name) for name in ("subject", "body", "weight")),
        *(("pages", name) for name in ("text", "marks")),
        ("shelves", "holds"),
        ("persons", "name"),
        ("doctors", "licence"),
    ):
        built.run(_exchange(table, column), tenant=B)
    yield built
    built.dispose()


def _write(session: Session, number: int, offset: int, subject: str) -> None:
    key = uuid.UUID(int=number + offset)
    letter = Letter(id=key, number=number, subject=subject, body=f"{subject}'s", weight=number)
    marks = {"of": [subject]}
    letter.pages = [Page(id=number + offset, text=f"{subject}'s page", marks=marks)]
    session.add_all(
        [
            letter,
            Doctor(id=key, name=subject, licence=f"{subject}'s licence"),
            Shelf(room=f"r'{number}", place=-number, holds=subject),
        ]
    )


def _exchange(table: str, column: str) -> str:
    return (
        f"UPDATE {table} SET {column} = other.{column} FROM {table} AS other "
        f"WHERE {table}.tenant_id = :tenant AND other.tenant_id = :tenant "
        f"AND {table}.ctid <> other.ctid"
    )


@pytest.fixture
def engine(bound: Vault, driver: str) -> Iterator[Engine]:
    made = bound.engine(driver)
    yield made
    made.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A session of the first tenant; what it has written is gone afterwards."""
    with tenant_context(A), Session(engine) as opened:
        yield opened


def stored(session: Session, column: str, table: str = "letters") -> list[bytes]:
    rows = session.execute(text(f"SELECT {column} FROM {table} ORDER BY 1"))
    return [bytes(value) for (value,) in rows if value is not None]


# -- reading ------------------------------------------------------------------------------------


def _letters(*options: Any) -> Any:
    return select(Letter).order_by(Letter.number).options(*options)


def _subjects(session: Session, statement: Any) -> list[str]:
    return [letter.subject for letter in session.scalars(statement).unique()]


def _pages(option: Any) -> Read:
    def read(session: Session) -> list[Any]:
        letters = session.scalars(_letters(option)).unique()
        return [page.text.removesuffix("'s page") for each in letters for page in each.pages]

    return read


def _listed() -> Any:
    return select(Letter.id, Letter.number, Letter.subject)


def _of(source: Any) -> Any:
    return select(source.c.subject).order_by(source.c.number)


def _recursive() -> Any:
    start = _listed().where(Letter.number == 1).cte(recursive=True)
    following = start.union_all(_listed().join(start, start.c.number + 1 == Letter.number))
    return _of(following)


def _returned(session: Session, statement: Any) -> list[Any]:
    """What a statement returns, ordered by the number that comes with it."""
    rows = sorted(session.execute(statement).all(), key=lambda row: int(row[0]))
    session.rollback()
    return [row[1] for row in rows]


def _refreshed(session: Session) -> list[str]:
    letters = session.scalars(_letters(load_only(Letter.number))).all()
    for letter in letters:
        session.refresh(letter, ["subject"])
    return [letter.subject for letter in letters]


def _populated(session: Session) -> list[str]:
    session.scalars(_letters(load_only(Letter.number))).all()
    return _subjects(session, _letters().execution_options(populate_existing=True))


def _streamed(session: Session) -> list[str]:
    statement = select(Letter.subject).order_by(Letter.number).execution_options(yield_per=1)
    with session.execute(statement) as result:
        return list(result.scalars())


def _each(get: Callable[[Any], str], statement: Any) -> Read:
    return lambda session: [get(each) for each in session.scalars(statement).unique()]


def _licence(doctor: Any) -> str:
    return str(doctor.licence).removesuffix("'s licence")


def _name(person: Any) -> str:
    return str(person.name)


def _subject(letter: Any) -> str:
    return str(letter.subject)


def _from_cte(statement: Any, number: str, column: str) -> Any:
    cte = statement.cte()
    return select(cte.c[number], cte.c[column])


def _touched() -> Any:
    return update(Letter).values(version=7).returning(Letter.number, Letter.subject)


def _deleted() -> Any:
    return delete(Page).returning(Page.id, Page.text)


ALIAS, IN_SUB_QUERY = aliased(Letter), aliased(Letter, select(Letter).subquery())
ALL, FLAT = with_polymorphic(Person, [Doctor]), with_polymorphic(Person, [Doctor], flat=True)
CHILD = aliased(Doctor)

BUNDLE: Any = Bundle("b", Letter.subject)


READS: dict[str, Read] = {
    "entities": lambda s: _subjects(s, _letters()),
    "by key": lambda s: [
        s.get_one(Letter, key).subject for key in s.scalars(select(Letter.id).order_by(Letter.id))
    ],
    "refreshed": _refreshed,
    "populated again": _populated,
    "deferred": lambda s: [
        SUBJECTS[letter.weight - 1] for letter in s.scalars(_letters()) if letter.weight
    ],
    "undeferred": lambda s: [
        SUBJECTS[letter.weight - 1]
        for letter in s.scalars(_letters(undefer(Letter.weight)))
        if letter.weight
    ],
    "only one column": lambda s: _subjects(s, _letters(load_only(Letter.subject))),
    "aliased": _each(_subject, select(ALIAS).order_by(ALIAS.number)),
    "of a sub-query's entity": _each(_subject, select(IN_SUB_QUERY).order_by(IN_SUB_QUERY.number)),
    "of a limited sub-query": lambda s: _subjects(s, _letters(joinedload(Letter.pages)).limit(2)),
    "a column": lambda s: list(s.scalars(select(Letter.subject).order_by(Letter.number))),
    "a label": lambda s: list(s.scalars(select(Letter.subject.label("x")).order_by(Letter.number))),
    "twice": lambda s: [
        one
        for one, two in s.execute(
            select(Letter.subject, Letter.subject.label("b")).order_by(Letter.number)
        )
        if one == two
    ],
    "a bundle": lambda s: [
        bundle.subject for bundle in s.scalars(select(BUNDLE).order_by(Letter.number)).all()
    ],
    "other columns": lambda s: list(
        s.scalars(_listed().with_only_columns(Letter.subject).order_by(Letter.number))
    ),
    "core": lambda s: list(
        s.connection().scalars(select(TABLE.c.subject).order_by(TABLE.c.number))
    ),
    "a core row": lambda s: [
        row.subject for row in s.connection().execute(select(TABLE).order_by(TABLE.c.number))
    ],
    "a core alias": lambda s: list(
        s.connection().scalars(select((t := TABLE.alias()).c.subject).order_by(t.c.number))
    ),
    "grouped by key": lambda s: list(
        s.scalars(
            select(Letter.subject).outerjoin(Page).group_by(Letter.id).order_by(Letter.number)
        )
    ),
    "distinct rows": lambda s: [
        row.subject for row in s.execute(_listed().distinct().order_by(Letter.number))
    ],
    "streamed": _streamed,
    "sub-query": lambda s: list(s.scalars(_of(_listed().subquery()))),
    "sub-query of a sub-query": lambda s: list(
        s.scalars(_of(select(_listed().subquery()).subquery()))
    ),
    "labelled in a sub-query": lambda s: list(
        s.scalars(
            select((q := select(Letter.number, Letter.subject.label("x")).subquery()).c.x).order_by(
                q.c.number
            )
        )
    ),
    "alias of a sub-query": lambda s: list(s.scalars(_of(_listed().subquery().alias()))),
    "cte": lambda s: list(s.scalars(_of(_listed().cte()))),
    "alias of a cte": lambda s: list(s.scalars(_of(_listed().cte().alias()))),
    "recursive cte": lambda s: list(s.scalars(_recursive())),
    "lateral": lambda s: list(
        s.scalars(
            select(
                (q := select(Letter.subject).where(Letter.id == Page.letter_id).lateral()).c.subject
            )
            .select_from(Page)
            .join(q, literal(value=True))
            .order_by(Page.id)
        )
    ),
    "scalar sub-query": lambda s: list(
        s.scalars(
            select(select(Letter.subject).where(Letter.id == Page.letter_id).scalar_subquery())
            .select_from(Page)
            .order_by(Page.id)
        )
    ),
    "labelled scalar sub-query": lambda s: list(
        s.scalars(
            select(select(Letter.subject).where(Letter.id == Page.letter_id).label("x"))
            .select_from(Page)
            .order_by(Page.id)
        )
    ),
    "union": lambda s: [
        row.subject
        for row in s.execute(
            _listed()
            .where(Letter.number == 1)
            .union(_listed().where(Letter.number == 2))
            .order_by("number")
        )
    ],
    "union all": lambda s: [
        row.subject
        for row in s.execute(
            union_all(
                _listed().where(Letter.number == 1), _listed().where(Letter.number == 2)
            ).order_by("number")
        )
    ],
    "union all in a sub-query": lambda s: list(
        s.scalars(
            _of(
                union_all(
                    _listed().where(Letter.number == 1), _listed().where(Letter.number == 2)
                ).subquery()
            )
        )
    ),
    "beside null in a union": lambda s: [
        row.subject
        for row in s.execute(
            union_all(_listed(), select(Letter.id, Letter.number, null())).order_by("number")
        )
        if row.subject
    ],
    "joined": lambda s: [
        row.subject
        for row in s.execute(
            select(Page.text, Letter.subject).join(Page.letter).order_by(Letter.number)
        )
    ],
    "joined with itself": lambda s: list(
        s.scalars(
            select(Letter.subject).join(a := aliased(Letter), a.id == Letter.id).order_by(a.number)
        )
    ),
    "lazily": _pages(lazyload(Letter.pages)),
    "joinedload": _pages(joinedload(Letter.pages)),
    "selectinload": _pages(selectinload(Letter.pages)),
    "subqueryload": _pages(subqueryload(Letter.pages)),
    "contains_eager": lambda s: [
        page.text.removesuffix("'s page")
        for letter in s.scalars(_letters(contains_eager(Letter.pages)).join(Letter.pages)).unique()
        for page in letter.pages
    ],
    "many to one": lambda s: [
        page.letter.subject
        for page in s.scalars(select(Page).select_from(Page).order_by(Page.id))
        if page.letter
    ],
    "json": lambda s: [
        (marks or {})["of"][0] for marks in s.scalars(select(Page.marks).order_by(Page.id))
    ],
    "key of several columns": lambda s: [
        shelf.holds for shelf in s.scalars(select(Shelf).order_by(Shelf.place.desc()))
    ],
    "several in a sub-query": lambda s: list(
        s.scalars(
            select((q := select(Shelf.place, Shelf.holds).subquery()).c.holds).order_by(
                q.c.place.desc()
            )
        )
    ),
    "polymorphic": _each(_name, select(Person).order_by(Person.id)),
    "child table": _each(_licence, select(Doctor).order_by(Doctor.id)),
    "with_polymorphic": _each(_licence, select(ALL).order_by(ALL.id)),
    "flat polymorphic": _each(_name, select(FLAT).order_by(FLAT.id)),
    "selectin_polymorphic": _each(
        _licence,
        select(Person).options(selectin_polymorphic(Person, [Doctor])).order_by(Person.id),
    ),
    "aliased child": _each(_name, select(CHILD).order_by(CHILD.id)),
    "from_statement": lambda s: _subjects(s, select(Letter).from_statement(_letters())),
    "query": lambda s: [each.subject for each in s.query(Letter).order_by(Letter.number)],
    "update returning": lambda s: _returned(
        s, update(Letter).values(number=Letter.number).returning(Letter.number, Letter.subject)
    ),
    "update returning entities": lambda s: sorted(
        each.subject for each in s.scalars(update(Letter).values(version=7).returning(Letter))
    ),
    "delete returning": lambda s: [
        each.removesuffix("'s page") for each in _returned(s, _deleted())
    ],
    "returning in a cte": lambda s: _returned(s, _from_cte(_touched(), "number", "subject")),
    "deleted in a cte": lambda s: [
        each.removesuffix("'s page") for each in _returned(s, _from_cte(_deleted(), "id", "text"))
    ],
}


@pytest.mark.parametrize("way", READS)
def test_every_read_opens_what_is_in_its_row(engine: Engine, way: str) -> None:
    """However values are read, each opens in its row; in another row none does."""
    with tenant_context(A), Session(engine) as session:
        assert READS[way](session) == SUBJECTS
    with (
        tenant_context(B),
        Session(engine) as session,
        pytest.raises(TamperedError, match=r"altered, or sealed for another tenant, table, column"),
    ):
        READS[way](session)


@every_driver
def test_every_driver_reads_and_writes_bound_values(engine: Engine) -> None:
    """Keys of each type are the same bytes for each driver, with parameters in every form."""
    with tenant_context(A), Session(engine) as session:
        letter = Letter(subject="s", pages=[Page(id=-(2**31), text="p", marks={"a": [1]})])
        session.add_all([letter, Shelf(room="ä'\\%", place=7, holds="h"), Doctor(name="d")])
        session.execute(insert(Page).returning(Page.id), [{"id": n, "text": "p"} for n in (7, 8)])
        session.flush()
        letter.body = "b"
        session.flush()
        session.expire_all()
        assert (letter.subject, letter.body, letter.pages[0].marks) == ("s", "b", {"a": [1]})
        assert session.get_one(Shelf, (A, "ä'\\%", 7)).holds == "h"
        found = session.scalars(select(Page.text).where(Page.text == "p", Page.id.in_([7, 8])))
        assert found.all() == ["p", "p"]


def _of_text() -> Any:
    return text("SELECT id, number, subject FROM letters").columns(
        Letter.id, Letter.number, Letter.subject
    )


TYPE = Letter.subject.type
LISTED = values(sql_column("subject", TYPE), name="listed").data([(b"x",)])
ROWLESS: dict[str, Any] = {
    "text": _of_text(),
    "entities from text": select(Letter).from_statement(_of_text()),
    "sub-query of text": select(_of_text().subquery().c.subject),
    "cte of text": select(_of_text().cte().c.subject),
    "union with text": union_all(_listed(), _of_text()),
    "text first in a union": union_all(_of_text(), _listed()),
    "sub-query of a union with text": select(union_all(_listed(), _of_text()).subquery().c.subject),
    "typed text": select(type_coerce(text("subject"), TYPE)).select_from(Letter),
    "typed column": select(type_coerce(Letter.number, TYPE)),
    "typed function": select(func.now(type_=TYPE)),
    "typed function as a table": select(
        func.jsonb_to_recordset("[]").table_valued(sql_column("subject", TYPE)).c.subject
    ),
    "a value": select(literal("x", TYPE)),
    "typed column in a sub-query": select(
        select(type_coerce(Letter.number, TYPE).label("x")).subquery().c.x
    ),
    "a name": select(sql_column("subject", TYPE)).select_from(Letter),
    "values": select(LISTED.c.subject),
}


@pytest.mark.parametrize("way", ROWLESS)
def test_what_comes_without_its_row_is_refused(session: Session, way: str) -> None:
    """Text, functions and literals have no primary key with them; nothing is opened unbound."""
    with pytest.raises(EncryptedQueryError, match=r"letters\.subject is bound to its row"):
        session.execute(ROWLESS[way])


SEARCHES: dict[str, Any] = {
    "equal": select(Letter.number).where(Letter.subject == "BEN"),
    "in": select(Letter.number).where(Letter.subject.in_(["ben", "nobody"])),
    "not equal": select(Letter.number).where(Letter.subject != "anna"),
    "in a sub-query's column": select((Q := _listed().subquery()).c.number).where(
        Q.c.subject == "ben"
    ),
    "exists": select(Letter.number).where(
        exists().where(Page.letter_id == Letter.id, Page.text == "Ben's page")
    ),
    "not null in a sub-query": select(Q.c.number).where(Q.c.subject.is_not(None), Q.c.number > 1),
}


@pytest.mark.parametrize("way", SEARCHES)
def test_searches_do_not_depend_on_the_row(session: Session, way: str) -> None:
    """A bound column is searched as any other, in sub-queries too."""
    assert session.scalars(SEARCHES[way]).all() == [2]


# -- writing ------------------------------------------------------------------------------------

NEW = [
    {"id": uuid.UUID(int=100 + number), "number": number, "subject": f"new {number}"}
    for number in (1, 2, 3)
]
WITHOUT_KEY = [{key: row[key] for key in ("number", "subject")} for row in NEW]
MULTIPLE = insert(Letter).values(NEW)


def _core(session: Session, statement: Any, *parameters: Any) -> None:
    session.connection().execute(statement, *parameters)


def _excluded(statement: Any, **set_: Any) -> Any:
    columns = set_ or {"subject": statement.excluded.subject}
    return statement.on_conflict_do_update(index_elements=["id"], set_=columns)


def _named(**more: Any) -> Any:
    return insert(TABLE).values(number=bindparam("x"), subject=bindparam("y"), **more)


def _each_of(session: Session, statements: list[Any]) -> None:
    for statement in statements:
        _core(session, statement)


INSERTS: dict[str, Read] = {
    "unit of work": lambda s: s.add_all([Letter(**row) for row in NEW]),
    "unit of work, default key": lambda s: s.add_all([Letter(**row) for row in WITHOUT_KEY]),
    "orm bulk": lambda s: s.execute(insert(Letter), NEW),
    "orm bulk, default key": lambda s: s.execute(insert(Letter), WITHOUT_KEY),
    "orm bulk, returning": lambda s: s.scalars(insert(Letter).returning(Letter), NEW).all(),
    "orm bulk, returning in order": lambda s: s.scalars(
        insert(Letter).returning(Letter.id, sort_by_parameter_order=True), WITHOUT_KEY
    ).all(),
    "orm values": lambda s: [s.execute(insert(Letter).values(**row)) for row in NEW],
    "orm values, default key": lambda s: [
        s.execute(insert(Letter).values(**row)) for row in WITHOUT_KEY
    ],
    "orm many values": lambda s: s.execute(MULTIPLE),
    "orm many values, default key": lambda s: s.execute(insert(Letter).values(WITHOUT_KEY)),
    "core bulk": lambda s: _core(s, insert(TABLE), NEW),
    "core bulk, default key": lambda s: _core(s, insert(TABLE), WITHOUT_KEY),
    "core values": lambda s: _each_of(s, [insert(TABLE).values(row) for row in NEW]),
    "core one parameter": lambda s: [s.connection().execute(insert(TABLE), row) for row in NEW],
    "core many values": lambda s: _core(s, insert(TABLE).values(NEW)),
    "core many values, default key": lambda s: _core(s, insert(TABLE).values(WITHOUT_KEY)),
    "named parameters": lambda s: _core(
        s,
        _named(id=bindparam("k")),
        [{"k": row["id"], "x": row["number"], "y": row["subject"]} for row in NEW],
    ),
    "named parameters, default key": lambda s: _core(
        s, _named(), [{"x": row["number"], "y": row["subject"]} for row in NEW]
    ),
    "typed literal": lambda s: [
        s.execute(insert(Letter).values({**row, "subject": literal(row["subject"], TYPE)}))
        for row in NEW
    ],
    "legacy bulk": lambda s: s.bulk_insert_mappings(Letter, NEW),
    "legacy bulk, default key": lambda s: s.bulk_insert_mappings(Letter, WITHOUT_KEY),
    "legacy save": lambda s: s.bulk_save_objects([Letter(**row) for row in WITHOUT_KEY]),
    "merge": lambda s: [s.merge(Letter(**row)) for row in NEW],
    "upsert": lambda s: s.execute(_excluded(upsert(Letter)), NEW),
    "upsert, default key": lambda s: s.execute(_excluded(upsert(Letter)), WITHOUT_KEY),
    "upsert many values": lambda s: s.execute(_excluded(upsert(Letter).values(NEW))),
    "upsert or nothing": lambda s: s.execute(upsert(Letter).on_conflict_do_nothing(), NEW),
    "in a cte": lambda s: (
        s.execute(select(insert(Letter).values(NEW[0]).returning(Letter.id).cte().c.id))
        and s.execute(insert(Letter), NEW[1:])
    ),
    "null beside": lambda s: s.execute(insert(Letter), [{**row, "body": None} for row in NEW]),
}


@each_form
@pytest.mark.parametrize("way", INSERTS)
def test_every_insert_binds_to_its_row(session: Session, way: str) -> None:
    """However rows are inserted, each value is sealed for its own row, opens, and is found."""
    INSERTS[way](session)
    session.flush()
    session.expire_all()
    found = session.scalars(
        select(Letter)
        .where(Letter.subject.in_([row["subject"] for row in NEW]))
        .order_by(Letter.number)
    )
    assert [letter.subject for letter in found] == ["new 1", "new 2", "new 3"]
    assert all(map(is_bound, stored(session, "subject")))
    assert not any(b"new" in each for each in stored(session, "subject"))


def _set(session: Session, **changes: Any) -> None:
    for name, value in changes.items():
        setattr(session.get_one(Letter, FIRST), name, value)


def _where(statement: Any) -> Any:
    return statement.where(Letter.id == FIRST)


UPDATES: dict[str, Read] = {
    "unit of work": lambda s: _set(s, subject="changed"),
    "unit of work, several": lambda s: _set(s, subject="changed", body="b", weight=5),
    "orm": lambda s: s.execute(_where(update(Letter)).values(subject="changed")),
    "orm, fetched": lambda s: s.execute(
        _where(update(Letter)).values(subject="changed"),
        execution_options={"synchronize_session": "fetch"},
    ),
    "by primary key": lambda s: s.execute(
        update(Letter), [{"id": FIRST, "version": 1, "subject": "changed"}]
    ),
    "many by primary key": lambda s: s.execute(
        update(Letter),
        [
            {"id": FIRST, "version": 1, "subject": "changed"},
            {"id": SECOND, "version": 1, "subject": "Ben"},
        ],
    ),
    "legacy bulk": lambda s: s.bulk_update_mappings(
        Letter, [{"id": FIRST, "version": 1, "subject": "changed"}]
    ),
    "legacy": lambda s: s.query(Letter).filter_by(id=FIRST).update({"subject": "changed"}),
    "core": lambda s: _core(s, update(TABLE).where(TABLE.c.id == FIRST).values(subject="changed")),
    "core, literal on the left": lambda s: _core(
        s, update(TABLE).where(literal(FIRST) == TABLE.c.id).values(subject="changed")
    ),
    "core, among others": lambda s: _core(
        s,
        update(TABLE)
        .where(or_(TABLE.c.number == 1, TABLE.c.number == 9), TABLE.c.id == FIRST)
        .values(subject="changed"),
    ),
    "core many": lambda s: _core(
        s,
        update(TABLE).where(TABLE.c.id == bindparam("k")).values(subject=bindparam("v")),
        [{"k": FIRST, "v": "changed"}, {"k": SECOND, "v": "Ben"}],
    ),
    "core many by name": lambda s: _core(
        s,
        update(TABLE).where(TABLE.c.id == bindparam("k")),
        [{"k": FIRST, "subject": "changed"}, {"k": SECOND, "subject": "Ben"}],
    ),
    "ordered": lambda s: s.execute(
        _where(update(Letter)).ordered_values((Letter.number, 1), (Letter.subject, "changed"))
    ),
    "of another table": lambda s: s.execute(
        _where(update(Letter)).where(Page.letter_id == Letter.id).values(subject="changed")
    ),
    "returning": lambda s: s.scalars(
        _where(update(Letter)).values(subject="changed").returning(Letter.subject)
    ).one(),
    "in a cte": lambda s: s.execute(
        select(_where(update(Letter)).values(subject="changed").returning(Letter.id).cte().c.id)
    ),
    "merge": lambda s: s.merge(Letter(id=FIRST, version=1, subject="changed")),
    "upsert": lambda s: s.execute(_excluded(upsert(Letter)), [{"id": FIRST, "subject": "changed"}]),
    "upsert, all that is excluded": lambda s: _core(
        s,
        (
            u := upsert(TABLE).values(id=FIRST, tenant_id=A, number=1, version=1, subject="changed")
        ).on_conflict_do_update(index_elements=[TABLE.c.id], set_=u.excluded),
    ),
}


@each_form
@pytest.mark.parametrize("way", UPDATES)
def test_every_update_binds_to_its_row(session: Session, way: str) -> None:
    """However a row is changed by its key, its new value opens, and is found; the rest is kept."""
    UPDATES[way](session)
    session.flush()
    session.expire_all()
    assert session.get_one(Letter, FIRST).subject == "changed"
    assert session.get_one(Letter, SECOND).subject == "Ben"
    assert session.scalars(select(Letter.id).where(Letter.subject == "CHANGED")).all() == [FIRST]
    assert all(map(is_bound, stored(session, "subject")))


def test_null_needs_no_row(session: Session) -> None:
    """Nothing has to be known where nothing is sealed: a counted key, a change of many rows."""
    session.add_all([Account(), Account(iban=None)])
    session.flush()
    session.execute(insert(Account), [{"iban": None}, {"iban": None}])
    session.execute(update(Letter).values(body=None))
    session.execute(update(Letter).values(body=null()))
    session.expire_all()
    assert [letter.body for letter in session.scalars(_letters())] == [None, None]
    assert stored(session, "iban", "accounts") == stored(session, "body") == []


def test_a_row_with_a_counted_key_takes_its_value_after_it_is_there(session: Session) -> None:
    """Without a key from Python the value is set by a second flush, or the key is fetched."""
    account = Account()
    session.add(account)
    session.flush()
    account.iban = "DE1"
    number = session.scalar(select(func.nextval("accounts_id_seq")))
    session.add(Account(id=number, iban="DE2"))
    session.flush()
    session.expire_all()
    found = session.scalars(select(Account.iban).order_by(Account.id))
    assert found.all() == ["DE1", "DE2"]


Q_OTHER = aliased(Letter)
UPSERT = upsert(TABLE).values(id=FIRST, subject="x")
PLACELESS: dict[str, tuple[Any, Any]] = {
    "counted key": (insert(Account).values(iban="x"), None),
    "counted keys": (insert(Account), [{"iban": "x"}, {"iban": "y"}]),
    "counted keys, many values": (insert(Account).values([{"iban": "x"}, {"iban": "y"}]), None),
    "counted keys, core": (insert(ACCOUNTS), [{"iban": "x"}]),
    "key made in the database": (
        insert(Letter).values(id=func.gen_random_uuid(), subject="x"),
        None,
    ),
    "part of a key made in the database": (
        insert(Shelf).values(room="r", place=func.abs(1), holds="x"),
        None,
    ),
    "default key in a cte": (
        select(insert(Letter).values(subject="x").returning(Letter.id).cte().c.id),
        None,
    ),
    "all rows": (update(Letter).values(subject="x"), None),
    "rows found by another column": (
        update(Letter).where(Letter.number == 1).values(subject="x"),
        None,
    ),
    "rows found by a search": (
        update(Letter).where(Letter.subject == "Anna").values(subject="x"),
        None,
    ),
    "one row or another": (
        update(Letter).where(or_(Letter.id == FIRST, Letter.number == 2)).values(subject="x"),
        None,
    ),
    "not the row": (update(Letter).where(Letter.id != FIRST).values(subject="x"), None),
    "several rows": (
        update(Letter).where(Letter.id.in_([FIRST, SECOND])).values(subject="x"),
        None,
    ),
    "the row of an alias": (
        update(Letter)
        .where(Q_OTHER.id == FIRST, Q_OTHER.number == Letter.number)
        .values(subject="x"),
        None,
    ),
    "a row found by a sub-query": (
        update(Letter)
        .where(Letter.id == select(Q_OTHER.id).limit(1).scalar_subquery())
        .values(subject="x"),
        None,
    ),
    "a row found by text": (
        update(Letter).where(text("letters.number = 1")).values(subject="x"),
        None,
    ),
    "a part of the key": (update(Shelf).where(Shelf.room == "r'1").values(holds="x"), None),
    "a value after ON CONFLICT": (
        _excluded(UPSERT, subject="y"),
        None,
    ),
    "a parameter after ON CONFLICT": (
        _excluded(UPSERT, subject=bindparam("subject", "y")),
        None,
    ),
}


@pytest.mark.parametrize("way", PLACELESS)
def test_a_value_without_its_row_is_refused(session: Session, way: str) -> None:
    """Where a statement does not tell a value's row, it is not sent: neither sealed nor as NULL."""
    statement, parameters = PLACELESS[way]
    before = [stored(session, "subject"), stored(session, "holds", "shelves")]
    with (
        session.begin_nested(),
        pytest.raises(EncryptedQueryError, match=r"does not tell which row .* default=uuid4"),
    ):
        session.execute(statement, parameters)
    assert [stored(session, "subject"), stored(session, "holds", "shelves")] == before
    assert session.scalar(select(func.count()).select_from(Account)) == 0


@each_form
def test_a_flush_without_a_key_from_python_is_refused(session: Session) -> None:
    """The unit of work, and its bulk methods, refuse a key that the database counts."""
    says = r"accounts\.iban is bound to its row"
    for write in (session.add, session.merge):
        write(Account(iban="x"))
        with pytest.raises(EncryptedQueryError, match=says):
            session.flush()
        session.rollback()
    with pytest.raises(EncryptedQueryError, match=says):
        session.bulk_save_objects([Account(iban="x")])
    session.rollback()
    with pytest.raises(EncryptedQueryError, match=says):
        session.bulk_insert_mappings(Account, [{"iban": "x"}])


FROM_OTHERS: dict[str, Any] = {
    "insert from select": insert(Letter).from_select(
        ["id", "subject"], select(func.gen_random_uuid(), Letter.subject)
    ),
    "insert from select of a sub-query": insert(Letter).from_select(
        ["subject"], select(_listed().subquery().c.subject)
    ),
    "another row's": update(Letter)
    .values(subject=Q_OTHER.subject)
    .where(Q_OTHER.number == Letter.number + 1),
    "excluded, of a row found otherwise": UPSERT.on_conflict_do_update(
        index_elements=["tenant_id", "number"], set_={"subject": UPSERT.excluded.subject}
    ),
    "excluded, of a row found by a named constraint": UPSERT.on_conflict_do_update(
        constraint="letters_number_key", set_={"subject": UPSERT.excluded.subject}
    ),
}


@pytest.mark.parametrize("way", FROM_OTHERS)
def test_a_value_of_another_row_is_refused(session: Session, way: str) -> None:
    """What is sealed for one row is never written into another."""
    with pytest.raises(EncryptedQueryError, match=r"letters\.subject .* a value of another row"):
        session.execute(FROM_OTHERS[way])


LETTERS: Any = TABLE.alias()
PERSONS: Any = Person.__table__.alias()
MOVES: dict[str, Any] = {
    "orm": update(Letter).where(Letter.id == FIRST).values(id=uuid.UUID(int=9)),
    "core": update(TABLE).where(TABLE.c.id == FIRST).values({TABLE.c.id: uuid.UUID(int=9)}),
    "an expression": update(Letter).values(id=func.gen_random_uuid()),
    "part of a key": update(Shelf).values(place=Shelf.place + 1),
    "what a key refers to": update(Person).values(id=uuid.UUID(int=9)),
    "of an alias": update(LETTERS).where(LETTERS.c.id == FIRST).values(id=uuid.UUID(int=9)),
    "of an alias that is referred to": update(PERSONS).values(kind="doctor"),
    "after ON CONFLICT": _excluded(UPSERT, id=uuid.UUID(int=9)),
    "excluded key of another row": UPSERT.on_conflict_do_update(
        index_elements=["number"], set_={"id": UPSERT.excluded.id}
    ),
}


@pytest.mark.parametrize("way", MOVES)
def test_a_key_that_values_are_bound_to_is_not_changed(session: Session, way: str) -> None:
    """A row whose key changed would keep values that do not open; so it is refused."""
    with pytest.raises(EncryptedQueryError, match="with another key they would not open"):
        session.execute(MOVES[way])


@each_form
def test_a_flush_does_not_change_a_key(session: Session) -> None:
    """The unit of work refuses too, and by parameters alone."""
    session.get_one(Letter, FIRST).id = uuid.UUID(int=9)
    with pytest.raises(EncryptedQueryError, match=r"letters\.id is, or is referred to by"):
        session.flush()
    session.rollback()
    with pytest.raises(EncryptedQueryError, match=r"letters\.id is, or is referred to by"):
        session.connection().execute(
            update(TABLE).where(TABLE.c.id == bindparam("k")),
            [{"k": FIRST, "id": uuid.UUID(int=9)}, {"k": SECOND, "id": uuid.UUID(int=8)}],
        )


def test_one_parameter_for_two_rows_is_refused(session: Session) -> None:
    """It could be sealed for one of them only."""
    shared = bindparam("shared", "x", type_=TYPE)
    rows = [{"id": row["id"], "subject": shared} for row in NEW]
    with pytest.raises(EncryptedQueryError, match=r"letters\.subject in several rows"):
        session.execute(insert(Letter).values(rows))


@every_driver
def test_a_key_that_its_column_cannot_have_is_refused(session: Session) -> None:
    """A key that PostgreSQL would store as another is refused, without showing it."""
    for room in ("r" * 21, 7, b"r", "\ud800"):
        with pytest.raises(EncryptedValueError, match="primary key is given as something") as error:
            session.execute(insert(Shelf).values(room=room, place=1, holds="secret"))
        assert "secret" not in str(error.value)
        session.rollback()


@pytest.mark.parametrize("way", ["a column", "sub-query", "union all in a sub-query", "entities"])
def test_a_value_does_not_bring_its_own_key(session: Session, way: str) -> None:
    """A value that was copied with its row's key after it opens no more than without."""
    session.execute(
        text(
            "UPDATE letters SET subject = other.subject || uuid_send(other.id) "
            "FROM letters AS other WHERE letters.number = 1 AND other.number = 2"
        )
    )
    with pytest.raises(TamperedError):
        READS[way](session)
