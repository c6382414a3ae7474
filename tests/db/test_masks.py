"""Who may not read a value gets a mask: not opened, not comparable, not written, not searched."""

from __future__ import annotations

import asyncio
import copy
import csv
import io
import json
import logging
import pickle
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from unittest.mock import patch
from uuid import UUID

import pytest
from drivers import DRIVERS
from masking import Draft, Jaw, Patient, Visit
from sqlalchemy import Engine, bindparam, func, insert, select, text, union_all, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased, joinedload, load_only, make_transient, selectinload
from vault import A, B

from tenantguard import (
    ConfigurationError,
    Masked,
    MaskedError,
    RevealEvent,
    TenantNotSetError,
    current_tenant,
    is_masked,
    searched,
    tenant_context,
)
from tenantguard.crypto.tenant_keys import TenantKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault import Vault

every_driver = pytest.mark.parametrize("driver", DRIVERS)
CARE = "treatment"
WRITTEN = r"mask was about to be written into column patients\.notes"

RESTRICTED: dict[str, Any] = {
    "notes": "Canary Gingivitis",
    "email": "canary@example.com",
    "scan": b"canary",
    "number": 815_4711,
    "fee": Decimal("81.54711"),
    "born": date(1970, 12, 31),
    "seen_at": datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC),
    "smoker": True,
    "insured": UUID(int=8154711),
    "history": {"canary": [11, 48]},
    "weight": 81.54711,
    "comes_at": time(8, 15, 47, 110),
    "jaw": Jaw.LOWER,
    "extras": {"canary": 4711},
    "teeth": ["canary", 48],
    "report": "Canary report",
}


@pytest.fixture
def engine(masked: Vault, driver: str) -> Iterator[Engine]:
    """An engine of each driver, and patient 1 with a visit."""
    made = masked.engine(driver)
    with tenant_context(A), Session(made) as session:
        session.add(Patient(id=1, name="Anna", secret="Canary secret", **RESTRICTED))
        session.add(Visit(id=1, patient_id=1, reason="Canary pain"))
        session.commit()
    yield made
    made.dispose()
    masked.run("DELETE FROM visits")
    masked.run("DELETE FROM patients")


@pytest.fixture
def listened(masked: Vault) -> Iterator[list[RevealEvent]]:
    """The events of the guard, which has no listener after the test."""
    heard: list[RevealEvent] = []
    masked.guard.on_reveal(heard.append)
    yield heard
    masked.guard._listeners.clear()


def stored(masked: Vault) -> list[Any]:
    """Everything that is stored of patients, as the database has it."""
    return masked.run("SELECT * FROM patients ORDER BY id")


# -- reading ----------------------------------------------------------------------------------


@every_driver
@pytest.mark.parametrize("purpose", [None, "billing", "Treatment"])
def test_who_may_not_read_gets_masks(engine: Engine, purpose: str | None) -> None:
    """Of every type, with no purpose and with another; what is not restricted is read."""
    with tenant_context(A, purpose=purpose), Session(engine) as session:
        patient = session.scalars(select(Patient)).one()
        read = {name: getattr(patient, name) for name in (*RESTRICTED, "secret")}
        if purpose == "billing":
            assert read.pop("email") == RESTRICTED["email"]
        assert all(map(is_masked, read.values()))
        assert patient.name == "Anna"
        assert {each.column for each in read.values()} == {f"patients.{name}" for name in read}


@every_driver
def test_who_may_read_gets_the_values(engine: Engine) -> None:
    """The purpose of the tenant context decides; an empty set of purposes has none that may."""
    with tenant_context(A, purpose=CARE), Session(engine) as session:
        patient = session.scalars(select(Patient)).one()
        assert {name: getattr(patient, name) for name in RESTRICTED} == RESTRICTED
        assert is_masked(patient.secret)
        assert not any(is_masked(each) for each in RESTRICTED.values())


SHAPES: dict[str, Callable[[], Any]] = {
    "column": lambda: select(Patient.notes),
    "core": lambda: select(Patient.__table__.c.notes),
    "label": lambda: select(Patient.notes.label("x")),
    "alias": lambda: select(aliased(Patient).notes),
    "sub-query": lambda: select(select(Patient.notes).subquery().c.notes),
    "cte": lambda: select(select(Patient.notes).cte().c.notes),
    "scalar": lambda: select(select(Patient.notes).scalar_subquery()),
    "union": lambda: union_all(select(Patient.notes), select(Patient.notes)),
    "insert": lambda: insert(Patient).values(id=2, name="x", notes="y").returning(Patient.notes),
    "update": lambda: update(Patient).values(notes="y").returning(Patient.notes),
    "upsert": lambda: (
        upsert(Patient)
        .values(id=1, name="x", notes="y")
        .on_conflict_do_update(index_elements=["id"], set_={"notes": "z"})
        .returning(Patient.notes)
    ),
    "text": lambda: text("SELECT notes FROM patients").columns(Patient.notes),
}


@every_driver
def test_every_way_to_read_is_masked(engine: Engine) -> None:
    """Whatever statement fetches the value; the same one, from the cache, gives it to who may."""
    for name, ask in SHAPES.items():
        with Session(engine) as session:
            with tenant_context(A):
                rows = session.execute(ask()).scalars().all()
                assert rows, name
                assert all(map(is_masked, rows)), name
                session.rollback()
            with tenant_context(A, purpose=CARE):
                rows = session.execute(ask()).scalars().all()
                assert rows, name
                assert all(isinstance(each, str) for each in rows), name


@every_driver
def test_relationships_are_masked(engine: Engine) -> None:
    """Rows that come along, joined or with statements of their own."""
    for option in (joinedload(Patient.visits), selectinload(Patient.visits)):
        with tenant_context(A), Session(engine) as session:
            patient = session.scalars(select(Patient).options(option)).unique().one()
            assert is_masked(patient.visits[0].reason)


@every_driver
def test_values_bound_to_their_row_are_masked(masked: Vault, engine: Engine) -> None:
    """They come with their row's key, and their masks are not written either."""
    with Session(engine) as session:
        with tenant_context(A):
            visit = session.scalars(select(Visit)).one()
            mask: Any = visit.reason
            assert is_masked(mask)
            for written in (mask, str(mask)):
                with pytest.raises(MaskedError, match=r"into column visits\.reason"):
                    session.execute(update(Visit).where(Visit.id == 1).values(reason=written))
                session.rollback()
            with masked.guard.reveal(Visit, reason="x"):
                assert session.scalars(select(Visit.reason)).one() == "Canary pain"
            session.rollback()
        with tenant_context(A, purpose=CARE):
            assert session.scalars(select(Visit)).one().reason == "Canary pain"


@every_driver
def test_what_is_masked_is_not_opened(engine: Engine) -> None:
    """Neither Tink nor the value's type is asked: the plaintext never exists."""
    with tenant_context(A), Session(engine) as session, patch.object(TenantKeys, "open") as opened:
        row = session.execute(select(Patient.notes, Patient.email, Patient.history)).one()
        assert all(map(is_masked, row))
        assert opened.call_count == 0
        opened.return_value = b"\x01Anna"
        assert session.scalars(select(Patient.name)).one() == "Anna"
        assert opened.call_count == 1


@every_driver
def test_null_is_no_secret(engine: Engine) -> None:
    """NULL stays None, as everybody sees who reads the database; the question is allowed."""
    with tenant_context(A), Session(engine) as session:
        session.add(Patient(id=2, name="Bert"))
        session.commit()
        assert session.scalars(select(Patient.notes).where(Patient.id == 2)).one() is None
        assert session.scalars(select(Patient.id).where(Patient.notes.is_(None))).all() == [2]
        assert session.scalar(select(func.count(Patient.notes))) == 1


def test_another_tenant_has_nothing_to_mask(engine: Engine) -> None:
    """A purpose opens columns, never another tenant's rows; without a tenant nothing is read."""
    with tenant_context(B, purpose=CARE), Session(engine) as session:
        assert session.scalars(select(Patient)).all() == []
    with Session(engine) as session, pytest.raises(TenantNotSetError):
        session.scalars(select(Patient.notes)).all()


# -- the mask ---------------------------------------------------------------------------------


@pytest.fixture
def mask(engine: Engine) -> Any:
    with tenant_context(A), Session(engine) as session:
        return session.scalars(select(Patient.notes)).one()


def test_a_mask_shows_nothing(mask: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Text, formats of the type that it stands for, logs and files have the mask."""
    shown = [
        str(mask),
        repr(mask),
        f"{mask}",
        f"{mask:>20}",
        f"{mask:%Y}",
        f"{mask!r}",
        "%s" % mask,  # noqa: UP031
    ]
    assert set(shown) == {"•••"}
    logging.getLogger("app").warning("patient %s %r", mask, {"notes": mask})
    assert caplog.messages == ["patient ••• {'notes': •••}"]
    written = io.StringIO()
    csv.writer(written).writerow([mask])
    assert written.getvalue() == "•••\r\n"
    assert json.dumps([mask], default=str, ensure_ascii=False) == '["•••"]'


def test_a_mask_holds_nothing(mask: Any) -> None:
    """It has its column's name, and neither the value nor its ciphertext."""
    assert type(mask) is Masked
    assert {name: getattr(mask, name) for name in type(mask).__slots__} == {
        "column": "patients.notes"
    }
    assert not hasattr(mask, "__dict__")


ANSWERS: dict[str, Callable[[Any, Any], object]] = {
    "true": lambda mask, _: bool(mask),
    "not": lambda mask, _: not mask,
    "or": lambda mask, _: mask or "",
    "equal": lambda mask, other: mask == other,
    "not equal": lambda mask, other: mask != other,
    "equal to a value": lambda mask, _: mask == "Canary Gingivitis",
    "a value equal": lambda mask, _: "Canary Gingivitis" == mask,  # noqa: SIM300
    "equal to None": lambda mask, _: mask == None,  # noqa: E711
    "in a list": lambda mask, other: mask in (other, other),
    "pickled": lambda mask, _: pickle.dumps(mask),
    "pickled in a row": lambda mask, _: pickle.dumps({"notes": [mask]}),
}


@pytest.mark.parametrize("ask", ANSWERS.values(), ids=ANSWERS)
def test_what_python_would_answer_is_refused(mask: Any, ask: Callable[[Any, Any], object]) -> None:
    """Neither yes nor no would be right, and two masks do not tell whether values are equal."""
    with pytest.raises(MaskedError, match=r"of column patients\.notes is masked here"):
        ask(mask, Masked("patients.notes"))


REFUSED: dict[str, Callable[[Any], object]] = {
    "order": lambda mask: sorted([mask, Masked("patients.notes")]),
    "order by a value": lambda mask: mask < "x",
    "length": len,
    "parts": list,
    "a letter": lambda mask: mask[0],
    "contained": lambda mask: "x" in mask,
    "a number": int,
    "bytes": bytes,
    "joined": lambda mask: "x" + mask,
    "json": json.dumps,
    "%d": lambda mask: "%d" % mask,  # noqa: UP031
}


@pytest.mark.parametrize("ask", REFUSED.values(), ids=REFUSED)
def test_what_a_mask_does_not_have_python_refuses(mask: Any, ask: Callable[[Any], object]) -> None:
    """No order, length, parts or number; JSON does not take it for a text."""
    with pytest.raises(TypeError, match="Masked"):
        ask(mask)


def test_copies_are_the_mask(mask: Any) -> None:
    """It hashes by identity, so it may be in sets, and tells nothing by that."""
    assert copy.copy(mask) is mask
    assert copy.deepcopy([mask])[0] is mask
    assert len({mask, Masked("patients.notes")}) == 2
    assert mask == mask  # noqa: PLR0124


# -- writing ----------------------------------------------------------------------------------


def _merge(session: Session, patient: Patient) -> None:
    session.expunge(patient)
    session.merge(patient)
    session.flush()


def _merge_by_who_may_read(session: Session, patient: Patient) -> None:
    session.expunge(patient)
    with tenant_context(A, purpose=CARE):
        session.merge(patient)
        session.flush()


def _copy(session: Session, patient: Patient) -> None:
    draft = Draft.of(patient)
    session.add(Patient(id=2, name="x", city=draft.city, notes=draft.notes))
    session.flush()


def _again_as_new(session: Session, patient: Patient) -> None:
    for name in (*RESTRICTED, "secret"):
        if name != "notes":
            delattr(patient, name)
    make_transient(patient)
    patient.id = 2
    session.add(patient)
    session.flush()


def _to_another(session: Session, patient: Patient) -> None:
    session.add(other := Patient(id=2, name="x", notes="y"))
    session.flush()
    other.notes = patient.notes
    session.flush()


def _by_key(session: Session, patient: Patient) -> None:
    session.execute(update(Patient), [{"id": 1, "notes": patient.notes}])


TABLE: Any = Patient.__table__
NEW: dict[str, Any] = {"id": 2, "name": "x"}

WRITES: dict[str, Callable[[Session, Patient], object]] = {
    "merge": _merge,
    "merge by who may read": _merge_by_who_may_read,
    "dataclass": _copy,
    "make_transient": _again_as_new,
    "another row": _to_another,
    "bulk update by key": _by_key,
    "bulk save": lambda s, p: s.bulk_save_objects([Patient(**NEW, notes=p.notes)]),
    "bulk mappings": lambda s, p: s.bulk_insert_mappings(
        Patient.__mapper__, [{**NEW, "notes": p.notes}]
    ),
    "bulk insert": lambda s, p: s.execute(
        insert(Patient), [{**NEW, "notes": "y"}, {"id": 3, "name": "x", "notes": p.notes}]
    ),
    "insert": lambda s, p: s.execute(insert(Patient).values(**NEW, notes=p.notes)),
    "insert rows": lambda s, p: s.execute(
        insert(TABLE).values([{**NEW, "notes": "y"}, {"id": 3, "name": "x", "notes": p.notes}])
    ),
    "update": lambda s, p: s.execute(update(Patient).values(notes=p.notes)),
    "core": lambda s, p: s.connection().execute(update(TABLE).values(notes=p.notes)),
    "parameter": lambda s, p: s.execute(
        update(Patient).values(notes=bindparam("x")), {"x": p.notes}
    ),
    "executemany": lambda s, p: s.connection().execute(
        update(TABLE).where(TABLE.c.id == bindparam("key")).values(notes=bindparam("x")),
        [{"key": 1, "x": "y"}, {"key": 1, "x": p.notes}],
    ),
    "upsert": lambda s, p: s.execute(
        upsert(Patient)
        .values(**NEW, notes="y")
        .on_conflict_do_update(index_elements=["id"], set_={"notes": p.notes})
    ),
    "the text of a mask": lambda s, p: s.execute(update(Patient).values(notes=str(p.notes))),
    "what a form sends": lambda s, p: s.execute(update(Patient).values(notes=f" {p.notes}\r\n")),
}


@every_driver
def test_masks_are_not_written_back(masked: Vault, engine: Engine) -> None:
    """Whatever writes them; the error names the column, and what is stored is as before."""
    before = stored(masked)
    for name, write in WRITES.items():
        with tenant_context(A), Session(engine) as session:
            patient = session.scalars(select(Patient)).one()
            assert is_masked(patient.notes), name
            with pytest.raises(MaskedError, match=WRITTEN):
                write(session, patient)
            session.rollback()
        assert stored(masked) == before, name


@pytest.mark.parametrize("name", [*RESTRICTED, "secret", "name"])
def test_masks_are_not_written_into_any_type(engine: Engine, name: str) -> None:
    """Also into another column, and one that is not restricted."""
    with tenant_context(A), Session(engine) as session:
        mask = session.scalars(select(Patient.notes)).one()
        with pytest.raises(MaskedError, match=rf"into column patients\.{name}"):
            session.execute(update(Patient).values({name: mask}))


@every_driver
def test_masks_are_not_written_into_plain_columns(masked: Vault, engine: Engine) -> None:
    """No driver takes one for a text."""
    before = stored(masked)
    with tenant_context(A), Session(engine) as session:
        patient = session.scalars(select(Patient)).one()
        mask: Any = patient.notes
        patient.city = mask
        with pytest.raises(MaskedError):
            session.flush()
        session.rollback()
        with pytest.raises(DBAPIError):
            session.execute(insert(Patient).values(id=2, name="x", city=mask))
    assert stored(masked) == before


@every_driver
def test_the_rest_of_a_masked_object_is_written(masked: Vault, engine: Engine) -> None:
    """The unit of work leaves masks alone, and sets a value where a new one was given."""
    with tenant_context(A), Session(engine) as session:
        patient = session.scalars(select(Patient)).one()
        patient.city, patient.name, patient.number = "Bonn", "Anne", 7
        patient.notes = patient.notes
        session.commit()
        assert is_masked(patient.number)
    with tenant_context(A, purpose=CARE), Session(engine) as session:
        patient = session.scalars(select(Patient)).one()
        assert (patient.city, patient.name, patient.number) == ("Bonn", "Anne", 7)
        assert patient.notes == RESTRICTED["notes"]
    assert masked.run("SELECT city FROM patients") == [("Bonn",)]


# -- searching --------------------------------------------------------------------------------

KNOWN = "canary@example.com"
SEARCHES: dict[str, Callable[[], Any]] = {
    "equal": lambda: select(Patient.id).where(Patient.email == KNOWN),
    "not equal": lambda: select(Patient.id).where(Patient.email != KNOWN),
    "in": lambda: select(Patient.id).where(Patient.email.in_([KNOWN])),
    "not in": lambda: select(Patient.id).where(Patient.email.not_in([KNOWN, "x"])),
    "alias": lambda: select((p := aliased(Patient)).id).where(p.email == KNOWN),
    "core": lambda: select(TABLE.c.id).where(TABLE.c.email == KNOWN),
    "sub-query": lambda: select((s := select(Patient).subquery()).c.id).where(s.c.email == KNOWN),
    "selected": lambda: select(Patient.email == KNOWN),
    "named": lambda: select(Patient.id).where(searched(Patient.email, "last4") == KNOWN[-4:]),
    "parameter": lambda: select(Patient.id).where(Patient.email == bindparam("x", KNOWN)),
    "update": lambda: update(Patient).values(city="x").where(Patient.email == KNOWN),
}


@every_driver
def test_who_may_not_read_may_not_search(engine: Engine) -> None:
    """Whether a row is found would tell; who may read finds it, with the same statements."""
    for name, ask in SEARCHES.items():
        with Session(engine) as session:
            with (
                tenant_context(A),
                pytest.raises(MaskedError, match=r"Column patients\.email was searched") as refusal,
            ):
                session.execute(ask())
            assert KNOWN not in str(refusal.value), name
            session.rollback()
            with tenant_context(A, purpose="billing"):
                session.execute(ask())


def test_a_search_without_a_tenant_asks_for_one(engine: Engine) -> None:
    """The error says what is missing first."""
    with Session(engine) as session, pytest.raises(TenantNotSetError):
        session.execute(SEARCHES["equal"]())


# -- revealing --------------------------------------------------------------------------------


@every_driver
def test_revealing_reads_and_searches(
    masked: Vault, engine: Engine, listened: list[RevealEvent]
) -> None:
    """Inside the block, the columns that were named; each use is told once, without values."""
    find = select(Patient.id).where(Patient.secret == "Canary secret")
    with tenant_context(A, actor="user 7", purpose="support"), Session(engine) as session:
        with masked.guard.reveal(Patient.secret, reason="ticket 4711"):
            row = session.execute(select(Patient.secret, Patient.notes)).one()
            assert row[0] == "Canary secret"
            assert is_masked(row[1])
            assert session.scalars(find).all() == [1]
        assert is_masked(session.scalars(select(Patient.secret)).one())
        with pytest.raises(MaskedError):
            session.execute(find)
    assert listened == [RevealEvent(("patients.secret",), "ticket 4711", "user 7", "support")]


def test_blocks_nest(masked: Vault, engine: Engine, listened: list[RevealEvent]) -> None:
    """The inner one adds, and takes away no more than it added; a class stands for its columns."""

    def read() -> list[bool]:
        with Session(engine) as session:
            row = session.execute(select(Patient.secret, Patient.notes, Patient.number)).one()
            return [is_masked(each) for each in row]

    with tenant_context(A):
        with masked.guard.reveal(Patient.notes, reason="outer"):
            assert read() == [True, False, True]
            with masked.guard.reveal(aliased(Patient).secret, TABLE.c.number, reason="inner"):
                assert read() == [False, False, False]
            assert read() == [True, False, True]
        with masked.guard.reveal(Patient, Visit.reason, reason="all of it"):
            assert read() == [False, False, False]
        assert read() == [True, True, True]
    assert [event.reason for event in listened] == ["outer", "inner", "all of it"]
    restricted = sorted(f"patients.{name}" for name in (*RESTRICTED, "secret"))
    assert listened[2].columns == (*restricted, "visits.reason")


def test_a_block_serves_the_tenant_context_that_it_is_in(masked: Vault, engine: Engine) -> None:
    """Not one that is entered inside, not even of the same tenant; and a tenant there must be."""
    with tenant_context(A), masked.guard.reveal(Patient, reason="x"):
        for tenant in (A, str(A)):
            with tenant_context(tenant), Session(engine) as session:
                assert is_masked(session.scalars(select(Patient.notes)).one())
    with (
        pytest.raises(TenantNotSetError, match="inside `with tenant_context"),
        masked.guard.reveal(Patient, reason="x"),
    ):
        pytest.fail("entered")


def test_tasks_read_while_their_block_is_open(masked: Vault) -> None:
    """A task has its starter's context, and keeps nothing when the block is left."""
    from tenantguard.columns.reading import may_read  # noqa: PLC0415  (what the types ask)

    field = TABLE.c.secret.type.field

    async def work() -> list[bool]:
        left = asyncio.Event()

        async def task() -> list[bool]:
            before = may_read(field, frozenset())
            await left.wait()
            return [before, may_read(field, frozenset())]

        with tenant_context(A):
            with masked.guard.reveal(Patient.secret, reason="x"):
                started = asyncio.create_task(task())
                await asyncio.sleep(0)
            left.set()
            return await started

    assert asyncio.run(work()) == [True, False]


def test_a_reason_is_given_and_columns_are_restricted(masked: Vault) -> None:
    """Nothing is revealed by mistake: not all, where a list of columns is empty."""
    reveal: Any = masked.guard.reveal
    for reason in ("", " \n", None, 1):
        with (
            tenant_context(A),
            pytest.raises(ConfigurationError, match="needs a reason"),
            reveal(Patient.notes, reason=reason),
        ):
            pytest.fail("entered")
    for columns in (
        (),
        (Patient.name,),
        (Patient.city,),
        (Patient.notes, Patient.city),
        ("notes",),
    ):
        with (
            tenant_context(A),
            pytest.raises(ConfigurationError, match=r"declared with reveal=…, or mapped classes"),
            reveal(*columns, reason="x"),
        ):
            pytest.fail("entered")


@dataclass
class _Later:
    """A listener that nobody sees to be asynchronous before it answers."""

    listener: Any

    def __call__(self, event: RevealEvent) -> Any:
        return self.listener(event)


def test_what_is_not_heard_is_not_revealed(
    masked: Vault, listened: list[RevealEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """A listener that fails, or that nobody would wait for, keeps the block from being entered."""

    async def later(event: RevealEvent) -> None:
        listened.append(event)

    def fail(event: RevealEvent) -> None:
        raise LookupError(event.reason)

    with pytest.raises(ConfigurationError, match="not asynchronous"):
        masked.guard.on_reveal(later)
    for listener, error in ((fail, LookupError), (_Later(later), ConfigurationError)):
        masked.guard.on_reveal(listener)
        with (
            tenant_context(A),
            pytest.raises(error),
            masked.guard.reveal(Patient.notes, reason="x"),
        ):
            pytest.fail("entered")
        masked.guard._listeners.pop()
    assert len(listened) == 2
    assert caplog.messages == []


def test_each_use_is_logged_and_counted(masked: Vault, caplog: pytest.LogCaptureFixture) -> None:
    """One line, whatever the reason has in it, and no tenant."""
    caplog.set_level(logging.INFO, "tenantguard.audit")
    before, heard = masked.guard.counts["reveal"], []

    @masked.guard.on_reveal
    def note(_event: RevealEvent) -> None:
        heard.append(current_tenant())

    with tenant_context(A, actor="user 7"), masked.guard.reveal(Patient.notes, reason="a\nb"):
        masked.guard._listeners.clear()
    assert heard == [A]
    assert masked.guard.counts["reveal"] == before + 1
    assert caplog.messages == [
        r"Reveal of patients.notes: reason='a\nb' actor='user 7' purpose=None"
    ]


# -- what a session has loaded ----------------------------------------------------------------


@every_driver
def test_a_session_forgets_what_it_loaded_with_another_right(masked: Vault, engine: Engine) -> None:
    """Objects in its identity map are loaded anew when it is next used, masked or not."""
    query = select(Patient)
    with Session(engine) as session:
        with tenant_context(A, purpose=CARE):
            patient = session.scalars(query).one()
            assert patient.notes == RESTRICTED["notes"]
        with tenant_context(A):
            assert session.scalars(query).one() is patient
            assert is_masked(patient.notes)
            with masked.guard.reveal(Patient.notes, reason="x"):
                assert session.scalars(query).one().notes == RESTRICTED["notes"]
            assert session.get_one(Patient, 1) is patient
            assert is_masked(patient.notes)
            with masked.guard.reveal(Patient.notes, reason="x"):
                session.refresh(patient, ["notes"])
                assert patient.notes == RESTRICTED["notes"]


@every_driver
def test_a_query_of_columns_lets_the_session_forget(masked: Vault, engine: Engine) -> None:
    """Although it takes no object out of the session; one that flushes nothing does so, too."""
    query = select(Patient.id)
    uses: list[Callable[[Session], object]] = [lambda s: s.execute(query).all(), Session.flush]
    for use in uses:
        with tenant_context(A), Session(engine) as session:
            with masked.guard.reveal(Patient.notes, reason="x"):
                patient = session.scalars(select(Patient)).one()
                assert patient.notes == RESTRICTED["notes"]
            use(session)
            assert is_masked(patient.notes)


def test_a_commit_without_the_tenant_forgets_nothing(engine: Engine) -> None:
    """Nobody is there who may not read; and it is not refused."""
    with Session(engine, expire_on_commit=False) as session:
        with tenant_context(A, purpose=CARE):
            patient = session.scalars(select(Patient)).one()
        session.commit()
        assert patient.notes == RESTRICTED["notes"]


def test_what_was_set_is_not_forgotten(engine: Engine) -> None:
    """A value that waits for its flush is the application's own."""
    with Session(engine, autoflush=False) as session:
        with tenant_context(A, purpose=CARE):
            patient = session.scalars(select(Patient)).one()
            patient.notes = "new"
            assert patient.email == RESTRICTED["email"]
        with tenant_context(A):
            session.scalars(select(Patient).options(load_only(Patient.id))).one()
            assert patient.notes == "new"
            assert is_masked(patient.email)
            session.commit()
            assert is_masked(patient.notes)


# -- messages ---------------------------------------------------------------------------------


def test_no_message_has_a_value(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """A row with masks, its log, and every refusal show neither a value nor the tenant."""
    texts: list[str] = []
    caplog.set_level(logging.DEBUG)
    for work in (
        *WRITES.values(),
        *(lambda s, _, ask=ask: s.execute(ask()) for ask in SEARCHES.values()),
    ):
        with tenant_context(A), Session(engine) as session:
            patient = session.scalars(select(Patient)).one()
            texts.append(f"{vars(patient)} {session.execute(select(TABLE)).one()!r}")
            with pytest.raises(MaskedError) as refusal:
                work(session, patient)
            texts.append(f"{refusal.value!r} {refusal.value} {refusal.value.__cause__}")
    logged = " ".join(caplog.messages)
    for shown in (*texts, logged):
        assert "anary" not in shown
        assert "4711" not in shown
        assert "LOWER" not in shown
    assert str(A) not in " ".join(each for each in texts if "MaskedError" in each)
