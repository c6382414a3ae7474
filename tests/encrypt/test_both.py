"""An attribute of two columns reads, finds and writes both while one is being encrypted."""

from __future__ import annotations

import asyncio
import operator
import uuid
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from drivers import address
from pairing import Note, Patient, Visit, build_pairs
from sqlalchemy import bindparam, event, exists, func, insert, literal, not_, null, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.attributes import flag_modified
from vault import A, B, Vault

from tenantguard import (
    EncryptedQueryError,
    EncryptedValueError,
    Masked,
    MaskedError,
    is_masked,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

TABLE: Any = Patient.__table__
NOTES: Any = Note.__table__
ONE = uuid.UUID(int=1)


@pytest.fixture(scope="module")
def pairs(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    built = build_pairs(admin_url, tmp_path_factory.mktemp("keys"))
    yield built
    built.dispose()


@pytest.fixture
def session(pairs: Vault) -> Iterator[Session]:
    """A session of A, in which B has a row of every name too."""
    pairs.run("TRUNCATE patients CASCADE")
    engine = pairs.engine()
    with tenant_context(B), Session(engine) as of_b:
        of_b.add_all(Patient(name=each, number=1) for each in ("Ada", "Eve"))
        of_b.commit()
    with tenant_context(A), Session(engine) as of_a:
        yield of_a
    pairs.close_engines()


def put(pairs: Vault, sealed: Any, plain: Any, column: str = "name") -> uuid.UUID:
    """Store a row of A as it is at some time of a migration; return its key."""
    key = uuid.uuid4()
    row = {"id": key, "tenant_id": A, column: plain}
    if sealed is None:
        names = ", ".join(row)
        pairs.run(
            f"INSERT INTO patients ({names}, city) VALUES (:id, :tenant_id, :{column}, '')", **row
        )
    else:
        with tenant_context(A), pairs.engine().begin() as connection:
            connection.execute(insert(TABLE).values({**row, f"{column}_sealed": sealed}))
    return key


STAGES: list[tuple[str | None, str | None]] = [
    (None, "Ada"),
    ("Ada", "Ada"),
    ("Ada", None),
    ("Ada", "Eve"),
    ("Eve", "Ada"),
    (None, "Eve"),
    (None, None),
]
"""What a row has at some time of a migration: sealed, and as plaintext."""


@pytest.fixture
def staged(pairs: Vault, session: Session) -> Session:
    """The session, with a row for each of the stages; its city says which."""
    for number, (sealed, plain) in enumerate(STAGES):
        key = put(pairs, sealed, plain)
        pairs.run("UPDATE patients SET city = :n WHERE id = :id", n=str(number), id=key)
    return session


def values_of(session: Session) -> list[Any]:
    """What the rows have, in the order of the stages."""
    return list(session.scalars(select(Patient.name).order_by(Patient.city)))


# -- reading ----------------------------------------------------------------------------------


def test_the_sealed_value_is_read_or_else_the_plaintext(staged: Session) -> None:
    """On objects, and when the attribute is selected, labelled, of an alias or by a query."""
    values = ["Ada", "Ada", "Ada", "Ada", "Eve", "Eve", None]
    other = aliased(Patient)
    within = aliased(Patient, select(Patient).subquery())
    assert [each.name for each in staged.scalars(select(Patient).order_by(Patient.city))] == values
    for entity in (Patient, other, within):
        rows = staged.execute(select(entity.city, entity.name).order_by(entity.city)).all()
        assert [row.name for row in rows] == values
    labelled = staged.execute(select(Patient.name.label("called")).order_by(Patient.city))
    assert [row.called for row in labelled] == values
    assert [each for (each,) in staged.query(Patient.name).order_by(Patient.city)] == values
    assert [found.name for found in staged.query(Patient).filter_by(city="5")] == ["Eve"]


OPERATORS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], bool | None]]] = {
    "==": (lambda name: name == "Ada", lambda value: value == "Ada"),
    "!=": (lambda name: name != "Ada", lambda value: value != "Ada"),
    "not ==": (lambda name: not_(name == "Ada"), lambda value: value != "Ada"),
    "not !=": (lambda name: not_(name != "Ada"), lambda value: value == "Ada"),
    "in": (lambda name: name.in_(["Ada", "Zoe"]), lambda value: value in ("Ada", "Zoe")),
    "not in": (lambda name: name.not_in(["Ada"]), lambda value: value != "Ada"),
    "not (in)": (lambda name: not_(name.in_(["Ada"])), lambda value: value != "Ada"),
    "in nothing": (lambda name: name.in_([]), lambda _: False),
}
"""A condition, and whether a value that is not None fulfils it."""


@pytest.mark.parametrize("name", OPERATORS)
def test_a_comparison_is_of_what_is_read(staged: Session, name: str) -> None:
    """Whichever column has it, before and after it was sealed; stale plaintext is not found."""
    condition, fulfils = OPERATORS[name]
    wanted = [each for each in values_of(staged) if each is not None and fulfils(each)]
    within = aliased(Patient, select(Patient).subquery())
    for entity in (Patient, aliased(Patient), within):
        found = staged.scalars(select(entity).where(condition(entity.name)).order_by(entity.city))
        assert [each.name for each in found] == wanted
    visited = select(Visit).join(Patient, condition(Patient.name))
    assert staged.scalars(visited).all() == []
    assert staged.scalar(select(exists().where(condition(Patient.name)))) is bool(wanted)


def test_null_is_the_absence_of_both(staged: Session) -> None:
    """It is looked for by is_, is_not, and comparing with None."""
    name = Patient.name
    for empty in (name.is_(None), name == None, ~name.is_not(None)):  # noqa: E711
        assert staged.scalars(select(Patient.city).where(empty)).all() == ["6"]
    for filled in (name.is_not(None), name != None, ~name.is_(None)):  # noqa: E711
        assert len(staged.scalars(select(Patient.city).where(filled)).all()) == 6


def test_a_list_that_is_read_once_is_compared_with_both(pairs: Vault, session: Session) -> None:
    """Of a generator, the first column leaves nothing for the second."""
    keys = {put(pairs, None, "Ada"), put(pairs, "Ada", "Ada")}
    question = Patient.name.in_(name.strip() for name in (" Ada", "Eve "))
    assert set(session.scalars(select(Patient.id).where(question))) == keys
    assert session.scalars(select(Patient).where(Patient.name.not_in(iter(["Ada"])))).all() == []


def test_every_type_is_found_sealed_and_plain(pairs: Vault, session: Session) -> None:
    """Also bound to its row."""
    for column, value in (("number", 7), ("born", date(1970, 1, 2))):
        attribute = getattr(Patient, column)
        keys = {put(pairs, None, value, column), put(pairs, value, value, column)}
        assert set(session.scalars(select(Patient.id).where(attribute == value))) == keys
        assert session.scalars(select(attribute).where(attribute.in_([value]))).all() == [value] * 2


def test_plaintext_is_compared_as_alike_says(pairs: Vault, session: Session) -> None:
    """Where the search normalises, before and after a row was sealed."""
    keys = {put(pairs, None, "Ada@X.org", "email"), put(pairs, "aDa@x.org", None, "email")}
    other = put(pairs, None, "eve@x.org", "email")
    email, id_ = Patient.email, Patient.id
    assert set(session.scalars(select(id_).where(email == "ADA@x.ORG"))) == keys
    assert set(session.scalars(select(id_).where(email.in_(["ADA@x.ORG", "z"])))) == keys
    assert session.scalars(select(id_).where(email.not_in(["ADA@x.ORG"]))).all() == [other]


REFUSED: dict[str, Callable[[Any], Any]] = {
    "order": lambda name: select(Patient.id).order_by(name),
    "order downwards": lambda name: select(Patient.id).order_by(name.desc()),
    "less": lambda name: select(Patient.id).where(name < "b"),
    "like": lambda name: select(Patient.id).where(name.like("A%")),
    "begins": lambda name: select(Patient.id).where(name.startswith("A")),
    "concatenated": lambda name: select("Dr " + name),
    "function": lambda name: select(func.lower(name)),
    "max": lambda name: select(func.max(name)),
    "count": lambda name: select(func.count(name)),
    "group": lambda name: select(func.count()).group_by(name),
    "distinct": lambda name: select(name).distinct(),
    "union": lambda name: select(name).union_all(select(name)),
    "scalar": lambda name: select(select(name).limit(1).scalar_subquery()),
    "value on the left": lambda name: select(Patient.id).where(literal("Ada") == name),
    "column on the left": lambda name: select(Patient.id).where(Patient.city == name),
    "column": lambda name: select(Patient.id).where(name == Patient.city),
    "itself": lambda name: select(Patient.id).where(name == name),  # noqa: PLR0124
    "literal": lambda name: select(Patient.id).where(name == literal("Ada")),
    "parameter": lambda name: select(Patient.id).where(name == bindparam("name")),
    "lambda": lambda name: select(Patient.id).where(lambda: name == ONE),
    "sub-query": lambda name: select(Patient.id).where(name.in_(select(Patient.city))),
    "in a sub-query": lambda name: select(Patient.id).where(Patient.city.in_(select(name))),
    "without search": lambda _: select(Patient.id).where(Patient.remark == "a"),
    "text for a list": lambda name: select(Patient.id).where(name.in_("Ada")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_columns_cannot_answer_is_refused(session: Session, name: str) -> None:
    """When it is written or compiled, in words that say what to do."""
    with pytest.raises(EncryptedQueryError, match=r"(?i)use |give |list |declare |select "):
        session.execute(REFUSED[name](Patient.name), {"name": "Ada"})


def test_a_connection_makes_no_value_of_two_columns(session: Session) -> None:
    """It would give the sealed one, which is None before a row was sealed."""
    with pytest.raises(EncryptedQueryError, match="List sealed_name and plain_name"):
        session.connection().execute(select(Patient.name))


# -- who may read -----------------------------------------------------------------------------


def test_a_mask_is_not_replaced_by_the_plaintext(pairs: Vault, session: Session) -> None:
    """Nor is plaintext given that is not sealed yet; who may read, reads both."""
    put(pairs, "Gingivitis", "Gingivitis", "notes")
    put(pairs, None, "Caries", "notes")
    for value in (*session.scalars(select(Patient.notes)), *map_notes(session)):
        assert isinstance(value, Masked)
        assert value.column == "patients.notes_sealed"
    assert session.scalars(select(Patient).where(Patient.notes.is_not(None))).all()
    with pytest.raises(MaskedError, match="searched by who may not read"):
        session.scalars(select(Patient).where(Patient.notes == "Caries"))
    session.rollback()
    with pairs.guard.reveal(Patient.sealed_notes, reason="test"):
        assert sorted(map_notes(session)) == ["Caries", "Gingivitis"]
        found = session.scalars(select(Patient.notes).where(Patient.notes == "Caries")).all()
        assert found == ["Caries"]
    assert all(map(is_masked, map_notes(session)))


def map_notes(session: Session) -> list[Any]:
    return [each.notes for each in session.scalars(select(Patient))]


def test_what_does_not_open_is_not_replaced_by_the_plaintext(
    pairs: Vault, session: Session
) -> None:
    """It stays unreadable."""
    put(pairs, "a remark", "a remark", "remark")
    pairs.run(
        "SET LOCAL session_replication_role = replica; "
        "UPDATE patients SET remark_sealed = remark_sealed || 'x'"
    )
    [patient] = session.scalars(select(Patient))
    assert is_masked(patient.remark)
    assert is_masked(session.scalar(select(Patient.remark)))


def test_history_shows_no_plaintext_of_a_mask(pairs: Vault, session: Session) -> None:
    """What was there before is masked as what is there."""
    from sqlalchemy import inspect  # noqa: PLC0415

    put(pairs, None, "Caries", "notes")
    [patient] = session.scalars(select(Patient))
    assert all(map(is_masked, inspect(patient).attrs.notes.history.unchanged))
    patient.notes = "healed"
    assert inspect(patient).attrs.notes.history.added == ["healed"]


# -- writing ----------------------------------------------------------------------------------


def made(session: Session, **values: Any) -> Patient:
    patient = Patient(id=ONE, **values)
    session.add(patient)
    session.commit()
    return patient


def changed(session: Session) -> Patient:
    """A row with another value, that was loaded."""
    return made(session, name="before")


def legacy_changed(session: Session) -> None:
    patient = changed(session)
    session.refresh(patient)
    session.expunge(patient)
    patient.name = "Ada"
    session.bulk_save_objects([patient])


def excluded(session: Session) -> None:
    statement = upsert(Patient).values(id=changed(session).id, tenant_id=A, city="", name="Ada")
    given = {"name": statement.excluded.name, "name_sealed": statement.excluded.name_sealed}
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=given))


def upserted(session: Session) -> None:
    statement = upsert(Patient).values(id=changed(session).id, tenant_id=A, city="", name="no")
    given = {"name": "Ada", "name_sealed": "Ada"}
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=given))


def copied(session: Session) -> None:
    made(session, name="Ada")
    columns = ["name", "name_sealed", "tenant_id", "id", "city"]
    source = select(
        *(TABLE.c[each] for each in columns[:3]), func.gen_random_uuid(), literal("copy")
    )
    session.execute(insert(Patient).from_select(columns, source))


ROW = {"tenant_id": A, "city": ""}
CHANGE = update(Patient).where(Patient.id == ONE)
WAYS: dict[str, Callable[[Session], Any]] = {
    "constructor": lambda session: made(session, name="Ada"),
    "attribute": lambda session: setattr(changed(session), "name", "Ada"),
    "merge": lambda session: session.merge(Patient(id=changed(session).id, name="Ada")),
    "values": lambda session: session.execute(insert(Patient).values(name="Ada")),
    "values by attribute": lambda session: session.execute(
        insert(Patient).values({Patient.name: "Ada"})
    ),
    "many values": lambda session: session.execute(
        insert(Patient).values([{"name": "Ada"}, {"name": "Ada"}])
    ),
    "bulk": lambda session: session.execute(insert(Patient), [{"name": "Ada"}] * 3),
    "bulk of one": lambda session: session.execute(insert(Patient), {"name": "Ada"}),
    "bulk returning": lambda session: session.scalars(
        insert(Patient).returning(Patient), [{"name": "Ada"}] * 3
    ).all(),
    "bulk returning it": lambda session: session.scalars(
        insert(Patient).returning(Patient.name), [{"name": "Ada"}] * 3
    ).all(),
    "values on a connection": lambda session: session.connection().execute(
        insert(Patient).values(name="Ada")
    ),
    "update": lambda session: (changed(session), session.execute(CHANGE.values(name="Ada"))),
    "update by attribute": lambda session: (
        changed(session),
        session.execute(CHANGE.values({Patient.name: "Ada"})),
    ),
    "update in order": lambda session: (
        changed(session),
        session.execute(CHANGE.ordered_values((Patient.name, "Ada"))),
    ),
    "update returning": lambda session: (
        changed(session),
        session.scalars(CHANGE.values(name="Ada").returning(Patient.name)).one(),
    ),
    "query.update": lambda session: (
        changed(session),
        session.query(Patient).filter(Patient.name == "before").update({"name": "Ada"}),
    ),
    "bulk update": lambda session: session.execute(
        update(Patient), [{"id": changed(session).id, "name": "Ada"}]
    ),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(
        Patient.__mapper__, [{**ROW, "name": "Ada"}] * 2
    ),
    "bulk_update_mappings": lambda session: session.bulk_update_mappings(
        Patient.__mapper__, [{"id": changed(session).id, "name": "Ada"}]
    ),
    "bulk_save_objects": lambda session: session.bulk_save_objects([Patient(**ROW, name="Ada")]),
    "bulk_save_objects of loaded": legacy_changed,
    "Core": lambda session: session.execute(
        insert(TABLE), [{"name": "Ada", "name_sealed": "Ada"}] * 2
    ),
    "ON CONFLICT": upserted,
    "ON CONFLICT, excluded": excluded,
    "INSERT … SELECT": copied,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_writes_both(pairs: Vault, session: Session, way: str) -> None:
    """The same value is in the one column and the other."""
    WAYS[way](session)
    session.commit()
    both_of = select(Patient.plain_name, Patient.sealed_name, Patient.name)
    assert set(map(tuple, session.execute(both_of))) == {("Ada", "Ada", "Ada")}
    assert pairs.run("SELECT count(*) FROM patients WHERE tenant_id = :b", b=B) == [(2,)]


def test_values_of_a_cached_statement_are_its_own(session: Session) -> None:
    """What is compiled once writes what is given each time."""
    changed(session)
    for value in ("first", "second", None, "third"):
        session.execute(CHANGE.values(name=value))
        row = session.execute(select(Patient.plain_name, Patient.sealed_name)).one()
        assert tuple(row) == (value, value)


def test_an_update_by_criteria_reaches_objects_that_are_held(session: Session) -> None:
    """Both of their columns."""
    patient = changed(session)
    assert patient.name == "before"
    session.execute(update(Patient).where(Patient.city == "").values(name="Ada"))
    assert (patient.plain_name, patient.sealed_name) == ("Ada", "Ada")


ALONE: dict[str, Callable[[Session], Any]] = {
    "constructor": lambda session: made(session, plain_name="Ada"),
    "attribute": lambda session: setattr(changed(session), "plain_name", "Ada"),
    "attribute to None": lambda session: setattr(changed(session), "plain_name", None),
    "values": lambda session: session.execute(insert(Patient).values(plain_name="Ada")),
    "bulk": lambda session: session.execute(insert(Patient), [{"plain_name": "Ada"}] * 2),
    "bulk with None": lambda session: session.execute(
        insert(TABLE), [{"name": "Ada", "name_sealed": "Ada"}, {"name": "Ada", "name_sealed": None}]
    ),
    "bulk, raw": lambda session: session.execute(
        insert(Patient).execution_options(dml_strategy="raw"), [{"name": "Ada"}]
    ),
    "bulk on a connection": lambda session: session.connection().execute(
        insert(Patient), [{"name": "Ada"}]
    ),
    "update": lambda session: session.execute(CHANGE.values(plain_name="Ada")),
    "bulk update": lambda session: session.execute(
        update(Patient), [{"id": changed(session).id, "plain_name": "Ada"}]
    ),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(
        Patient.__mapper__, [{**ROW, "plain_name": "Ada"}]
    ),
    "bulk_update_mappings": lambda session: session.bulk_update_mappings(
        Patient.__mapper__, [{"id": changed(session).id, "plain_name": "Ada"}]
    ),
    "Core": lambda session: session.execute(insert(TABLE).values(name="Ada")),
    "Core, many": lambda session: session.execute(insert(TABLE).values([{"name": "Ada"}] * 2)),
    "Core, NULL": lambda session: session.execute(
        insert(TABLE).values(name="Ada", name_sealed=null())
    ),
    "Core, many with None": lambda session: session.execute(
        insert(TABLE).values(
            [{"name": "Ada", "name_sealed": "Ada"}, {"name": "Ada", "name_sealed": None}]
        )
    ),
    "Core, an expression": lambda session: session.execute(
        insert(TABLE).values(name=func.upper("ada"), name_sealed=None)
    ),
    "Core update to an expression": lambda session: session.execute(
        update(TABLE).values(name=func.upper("ada"), name_sealed=None)
    ),
    "Core by parameters": lambda session: session.execute(insert(TABLE), [{"name": "Ada"}] * 2),
    "Core update": lambda session: session.execute(update(TABLE).values(name="Ada")),
    "Core update of an alias": lambda session: session.execute(
        update(NOTES.alias()).values(text="Ada")
    ),
    "Core update by parameters": lambda session: session.connection().execute(
        update(TABLE), {"name": "Ada"}
    ),
    "ON CONFLICT": lambda session: conflicting(session, {"name": "Ada"}),
    "ON CONFLICT with None": lambda session: conflicting(
        session, {"name": "Ada", "name_sealed": None}
    ),
    "ON CONFLICT with an expression": lambda session: conflicting(
        session, {"name": func.upper("ada"), "name_sealed": None}
    ),
    "ON CONFLICT by attribute": lambda session: conflicting(session, {Patient.name: "Ada"}),
    "INSERT … SELECT": lambda session: session.execute(
        insert(Patient).from_select(["name"], select(Patient.city))
    ),
    "INSERT … SELECT by attribute": lambda session: session.execute(
        insert(Patient).from_select([Patient.name], select(Patient.name))
    ),
    "expression": lambda session: session.execute(CHANGE.values(name=func.upper("ada"))),
    "parameter": lambda session: session.execute(CHANGE.values(name=bindparam("a")), {"a": "Ada"}),
    "another attribute": lambda session: session.execute(CHANGE.values(name=Patient.email)),
}


def conflicting(session: Session, given: dict[Any, Any]) -> None:
    statement = upsert(Patient).values(id=changed(session).id, tenant_id=A, city="", name="Eve")
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=given))


def flushed(session: Session, write: Callable[[Session], Any]) -> None:
    write(session)
    session.flush()


@pytest.mark.parametrize("way", ALONE)
def test_plaintext_alone_is_refused(pairs: Vault, session: Session, way: str) -> None:
    """It would not be sealed, and what is sealed would be forgotten."""
    with pytest.raises(EncryptedQueryError, match=r"both|name|Give"):
        flushed(session, ALONE[way])
    session.rollback()
    assert pairs.run(
        "SELECT count(*) FROM patients WHERE name = 'Ada' AND name_sealed IS NULL"
    ) == [(0,)]


MASK: Any = Masked("patients.notes_sealed")
MASKED_WAYS: dict[str, Callable[[Session], Any]] = {
    "constructor": lambda _: Patient(notes=MASK),
    "values": lambda session: session.execute(insert(Patient).values(notes=MASK)),
    "bulk": lambda session: session.execute(insert(Patient), [{"notes": MASK}]),
    "bulk update": lambda session: session.execute(update(Patient), [{"id": ONE, "notes": MASK}]),
    "update": lambda session: session.execute(CHANGE.values(notes=MASK)),
    "bulk_insert_mappings": lambda session: session.bulk_insert_mappings(
        Patient.__mapper__, [{**ROW, "notes": MASK}]
    ),
    "text": lambda session: made(session, notes=str(MASK)),
}


@pytest.mark.parametrize("way", MASKED_WAYS)
def test_a_mask_is_not_written(pairs: Vault, session: Session, way: str) -> None:
    """Into neither column."""
    with pytest.raises(
        MaskedError, match=r"mask was about to be written into column patients\.notes"
    ):
        MASKED_WAYS[way](session)
    session.rollback()
    assert pairs.run("SELECT count(notes) FROM patients") == [(0,)]


def statements(session: Session) -> list[str]:
    """What is sent from now on."""
    sent: list[str] = []

    def note(_c: object, _k: object, statement: str, *_: object) -> None:
        sent.append(statement)

    event.listen(session.get_bind(), "before_cursor_execute", note)
    return sent


def test_setting_a_value_writes_both_or_nothing(pairs: Vault, session: Session) -> None:
    """Plaintext that is sealed so, and stale plaintext, are written beside what is unchanged."""
    keys = [put(pairs, None, "Ada"), put(pairs, "Ada", "Eve"), put(pairs, "Ada", None)]
    same = put(pairs, "Ada", "Ada")
    for key in keys:
        session.get_one(Patient, key).name = "Ada"
    session.commit()
    for key in keys:
        patient = session.get_one(Patient, key)
        assert (patient.plain_name, patient.sealed_name) == ("Ada", "Ada")
    patient = session.get_one(Patient, same)
    assert patient.name == "Ada"
    sent = statements(session)
    patient.name = "Ada"
    session.flush()
    assert sent == []


@pytest.mark.parametrize("stage", [(None, "Ada"), ("Ada", "Eve"), ("Ada", None)])
def test_merging_writes_both(pairs: Vault, session: Session, stage: tuple[Any, Any]) -> None:
    """Also the value that one of the two columns has: alone, the other would be emptied."""
    key = put(pairs, *stage)
    session.merge(Patient(id=key, name="Ada"))
    session.commit()
    patient = session.get_one(Patient, key)
    assert (patient.plain_name, patient.sealed_name) == ("Ada", "Ada")


def test_the_triggers_keep_what_both_has_written(pairs: Vault, session: Session) -> None:
    """One statement names both columns, so neither is emptied; None empties both."""
    patient = made(session, name="Ada", number=1, born=date(1970, 1, 2), extras={"a": 1})
    for name, number, extras in (("Eve", 2, {"b": 2}), (None, None, None), ("Zoe", 3, {})):
        patient.name, patient.number, patient.extras = name, number, extras
        session.commit()
        [row] = pairs.run("SELECT name, number, extras FROM patients WHERE id = :id", id=ONE)
        assert tuple(row) == (name, number, extras)
        found = (patient.sealed_name, patient.sealed_number, patient.sealed_extras)
        assert found == (name, number, extras)
    assert (patient.born, patient.plain_born) == (date(1970, 1, 2), date(1970, 1, 2))


def test_a_change_inside_of_a_value_is_written_into_both(pairs: Vault, session: Session) -> None:
    """As often as it is changed."""
    patient = made(session, extras={"a": 1})
    for number in (2, 3):
        extras: Any = patient.extras
        extras["a"] = number
        extras["b"] = number
        session.commit()
        assert pairs.run("SELECT extras FROM patients WHERE id = :id", id=ONE) == [
            ({"a": number, "b": number},)
        ]
        assert patient.sealed_extras == {"a": number, "b": number}


def test_what_is_written_as_it_is_writes_both(pairs: Vault, session: Session) -> None:
    """Where another value of its row needs it to be sent again: stale plaintext goes."""
    key = put(pairs, "Ada", "Eve")
    patient = session.get_one(Patient, key)
    flag_modified(patient, "sealed_name")
    session.commit()
    assert (patient.plain_name, patient.sealed_name) == ("Ada", "Ada")


def test_a_value_of_another_type_is_refused_and_not_shown(session: Session) -> None:
    """By the encrypted column, before anything is sent."""
    session.add(Patient(number=operator.attrgetter("canary")))
    with pytest.raises(EncryptedValueError, match="takes an int") as caught:
        session.flush()
    assert "canary" not in str(caught.value)


def test_validators_and_listeners_see_what_is_set(session: Session) -> None:
    """As for an ordinary attribute."""
    heard: list[Any] = []

    def hear(_target: object, value: Any, *_: object) -> None:
        heard.append(value)

    event.listen(Patient.city, "set", hear)
    event.listen(Patient.remark, "set", hear)
    patient = made(session, remark="  trimmed ", city="a")
    event.remove(Patient.city, "set", hear)
    event.remove(Patient.remark, "set", hear)
    assert (patient.remark, patient.plain_remark) == ("trimmed", "trimmed")
    assert sorted(heard) == ["  trimmed ", "a"]


def test_expiring_reaches_both(pairs: Vault, session: Session) -> None:
    """By the attribute's name."""
    patient = made(session, name="Ada")
    assert patient.name == "Ada"
    pairs.run("UPDATE patients SET name = 'Eve' WHERE id = :id", id=ONE)
    assert patient.name == "Ada"
    session.expire(patient, ["name"])
    assert patient.name == "Eve"


def test_asynchronous_sessions_do_the_same(pairs: Vault, session: Session) -> None:
    """Reading, finding and each kind of writing."""
    session.close()

    async def work() -> list[Any]:
        engine = create_async_engine(address(pairs.app_url, "asyncpg"))
        pairs.guard.protect(engine)
        async with AsyncSession(engine) as of_a:
            of_a.add(Patient(id=ONE, name="Ada"))
            await of_a.execute(insert(Patient), [{"name": "Ada"}, {"name": "Eve"}])
            await of_a.commit()
            await of_a.execute(update(Patient).where(Patient.name == "Eve").values(name="Ada"))
            await of_a.commit()
            rows = await of_a.execute(
                select(Patient.name, Patient.plain_name).where(Patient.name == "Ada")
            )
            found = list(map(tuple, rows))
        await engine.dispose()
        return found

    with tenant_context(A):
        assert asyncio.run(work()) == [("Ada", "Ada")] * 3
