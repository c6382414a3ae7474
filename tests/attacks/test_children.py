"""Tables without a tenant column: joined inheritance, details, links. Scoped through their parent.

Row-level security cannot hold them, so each attack runs with both locks and with the first alone,
which have to end alike.
"""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from attacking import kind
from locks import Locks, World, unique_roles
from practice import A, B
from sqlalchemy import (
    CHAR,
    Column,
    Enum,
    ForeignKey,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    bindparam,
    column,
    create_engine,
    delete,
    func,
    insert,
    literal,
    literal_column,
    null,
    select,
    table,
    text,
    true,
    type_coerce,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    make_transient_to_detached,
    mapped_column,
    relationship,
    selectinload,
    with_polymorphic,
)

from tenantguard import TenantGuard, rls, tenant_context
from tenantguard.errors import ConfigurationError, CrossTenantError, UnscopedStatementError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

CROSSED = "CrossTenantError"


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str]


class Document(Base):
    __tablename__ = "documents"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    kind: Mapped[str]
    title: Mapped[str]
    lines: Mapped[list[Line]] = relationship(
        back_populates="document", cascade="all, delete-orphan", order_by="Line.id"
    )


report_tags = Table(
    "report_tags",
    Base.metadata,
    Column("report_id", ForeignKey("reports.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Report(Document):
    __tablename__ = "reports"
    __mapper_args__ = {"polymorphic_identity": "report"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    finding: Mapped[str]
    tags: Mapped[list[Tag]] = relationship(secondary=report_tags)


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"))
    tag_id: Mapped[int | None] = mapped_column(ForeignKey("tags.id"))
    cents: Mapped[int] = mapped_column(default=0)
    document: Mapped[Document] = relationship(back_populates="lines")
    tag: Mapped[Tag | None] = relationship()
    comments: Mapped[list[Comment]] = relationship(cascade="all, delete-orphan")


class Comment(Base):
    __tablename__ = "comments"
    id: Mapped[int] = mapped_column(primary_key=True)
    line_id: Mapped[int] = mapped_column(ForeignKey("lines.id"))
    body: Mapped[str]


class Mark(Base):
    """A table with a tenant column that refers to one without."""

    __tablename__ = "marks"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    line_id: Mapped[int] = mapped_column(ForeignKey("lines.id"))


CODES: dict[str, tuple[Any, Any, Any]] = {
    "char": (CHAR(5), "a", "b"),
    "varchar": (String(10), "a", "b"),
    "enum": (Enum("a", "b", name="color"), "a", "b"),
    "enum as text": (Enum("a", "b", native_enum=False), "a", "b"),
    "numeric": (Numeric(10, 2), Decimal("1.50"), Decimal("2.50")),
    "bytea": (LargeBinary(), b"a", b"b"),
    "interval": (Interval(), timedelta(1), timedelta(2)),
    "inet": (postgresql.INET(), "10.0.0.1", "10.0.0.2"),
    "uuid": (Uuid(), A, B),
}
"""Types of keys, with a key of each tenant's."""


def _shelves(name: str) -> Table:
    return Table(
        f"{name}_shelves",
        Base.metadata,
        Column("code", CODES[name][0], primary_key=True, autoincrement=False),
        Column("tenant_id", ForeignKey("practices.id"), nullable=False),
    )


def _books(name: str, shelves: Table) -> Table:
    return Table(
        f"{name}_books",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("code", shelves.c.code.type, ForeignKey(shelves.c.code), nullable=False),
        Column("other", shelves.c.code.type, ForeignKey(shelves.c.code)),
    )


SHELVES = {name: _shelves(name) for name in CODES}
BOOKS = {name: _books(name, shelves) for name, shelves in SHELVES.items()}
_TABLES = ("tags", "documents", "reports", "report_tags", "lines", "comments", "marks")
lines: Any = Line.__table__
reports: Any = Report.__table__
comments: Any = Comment.__table__
light = table("lines", column("id"), column("document_id"), column("tag_id"), column("cents"))
filled = Table(
    "lines",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("document_id", Integer, key="document", default=1),
    Column("tag_id", Integer),
    Column("cents", Integer),
)
upsert = postgresql.insert
EVERY = with_polymorphic(Document, "*")
OTHER = aliased(Line)


@dataclass(frozen=True, slots=True)
class At:
    """One tenant's rows, at which work is aimed; *loose* is a tag that no report has."""

    tenant: uuid.UUID
    document: int
    report: int
    line: int
    comment: int
    tag: int
    loose: int


def _ids(tenant: uuid.UUID) -> At:
    first = 1 if tenant == A else 101
    return At(tenant, first, first + 1, first, first, first, first + 1)


def _fill(session: Session) -> None:
    session.add_all([Practice(id=A, name="Praxis A"), Practice(id=B, name="Praxis B")])
    session.flush()
    for at in map(_ids, (A, B)):
        tag = Tag(id=at.tag, tenant_id=at.tenant, name="tag")
        loose = Tag(id=at.loose, tenant_id=at.tenant, name="loose")
        line = Line(id=at.line, tag=tag, cents=7, comments=[Comment(id=at.comment, body="comment")])
        document = Document(id=at.document, tenant_id=at.tenant, title="document", lines=[line])
        report = Report(id=at.report, tenant_id=at.tenant, title="report", finding="finding")
        session.add_all([tag, loose, document, report])
        session.flush()
        session.execute(insert(report_tags).values(report_id=at.report, tag_id=at.tag))
        session.add(Mark(tenant_id=at.tenant, line_id=at.line))
        for name, shelves in SHELVES.items():
            code = CODES[name][1 if at.tenant == A else 2]
            session.execute(insert(shelves).values(code=code, tenant_id=at.tenant))


def _guard() -> TenantGuard:
    return TenantGuard(Base.metadata, tenants="practices", roles=unique_roles())


@pytest.fixture(scope="module")
def built(admin_url: URL) -> Iterator[World]:
    admin, guard = create_engine(admin_url), _guard()
    Base.metadata.create_all(admin)
    with Session(admin) as session, session.begin():
        _fill(session)
    with admin.begin() as connection:
        for name in ("tags", "documents", "lines", "comments", "marks"):
            connection.execute(text(f"ALTER SEQUENCE {name}_id_seq RESTART 1001"))
    rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
    built = World(admin, guard, admin_url.set(username=guard.roles.application))
    yield built
    built.dispose()


@pytest.fixture
def engines(built: World, driver: str) -> Iterator[Locks]:
    locks = Locks(built, driver)
    yield locks
    locks.dispose()


def _outcome(engine: Engine, work: Callable[[Session, At], object], at: At) -> str:
    session = Session(engine)
    try:
        with tenant_context(A):
            found = repr(work(session, at))
            session.flush()
    except Exception as error:  # noqa: BLE001  (the kind is what is asserted)
        return kind(error)
    finally:
        with tenant_context(A):
            session.rollback()
            session.close()
    return found


def _count(statement: Any) -> Any:
    """The number of rows that a query gives, or that a change changes."""

    def work(session: Session, at: At) -> int:
        result: Any = session.execute(statement(at))
        return len(result.all()) if getattr(result, "returns_rows", True) else result.rowcount

    return work


def _many(statement: Any, rows: Any) -> Any:
    def work(session: Session, at: At) -> int:
        session.connection().execute(statement(at), rows(at))
        return 1

    return work


def _add(make: Any) -> Any:
    def work(session: Session, at: At) -> int:
        session.add(make(at))
        session.flush()
        return 1

    return work


def _lazy(session: Session, at: At) -> int:
    line = Line(id=at.line)
    make_transient_to_detached(line)
    session.add(line)
    return len(line.comments)


def _detached_document(session: Session, at: At) -> int:
    document = Document(id=at.document, kind="document", tenant_id=A)
    make_transient_to_detached(document)
    session.add(document)
    return len(document.lines)


READS: dict[str, Any] = {
    "joined inheritance": _count(lambda at: select(Report).where(Report.id == at.report)),
    "its own table": _count(lambda at: select(reports).where(reports.c.id == at.report)),
    "its columns": _count(lambda at: select(Report.finding).where(Report.id == at.report)),
    "polymorphic": _count(lambda at: select(EVERY).where(at.report == EVERY.id)),
    "the base": _count(lambda at: select(Document).where(Document.id == at.report)),
    "get": lambda session, at: int(session.get(Report, at.report) is not None),
    "detail": _count(lambda at: select(Line).where(Line.id == at.line)),
    "detail of a detail": _count(lambda at: select(Comment).where(Comment.id == at.comment)),
    "alias": _count(lambda at: select(OTHER).where(at.line == OTHER.id)),
    "sub-query": _count(
        lambda at: select(select(Comment.body).where(Comment.id == at.comment).subquery())
    ),
    "exists": _count(
        lambda at: select(Tag).where(
            Tag.id == 1, select(Comment).where(Comment.id == at.comment).exists()
        )
    ),
    "in": _count(
        lambda at: select(Tag).where(Tag.id == 1, literal(at.comment).in_(select(Comment.id)))
    ),
    "cte": _count(lambda at: select(select(Line.cents).where(Line.id == at.line).cte("found"))),
    "join to": _count(
        lambda at: (
            select(Tag, Line).join(Line, literal(1) == 1).where(Tag.id == 1, Line.id == at.line)
        )
    ),
    "join from": _count(
        lambda at: (
            select(Comment, Line).join(Line, Line.id == Comment.line_id).where(Line.id == at.line)
        )
    ),
    "outer join": _count(
        lambda at: (
            select(Tag, Line)
            .outerjoin(Line, Line.id == at.line)
            .where(Tag.id == 1, Line.id.is_not(None))
        )
    ),
    "full join": _count(
        lambda at: (
            select(Tag, Line)
            .outerjoin(Line, Line.tag_id == Tag.id, full=True)
            .where(Line.id == at.line)
        )
    ),
    "union": _count(
        lambda at: (
            select(Line.id)
            .where(Line.id == at.line)
            .union(select(Line.id).where(Line.id == at.line))
        )
    ),
    "lateral": _count(
        lambda at: (
            select(Tag.id)
            .join(select(Line.cents).where(Line.id == at.line).lateral(), true())
            .where(Tag.id == 1)
        )
    ),
    "table construct": _count(lambda at: select(light).where(light.c.id == at.line)),
    "for update of": _count(
        lambda at: select(Line).where(Line.id == at.line).with_for_update(of=Line)
    ),
    "joined load": lambda session, at: len(
        session.scalars(select(Line).options(joinedload(Line.comments)).where(Line.id == at.line))
        .unique()
        .all()
    ),
    "selectin load": lambda session, at: sum(
        len(each.comments)
        for each in session.scalars(
            select(Line).options(selectinload(Line.comments)).where(Line.id == at.line)
        )
    ),
    "lazy load": _lazy,
    "lazy load of a stub's lines": _detached_document,
    "link": _count(lambda at: select(report_tags).where(report_tags.c.report_id == at.report)),
    "count": lambda session, at: session.scalar(
        select(func.count()).select_from(Line).where(Line.id == at.line)
    ),
}

WRITES: dict[str, tuple[Any, str]] = {
    "insert": (_many(lambda _: insert(lines), lambda at: {"document_id": at.document}), CROSSED),
    "insert with values": (
        _count(lambda at: insert(lines).values(document_id=at.document).returning(lines.c.id)),
        CROSSED,
    ),
    "insert with a bind": (
        _many(
            lambda _: insert(lines).values(document_id=bindparam("to")),
            lambda at: {"to": at.document},
        ),
        CROSSED,
    ),
    "executemany": (
        _many(
            lambda _: insert(lines), lambda at: [{"document_id": 1}, {"document_id": at.document}]
        ),
        CROSSED,
    ),
    "many values": (
        _many(
            lambda at: insert(lines).values([{"document_id": 1}, {"document_id": at.document}]),
            lambda _: None,
        ),
        CROSSED,
    ),
    "insertmanyvalues": (
        lambda session, at: len(
            session.scalars(
                insert(Line).returning(Line.id),
                [{"document_id": at.document, "cents": n} for n in range(1)],
            ).all()
        ),
        CROSSED,
    ),
    "insert from select": (
        _many(
            lambda at: insert(lines).from_select(
                ["document_id", "cents"], select(literal(at.document), literal(1))
            ),
            lambda _: None,
        ),
        CROSSED,
    ),
    "insert into a construct": (
        _many(lambda _: insert(light), lambda at: {"document_id": at.document, "cents": 1}),
        CROSSED,
    ),
    "insert through a renamed key": (
        _many(lambda _: insert(filled), lambda at: {"document": at.document, "cents": 1}),
        CROSSED,
    ),
    "an optional reference": (
        _many(lambda _: insert(lines), lambda at: {"document_id": 1, "tag_id": at.tag}),
        CROSSED,
    ),
    "detail of a detail": (
        _many(lambda _: insert(Comment), lambda at: {"line_id": at.line, "body": ""}),
        CROSSED,
    ),
    "link": (
        _many(lambda _: insert(report_tags), lambda at: {"report_id": 2, "tag_id": at.loose}),
        CROSSED,
    ),
    "scoped row to a child": (
        _many(lambda _: insert(Mark), lambda at: {"line_id": at.line, "tenant_id": A}),
        CROSSED,
    ),
    "unit of work": (_add(lambda at: Line(document_id=at.document)), CROSSED),
    "unit of work, link": (_add(lambda at: Comment(line_id=at.line, body="new")), CROSSED),
    "unit of work, scoped to a child": (
        _add(lambda at: Mark(line_id=at.line, tenant_id=A)),
        CROSSED,
    ),
    "bulk_insert_mappings": (
        lambda session, at: session.bulk_insert_mappings(Line, [{"document_id": at.document}]) or 1,
        CROSSED,
    ),
    "bulk_save_objects": (
        lambda session, at: session.bulk_save_objects([Line(document_id=at.document)]) or 1,
        CROSSED,
    ),
    "move": (
        _count(lambda at: update(Line).where(Line.id == 1).values(document_id=at.document)),
        CROSSED,
    ),
    "move, by parameter": (
        _many(
            lambda _: update(lines).where(lines.c.id == 1).values(document_id=bindparam("to")),
            lambda at: {"to": at.document},
        ),
        CROSSED,
    ),
    "move, executemany": (
        _many(
            lambda _: update(lines).where(lines.c.id == bindparam("line")),
            lambda at: [{"line": 1, "document_id": at.document}],
        ),
        CROSSED,
    ),
    "move by primary key": (
        lambda session, at: (
            session.execute(update(Line), [{"id": 1, "document_id": at.document}]) and 1
        ),
        CROSSED,
    ),
    "bulk_update_mappings": (
        lambda session, at: (
            session.bulk_update_mappings(Line, [{"id": 1, "document_id": at.document}]) or 1
        ),
        CROSSED,
    ),
    "tag": (_count(lambda at: update(Line).where(Line.id == 1).values(tag_id=at.tag)), CROSSED),
    "update": (_count(lambda at: update(lines).where(lines.c.id == at.line).values(cents=1)), "0"),
    "update from": (
        _count(
            lambda at: (
                update(lines)
                .where(lines.c.id == Comment.line_id, Comment.id == at.comment)
                .values(cents=1)
            )
        ),
        "0",
    ),
    "joined inheritance": (
        _count(lambda at: update(reports).where(reports.c.id == at.report).values(finding="")),
        "0",
    ),
    "delete": (_count(lambda at: delete(comments).where(comments.c.id == at.comment)), "0"),
    "delete using": (
        _count(
            lambda at: delete(comments).where(
                comments.c.line_id == lines.c.id, lines.c.id == at.line
            )
        ),
        "0",
    ),
    "upsert": (
        _many(
            lambda _: upsert(lines).on_conflict_do_update(index_elements=["id"], set_={"cents": 1}),
            lambda at: {"id": at.line, "document_id": 1},
        ),
        CROSSED,
    ),
    "upsert that moves": (
        _many(
            lambda at: upsert(lines).on_conflict_do_update(
                index_elements=["id"], set_={"document_id": at.document}
            ),
            lambda _: {"id": 1, "document_id": 1},
        ),
        CROSSED,
    ),
    "upsert that moves to excluded": (
        _many(
            lambda _: (s := upsert(lines)).on_conflict_do_update(
                index_elements=["id"], set_={"document_id": s.excluded.document_id}
            ),
            lambda at: {"id": 1, "document_id": at.document},
        ),
        CROSSED,
    ),
    "cte": (
        _count(
            lambda at: select(
                update(lines)
                .where(lines.c.id == at.line)
                .values(cents=1)
                .returning(lines.c.id)
                .cte("changed")
            )
        ),
        "0",
    ),
}


@pytest.mark.parametrize("lock", ["both", "first_alone"])
@pytest.mark.parametrize("name", READS)
def test_read_ends_at_the_tenant(engines: Locks, name: str, lock: str) -> None:
    """One row of its own, none of another tenant's."""
    engine = getattr(engines, lock)()
    assert _outcome(engine, READS[name], _ids(A)) == "1"
    assert _outcome(engine, READS[name], _ids(B)) == "0"


@pytest.mark.parametrize("name", READS)
def test_read_is_real(engines: Locks, name: str) -> None:
    """Without a lock it gives the other tenant's row."""
    assert _outcome(engines.none(), READS[name], _ids(B)) == "1"


@pytest.mark.parametrize("lock", ["both", "first_alone"])
@pytest.mark.parametrize("name", WRITES)
def test_write_ends_at_the_tenant(engines: Locks, name: str, lock: str) -> None:
    """A write works on own rows, and neither changes nor refers to another tenant's."""
    work, refusal = WRITES[name]
    engine = getattr(engines, lock)()
    assert _outcome(engine, work, _ids(A)) == "1"
    assert _outcome(engine, work, _ids(B)) == refusal


@pytest.mark.parametrize("name", WRITES)
def test_write_is_real(engines: Locks, name: str) -> None:
    """Without a lock it reaches the other tenant's row."""
    assert _outcome(engines.none(), WRITES[name][0], _ids(B)) == "1"


TEXT: dict[str, Any] = {
    "text": lambda session, at: len(
        session.execute(text("SELECT 1 FROM lines WHERE id = :id"), {"id": at.line}).all()
    ),
    "driver SQL": lambda session, at: len(
        session.connection().exec_driver_sql(f"SELECT 1 FROM lines WHERE id = {at.line}").all()
    ),
    "text in a construct": lambda session, at: len(
        session.execute(
            select(literal_column(f"(SELECT id FROM lines WHERE id = {at.line})"))
        ).all()
    ),
}


def _cursor(engine: Engine, at: At) -> int:
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute(f"SELECT id FROM lines WHERE id = {at.line}")
        return len(cursor.fetchall())
    finally:
        with tenant_context(A):
            connection.close()


@pytest.mark.parametrize("name", TEXT)
def test_text_is_refused_beside_a_child(engines: Locks, name: str) -> None:
    """Row-level security does not hold the child, so text passes with a reason only."""
    engine = engines.both()
    assert _outcome(engine, TEXT[name], _ids(B)) == "UnscopedStatementError"
    with engines.world.guard.unscoped_text(reason="test"):
        assert _outcome(engine, TEXT[name], _ids(B)) == "1"


def _nobody_vouches_now(connection: Any) -> None:
    with pytest.raises(UnscopedStatementError, match="unscoped_text"):
        connection.connection.cursor().execute("SELECT id FROM lines")


def test_driver_cursor_is_refused_beside_a_child(engines: Locks) -> None:
    """Also right after a statement that the first lock has compiled, or has refused."""
    engine = engines.both()
    with tenant_context(A):
        with pytest.raises(UnscopedStatementError, match="unscoped_text"):
            _cursor(engine, _ids(B))
        with engines.world.guard.unscoped_text(reason="test"):
            assert _cursor(engine, _ids(B)) == 1
    mine = select(lines.c.id)
    with tenant_context(A), engine.connect() as connection:
        connection.execute(mine)
        _nobody_vouches_now(connection)
        with tenant_context(B), pytest.raises(CrossTenantError):
            connection.execute(mine)
        _nobody_vouches_now(connection)


@pytest.mark.drivers("psycopg", "psycopg2")
def test_savepoints_and_two_phase_are_no_text(engines: Locks) -> None:
    engine = engines.both()
    with tenant_context(A), Session(engine, twophase=True) as session:
        with session.begin_nested():
            assert session.get(Line, 1) is not None
        session.rollback()


def test_unscoped_text_needs_a_reason(engines: Locks) -> None:
    guard = engines.world.guard
    with pytest.raises(ConfigurationError, match="reason"), guard.unscoped_text(reason=" "):
        pytest.fail("a block without a reason was entered")


@pytest.mark.parametrize("loaded", [False, True])
def test_object_of_another_tenant_is_refused_before_the_database_sees_it(
    engines: Locks, *, loaded: bool
) -> None:
    """Also where no key of the database and no statement would hold it: the first lock alone."""
    foreign = Document(id=101, tenant_id=B, kind="document", title="")
    make_transient_to_detached(foreign)
    with tenant_context(A), Session(engines.first_alone()) as session:
        line = session.get_one(Line, 1) if loaded else Line(cents=1)
        line.document = foreign
        session.add(line)
        session.expunge(foreign)
        with pytest.raises(
            CrossTenantError, match=r"Line\.document refers to an object of another"
        ):
            session.flush()


@pytest.mark.parametrize(
    "statement",
    [insert(filled).values(cents=1), insert(filled).from_select(["cents"], select(literal(1)))],
)
def test_default_of_a_reference_is_refused(engines: Locks, statement: Any) -> None:
    """What a default would fill in could not be checked."""
    with (
        tenant_context(A),
        engines.first_alone().connect() as connection,
        pytest.raises(UnscopedStatementError, match="has a default"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        insert(lines).values(document_id=select(func.max(Document.id)).scalar_subquery()),
        update(lines).values(document_id=lines.c.document_id + 100),
    ],
)
def test_expression_for_a_reference_is_refused(engines: Locks, statement: Any) -> None:
    with (
        tenant_context(A),
        engines.first_alone().connect() as connection,
        pytest.raises(UnscopedStatementError, match="expression"),
    ):
        connection.execute(statement)


@pytest.mark.parametrize("lock", ["both", "first_alone"])
@pytest.mark.parametrize("name", CODES)
def test_reference_by_any_type_of_key(engines: Locks, name: str, lock: str) -> None:
    """PostgreSQL infers a parameter's type from each of its places, which have to agree."""
    mine, theirs = CODES[name][1:]
    books, engine = BOOKS[name], getattr(engines, lock)()

    def ends(code: Any, other: Any) -> str:
        def work(session: Session, _: At) -> int:
            connection = session.connection()
            connection.execute(insert(books), {"code": code, "other": other})
            connection.execute(insert(books), [{"code": code, "other": other}] * 2)
            return connection.execute(update(books).values(other=other)).rowcount

        return _outcome(engine, work, _ids(A))

    assert ends(mine, mine) == ends(mine, None) == "3"
    assert ends(theirs, mine) == ends(mine, theirs) == CROSSED


def test_padded_key_is_found_as_it_was_read(engines: Locks) -> None:
    shelves, books = SHELVES["char"], BOOKS["char"]
    with tenant_context(A), engines.both().connect() as connection:
        read = connection.scalar(select(shelves.c.code))
        assert read == "a    "
        connection.execute(insert(books), {"code": read})


def test_too_long_a_key_is_not_cut(engines: Locks) -> None:
    """It would else refer to another row than was asked for."""
    engine = engines.first_alone()
    work = _many(lambda _: insert(BOOKS["varchar"]), lambda _: {"code": "a" + " " * 9 + "x"})
    assert _outcome(engine, work, _ids(A)) in ("22001", CROSSED)


HIDDEN = {
    "type_coerce": type_coerce(lines.c.document_id, Integer),
    "quoted": literal_column('"document_id"'),
    "folded": literal_column("DOCUMENT_ID"),
    "label": lines.c.document_id.label("other"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_reference_under_another_name_is_refused(engines: Locks, name: str) -> None:
    """SQLAlchemy renders an expression left of SET as it is."""
    values = {HIDDEN[name]: 101}
    rows = upsert(lines).values(id=1, document_id=1)
    for statement in (
        update(lines).where(lines.c.id == 1).values(values),
        update(lines).where(lines.c.id == 1).ordered_values((lines.c.cents, 1), *values.items()),
        rows.on_conflict_do_update(index_elements=["id"], set_=values),
        insert(lines).values(values),
    ):
        with (
            tenant_context(A),
            engines.both().connect() as connection,
            pytest.raises(UnscopedStatementError, match="expression for its name"),
        ):
            connection.execute(statement)


def _documents(at: At) -> Any:
    """A CTE that says of B's row that it is A's, under the name of the table that knows."""
    row = select(literal(at.document).label("id"), literal(A, Uuid()).label("tenant_id"))
    return row.cte("documents")


def _lines(at: At) -> Any:
    row = select(literal(at.line).label("id"), literal(at.document).label("document_id"))
    return row.cte("lines")


SHADOWS: dict[str, Any] = {
    "read": _count(
        lambda at: select(lines).join(_documents(at), true()).where(lines.c.id == at.line)
    ),
    "read, the CTE first": _count(
        lambda at: select(select(_documents(at).c.id).scalar_subquery(), lines.c.cents).where(
            lines.c.id == at.line
        )
    ),
    "update": _count(
        lambda at: (
            update(lines).add_cte(_documents(at)).where(lines.c.id == at.line).values(cents=1)
        )
    ),
    "delete": _count(
        lambda at: (
            delete(comments).add_cte(_lines(at), _documents(at)).where(comments.c.id == at.comment)
        )
    ),
    "insert": _count(
        lambda at: (
            insert(lines)
            .add_cte(_documents(at))
            .values(document_id=at.document, cents=1)
            .returning(lines.c.id)
        )
    ),
}


@pytest.mark.parametrize("lock", ["both", "first_alone"])
@pytest.mark.parametrize("name", SHADOWS)
def test_cte_does_not_stand_for_the_parent(engines: Locks, name: str, lock: str) -> None:
    """PostgreSQL takes a CTE of a table's name for the table, also where the guard asks it."""
    engine = getattr(engines, lock)()
    assert _outcome(engine, SHADOWS[name], _ids(B)) == "UnscopedStatementError"
    assert _outcome(engines.none(), SHADOWS[name], _ids(B)) == "1"


def test_cte_of_another_name_works(engines: Locks) -> None:
    found = select(Document.id.label("id")).cte("found")
    statement = select(Line.id).join(found, found.c.id == Line.document_id)
    with tenant_context(A), engines.both().connect() as connection:
        assert connection.scalars(statement).all() == [1]


def test_statistics_are_refused_beside_a_child(engines: Locks) -> None:
    """They show values of every table that has no row-level security."""
    names = ("tablename", "most_common_vals")
    statistics = table("pg_stats", *map(column, names), schema="pg_catalog")
    types = table("pg_type", column("typname"), schema="pg_catalog")
    with tenant_context(A), engines.both().connect() as connection:
        assert "uuid" in connection.scalars(select(types.c.typname)).all()
        with pytest.raises(UnscopedStatementError, match="statistics"):
            connection.execute(select(statistics.c.tablename))


def test_no_reference_may_be_given_as_null(engines: Locks) -> None:
    """A row that refers to nothing refers to nobody's."""
    with tenant_context(A), engines.both().connect() as connection:
        statement = insert(lines).values(document_id=1, tag_id=null(), cents=1)
        assert connection.scalar(statement.returning(lines.c.tag_id)) is None


def test_several_children_are_added_at_once(engines: Locks) -> None:
    """By the unit of work, in one statement that returns the keys in order."""
    with tenant_context(A), Session(engines.both()) as session:
        added = [Line(document_id=1, cents=cents) for cents in range(5)]
        session.add_all(added)
        session.flush()
        found = session.scalars(select(Line.cents).where(Line.id.in_([each.id for each in added])))
        assert sorted(found) == list(range(5))


def test_parameters_overrule_the_statements_values(engines: Locks) -> None:
    """As they do without the guard."""
    statement = insert(lines).values(document_id=1).returning(lines.c.document_id)
    with tenant_context(A), engines.both().connect() as connection:
        assert connection.scalar(statement, {"document_id": 2, "cents": 1}) == 2
