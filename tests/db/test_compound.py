"""A compound is always that of its row's parts, whatever writes them, and is searched as one."""

from __future__ import annotations

import uuid
from datetime import date, datetime
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from compounds import A, B, Base, Card, Nurse, Patient, Person, Staff, build
from drivers import DRIVERS
from sqlalchemy import (
    String,
    TypeDecorator,
    bindparam,
    create_engine,
    event,
    func,
    insert,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session, aliased, defer, undefer
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.orm.exc import DetachedInstanceError

from tenantguard import (
    EncryptedQueryError,
    EncryptedValueError,
    KeyUnavailableError,
    MaskedError,
    TamperedError,
    is_masked,
    rls,
    tenant_context,
)
from tenantguard.migrate.autogenerate import include_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine
    from vault import Vault

    Write = Callable[[Session], Any]

every_driver = pytest.mark.parametrize("driver", DRIVERS)
each_form = pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
TABLE: Any = Patient.__table__
CARDS: Any = Card.__table__
DAY, LATER = date(1980, 1, 2), date(1990, 3, 4)
ANNA = {"id": 1, "name": "Anna", "born": DAY}
BEN = {"id": 2, "name": "Ben", "born": LATER}
FOLLOWS = "follows the columns name, born"


@pytest.fixture(scope="module")
def world(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    built = build(admin_url, tmp_path_factory.mktemp("keys"))
    yield built
    built.dispose()


@pytest.fixture
def driver() -> str:
    return "psycopg"


@pytest.fixture
def engine(world: Vault, driver: str) -> Iterator[Engine]:
    yield world.engine(driver)
    world.close_engines()
    for table in ("patients", "cards", "persons", "nurses", "staff"):
        world.run(f"DELETE FROM {table}")


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with tenant_context(A), Session(engine) as opened:
        yield opened


def given(session: Session, *rows: dict[str, Any]) -> list[Patient]:
    """Store *rows* and return them, loaded."""
    session.add_all(Patient(**row) for row in rows or (ANNA, BEN))
    session.commit()
    return list(session.scalars(select(Patient).order_by(Patient.id)))


def checked(session: Session) -> dict[int, Any]:
    """Return each row's compound; it is that of the parts, and found by them."""
    session.commit()
    session.expunge_all()
    found = {}
    listed = select(Patient.id, Patient.name, Patient.born, Patient.name_and_born)
    for key, name, born, both in session.execute(listed):
        assert both == (None if name is None or born is None else (name, born))
        if both is not None:
            same = select(Patient.id).where(Patient.name_and_born == (both[0].upper(), born))
            assert key in session.scalars(same).all()
        found[key] = both
    return found


# -- every way to write -------------------------------------------------------------------------


def _unit_of_work(session: Session) -> None:
    session.add_all([Patient(**ANNA), Patient(**BEN), Patient(id=3, name="Cleo")])


def _in_bulk(session: Session) -> None:
    session.execute(insert(Patient), [ANNA, BEN, {"id": 3, "name": "Cleo", "born": None}])


def _in_bulk_returning(session: Session) -> None:
    rows = [ANNA, BEN, {"id": 3, "name": "Cleo", "born": None}]
    made = session.execute(insert(Patient).returning(Patient.id, Patient.name_and_born), rows)
    assert {tuple(row) for row in made} == {(1, ("Anna", DAY)), (2, ("Ben", LATER)), (3, None)}


def _many_values(session: Session) -> None:
    rows = [ANNA, BEN, {"id": 3, "name": "Cleo", "born": null()}]
    session.execute(insert(Patient).values(rows))


def _one_by_one(session: Session) -> None:
    session.execute(insert(Patient).values(ANNA))
    session.execute(insert(Patient).values(BEN))
    session.execute(insert(Patient).values(id=3, name="Cleo"))


def _on_the_connection(session: Session) -> None:
    session.connection().execute(TABLE.insert(), [ANNA, BEN])
    session.connection().execute(TABLE.insert(), {"id": 3, "name": "Cleo"})


def _parameters(session: Session) -> None:
    columns: Any = {"name": bindparam("n"), "born": bindparam("b")}
    session.connection().execute(
        TABLE.insert().values(columns),
        [
            {"id": 1, "n": "Anna", "b": DAY},
            {"id": 2, "n": "Ben", "b": LATER},
            {"id": 3, "n": "Cleo", "b": None},
        ],
    )


def _legacy_bulk(session: Session) -> None:
    session.bulk_save_objects([Patient(**ANNA), Patient(**BEN)])
    session.bulk_insert_mappings(Patient.__mapper__, [{"id": 3, "name": "Cleo"}])


def _named_otherwise(session: Session) -> None:
    """What is given for the compound itself is not taken."""
    rows = [{**row, "name_and_born": ("Zoe", DAY)} for row in (ANNA, BEN)]
    session.connection().execute(TABLE.insert(), rows)
    wrong = {"id": 3, "name": "Cleo", "name_and_born": ("Zoe", DAY)}
    session.connection().execute(TABLE.insert().values(wrong))


def _cte(session: Session) -> None:
    for row in (ANNA, BEN, {"id": 3, "name": "Cleo"}):
        made = insert(Patient).values(row).returning(Patient.id).cte()
        session.execute(select(made.c.id)).all()


def _upsert(session: Session) -> None:
    rows = [{**ANNA, "name": "Old"}, {**BEN, "name": None}, {"id": 3, "name": "Cleo", "born": DAY}]
    given(session, *rows)
    proposed = upsert(Patient)
    both = {"name": proposed.excluded.name, "born": proposed.excluded.born}
    done = proposed.on_conflict_do_update(index_elements=["id"], set_=both)
    session.execute(done.values([ANNA, BEN]))
    session.execute(done.values(id=3, name="Cleo", born=None))


def _upsert_all(session: Session) -> None:
    given(session, {**ANNA, "name": "Old"}, {**BEN, "born": None}, {"id": 3, "name": "C"})
    proposed = upsert(TABLE)
    done = proposed.on_conflict_do_update(index_elements=["id"], set_=proposed.excluded)
    rows = [ANNA, BEN, {"id": 3, "name": "Cleo", "born": None}]
    session.connection().execute(done, [{**row, "tenant_id": A, "city": "x"} for row in rows])


INSERTS: list[Write] = [
    _unit_of_work,
    _in_bulk,
    _in_bulk_returning,
    _many_values,
    _one_by_one,
    _on_the_connection,
    _parameters,
    _legacy_bulk,
    _named_otherwise,
    _cte,
    _upsert,
    _upsert_all,
]


@every_driver
@pytest.mark.parametrize("write", INSERTS, ids=lambda each: each.__name__.strip("_"))
def test_new_rows_have_the_compound_of_their_parts(session: Session, write: Write) -> None:
    """However rows are inserted; without a part there is no compound."""
    write(session)
    assert checked(session) == {1: ("Anna", DAY), 2: ("Ben", LATER), 3: None}


def _change(session: Session, **values: Any) -> None:
    (anna,) = given(session, ANNA)
    for name, value in values.items():
        setattr(anna, name, value)


def _both_in_bulk(session: Session) -> None:
    given(session, ANNA)
    session.execute(update(Patient), [{"id": 1, "name": "Ann", "born": LATER}])


def _both_by_criteria(session: Session) -> None:
    given(session, ANNA)
    changed = update(Patient).where(Patient.name_and_born == ("anna", DAY))
    session.execute(changed.values(name="Ann", born=LATER))


def _ordered(session: Session) -> None:
    given(session, ANNA)
    values = (TABLE.c.born, LATER), (TABLE.c.city, "x"), (TABLE.c.name, "Ann")
    session.execute(TABLE.update().ordered_values(*values))


def _many_by_parameters(session: Session) -> None:
    given(session, ANNA)
    changed = TABLE.update().where(TABLE.c.id == bindparam("row"))
    rows = [{"row": row, "name": "Ann", "born": LATER} for row in (1, 7)]
    session.connection().execute(changed, rows)


def _changed_in_cte(session: Session) -> None:
    given(session, ANNA)
    changed = update(Patient).values(name="Ann", born=LATER).returning(Patient.id).cte()
    session.execute(select(changed.c.id)).all()


UPDATES: dict[str, tuple[Write, Any]] = {
    "both": (lambda s: _change(s, name="Ann", born=LATER), ("Ann", LATER)),
    "first": (lambda s: _change(s, name="Ann"), ("Ann", DAY)),
    "second": (lambda s: _change(s, born=LATER), ("Anna", LATER)),
    "no part": (lambda s: _change(s, city="Bonn"), ("Anna", DAY)),
    "emptied": (lambda s: _change(s, born=None), None),
    "bulk": (_both_in_bulk, ("Ann", LATER)),
    "criteria": (_both_by_criteria, ("Ann", LATER)),
    "ordered": (_ordered, ("Ann", LATER)),
    "parameters": (_many_by_parameters, ("Ann", LATER)),
    "cte": (_changed_in_cte, ("Ann", LATER)),
}


@every_driver
@pytest.mark.parametrize("change", UPDATES)
def test_changed_rows_have_the_compound_of_their_parts(session: Session, change: str) -> None:
    """However rows are updated; of objects also when one part changes alone."""
    write, expected = UPDATES[change]
    write(session)
    assert checked(session) == {1: expected}


def _set_by_statement(session: Session) -> Any:
    return session.execute(update(Patient).values(name="Ann"))


REFUSED: dict[str, Write] = {
    "one part": _set_by_statement,
    "one part in bulk": lambda s: s.execute(update(Patient), [{"id": 1, "name": "Ann"}]),
    "one part by parameters": lambda s: s.connection().execute(TABLE.update(), {"born": DAY}),
    "one part in order": lambda s: s.execute(TABLE.update().ordered_values((TABLE.c.born, DAY))),
    "one part in a cte": lambda s: s.execute(
        select(update(Patient).values(name="Ann").returning(Patient.id).cte())
    ),
    "the compound alone": lambda s: s.execute(update(Patient).values(name_and_born=("Ann", LATER))),
    "the compound to null": lambda s: s.execute(update(Patient).values(name_and_born=None)),
    "another column": lambda s: s.execute(update(Patient).values(name="Ann", born=Patient.born)),
    "an alias": lambda s: s.execute(update(TABLE.alias()).values(city="x")),
    "a select": lambda s: s.execute(
        insert(Patient).from_select(["id", "name"], select(Patient.id + 9, Patient.name))
    ),
    "a select of all": lambda s: s.execute(
        insert(Patient).from_select(
            ["id", "name", "born", "name_and_born"],
            select(Patient.id + 9, Patient.name, Patient.born, Patient.name_and_born),
        )
    ),
    "a select of none": lambda s: s.execute(
        insert(Patient).from_select(["id"], select(Patient.id + 9))
    ),
    "a conflict, one part": lambda s: s.execute(_conflict(set_=["name"])),
    "a conflict, the compound": lambda s: s.execute(_conflict(set_=["name_and_born"])),
    "a conflict, values": lambda s: s.execute(_conflict(set_={"name": "Ann", "born": LATER})),
    "a conflict, the row's own": lambda s: s.execute(
        _conflict(set_={"name": TABLE.c.name, "born": TABLE.c.born})
    ),
    "a conflict, exchanged": lambda s: s.execute(
        _conflict(set_={"name": upsert(TABLE).excluded.name, "born": TABLE.c.born})
    ),
}


def _conflict(*, set_: Any) -> Any:
    proposed = upsert(Patient).values(ANNA)
    if isinstance(set_, list):
        set_ = {name: proposed.excluded[name] for name in set_}
    return proposed.on_conflict_do_update(index_elements=["id"], set_=set_)


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_leave_the_compound_behind_is_refused(session: Session, case: str) -> None:
    """Before anything is sent, and with what to do instead."""
    given(session, ANNA)
    sent: list[Any] = []
    event.listen(session.bind, "before_cursor_execute", lambda *args: sent.append(args[2]))
    with pytest.raises(EncryptedQueryError, match=FOLLOWS) as info:
        REFUSED[case](session)
    assert not [each for each in sent if "patients" in each]
    assert not [each for each in ("Ann", "1990") if each in str(info.value)]
    session.rollback()
    assert checked(session) == {1: ("Anna", DAY)}


# -- objects ------------------------------------------------------------------------------------


def test_a_part_that_is_not_loaded_is_read(session: Session) -> None:
    """Also a deferred or expired one, by one more statement for the row."""
    given(session)
    session.expunge_all()
    anna = session.get_one(Patient, 1, options=[defer(Patient.born)])
    anna.name = "Ann"
    assert checked(session) == {1: ("Ann", DAY), 2: ("Ben", LATER)}


def test_statements_that_a_change_costs(session: Session) -> None:
    """None more if all parts change, or none; one that locks the row if some do."""
    anna, _ = given(session)
    sent: list[str] = []
    event.listen(session.bind, "before_cursor_execute", lambda *args: sent.append(args[2]))
    for values, number in (
        ({"city": "x"}, 1),
        ({"name": "Ann", "born": LATER}, 1),
        ({"name": "Anne"}, 2),
        ({"name": "Anne"}, 0),
    ):
        sent.clear()
        for name, value in values.items():
            setattr(anna, name, value)
        session.flush()
        assert len(sent) == number
        assert number < 2 or "FOR UPDATE" in sent[0]
    assert checked(session)[1] == ("Anne", LATER)


def test_two_transactions_change_a_part_each(engine: Engine, session: Session) -> None:
    """The second waits for the first, and makes the compound of what that has left."""
    (anna,) = given(session, ANNA)
    assert (anna.name, anna.born) == ("Anna", DAY)
    with Session(engine) as other:
        same = other.get_one(Patient, 1)
        assert (same.name, same.born) == ("Anna", DAY)
        anna.name = "Ann"
        session.flush()
        same.born = LATER

        def commit() -> None:
            with tenant_context(A):
                other.commit()

        waiting = Thread(target=commit)
        waiting.start()
        session.commit()
        waiting.join()
    assert checked(session) == {1: ("Ann", LATER)}


def test_objects_do_not_keep_an_old_compound(session: Session) -> None:
    """It is loaded again after its parts have changed."""
    given(session)
    anna = session.get_one(Patient, 1, options=[undefer(Patient.name_and_born)])
    assert anna.name_and_born == ("Anna", DAY)
    anna.name, anna.born = "Ann", LATER
    session.flush()
    assert anna.name_and_born == ("Ann", LATER)
    made = Patient(**{**ANNA, "id": 3, "name_and_born": ("Anna", DAY)})
    session.add_all([made, other := Patient(id=4, name_and_born=None)])
    session.flush()
    assert (made.name_and_born, other.name_and_born) == (("Anna", DAY), None)


def _by_criteria(synchronize: str) -> Write:
    changed = update(Patient).where(Patient.id == 1).values(name="Ann", born=LATER)
    options = {"synchronize_session": synchronize}
    return lambda session: session.execute(changed, execution_options=options)


def _reload(session: Session, how: Callable[..., None]) -> None:
    """Change the row unnoticed by the session, and then let it look."""
    session.connection().execute(TABLE.update().values(name="Ann", born=LATER))
    how(session, session.get_one(Patient, 1), ["name", "born"])


FORGETTING: dict[str, Write] = {
    "auto": _by_criteria("auto"),
    "evaluate": _by_criteria("evaluate"),
    "fetch": _by_criteria("fetch"),
    "query": lambda s: s.query(Patient).update({"name": "Ann", "born": LATER}),
    "by key": lambda s: s.execute(update(Patient), [{"id": 1, "name": "Ann", "born": LATER}]),
    "refresh": lambda s: _reload(s, Session.refresh),
    "expire": lambda s: _reload(s, Session.expire),
}


@pytest.mark.parametrize("way", FORGETTING)
def test_a_compound_is_forgotten_with_its_parts(session: Session, way: str) -> None:
    """An object whose parts come anew reads it anew, and is flushed with that of its parts."""
    given(session, ANNA)
    anna = session.get_one(Patient, 1)
    assert anna.name_and_born == ("Anna", DAY)
    FORGETTING[way](session)
    assert anna.name_and_born == ("Ann", LATER)
    anna.city = "Bonn"
    session.flush()
    anna.name = "Anne"
    assert checked(session) == {1: ("Anne", LATER)}


def test_a_compound_is_not_merged_when_a_part_was_set(session: Session) -> None:
    """A detached object gives none of before; the one that it is merged into follows."""
    given(session, ANNA)
    anna = session.get_one(Patient, 1)
    assert anna.name_and_born == ("Anna", DAY)
    session.expunge(anna)
    anna.name = "Ann"
    with pytest.raises(DetachedInstanceError):
        _ = anna.name_and_born
    session.merge(anna)
    assert checked(session) == {1: ("Ann", DAY)}


def test_a_pending_change_meets_an_update_by_criteria(session: Session) -> None:
    """What is flushed then is made of the parts as they are stored."""
    given(session, ANNA)
    anna = session.get_one(Patient, 1)
    assert anna.name_and_born == ("Anna", DAY)
    with session.no_autoflush:
        anna.name = "Eve"
        _by_criteria("evaluate")(session)
        anna.city = "Bonn"
        session.flush()
    assert checked(session) == {1: ("Ann", LATER)}


def test_saving_objects_in_bulk_names_the_way(session: Session) -> None:
    """Of a loaded object it writes what has changed alone."""
    given(session, ANNA)
    anna = session.get_one(Patient, 1)
    session.expunge(anna)
    anna.name = "Ann"
    with pytest.raises(EncryptedQueryError, match=r"flush it \(bulk_save_objects writes what has"):
        session.bulk_save_objects([anna])
    session.rollback()
    anna.born = LATER
    session.bulk_save_objects([anna])
    assert checked(session) == {1: ("Ann", LATER)}


def test_objects_are_merged(session: Session) -> None:
    """An object with a loaded compound is merged, and its parts' changes with it."""
    given(session, ANNA)
    elsewhere = Patient(**ANNA, name_and_born=("Anna", DAY))
    session.merge(elsewhere)
    assert checked(session) == {1: ("Anna", DAY)}
    session.merge(Patient(id=1, name="Ann"))
    assert checked(session) == {1: ("Ann", DAY)}


@each_form
def test_classes_with_subclasses(session: Session) -> None:
    """The rows of parent and child are locked, each in its table, and both compounds follow."""
    made = {"name": "Eva", "room": 1, "practice_id": A, "ward": "West", "shift": 2}
    session.add_all([Staff(name="Ida", room=3), Nurse(**made)])
    session.commit()
    ida, eva = session.scalars(select(Staff).order_by(Staff.room.desc())).all()
    assert isinstance(eva, Nurse)
    ida.room, eva.name, eva.shift = 4, "Ava", 5
    session.commit()
    assert (ida.placed, eva.placed, eva.at) == (("Ida", 4), ("Ava", 1), ("West", 5))
    assert session.scalars(select(Nurse).where(Nurse.at == ("West", 5))).one() is eva
    assert session.scalars(select(Staff).where(Staff.placed == ("Ida", 4))).one() is ida


def test_classes_with_subclasses_in_bulk(session: Session) -> None:
    """One statement writes both tables; each follows, and a part of the parent is refused."""
    made = {"name": "Eva", "room": 1, "practice_id": A, "ward": "West", "shift": 2}
    session.execute(insert(Nurse), [made, {**made, "name": "Ada"}])
    eva = session.scalars(select(Nurse).where(Nurse.placed == ("Eva", 1))).one()
    changes = {"id": eva.id, "name": "Eve", "room": 3, "ward": "East", "shift": 4}
    session.execute(update(Nurse), [changes])
    session.expire_all()
    assert (eva.placed, eva.at) == (("Eve", 3), ("East", 4))
    for part in ({"name": "Zoe"}, {"ward": "North"}):
        with pytest.raises(EncryptedQueryError, match="does not give all of them"):
            session.execute(update(Nurse), [{"id": eva.id, **part}])


@pytest.mark.parametrize("value", [("Zoe", DAY), ("Anna", LATER), None])
def test_an_object_does_not_take_another_compound(session: Session, value: Any) -> None:
    """The attribute follows; what is assigned to it has to be what the parts are."""
    (anna,) = given(session, ANNA)
    anna.name_and_born = ("Anna", DAY)
    session.flush()
    anna.name_and_born = value
    with pytest.raises(EncryptedQueryError, match=r"name_and_born follows .* was given another"):
        session.flush()
    session.rollback()
    if value is not None:
        session.add(Patient(**{**ANNA, "id": 2, "name_and_born": value}))
        with pytest.raises(EncryptedQueryError, match="was given another value"):
            session.flush()
        session.rollback()
    assert checked(session) == {1: ("Anna", DAY)}


def test_rows_from_before_are_filled(session: Session, world: Vault) -> None:
    """As the documentation says it: those that lack it are found, and written by their parts."""
    given(session, ANNA, BEN, {"id": 3, "name": "Cleo"})
    world.run("UPDATE patients SET name_and_born = NULL")
    lacking = select(Patient).where(
        Patient.name_and_born.is_(None), Patient.name.is_not(None), Patient.born.is_not(None)
    )
    for patient in session.scalars(lacking.with_for_update()):
        flag_modified(patient, "name")
        flag_modified(patient, "born")
    assert checked(session) == {1: ("Anna", DAY), 2: ("Ben", LATER), 3: None}
    assert session.scalars(lacking).all() == []


def test_without_keys_nothing_is_written(world: Vault, session: Session) -> None:
    """An engine without a guard refuses a row with all parts; one without a part has none."""
    with world.admin.connect() as connection:
        connection.execute(CARDS.insert(), {"tenant_id": A, "year": None})
        with pytest.raises(KeyUnavailableError):
            connection.execute(TABLE.insert(), {"tenant_id": A, **ANNA})
        connection.rollback()
    with pytest.raises(KeyUnavailableError), world.admin.connect() as connection:
        connection.execute(TABLE.insert().values(tenant_id=A, name_and_born=("Anna", DAY)))
    session.rollback()


# -- bound to the row, with defaults and plain parts --------------------------------------------


@each_form
def test_defaults_are_parts(session: Session) -> None:
    """Values that Python gives by default are those of the compound, in each way to insert."""
    session.add(Card(holder="Anna"))
    session.flush()
    session.execute(insert(Card), [{"holder": "Ben"}, {"holder": "Cleo"}])
    session.execute(insert(Card).values([{"holder": "Dan"}, {"holder": "Eve"}]))
    session.connection().execute(CARDS.insert(), {"holder": "Fay", "issuer": "TK"})
    session.execute(insert(Card))
    session.commit()
    found = session.execute(select(Card.issuer, Card.year, Card.holder, Card.found_by)).all()
    assert len(found) == 7
    for *parts, compound in found:
        assert compound == (None if parts[-1] is None else tuple(parts))
    wanted = select(Card.holder).where(
        Card.found_by.in_([("AOK", 2026, "Eve"), ("TK", 2026, "Fay")])
    )
    assert sorted(session.scalars(wanted), key=str) == ["Eve", "Fay"]


def test_a_default_in_a_cte_is_refused(session: Session) -> None:
    """Which of a CTE's parameters are defaults cannot be told."""
    made = insert(Card).values(id=uuid.uuid4(), holder="Anna").returning(Card.id).cte()
    with pytest.raises(EncryptedQueryError, match="follows the columns issuer, year, holder"):
        session.execute(select(made.c.id))


class Upper(TypeDecorator[str]):
    """What is sent is not what is given."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:  # noqa: ARG002  (SQLAlchemy's)
        return value.upper()


EXPRESSIONS: dict[str, Write] = {
    "inserted": lambda s: s.execute(insert(Card).values(holder="a", issuer=func.lower("AOK"))),
    "updated": lambda s: s.execute(update(Card).values(serial=func.lower("A"), holder="a")),
    "converted": lambda s: s.execute(insert(Card).values(holder="a", serial=literal("b", Upper()))),
    "of a new object": lambda s: _flushed(s, Card(holder="a", serial=func.lower("A"))),
    "of an object": lambda s: _expression(s.scalars(select(Card)).one(), s),
    "many values": lambda s: s.execute(
        insert(Card).values([{"issuer": "a"}, {"issuer": func.lower("A")}])
    ),
}


def _flushed(session: Session, row: Card) -> None:
    session.add(row)
    session.flush()


def _expression(row: Card, session: Session) -> None:
    row.serial = func.lower("A")
    session.flush()


@pytest.mark.parametrize("case", EXPRESSIONS)
def test_a_part_that_the_database_computes_is_refused(session: Session, case: str) -> None:
    """A plain part may be given an expression by SQLAlchemy; what is it, Python cannot know."""
    session.add(Card(holder="Anna", serial="1"))
    session.commit()
    with pytest.raises(EncryptedQueryError, match="as values of Python"):
        EXPRESSIONS[case](session)
    session.rollback()
    assert session.scalars(select(Card.held)).all() == [("Anna", "1")]


@each_form
def test_a_part_may_be_of_several_compounds(session: Session) -> None:
    """What one compound needs to be written is written for the other too."""
    session.add(card := Card(holder="Anna", serial="A 12/3", issuer="TK"))
    session.commit()
    for name, value in (("serial", "9"), ("issuer", "AOK"), ("holder", "Ann"), ("year", 1)):
        setattr(card, name, value)
        session.commit()
        parts = (card.issuer, card.year, card.holder), (card.holder, card.serial)
        assert (card.found_by, card.held) == parts
        by_both = Card.found_by == parts[0], Card.held == parts[1]
        assert session.scalars(select(Card.id).where(*by_both)).all() == [card.id]
    found = select(Card.serial).where(Card.held == ("Ann", "No. 9"))
    assert session.scalars(found).all() == ["9"]


@each_form
def test_compounds_are_bound_to_their_row(world: Vault, session: Session) -> None:
    """One that is moved to another row does not open there; changes are sealed for the row."""
    session.add_all([Card(holder="Anna"), Card(holder="Ben")])
    session.commit()
    anna = session.scalars(select(Card).where(Card.found_by == ("AOK", 2026, "Anna"))).one()
    anna.issuer = "TK"
    session.commit()
    assert anna.found_by == ("TK", 2026, "Anna")
    world.run("UPDATE cards SET found_by = (SELECT found_by FROM cards WHERE issuer = 'TK')")
    with pytest.raises(TamperedError):
        session.execute(select(Card.found_by)).all()
    session.rollback()


# -- searches -----------------------------------------------------------------------------------


@every_driver
def test_rows_are_found_by_all_parts_together(session: Session) -> None:
    """Equality and IN, by the parts' own equality; one part alone finds nothing."""
    given(session, ANNA, BEN, {**ANNA, "id": 3, "name": "ANNA"}, {"id": 4, "name": "Anna"})
    session.expunge_all()
    both: Any = Patient.name_and_born
    alias = aliased(Patient)
    questions = {
        both == ("anna", DAY): [1, 3],
        both == bindparam("q", ("ANNA", DAY)): [1, 3],
        both == ("Anna", LATER): [],
        both != ("Anna", DAY): [2],
        both.in_([("anna", DAY), ("BEN", LATER), ("Zoe", DAY)]): [1, 2, 3],
        both.in_([]): [],
        both.not_in([("Ben", LATER)]): [1, 3],
        both.is_(None): [4],
        both.is_not(None): [1, 2, 3],
    }
    for question, expected in questions.items():
        assert session.scalars(select(Patient.id).where(question).order_by("id")).all() == expected
    found = select(alias.id).where(alias.name_and_born == ("Ben", LATER))
    assert session.scalars(found).all() == [2]
    assert session.query(Patient).filter_by(name_and_born=("Ben", LATER)).one().id == 2
    with tenant_context(B), Session(session.bind) as other:
        assert other.scalars(select(Patient.id).where(both == ("Anna", DAY))).all() == []


UNFIT: list[Any] = [
    ("geheim",),
    ("geheim", DAY, 1),
    ["geheim", DAY],
    "geheim",
    ("geheim", None),
    ("geheim", datetime(1980, 1, 2)),  # noqa: DTZ001  (any datetime)
    (DAY, "geheim"),
    (b"geheim", DAY),
]


@pytest.mark.parametrize("value", UNFIT, ids=range(len(UNFIT)))
def test_other_values_are_refused(session: Session, value: Any) -> None:
    """Another number or other types of parts; the message does not show them."""
    for question in (
        Patient.name_and_born == value,
        Patient.name_and_born.in_([("a", DAY), value]),
    ):
        with pytest.raises(EncryptedValueError, match=r"a tuple of \(a str, a date\)") as info:
            session.execute(select(Patient.id).where(question))
        assert "geheim" not in str(info.value)
        session.rollback()


def test_one_tuple_is_no_list_of_tuples(session: Session) -> None:
    """in_() of one tuple would look for its parts."""
    with pytest.raises(EncryptedValueError, match="a value of type str"):
        session.execute(select(Patient.id).where(Patient.name_and_born.in_(("Anna", DAY))))


def test_only_the_compound_shows_what_is_equal(session: Session, world: Vault) -> None:
    """Rows that share a name, or a day, share no byte in the database; equal pairs their index."""
    rows = [ANNA, {**ANNA, "id": 2, "born": LATER}, {**BEN, "id": 3}, {**ANNA, "id": 4}]
    given(session, *rows)
    stored = world.run(
        "SELECT substring(name, 1, 20), substring(born, 1, 20), name_and_born_bidx, "
        "substring(name_and_born, 5, 16) FROM patients ORDER BY id"
    )
    assert len({row[0] for row in stored}) == len({row[1] for row in stored}) == 4
    indexes = [row[2] for row in stored]
    assert indexes == [row[3] for row in stored]
    assert indexes[0] == indexes[3]
    assert len(set(indexes)) == 3


def test_an_index_finds_rows(session: Session, world: Vault) -> None:
    """The hidden column has an index that begins with the tenant."""
    (index,) = (each for each in TABLE.indexes if "name_and_born_bidx" in each.columns)
    assert [each.name for each in index.columns] == ["tenant_id", "name_and_born_bidx"]
    query = str(select(Patient.id).where(Patient.name_and_born == ("a", DAY)))
    assert "name_and_born_bidx = " in query
    assert world.run(f"SELECT 1 FROM pg_indexes WHERE indexname = '{index.name}'") == [(1,)]
    session.rollback()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Patient.name_and_born < ("a", DAY),
        lambda: select(Patient.id).order_by(Patient.name_and_born),
        lambda: select(func.max(Patient.name_and_born)),
        lambda: select(Patient.name_and_born).distinct(),
    ],
)
def test_other_questions_are_refused(session: Session, ask: Callable[[], Any]) -> None:
    """As for every encrypted column."""
    with pytest.raises(EncryptedQueryError):
        session.execute(ask())


# -- who may read -------------------------------------------------------------------------------


def test_restricted_parts_restrict_the_compound(session: Session, world: Vault) -> None:
    """Who may not read a part neither reads nor searches the compound, nor writes it anew."""
    session.add(Person(first="Anna", last="Muster"))
    session.commit()
    wanted = select(Person.both).where(Person.both == ("Anna", "Muster"))
    assert is_masked(session.scalars(select(Person.both)).one())
    with pytest.raises(MaskedError, match="was searched by who may not read it"):
        session.execute(wanted)
    session.rollback()
    person = session.scalars(select(Person)).one()
    person.first = "Ann"
    with pytest.raises(MaskedError):
        session.flush()
    session.rollback()
    person.first, person.last = "Ann", "Master"
    session.commit()
    with tenant_context(A, purpose="treatment"), Session(session.bind) as reader:
        assert reader.scalars(select(Person.both)).all() == [("Ann", "Master")]
        assert reader.scalars(wanted).all() == []
    world.guard.catalog.check()


# -- the database -------------------------------------------------------------------------------


def test_the_database_refuses_a_compound_without_its_index(world: Vault) -> None:
    """The check of every searchable column holds for it, whoever writes."""
    row = f"INSERT INTO patients (tenant_id, city, name_and_born) VALUES ('{A}', '', :stored)"
    for stored in (b"plain", b"\x9eT\x01\x00" + bytes(60)):
        with pytest.raises(Exception, match="patients_name_and_born_sealed"):
            world.run(row, stored=stored)


def _compared(world: Vault) -> list[tuple[str, str]]:
    """Return what Alembic would change."""
    options = {"compare_type": True, "include_object": include_object}
    with world.admin.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, Base.metadata)
    return [(each[0], each[-1].name) for each in found]


def _verified(world: Vault) -> set[tuple[str, str | None]]:
    """Return what the second lock finds on a connection of the application's login."""
    engine = create_engine(world.app_url)
    raw = engine.raw_connection()
    found = rls.verify(raw.driver_connection, world.guard.catalog, world.guard.roles)
    raw.close()
    engine.dispose()
    return {(each.code, each.column) for each in found}


def test_tools_know_what_a_compound_needs(world: Vault) -> None:
    """Its hidden column, index and check are found missing, and made, as another column's are."""
    catalog, roles = world.guard.catalog, world.guard.roles
    assert _verified(world) == set()
    assert _compared(world) == []
    world.run("ALTER TABLE patients DROP COLUMN name_and_born_bidx")
    world.run("ALTER TABLE patients DROP CONSTRAINT patients_name_and_born_sealed")
    assert _compared(world) == [
        ("add_column", "name_and_born_bidx"),
        ("add_index", "ix_patients_name_and_born_bidx"),
    ]
    assert _verified(world) == {
        ("search-column-missing", "name_and_born_bidx"),
        ("format-check-missing", "name_and_born"),
    }
    rls.apply(world.admin, catalog, roles)
    assert _verified(world) == set()
    assert _compared(world) == []
