"""Every way to write that SQLAlchemy has stores ciphertext, which opens again."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from drivers import DRIVERS
from sqlalchemy import Engine, bindparam, event, insert, literal, null, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import (
    Session,
    aliased,
    defer,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    undefer,
)
from vault import A, Patient, Severity, Visit

from tenantguard import EncryptedValueError, TamperedError, tenant_context
from tenantguard.crypto.format import MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault import Vault

    Write = Callable[[Session], Any]

every_driver = pytest.mark.parametrize("driver", DRIVERS)
TABLE: Any = Patient.__table__
IN_UTC = datetime(2024, 5, 6, 7, 8, 9, 1234, tzinfo=UTC)

VALUES: dict[str, Any] = {
    "name": "Jürgen 'O\\Neil' 🦷\n",
    "phone": "030 / 12 34",
    "email": "J@Example.com",
    "born": date(1970, 12, 31),
    "insured": UUID(int=7),
    "fee": Decimal("12.50"),
    "number": -(10**30),
    "smoker": False,
    "seen_at": IN_UTC,
    "scan": b"\x00\xff",
    "weight": -0.1,
    "wakes": time(6, 30, tzinfo=timezone(timedelta(hours=2))),
    "severity": Severity.SEVERE,
    "extras": {"a": {"b": [1]}},
    "tags": ["a", {"b": None}],
    "policy": "AOK-12/34-5678",
    "history": {"teeth": [11, 48], "ok": None, "ä": 1.5},
    "notes": "",
}


@pytest.fixture
def engine(vault: Vault, driver: str) -> Iterator[Engine]:
    """An engine of each driver; what its test has committed is gone afterwards."""
    made = vault.engine(driver)
    yield made
    made.dispose()
    vault.run("DELETE FROM visits")
    vault.run("DELETE FROM patients")


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with tenant_context(A), Session(engine) as opened:
        yield opened


def sealed(vault: Vault, column: str, table: str = "patients") -> list[bytes]:
    """What is stored, NULL left out; nothing of it is plaintext."""
    rows = vault.run(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY id")
    found = [bytes(row[0]) for row in rows]
    assert all(each.startswith(MAGIC) for each in found)
    return found


def names(session: Session) -> list[str]:
    session.expire_all()
    return list(session.scalars(select(Patient.name).order_by(Patient.id)))


def sent_by(engine: Engine, work: Callable[[], Any]) -> list[str]:
    """The statements that *work* sends."""
    statements: list[str] = []

    def note(*args: Any) -> None:
        statements.append(args[2])

    event.listen(engine, "before_cursor_execute", note)
    work()
    event.remove(engine, "before_cursor_execute", note)
    return statements


# -- all types --------------------------------------------------------------------------------


@every_driver
def test_every_type_comes_back(vault: Vault, session: Session) -> None:
    """Each type's value is stored sealed, and read as it was written."""
    session.add(Patient(**VALUES))
    session.commit()
    session.expunge_all()
    read = session.scalars(select(Patient)).one()
    assert {name: getattr(read, name) for name in VALUES} == VALUES
    assert str(read.fee) == "12.50"
    for name, value in VALUES.items():
        assert len(sealed(vault, name)) == 1
        assert not isinstance(value, str) or not value or value.encode() not in sealed(vault, name)


@every_driver
def test_null_stays_null_and_an_empty_text_does_not(vault: Vault, session: Session) -> None:
    """None is NULL, which anybody sees; an empty text is sealed like any other."""
    session.add(Patient(id=1, name="", notes="", phone=None))
    session.commit()
    session.expunge_all()
    read = session.get_one(Patient, 1)
    assert (read.name, read.notes, read.phone, read.history) == ("", "", None, None)
    assert (len(sealed(vault, "name")), len(sealed(vault, "notes"))) == (1, 1)
    assert sealed(vault, "phone") == sealed(vault, "history") == []
    assert vault.run("SELECT phone_bidx FROM patients") == [(None,)]


@every_driver
def test_equal_values_are_sealed_differently(vault: Vault, session: Session) -> None:
    """Only the blind index tells that two values are equal."""
    session.execute(insert(Patient), [{"name": "Same", "notes": "Same"} for _ in range(3)])
    session.commit()
    assert len(set(sealed(vault, "name"))) == len(set(sealed(vault, "notes"))) == 3
    assert len({each[4:20] for each in sealed(vault, "name")}) == 1


@every_driver
def test_aware_datetimes_come_back_in_utc(session: Session) -> None:
    """The moment is kept, the zone is not; a naive datetime stays naive."""
    elsewhere = IN_UTC.astimezone(timezone(timedelta(hours=-5)))
    naive = IN_UTC.replace(tzinfo=None)
    session.add_all([Patient(name="a", seen_at=elsewhere), Patient(name="b", seen_at=naive)])
    session.commit()
    found = list(session.scalars(select(Patient.seen_at).order_by(Patient.id)))
    assert found == [IN_UTC, naive]
    assert found[0] is not None
    assert found[0].tzinfo is UTC


# -- every way to write -----------------------------------------------------------------------

ROWS = [{"id": number, "name": f"new {number}"} for number in (1, 2, 3)]
NEW = [row["name"] for row in ROWS]


def _unit_of_work(session: Session) -> None:
    session.add_all([Patient(**row) for row in ROWS])


def _excluded(statement: Any) -> Any:
    return statement.on_conflict_do_update(
        index_elements=["id"], set_={"name": statement.excluded.name}
    )


NEXT = "nextval(pg_get_serial_sequence('patients', 'id'))"


def _copied(session: Session, source: Callable[[], Any]) -> None:
    session.execute(insert(Patient), ROWS)
    # The rows have numbers that the sequence would give the copies.
    session.execute(text(f"SELECT {NEXT} FROM generate_series(1, {len(ROWS)})"))
    session.execute(insert(Patient).from_select(["name", "city"], source()))
    session.execute(text("DELETE FROM patients WHERE id <= 3 AND city = ''"))


INSERTS: dict[str, Write] = {
    "unit of work": _unit_of_work,
    "orm bulk": lambda s: s.execute(insert(Patient), ROWS),
    "orm values": lambda s: [s.execute(insert(Patient).values(**row)) for row in ROWS],
    "orm many values": lambda s: s.execute(insert(Patient).values(ROWS)),
    "core bulk": lambda s: s.connection().execute(insert(TABLE), ROWS),
    "core values": lambda s: [s.connection().execute(insert(TABLE).values(r)) for r in ROWS],
    "core many values": lambda s: s.connection().execute(insert(TABLE).values(ROWS)),
    "named parameters": lambda s: s.connection().execute(
        insert(TABLE).values(id=bindparam("i"), name=bindparam("n")),
        [{"i": row["id"], "n": row["name"]} for row in ROWS],
    ),
    "typed literal": lambda s: [
        s.execute(
            insert(Patient).values(id=row["id"], name=literal(row["name"], Patient.name.type))
        )
        for row in ROWS
    ],
    "legacy bulk": lambda s: s.bulk_insert_mappings(Patient, ROWS),
    "legacy save": lambda s: s.bulk_save_objects([Patient(**row) for row in ROWS]),
    "merge": lambda s: [s.merge(Patient(**row)) for row in ROWS],
    "upsert": lambda s: s.execute(_excluded(upsert(Patient)), ROWS),
    "in a cte": lambda s: s.execute(
        select(insert(Patient).values(ROWS).returning(Patient.id).cte().c.id)
    ),
    "from select": lambda s: _copied(
        s, lambda: select(Patient.name, literal("copy")).order_by(Patient.id)
    ),
    "from select of an alias": lambda s: _copied(
        s, lambda: select((p := aliased(Patient)).name.label("x"), literal("copy")).order_by(p.id)
    ),
    "from select of a sub-query": lambda s: _copied(
        s,
        lambda: select(
            (q := select(Patient.id, Patient.name).subquery()).c.name, literal("copy")
        ).order_by(q.c.id),
    ),
    "from select of a union": lambda s: _copied(
        s,
        lambda: select(
            (
                q := select(Patient.id, Patient.name)
                .where(Patient.id < 2)
                .union_all(select(Patient.id, Patient.name).where(Patient.id >= 2))
                .subquery()
            ).c.name,
            literal("copy"),
        ).order_by(q.c.id),
    ),
}


@every_driver
@pytest.mark.parametrize("way", INSERTS)
def test_every_insert_seals(vault: Vault, session: Session, way: str) -> None:
    """However rows are inserted, their values are sealed, open and are found again."""
    INSERTS[way](session)
    session.commit()
    assert names(session) == NEW
    found = select(Patient.name).where(Patient.name == "NEW 2")
    assert list(session.scalars(found)) == ["new 2"]
    assert len(set(sealed(vault, "name"))) == 3


def _loaded(session: Session) -> None:
    session.get_one(Patient, 2).name = "changed"


def _ordered(session: Session, value: Any) -> None:
    changes = ((Patient.city, "K"), (Patient.name, value))
    session.execute(update(Patient).ordered_values(*changes).where(Patient.id == 2))


def _upserted(value: Callable[[Any], Any]) -> Write:
    def write(session: Session) -> None:
        statement = upsert(Patient).values(id=2, name="changed")
        session.execute(
            statement.on_conflict_do_update(index_elements=["id"], set_={"name": value(statement)})
        )

    return write


def _upserted_whole(session: Session) -> None:
    statement = upsert(TABLE).values(id=2, tenant_id=A, name="changed")
    statement = statement.on_conflict_do_update(index_elements=["id"], set_=statement.excluded)
    session.connection().execute(statement)


def _from_another_row(session: Session) -> None:
    source = aliased(Patient)
    session.execute(insert(Patient).values(id=9, name="changed"))
    session.execute(update(Patient).values(name=source.name).where(source.id == Patient.id + 7))
    session.execute(text("DELETE FROM patients WHERE id = 9"))


def _where_equal(*, way: Any) -> Write:
    def write(session: Session) -> None:
        loaded = session.get_one(Patient, 2)
        session.execute(
            update(Patient).where(Patient.name == "NEW 2").values(name="changed"),
            execution_options={"synchronize_session": way},
        )
        assert loaded.name == ("new 2" if way is False else "changed")

    return write


def _after_a_change(write: Write) -> Write:
    def both(session: Session) -> None:
        _loaded(session)
        session.flush()
        write(session)

    return both


UPDATES: dict[str, Write] = {
    "unit of work": _loaded,
    "by primary key": lambda s: s.execute(update(Patient), [{"id": 2, "name": "changed"}]),
    "many by primary key": lambda s: s.execute(
        update(Patient), [{"id": 2, "name": "changed"}, {"id": 3, "name": "new 3"}]
    ),
    "where equal": _where_equal(way="auto"),
    "where equal, fetched": _where_equal(way="fetch"),
    "where equal, not synchronized": _where_equal(way=False),
    "orm": lambda s: s.execute(update(Patient).where(Patient.id == 2).values(name="changed")),
    "core": lambda s: s.connection().execute(
        update(TABLE).where(TABLE.c.name == "new 2").values(name="changed")
    ),
    "core many": lambda s: s.connection().execute(
        update(TABLE).where(TABLE.c.name == bindparam("old")).values(name=bindparam("new")),
        [{"old": "new 2", "new": "changed"}, {"old": "nobody", "new": "x"}],
    ),
    "ordered": lambda s: _ordered(s, "changed"),
    "ordered, itself": _after_a_change(lambda s: _ordered(s, Patient.name)),
    "itself": _after_a_change(lambda s: s.execute(update(Patient).values(name=TABLE.c.name))),
    "another row": _from_another_row,
    "legacy": lambda s: s.query(Patient).filter_by(name="NEW 2").update({"name": "changed"}),
    "legacy bulk": lambda s: s.bulk_update_mappings(Patient, [{"id": 2, "name": "changed"}]),
    "merge": lambda s: s.merge(Patient(id=2, name="changed")),
    "upsert, excluded": _upserted(lambda statement: statement.excluded.name),
    "upsert, a value": _upserted(lambda _: "changed"),
    "upsert, itself": _after_a_change(_upserted(lambda _: Patient.name)),
    "upsert, all that is excluded": _upserted_whole,
}


@every_driver
@pytest.mark.parametrize("way", UPDATES)
def test_every_update_seals(vault: Vault, session: Session, way: str) -> None:
    """However a row is changed, its new value is sealed, opens, and is found; the old is not."""
    session.execute(insert(Patient), ROWS)
    session.commit()
    UPDATES[way](session)
    session.commit()
    assert names(session) == ["new 1", "changed", "new 3"]
    assert session.scalar(select(Patient.id).where(Patient.name == "Changed")) == 2
    assert session.scalar(select(Patient.id).where(Patient.name == "new 2")) is None
    assert len(set(sealed(vault, "name"))) == 3


@every_driver
def test_an_upsert_searches_too(session: Session) -> None:
    """ON CONFLICT … WHERE compares with the stored row, and with the one to be inserted."""
    session.execute(insert(Patient), ROWS)
    for condition, found in (
        (lambda _: Patient.name == "NEW 2", True),
        (lambda _: Patient.name == "new 1", False),
        (lambda excluded: excluded.name == "CHANGED", True),
        (lambda excluded: excluded.name == "new 2", False),
    ):
        statement = upsert(Patient).values(id=2, name="changed")
        statement = statement.on_conflict_do_update(
            index_elements=["id"], set_={"city": "hit"}, where=condition(statement.excluded)
        )
        changed = session.execute(statement.returning(Patient.name)).scalars().all()
        assert changed == (["new 2"] if found else [])


@every_driver
def test_many_rows_at_once(vault: Vault, session: Session) -> None:
    """More rows than one message holds: each RETURNING row has its own value."""
    rows = [{"name": f"p {number}", "notes": str(number)} for number in range(1100)]
    returned = session.execute(
        insert(Patient).returning(Patient.name, Patient.notes, sort_by_parameter_order=True), rows
    )
    assert [tuple(row) for row in returned] == [(row["name"], row["notes"]) for row in rows]
    session.commit()
    assert len(set(sealed(vault, "notes"))) == 1100


@every_driver
def test_returning_opens(session: Session) -> None:
    """RETURNING gives plaintext after INSERT, UPDATE and DELETE, of columns and of entities."""
    inserted = session.scalars(insert(Patient).returning(Patient), ROWS).all()
    assert [each.name for each in inserted] == NEW
    changed = update(Patient).where(Patient.id == 1).values(notes="n")
    assert session.execute(changed.returning(Patient.name, Patient.notes)).one() == ("new 1", "n")
    deleted = session.execute(
        TABLE.delete().where(TABLE.c.id == 3).returning(TABLE.c.name.label("gone"))
    )
    assert deleted.scalar_one() == "new 3"


@every_driver
def test_null_is_written_in_every_way(vault: Vault, session: Session) -> None:
    """None and null() empty a column, in values, in SET and in parameters."""
    session.execute(insert(Patient), [{"id": n, "name": "x", "notes": "n"} for n in range(1, 5)])
    session.execute(update(Patient).where(Patient.id == 1).values(notes=None))
    session.execute(update(Patient).where(Patient.id == 2).values(notes=null()))
    session.execute(update(Patient), [{"id": 3, "notes": None}])
    session.execute(insert(Patient).values(id=5, name="x", notes=null()))
    session.commit()
    assert len(sealed(vault, "notes")) == 1


# -- reading ----------------------------------------------------------------------------------


@every_driver
def test_server_side_cursors_open(session: Session) -> None:
    """What is fetched in parts is opened part by part."""
    session.execute(insert(Patient), ROWS)
    query = select(Patient).order_by(Patient.id)
    parts = session.scalars(query.execution_options(yield_per=2)).partitions()
    assert [[each.name for each in part] for part in parts] == [NEW[:2], NEW[2:]]
    options = {"stream_results": True, "max_row_buffer": 1}
    streamed = session.connection().execute(select(TABLE.c.name), execution_options=options)
    assert sorted(streamed.scalars()) == NEW


@every_driver
def test_text_opens_and_searches(session: Session) -> None:
    """SQL text opens what is declared as the column, and searches the index it names."""
    session.execute(insert(Patient), ROWS)
    query = text("SELECT id, name FROM patients ORDER BY id")
    for columns in (query.columns(Patient.id, Patient.name), query.columns(name=TABLE.c.name.type)):
        assert [row.name for row in session.execute(columns)] == NEW
    whole = select(Patient).from_statement(text("SELECT * FROM patients ORDER BY id"))
    assert [each.name for each in session.scalars(whole)] == NEW
    named = query.columns(Patient.id, Patient.name).subquery()
    assert session.scalar(select(named.c.id).where(named.c.name == "NEW 3")) == 3
    sought: Any = TABLE.c.name.type.search_value()
    indexed = text("SELECT id FROM patients WHERE name_bidx = :name")
    assert session.scalar(indexed.bindparams(bindparam("name", "NEW 3", type_=sought))) == 3
    written = text("UPDATE patients SET name = :name WHERE id = 3")
    session.execute(written.bindparams(bindparam("name", "text", type_=TABLE.c.name.type)))
    assert names(session)[2] == "text"


@every_driver
@pytest.mark.parametrize("load", [lazyload, joinedload, selectinload, subqueryload])
def test_relationships_open(session: Session, load: Any) -> None:
    """Related rows are opened however they are loaded."""
    session.add(Patient(name="p", visits=[Visit(reason="first"), Visit(reason="second")]))
    session.commit()
    session.expunge_all()
    patient = session.scalars(select(Patient).options(load(Patient.visits))).unique().one()
    assert [each.reason for each in patient.visits] == ["first", "second"]
    session.expunge_all()
    visit = session.scalars(select(Visit).options(load(Visit.patient))).unique().first()
    assert visit is not None
    assert visit.patient.name == "p"


@every_driver
def test_deferred_and_refreshed_columns_open(session: Session) -> None:
    """A column that is loaded later is opened then."""
    session.add(Patient(id=1, name="p", notes="n"))
    session.commit()
    session.expunge_all()
    patient = session.scalars(select(Patient).options(defer(Patient.notes))).one()
    assert "notes" not in patient.__dict__
    assert patient.notes == "n"
    session.refresh(patient, ["name"])
    assert patient.name == "p"
    eager = select(Patient).options(undefer(Patient.notes))
    assert session.scalars(eager).one().notes == "n"


# -- what it costs ----------------------------------------------------------------------------


@every_driver
def test_other_changes_leave_the_ciphertext(vault: Vault, engine: Engine, session: Session) -> None:
    """A change of another column sends one UPDATE of that one, and nothing is fetched again."""
    session.execute(insert(Patient), ROWS)
    session.commit()
    before = sealed(vault, "name")
    patient = session.get_one(Patient, 1)
    patient.city = "K"

    def change() -> None:
        session.flush()
        assert (patient.name, patient.notes) == ("new 1", None)

    statements = sent_by(engine, change)
    assert len(statements) == 1
    assert "name" not in statements[0]
    session.commit()
    assert sealed(vault, "name") == before


@every_driver
def test_writing_costs_no_statement_more(engine: Engine, session: Session) -> None:
    """INSERT and UPDATE of an encrypted column are one statement each, also when read after."""
    session.connection()
    patient = Patient(name="p")
    session.add(patient)

    def flush() -> None:
        session.flush()
        assert (patient.name, patient.born) == (patient.name, None)

    inserted = sent_by(engine, flush)
    patient.name = "q"
    updated = sent_by(engine, flush)
    assert (len(inserted), len(updated)) == (1, 1)
    queries = [str(select(Patient)), str(select(TABLE))]
    assert "bidx" not in "".join([*inserted, *updated, *queries])


@every_driver
def test_an_unchanged_value_is_not_written(engine: Engine, session: Session) -> None:
    """Setting what is there already changes nothing, as with a plain column."""
    session.add(Patient(id=1, name="p", fee=Decimal("1.5")))
    session.commit()
    patient = session.get_one(Patient, 1)
    patient.name, patient.fee = "p", Decimal("1.5")
    assert sent_by(engine, session.flush) == []


@every_driver
def test_a_value_of_another_type_is_refused(engine: Engine, session: Session) -> None:
    """A wrong type is an error that names the column and not the value; nothing is sent."""
    for column, value in (("name", 5), ("number", "5"), ("born", IN_UTC), ("fee", 1.5)):
        statement = insert(Patient).values({"name": "x", column: value})

        def refused(statement: Any = statement) -> None:
            with pytest.raises(EncryptedValueError, match=f"patients.{column} takes"):  # noqa: B023
                session.execute(statement)

        assert sent_by(engine, refused) == []


# -- what somebody else has written ------------------------------------------------------------

MOVED = {
    "to another column": "UPDATE patients SET email = phone",
    "under another index": (
        "UPDATE patients SET email = substring(email, 1, 4) || substring(phone, 5, 16) "
        "|| substring(email, 21)"
    ),
    "changed": "UPDATE patients SET email = set_byte(email, 50, get_byte(email, 50) # 1)",
}


@every_driver
@pytest.mark.parametrize("how", MOVED)
def test_what_was_moved_does_not_open(vault: Vault, session: Session, how: str) -> None:
    """A stored value opens in its own column, with its own blind index, and unchanged only."""
    session.add(Patient(name="n", phone="1", email="e@example.com", notes="n"))
    session.commit()
    vault.run(MOVED[how])
    with pytest.raises(TamperedError, match="altered, or sealed for another"):
        session.scalars(select(Patient.email)).all()
