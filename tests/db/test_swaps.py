"""The swap matrix: a ciphertext that was moved or altered opens on no way of reading.

Values that are bound to their row have theirs in `test_row_binding.py`, and each kind of value in
each mode, without a database, in `tests/unit/test_row_bound.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.orm import Session, aliased, joinedload, selectinload
from test_encrypted_writes import VALUES
from vault import A, B, Patient, Visit

from tenantguard import DecryptionError, TamperedError, UnknownKeyError, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine
    from vault import Vault

TABLE: Any = Patient.__table__


def _through_visits(option: Any) -> Callable[[Session, str], Any]:
    def read(session: Session, name: str) -> list[Any]:
        visits = session.scalars(select(Visit).options(option)).unique().all()
        return [getattr(visit.patient, name) for visit in visits]

    return read


def _update(session: Session, name: str) -> list[Any]:
    column = getattr(Patient, name)
    return list(session.scalars(update(Patient).values(city="Bonn").returning(column)))


def _updated_in_bulk(session: Session, name: str) -> list[Any]:
    ids = session.scalars(select(Patient.id)).all()
    session.execute(update(Patient), [{"id": id_, "city": "Bonn"} for id_ in ids])
    return [getattr(row, name) for row in session.scalars(select(Patient))]


def _deleted(session: Session, name: str) -> list[Any]:
    session.execute(delete(Visit))
    return list(session.scalars(delete(Patient).returning(getattr(Patient, name))))


def _in_union(session: Session, name: str) -> list[Any]:
    one = select(Patient.id, getattr(Patient, name))
    return [row[1] for row in session.execute(one.union_all(one))]


def _in_cte(session: Session, name: str) -> list[Any]:
    found = select(getattr(Patient, name).label("found")).cte()
    return list(session.scalars(select(found.c.found)))


def _returned_in_cte(session: Session, name: str) -> list[Any]:
    changed = update(Patient).values(city="Bonn").returning(getattr(Patient, name)).cte()
    return list(session.scalars(select(changed.c[name])))


def _as_text(session: Session, name: str) -> list[Any]:
    again = text(f"SELECT id, {name} FROM patients").columns(Patient.id, getattr(Patient, name))
    return [row[1] for row in session.execute(again)]


WAYS: dict[str, Callable[[Session, str], Any]] = {
    "entity": lambda session, name: [
        getattr(each, name) for each in session.scalars(select(Patient))
    ],
    "column": lambda session, name: list(session.scalars(select(getattr(Patient, name)))),
    "alias": lambda session, name: list(session.scalars(select(getattr(aliased(Patient), name)))),
    "Core": lambda session, name: list(session.connection().scalars(select(TABLE.c[name]))),
    "sub-query": lambda session, name: list(
        session.scalars(select(select(getattr(Patient, name)).subquery().c[name]))
    ),
    "CTE": _in_cte,
    "UNION": _in_union,
    "joinedload": _through_visits(joinedload(Visit.patient)),
    "selectinload": _through_visits(selectinload(Visit.patient)),
    "text": _as_text,
    "UPDATE RETURNING": _update,
    "UPDATE RETURNING in a CTE": _returned_in_cte,
    "bulk update": _updated_in_bulk,
    "DELETE RETURNING": _deleted,
}

ALIKE: tuple[str, ...] = (
    "name",
    "phone",
    "email",
    "born",
    "insured",
    "fee",
    "number",
    "smoker",
    "seen_at",
)
ALIKE += ("scan", "weight", "wakes", "severity")
"""Columns with one index: the database takes each one's values for another's."""

BARE = ("extras", "tags", "history", "notes")
NEXT = {name: group[i - 1] for group in (ALIKE, BARE) for i, name in enumerate(group)}
"""The column of which each gets the value."""

LAST = "length({0}) - 1"
SWAPS: dict[str, tuple[str, tuple[str, ...], type[DecryptionError]]] = {
    "of another tenant": (
        "UPDATE patients SET {0} = o.{0} FROM patients o WHERE o.tenant_id <> patients.tenant_id",
        tuple(VALUES),
        UnknownKeyError,
    ),
    "of another column": ("UPDATE patients SET {0} = {1}", tuple(NEXT), TamperedError),
    "of another table": (
        "UPDATE patients SET {0} = v.reason FROM visits v WHERE v.patient_id = patients.id",
        ALIKE,
        TamperedError,
    ),
    "altered": (
        f"UPDATE patients SET {{0}} = set_byte({{0}}, {LAST}, 255 - get_byte({{0}}, {LAST}))",
        tuple(VALUES),
        TamperedError,
    ),
}


@pytest.fixture
def engine(vault: Vault) -> Iterator[Engine]:
    """An engine; each tenant has one patient with a value in each column, and a visit."""
    made = vault.fresh_engine()
    for tenant in (A, B):
        with tenant_context(tenant), Session(made) as session:
            session.add(Visit(reason="why", patient=Patient(**VALUES)))
            session.commit()
    vault.run("CREATE TABLE kept AS TABLE patients")
    yield made
    made.dispose()
    for table in ("visits", "patients"):
        vault.run(f"DELETE FROM {table}")
    vault.run("DROP TABLE kept")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("swap", SWAPS)
def test_a_swapped_value_opens_on_no_way(vault: Vault, engine: Engine, swap: str, way: str) -> None:
    """Of whatever type it is; what is in its place opens on each of them."""
    statement, names, error = SWAPS[swap]
    for name in names:
        with tenant_context(A), Session(engine) as session:
            found = WAYS[way](session, name)
            assert found
            assert all(each == VALUES[name] for each in found)
        vault.run(statement.format(name, NEXT.get(name)))
        with tenant_context(A), Session(engine) as session, pytest.raises(error):
            WAYS[way](session, name)
        vault.run(f"UPDATE patients SET {name} = k.{name} FROM kept k WHERE k.id = patients.id")
