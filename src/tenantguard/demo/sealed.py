"""The checks of encrypted columns: what is stored, what is found, and what does not open."""

# ruff: noqa: S608  (statements are put together from the example's own names)

from typing import Any

from sqlalchemy import select, text

from tenantguard.crypto.format import MAGIC
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.scene import Scene, expect, refused
from tenantguard.demo.visitor import visiting
from tenantguard.errors import TamperedError, UnknownKeyError
from tenantguard.keytable import encrypted_columns

__all__ = [
    "ciphertext_at_rest",
    "copy_to_another_tenant_is_not_opened",
    "found_by_name",
    "swapped_values_are_not_opened",
]

_A, _B = (practice.id for practice in PRACTICES)
# Both examples show as many patients on a page, the newest first.
_PAGE = 20
# Fewer bytes may well stand in ciphertext by chance.
_NO_CHANCE = 8


def ciphertext_at_rest(scene: Scene) -> str:
    """The superuser finds ciphertext in each encrypted column, and no patient's name anywhere."""
    known = _plaintexts(scene)
    tables = [model.__tablename__ for model in (scene.models.Patient, scene.models.Order)]
    with scene.stage.admin.connect() as connection:
        for name in tables:
            dump = "\n".join(connection.scalars(text(f"SELECT t::text FROM {name} AS t")))
            seen = sum(_occurs(value, dump) for value in known)
            expect(f"names, notes and titles to be read in {name}", actual=seen, equal=0)
        columns = list(encrypted_columns(scene.models.Base.metadata))
        for column in columns:
            query = (
                f"SELECT count(*) FROM {column.table} WHERE {column.name} IS NOT NULL "
                f"AND substring({column.name}, 1, {len(MAGIC)}) IS DISTINCT FROM :magic"
            )
            open_ = connection.scalar(text(query), {"magic": MAGIC})
            expect(f"values of {column} that are not sealed", actual=open_, equal=0)
    expect("encrypted columns", actual=len(columns), more_than=0)
    return f"{len(columns)} columns sealed; none of {len(known)} names, notes and titles in a dump"


def _plaintexts(scene: Scene) -> set[str]:
    """Return the names, notes and titles of both practices, as these read them."""
    patient, order = scene.models.Patient, scene.models.Order
    columns = (patient.last_name, patient.first_name, patient.notes, order.title)
    known: set[str] = set()
    for tenant in (_A, _B):
        with scene.session(tenant) as session:
            for column in columns:
                known.update(session.scalars(select(column)))
    return known - {""}


def _occurs(value: str, dump: str) -> bool:
    """Return whether *value* stands in *dump*, as text or in the bytes that are shown as hex."""
    encoded = value.encode()
    return value in dump or (len(encoded) >= _NO_CHANCE and encoded.hex() in dump)


def found_by_name(scene: Scene) -> str:
    """A name in another case finds its patients through the app, each practice its own only."""
    patients = {practice.id: _last_names(scene, practice.id) for practice in PRACTICES}
    names = [set(own.values()) for own in patients.values()]
    name = min(names[0] & names[1] or names[0])
    found = {}
    with visiting(scene.stage) as search:
        for practice in PRACTICES:
            own = [id_ for id_, each in patients[practice.id].items() if each == name]
            wanted = set(sorted(own, reverse=True)[:_PAGE])
            found[practice.id] = search(practice, name.swapcase())
            expect("patients found", actual=found[practice.id], equal=wanted)
    expect("patients that A found", actual=len(found[_A]), more_than=0)
    return f"A found {len(found[_A])} and B {len(found[_B])} patients by the same name"


def _last_names(scene: Scene, tenant: Any) -> dict[int, str]:
    patient = scene.models.Patient
    with scene.session(tenant) as session:
        return {row[0]: row[1] for row in session.execute(select(patient.id, patient.last_name))}


def copy_to_another_tenant_is_not_opened(scene: Scene) -> str:
    """A's ciphertext, copied into B's row, is not opened with B's key."""
    own, foreign = scene.patients()
    last_name = scene.models.Patient.last_name
    with scene.session(_A) as session:
        name = session.scalars(_of(own, last_name)).one()
    with scene.stage.admin.connect() as connection:
        stored = text("SELECT last_name FROM patients WHERE id = :own")
        copied = connection.scalar(stored, {"own": own})
    with scene.session(_B) as session:
        change = text("UPDATE patients SET last_name = :copied WHERE id = :id")
        touched: Any = session.execute(change, {"copied": copied, "id": foreign})
        expect("rows that the copy is in", actual=touched.rowcount, equal=1)
        with refused("A's name in B's row", UnknownKeyError, never=name):
            session.scalars(_of(foreign, last_name)).one()
    return "UnknownKeyError, without the name"


def swapped_values_are_not_opened(scene: Scene) -> str:
    """Ciphertext that changed its column or its table is not opened with the tenant's own key."""
    patient, (own, _) = scene.models.Patient, scene.patients()
    swaps = {
        "first_name = last_name, last_name = first_name": ("first_name", "last_name"),
        "notes = first_name": ("notes",),
        "notes = (SELECT title FROM orders ORDER BY id LIMIT 1)": ("notes",),
    }
    for swap, columns in swaps.items():
        with scene.session(_A) as session:
            changed = text(f"UPDATE patients SET {swap} WHERE id = :id")
            touched: Any = session.execute(changed, {"id": own})
            expect("rows that were changed", actual=touched.rowcount, equal=1)
            for name in columns:
                with refused(f"{name} after SET {swap}", TamperedError):
                    session.scalars(_of(own, getattr(patient, name))).one()
    return "TamperedError, between columns and between tables"


def _of(id_: int, column: Any) -> Any:
    return select(column).where(column.class_.id == id_)
