"""A dict or a list that is changed in place is written, as SQLAlchemy's mutable types do it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.mutable import MutableDict, MutableList
from sqlalchemy.orm import Session
from vault import A, Patient

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vault import Vault


@pytest.fixture
def session(vault: Vault) -> Iterator[Session]:
    with tenant_context(A), Session(vault.engine()) as opened:
        yield opened
    vault.run("DELETE FROM patients")


CHANGES: dict[str, tuple[Callable[[Patient], Any], Any, Any]] = {
    "set": (lambda row: (row.extras or {}).update(b=2), {"a": [1], "b": 2}, ["x"]),
    "delete": (lambda row: (row.extras or {}).pop("a"), {}, ["x"]),
    "append": (lambda row: (row.tags or []).append({"y": 1}), {"a": [1]}, ["x", {"y": 1}]),
    "clear": (lambda row: (row.tags or []).clear(), {"a": [1]}, []),
    "anew": (lambda row: setattr(row, "extras", {"c": None}), {"c": None}, ["x"]),
    "none": (lambda row: setattr(row, "tags", None), {"a": [1]}, None),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("loaded", [False, True])
def test_changes_in_place_are_written(session: Session, change: str, *, loaded: bool) -> None:
    """Of an object that was just written, and of one that was loaded."""
    act, extras, tags = CHANGES[change]
    row = Patient(name="Anna", extras={"a": [1]}, tags=["x"])
    session.add(row)
    session.commit()
    if loaded:
        session.expunge_all()
        row = session.scalars(select(Patient)).one()
    act(row)
    session.commit()
    session.expunge_all()
    read = session.scalars(select(Patient)).one()
    assert (read.extras, read.tags) == (extras, tags)


def test_what_is_read_without_the_mapper_is_plain(session: Session) -> None:
    """Only attributes track; columns of a row are plain dicts and lists."""
    session.add_all(Patient(name=name, extras={"a": 1}, tags=[1]) for name in "ab")
    session.commit()
    found = session.execute(select(Patient.extras, Patient.tags)).all()
    assert {type(value) for row in found for value in row} == {dict, list}
    whole = session.scalars(select(Patient)).first()
    assert whole is not None
    assert isinstance(whole.extras, MutableDict)
    assert isinstance(whole.tags, MutableList)


def test_wrong_document_shows_no_value(session: Session) -> None:
    """A list is no dict: refused when the attribute is set, by its type's name."""
    given: Any = ["geheim"]
    with pytest.raises(ValueError, match="'extras' does not accept objects of type <class 'list'>"):
        session.add(Patient(name="Anna", extras=given))
