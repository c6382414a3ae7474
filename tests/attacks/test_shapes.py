"""Shapes of tables: partitions, inheritance of both kinds, views, trees, schemas, odd names."""

# ruff: noqa: E501  (the tables have an attack a line)

from __future__ import annotations

from ast import literal_eval
from typing import TYPE_CHECKING, Any

import pytest
from attacking import (
    BINDING,
    CROSSED,
    FOREIGN_KEY,
    LOCKS,
    ROW_SECURITY,
    SCOPING,
    UNSCOPED,
    Attack,
    cases,
    outcome,
)
from practice import A
from shapes import (
    SIMPLE,
    Bed,
    Call,
    Device,
    Document,
    Folder,
    Invoice,
    Mail,
    Mark,
    Notice,
    Reading,
    Sample,
    Scanner,
    ShapeStage,
    Staff,
    Stay,
    key_of,
    listed,
    parts,
)
from sqlalchemy import MetaData, Table, column, delete, func, select, table, text, update
from sqlalchemy.orm import (
    Session,
    aliased,
    joinedload,
    make_transient_to_detached,
    selectin_polymorphic,
    selectinload,
    with_polymorphic,
)

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytest_plugins = ["shape_staging"]

MINE = ["a0", "a1", "a2"]
ALL = [*MINE, "b0", "b1", "b2"]

folders: Any = Folder.__table__
up: Any = aliased(Folder, name="up")
branch = (
    select(Folder.id, Folder.name).where(Folder.parent_id.is_(None)).cte("branch", recursive=True)
)
branch = branch.union_all(select(up.id, up.name).where(up.parent_id == branch.c.id))
every_document: Any = with_polymorphic(Document, "*")
flat_document: Any = with_polymorphic(Document, "*", flat=True)
light_sample = table("samples", column("name"), schema="lab")
copied_sample = Table(
    "samples",
    MetaData(),
    *(each._copy() for each in Sample.__table__.c if not each.foreign_keys),
    schema="lab",
)


def _names(statement: Any) -> Callable[[Session], Iterable[str]]:
    return lambda session: (each.name for each in session.scalars(statement).unique())


def _values(statement: Any) -> Callable[[Session], Iterable[str]]:
    return lambda session: session.scalars(statement)


def _descendants(session: Session) -> Iterable[str]:
    found = session.scalars(select(Folder).options(selectinload(Folder.children))).all()
    return [
        name for each in found for name in [each.name, *(child.name for child in each.children)]
    ]


def _ancestors(session: Session) -> Iterable[str]:
    leaf = session.scalars(select(Folder).where(~Folder.children.any())).all()
    while leaf:
        yield from (each.name for each in leaf)
        leaf = [each.parent for each in leaf if each.parent]


def _translated(session: Session) -> Iterable[str]:
    options = {"schema_translate_map": {"lab": "lab", None: "public"}}
    connection = session.connection(execution_options=options)
    return [*connection.scalars(select(Sample.name)), *connection.scalars(select(Mail.name))]


READS: dict[str, Callable[[Session], Iterable[str]]] = {
    **{shape: _names(select(model)) for shape, model in SIMPLE.items()},
    "partition of the models": _values(select(parts.c.name)),
    "partition's alias": _values(select(parts.alias("p").c.name)),
    "partitioned beside its partition": _values(select(parts.c.name).join(Reading, Reading.id == parts.c.id)),
    "view": _values(select(listed.c.name)),
    "view's alias": _values(select(listed.alias("v").c.name)),
    "view joined with its table": _values(select(listed.c.name).join(Reading, Reading.name == listed.c.name)),
    "outer join of a view": _values(select(listed.c.name).select_from(Reading).outerjoin(listed, listed.c.name == Reading.name)),
    "full join of a view": _values(select(listed.c.name).select_from(Reading.__table__.join(listed, listed.c.name == Reading.name, full=True))),
    "only the parent": _values(select(Staff.name).select_from(Staff).with_hint(Staff, "ONLY")),
    "another schema's alias": _names(select(aliased(Sample))),
    "another schema, light": _values(select(light_sample.c.name)),
    "another schema, another MetaData": _values(select(copied_sample.c.name)),
    "translated schemas": _translated,
    "quoted table": _values(select(SIMPLE["quoted names"].__table__.c["select"])),
    "quoted table's full join": _values(select((line := SIMPLE["quoted names"].__table__).c["select"]).select_from(line.join(folders, folders.c.name == line.c["select"], full=True))),
    "recursive tree": _values(select(branch.c.name)),
    "descendants": _descendants,
    "ancestors": _ancestors,
    "joined parent": _names(select(Folder).options(joinedload(Folder.parent))),
    "parent's name": _values(select(up.name).select_from(Folder).join(Folder.children.of_type(up)).union(select(Folder.name).where(Folder.parent_id.is_(None)))),
    "composite key's children": lambda s: [*(stay.bed.name for bed in s.scalars(select(Bed)) for stay in bed.stays), *s.scalars(select(Bed.name).where(~Bed.stays.any()))],
    "composite key in a tuple": _values(select(Bed.name).where(func.coalesce(Bed.number, 0).in_(select(Bed.number)))),
    "single table by kind": _names(select(Device).where(Device.kind == "scanner")),
    "single table's polymorphic": _names(select(with_polymorphic(Device, [Scanner]))),
    "joined polymorphic": _names(select(every_document)),
    "joined polymorphic, flat": _names(select(flat_document)),
    "joined polymorphic columns": _values(select(every_document.name).where(every_document.Invoice.cents >= 0)),
    "joined polymorphic, second select": _names(select(Document).options(selectin_polymorphic(Document, [Invoice]))),
    "joined subclass's table": _values(select(Document.name).join(Invoice.__table__, Invoice.__table__.c.id == Document.id)),
    "of_type": _values(select(Invoice.name).where(Invoice.id.in_(select(Invoice.__table__.c.id)))),
    "concrete polymorphic": _names(select(Notice)),
    "concrete union": _values(select(Mail.name).union(select(Call.name))),
}  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("shape", READS)
def test_a_shape_shows_own_rows_only(shapes: ShapeStage, shape: str, lock: str) -> None:
    """Whatever kind of table it is, a tenant reads its own rows, all of them, and no others."""
    with tenant_context(A), Session(shapes.engine(lock)) as session:
        assert sorted(set(READS[shape](session))) == MINE


@pytest.mark.parametrize("shape", READS)
def test_without_locks_the_shape_shows_everybody(shapes: ShapeStage, shape: str) -> None:
    """Negative control: each of these reads shows all tenants when nothing stops it."""
    with Session(shapes.engine("none")) as session:
        assert sorted(set(READS[shape](session))) == ALL


def _add(shape: str) -> Any:
    model = SIMPLE[shape]

    def work(session: Session, at: Mark) -> int:
        more = {"number": 99} if model is Bed else {}
        session.add(model(tenant_id=at.tenant, name="new", **more))
        session.flush()
        return 1

    return work


def _matching(shape: str, at: Mark) -> Any:
    model = SIMPLE[shape]
    return (key_of(model) == at.ids[shape], model.tenant_id == at.tenant)


def _update(shape: str) -> Any:
    changed = {"cents": 7} if shape == "joined subclass" else {"name": "evil"}

    def work(session: Session, at: Mark) -> int:
        statement = update(SIMPLE[shape]).where(*_matching(shape, at)).values(changed)
        result: Any = session.execute(statement)
        return int(result.rowcount)

    return work


def _move(shape: str) -> Any:
    model = SIMPLE[shape]
    column = model.__table__.c["Owner's" if shape == "quoted names" else "tenant_id"]

    def work(session: Session, at: Mark) -> int:
        name = "select" if shape == "quoted names" else "name"
        own = column == A
        if name in model.__table__.c:
            own &= model.__table__.c[name] == "a2"
        statement = update(model.__table__).where(own).values({column: at.tenant})
        session.connection().execute(statement)
        return 1

    return work


def _delete(shape: str) -> Any:
    def work(session: Session, at: Mark) -> int:
        result: Any = session.execute(delete(SIMPLE[shape]).where(*_matching(shape, at)))
        return int(result.rowcount)

    return work


def _get(shape: str) -> Any:
    def work(session: Session, at: Mark) -> int:
        model = SIMPLE[shape]
        key = (at.tenant, at.ids[shape]) if model is Bed else at.ids[shape]
        key = (key, Reading.day.default.arg) if model is Reading else key
        return int(session.get(model, key) is not None)

    return work


def _stay(session: Session, at: Mark) -> int:
    bed = Bed(tenant_id=at.tenant, number=at.ids["composite key"], name="x")
    make_transient_to_detached(bed)
    session.add(bed)
    session.add(Stay(bed=bed, name="new"))
    session.flush()
    return 1


def _counted(statement: Any) -> Any:
    return lambda session, at: session.execute(statement(at)).rowcount


def _branch(session: Session, at: Mark) -> int:
    session.add(Folder(tenant_id=A, name="new", parent_id=at.ids["tree"]))
    session.flush()
    return 1


def _adopted(session: Session, at: Mark) -> int:
    own = update(Folder).where(Folder.name == "a0").values(parent_id=at.ids["tree"])
    session.execute(own)
    return 1


ATTACKS = [
    *(Attack(f"add, {shape}", _add(shape), CROSSED, ROW_SECURITY) for shape in SIMPLE),
    *(Attack(f"get, {shape}", _get(shape), "0", "0") for shape in SIMPLE),
    *(Attack(f"update, {shape}", _update(shape), "0", "0") for shape in SIMPLE),
    *(Attack(f"move, {shape}", _move(shape), CROSSED, ROW_SECURITY) for shape in SIMPLE if shape not in {"joined", "joined subclass", "tree", "composite key"}),
    *(Attack(f"delete, {shape}", _delete(shape), "0", "0") for shape in SIMPLE if shape != "joined"),
    Attack("update, partition of the models", _counted(lambda at: update(parts).where(parts.c.name == at.name).values(name="evil")), "0", "0"),
    Attack("delete, partition of the models", _counted(lambda at: delete(parts).where(parts.c.name == at.name)), "0", "0"),
    Attack("child of a foreign composite key", _stay, CROSSED, ROW_SECURITY),
    Attack("branch of a foreign tree", _branch, FOREIGN_KEY, FOREIGN_KEY),
    Attack("root hung onto a foreign tree", _adopted, FOREIGN_KEY, FOREIGN_KEY),
]  # fmt: skip


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases(ATTACKS))
def test_a_shape_takes_own_writes_only(shapes: ShapeStage, attack: Attack, lock: str) -> None:
    """Whatever kind of table it is, a tenant writes its own rows, and no row of another tenant."""
    shapes.ends(attack, lock)


# The keys of the database are there without the locks, too.
KEYED = {"branch of a foreign tree", "root hung onto a foreign tree"}


@pytest.mark.parametrize("attack", cases([each for each in ATTACKS if each.name not in KEYED]))
def test_without_locks_the_write_succeeds(shapes: ShapeStage, attack: Attack) -> None:
    """Negative control: each of these writes reaches the foreign row when nothing stops it."""
    shapes.is_real(attack)


@pytest.mark.parametrize("attack", cases([each for each in ATTACKS if each.name in KEYED]))
def test_without_the_keys_a_tree_crosses(shapes: ShapeStage, attack: Attack) -> None:
    """Negative control: with the plain key alone, a branch hangs on another tenant's tree."""

    def unlocked(session: Session, at: Mark) -> object:
        for name in session.execute(text(COMPOSITE)).scalars().all():
            session.execute(text(f'ALTER TABLE folders DROP CONSTRAINT "{name}"'))
        return attack.work(session, at)

    shapes.is_real(Attack(attack.name, unlocked, "", ""))


COMPOSITE = (
    "SELECT conname FROM pg_constraint "
    "WHERE conrelid = 'folders'::regclass AND contype = 'f' AND array_length(conkey, 1) > 1"
)


def _text(statement: str) -> Any:
    return lambda session, _: sorted(session.scalars(text(statement)))


def _unknown(name: str) -> Any:
    relation = table(name, column("name"))
    return lambda session, _: sorted(session.scalars(select(relation.c.name)))


# Parts and copies that the models do not know, or keep away: each by text and as a construct.
BESIDE = ["readings_rest", "guests", "reading_totals"]


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("relation", BESIDE)
def test_what_is_beside_the_models_is_refused_as_text(
    shapes: ShapeStage, relation: str, lock: str
) -> None:
    """A partition, a child or a copy that was granted to nobody is not there for the application."""
    parent = {"guests": "people"}.get(relation, "readings")
    wanted = UNSCOPED if lock == "first_alone" else ROW_SECURITY
    attack = _text(f"SELECT name FROM {relation}")
    assert outcome(shapes.engine(lock), attack, shapes.theirs) == wanted
    if lock in BINDING:
        control = _text(f"SELECT DISTINCT name FROM {parent}")
        assert outcome(shapes.engine(lock), control, shapes.mine) == repr(MINE)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("relation", BESIDE)
def test_what_is_beside_the_models_is_refused_as_a_construct(
    shapes: ShapeStage, relation: str, lock: str
) -> None:
    """A light `table()` of a part that the models do not know is not classified, so it is refused."""
    wanted = UNSCOPED if lock in SCOPING else ROW_SECURITY
    assert outcome(shapes.engine(lock), _unknown(relation), shapes.theirs) == wanted
    known = _unknown({"guests": "people"}.get(relation, "readings"))
    assert set(literal_eval(outcome(shapes.engine(lock), known, shapes.mine))) == set(MINE)


@pytest.mark.parametrize("relation", BESIDE)
def test_without_locks_what_is_beside_is_read(shapes: ShapeStage, relation: str) -> None:
    """Negative control: a superuser reads parts and copies by their own names."""
    made = {
        "readings_rest": "INSERT INTO readings_rest SELECT id, '2031-01-01', tenant_id, name "
        "FROM readings",
        "guests": "INSERT INTO guests SELECT id + 1000, tenant_id, name FROM people",
        "reading_totals": "SELECT 1",
    }[relation]

    def work(session: Session, _at: Mark) -> object:
        session.execute(text(made))
        return sorted(set(session.scalars(text(f"SELECT name FROM {relation}"))))

    assert outcome(shapes.engine("none"), work, shapes.theirs) == repr(ALL)


TEXTS = {
    "view": "SELECT name FROM reading_list",
    "only": "SELECT DISTINCT name FROM ONLY people",
    "partition of the models": "SELECT name FROM readings_2025",
    "another schema": "SELECT name FROM lab.samples",
    "search path": "SELECT name FROM samples",
    "quoted names": 'SELECT "select" FROM "Order ""Lines"" %"',
    "lateral": "SELECT s.name FROM people p, LATERAL (SELECT name FROM staff LIMIT 100) s",
    "whole row": "SELECT to_jsonb(readings) ->> 'name' FROM readings",
}


@pytest.mark.parametrize("lock", BINDING)
@pytest.mark.parametrize("shape", TEXTS)
def test_text_sees_own_rows_of_every_shape(shapes: ShapeStage, shape: str, lock: str) -> None:
    """The policies hold for views of the caller, partitions, children, schemas and odd names."""

    def work(session: Session, _at: Mark) -> object:
        if shape == "search path":
            session.execute(text("SET LOCAL search_path = lab, public"))
        escaped = "%%" if session.connection().dialect.paramstyle in {"format", "pyformat"} else "%"
        return sorted(
            set(session.connection().exec_driver_sql(TEXTS[shape].replace("%", escaped)).scalars())
        )

    assert outcome(shapes.engine(lock), work, shapes.theirs) == repr(MINE)
    assert outcome(shapes.engine("none"), work, shapes.theirs) == repr(ALL)
