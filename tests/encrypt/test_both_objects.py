"""Objects keep both columns of an attribute together, whatever was loaded, and when."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from pairing import Patient, build_pairs
from sqlalchemy import Text, func, inspect, literal, select, update
from sqlalchemy.orm import Session, defer, load_only, raiseload, undefer, with_expression
from vault import A, Vault

from tenantguard import EncryptedQueryError, MaskedError, is_masked, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    Stage = tuple[str | None, str | None]

TABLE: Any = Patient.__table__
ONE = uuid.UUID(int=1)
OF_TWO = r"Name sealed_name and plain_name there"


@pytest.fixture(scope="module")
def pairs(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    built = build_pairs(admin_url, tmp_path_factory.mktemp("keys"))
    yield built
    built.dispose()


@pytest.fixture
def session(pairs: Vault) -> Iterator[Session]:
    pairs.run("TRUNCATE patients CASCADE")
    with tenant_context(A), Session(pairs.engine()) as opened:
        yield opened
    pairs.close_engines()


def stored(session: Session, stage: Stage, column: str = "name") -> Patient:
    """Return the row as it is loaded at some time of a migration: sealed, and as plaintext."""
    session.add(Patient(id=ONE))
    become(session, stage, column)
    patient = session.get_one(Patient, ONE)
    getattr(patient, column)
    return patient


def become(session: Session, stage: Stage, column: str = "name") -> None:
    sealed, plain = stage
    session.flush()
    session.expunge_all()
    change = update(TABLE).where(TABLE.c.id == ONE)
    # Sealed by itself: together with plaintext, None is refused.
    session.connection().execute(change.values({f"{column}_sealed": sealed or "x"}))
    if sealed is None:
        text = sqlalchemy.text(f"UPDATE patients SET {column}_sealed = NULL, {column} = :plain")
        session.connection().execute(text, {"plain": plain})
    else:
        session.connection().execute(change.values({f"{column}_sealed": sealed, column: plain}))
    session.commit()


def columns(session: Session) -> tuple[Any, ...]:
    session.expunge_all()
    return tuple(session.execute(select(Patient.sealed_name, Patient.plain_name)).one())


# -- merging ------------------------------------------------------------------------------------

STAGES: list[Stage] = [(None, "Ada"), ("Ada", "Ada"), ("Ada", None)]


@pytest.mark.parametrize("before", STAGES)
@pytest.mark.parametrize("meanwhile", [*STAGES, ("Eve", "Eve"), ("Eve", None), (None, "Eve")])
def test_an_object_of_before_is_merged(session: Session, before: Stage, meanwhile: Stage) -> None:
    """A row that was sealed, emptied or changed since keeps both: None forgets nothing."""
    patient = stored(session, before)
    become(session, meanwhile)
    patient.city = "Bonn"
    merged = session.merge(patient)
    assert merged.name == "Ada"
    session.commit()
    assert columns(session) == ("Ada", "Ada")


def test_what_was_changed_before_merging_is_written(session: Session) -> None:
    """Also None, which empties both."""
    for value in ("Eve", None):
        patient = stored(session, (None, "Ada"))
        become(session, ("Ada", "Ada"))
        patient.name = value
        session.merge(patient)
        session.commit()
        assert columns(session) == (value, value)
        session.connection().execute(TABLE.delete())


def test_merging_what_is_there_writes_nothing(session: Session) -> None:
    """Nor does an object that has neither of the two."""
    patient = stored(session, ("Ada", "Ada"))
    session.expunge_all()
    for given in (patient, Patient(id=ONE), Patient(id=ONE, name="Ada")):
        assert not session.is_modified(session.merge(given))
        session.expunge_all()
    assert columns(session) == ("Ada", "Ada")


def test_an_object_with_half_of_the_columns_is_merged(session: Session) -> None:
    """If it has the sealed value; None may stand beside plaintext."""
    stored(session, (None, "Ada"))
    session.expunge_all()
    [patient] = session.scalars(select(Patient).options(load_only(Patient.sealed_name)))
    session.expunge_all()
    assert not session.is_modified(session.merge(patient))
    become(session, ("Ada", "Ada"))
    with pytest.raises(EncryptedQueryError, match="Load both of them, or set"):
        session.merge(patient)
    session.rollback()
    session.expunge_all()
    become(session, ("Eve", None))
    [patient] = session.scalars(select(Patient).options(load_only(Patient.sealed_name)))
    become(session, ("Ada", "Ada"))
    session.merge(patient)
    session.commit()
    assert columns(session) == ("Eve", "Eve")


@pytest.mark.parametrize("stage", [(None, "Caries"), ("Caries", "Caries")])
def test_a_mask_is_not_merged(pairs: Vault, session: Session, stage: Stage) -> None:
    """Neither one of a sealed value, nor of plaintext."""
    patient = stored(session, stage, "notes")
    assert is_masked(patient.notes)
    become(session, ("Healed", "Healed"), "notes")
    with pytest.raises(MaskedError, match=r"mask was about to be written into column"):
        session.merge(patient)
    session.rollback()
    assert pairs.run("SELECT notes FROM patients") == [("Healed",)]


def test_who_may_not_read_changes_other_attributes(pairs: Vault, session: Session) -> None:
    """A mask is not compared with the plaintext beside it."""
    patient: Any = stored(session, ("Caries", "Caries"), "notes")
    assert is_masked(patient.notes)
    patient.city = "Bonn"
    session.commit()
    assert pairs.run("SELECT city, notes, notes_sealed IS NULL FROM patients") == [
        ("Bonn", "Caries", False)
    ]


def test_history_is_of_what_is_read(session: Session) -> None:
    """What was there before is the plaintext where nothing was sealed."""
    for stage in STAGES:
        patient = stored(session, stage)
        attribute: Any = inspect(patient).attrs.name
        assert attribute.history == ((), ["Ada"], ())
        patient.name = "Eve"
        assert attribute.history == (["Eve"], (), ["Ada"])
        session.rollback()
        session.connection().execute(TABLE.delete())
    assert inspect(Patient()).attrs.name.history == ((), (), ())


# -- what is loaded -----------------------------------------------------------------------------


def test_a_refresh_by_its_name_alone_is_refused(pairs: Vault, session: Session) -> None:
    """It would load nothing; the two columns are named instead, or others too, or nothing."""
    patient = stored(session, (None, "Ada"))
    for names in (["name"], ["name", "number"]):
        with pytest.raises(EncryptedQueryError, match=OF_TWO):
            session.refresh(patient, names)
    become(session, ("Eve", "Eve"))
    session.add(patient)
    for each in (["sealed_name", "plain_name"], ["name", "sealed_name", "plain_name"], None):
        session.refresh(patient, each, with_for_update=True)
        assert {"sealed_name", "plain_name"} <= set(vars(patient))
        assert patient.name == "Eve"
    session.commit()
    pairs.run("UPDATE patients SET name = 'Zoe'")
    session.refresh(patient, ["name", "city"])
    assert patient.name == "Zoe"


def test_what_a_subclass_loads_is_none_of_its_business() -> None:
    """Where SQLAlchemy loads what is expired, it names attributes that the base lacks."""
    attribute: Any = inspect(Patient).attrs.name
    attribute.setup(only_load_props=["name", "of_a_subclass"])
    attribute.setup(only_load_props=None)


def test_the_attribute_is_expired_and_read_again(session: Session) -> None:
    """Alone, with others, and when only others are refreshed."""
    patient = stored(session, (None, "Ada"))
    for each in (["name"], ["name", "city"]):
        patient.name = "Eve"
        session.expire(patient, each)
        assert not {"sealed_name", "plain_name"} & set(vars(patient))
        session.refresh(patient, ["city"])
        assert patient.name == "Ada"


OPTIONS: dict[str, tuple[Callable[[Any], Any], set[str]]] = {
    "load_only": (load_only, {"sealed_name", "plain_name"}),
    "defer": (defer, {"city"}),
    "undefer": (undefer, {"sealed_name", "plain_name", "city"}),
}


@pytest.mark.parametrize("stage", [*STAGES, (None, None)])
@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_loading_take_the_columns(session: Session, option: str, stage: Stage) -> None:
    """In SQLAlchemy 2.0 the two, in 2.1 the attribute itself as well; it reads the same."""
    stored(session, stage)
    make, loaded = OPTIONS[option]
    two, one = [Patient.sealed_name, Patient.plain_name], [Patient.name]
    for attributes in (two, one):
        session.expunge_all()
        if attributes is one and sqlalchemy.__version__.startswith("2.0."):
            with pytest.raises(EncryptedQueryError, match=OF_TWO):
                make(*attributes)
            continue
        given = [make(*attributes)] if make is load_only else map(make, attributes)
        [patient] = session.scalars(select(Patient).options(*given))
        assert {"sealed_name", "plain_name", "city"} & set(vars(patient)) == loaded
        assert patient.name == (stage[0] or stage[1])


def test_no_expression_is_loaded_into_it(session: Session) -> None:
    """By with_expression()."""
    with pytest.raises(EncryptedQueryError, match=OF_TWO):
        session.scalars(select(Patient).options(with_expression(Patient.name, literal("a"))))
    with pytest.raises(EncryptedQueryError, match="do it in Python"):
        with_expression(Patient.city, Patient.name)


def test_raiseload_leaves_columns(session: Session) -> None:
    """It is for relations."""
    stored(session, (None, "Ada"))
    [patient] = session.scalars(select(Patient).options(raiseload("*")))
    assert patient.name == "Ada"


UNANSWERABLE: dict[str, Callable[[Any], Any]] = {
    "cast": lambda name: sqlalchemy.cast(name, Text),
    "type_coerce": lambda name: sqlalchemy.type_coerce(name, Text),
    "try_cast": lambda name: sqlalchemy.try_cast(name, Text),
    "not": sqlalchemy.not_,
    "~": lambda name: ~name,
    "-": lambda name: -name,
    "between": lambda name: sqlalchemy.between(name, "a", "b"),
    "case": lambda name: sqlalchemy.case((Patient.city == "", name), else_=""),
    "case of": lambda name: sqlalchemy.case({"a": 1}, value=name),
    "lower": func.lower,
    "coalesce": lambda name: func.coalesce(name, ""),
    "extract": lambda name: sqlalchemy.extract("year", name),
    "tuple": lambda name: sqlalchemy.tuple_(name, Patient.city),
    "desc": sqlalchemy.desc,
    "collate": lambda name: sqlalchemy.collate(name, "C"),
    "distinct": sqlalchemy.distinct,
}


@pytest.mark.parametrize("case", UNANSWERABLE)
def test_functions_of_two_columns_are_refused(session: Session, case: str) -> None:
    """In the library's own words, whatever SQLAlchemy asks of what it is given."""
    with pytest.raises(EncryptedQueryError, match=r"(?i)do (it|that) in Python"):
        session.execute(select(UNANSWERABLE[case](Patient.name)))


def test_a_case_by_its_comparison_works(session: Session) -> None:
    """It compares, and gives something else."""
    stored(session, (None, "Ada"))
    which = sqlalchemy.case((Patient.name == "Ada", "yes"), else_="no")
    assert session.scalar(select(which)) == "yes"
