"""Two invented dental practices with a few thousand rows: the same ones at every start."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from argon2 import PasswordHasher
from sqlalchemy import Connection, Engine, func, insert, select, text

from tenantguard.context import tenant_context

__all__ = ["PRACTICES", "Practice", "fill"]


@dataclass(frozen=True, slots=True)
class Practice:
    """A practice and the one person of it who can sign in."""

    id: UUID
    name: str
    city: str
    user: str
    email: str
    password: str = field(repr=False)


PRACTICES = (
    Practice(
        UUID("0b7c4f1e-52a8-4c0e-9d6b-3f1f5a0c7a11"),
        "Zahnarztpraxis am Stadtpark",
        "Nürnberg",
        "Dr. Anna Vogt",
        "anna@stadtpark.example",
        "stadtpark",
    ),
    Practice(
        UUID("7d21f9b3-8e4d-4b7a-a1c5-62c0de9b4f22"),
        "Dentalzentrum Hafenblick",
        "Hamburg",
        "Dr. Bernd Köster",
        "bernd@hafenblick.example",
        "hafenblick",
    ),
)

_FIRST = (  # noqa: SIM905  (a list takes a line a name)
    "Alina Andreas Anja Bärbel Björn Carla Christoph Daniela Dieter Elif Emil Franziska Friedrich "
    "Gisela Günther Hannah Helmut Ingrid Jana Jonas Jürgen Karin Klaus Lena Lukas Margarete Mehmet "
    "Mia Nils Olga Paul Petra Rainer Sabine Selma Sören Thea Tobias Ursula Werner"
).split()
_LAST = (  # noqa: SIM905  (a list takes a line a name)
    "Albrecht Arslan Bauer Becker Böhm Brandt Dietrich Engel Fischer Franke Fuchs Graf Groß Haas "
    "Hartmann Herrmann Hoffmann Huber Jäger Kaiser Keller Koch König Krämer Krüger Kühn Lang "
    "Lehmann Lorenz Maier Möller Müller Nowak Otto Peters Pohl Richter Roth Sauer Schäfer Schmidt "
    "Schröder Schulz Seidel Stein Szymański Vogel Wagner Weiß Winkler Yilmaz Ziegler Zimmermann"
).split()
_INSURANCE = ("AOK", "Barmer", "DAK-Gesundheit", "IKK classic", "Techniker Krankenkasse", "privat")
_NOTES = ("", "", "", "Angstpatient", "Allergie: Nickel", "Bitte nur vormittags", "Knirscht nachts")
_STATUSES = ("new", "in_work", "in_work", "try_in", "delivered", "delivered", "delivered")
_WORKS = (
    "Krone vollkeramisch",
    "Brücke dreigliedrig",
    "Teilprothese Modellguss",
    "Totalprothese",
    "Aufbissschiene",
    "Veneer",
    "Implantatkrone",
    "Reparatur Prothese",
)
_MATERIALS = (
    ("001 0", "Modell", "6.90"),
    ("002 1", "Doublieren eines Modells", "17.40"),
    ("005 1", "Sägemodell", "11.20"),
    ("012 0", "Mittelwertartikulator", "10.10"),
    ("021 1", "Individueller Löffel", "23.80"),
    ("101 1", "Krone, metallisch", "88.50"),
    ("102 1", "Krone für Verblendung", "97.30"),
    ("110 0", "Brückenglied", "72.60"),
    ("160 0", "Vestibuläre Verblendung, Kunststoff", "54.20"),
    ("162 0", "Vestibuläre Verblendung, Keramik", "102.40"),
    ("201 0", "Metallbasis", "131.90"),
    ("205 0", "Gegossene Klammer", "24.70"),
    ("301 0", "Aufstellung, Grundeinheit", "28.30"),
    ("341 0", "Übertragung je Zahn", "4.10"),
    ("401 0", "Aufbissbehelf, adjustierte Oberfläche", "89.60"),
    ("801 0", "Grundeinheit Instandsetzung", "19.80"),
    ("970 0", "Verarbeitungsaufwand, Edelmetall", "13.50"),
    ("V 100", "Zirkonkrone, monolithisch", "149.00"),
    ("V 110", "Presskeramik, je Einheit", "168.00"),
    ("V 200", "Abutment, individuell gefräst", "215.00"),
)


_Rows = dict[str, list[dict[str, Any]]]


def fill(
    connection: Connection, models: Any, *, patients: int, engine: Engine | None = None
) -> Mapping[UUID, Mapping[str, int]]:
    """Insert both practices, with *patients* each, and return the number of rows by table.

    Patients' and orders' numbers alternate between the practices: the next number is somebody
    else's.

    Args:
        connection: Sees all rows; writes what is no practice's own, and is committed.
        models: The example's `models` module.
        patients: How many for each practice.
        engine: A protected engine, which writes what is a practice's own, in its name: only a
            practice's own key seals. Without it, for models without encrypted columns,
            *connection* writes everything and commits nothing.
    """
    _insert_shared(connection, models)
    rows = _rows(Random(20), patients)  # noqa: S311  (invented data)
    for tenant, own in rows.items():
        with _in_the_name_of(tenant, connection, engine) as writer:
            for model in (models.User, models.Patient, models.Order, models.OrderItem):
                # A patient alone may have no order, and nothing is not inserted.
                if own[model.__tablename__]:
                    writer.execute(insert(model), own[model.__tablename__])
    for model in (models.User, models.Material, models.Patient, models.Order, models.OrderItem):
        sequence = func.pg_get_serial_sequence(model.__tablename__, "id")
        connection.execute(
            select(func.setval(sequence, select(func.max(model.id)).scalar_subquery()))
        )
    connection.execute(text("ANALYZE"))
    if engine is not None:
        connection.commit()
    return {tenant: {name: len(own[name]) for name in own} for tenant, own in rows.items()}


@contextmanager
def _in_the_name_of(
    tenant: UUID, connection: Connection, engine: Engine | None
) -> Iterator[Connection]:
    if engine is None:
        yield connection
        return
    # The other connection sees the practice only now.
    connection.commit()
    with tenant_context(tenant), engine.begin() as own:
        yield own


def _insert_shared(connection: Connection, models: Any) -> None:
    connection.execute(
        insert(models.Practice),
        [{"id": each.id, "name": each.name, "city": each.city} for each in PRACTICES],
    )
    connection.execute(
        insert(models.Material),
        [
            {"id": id_, "number": number, "name": name, "price": price}
            for id_, (number, name, price) in enumerate(_MATERIALS, 1)
        ],
    )


def _rows(random: Random, patients: int) -> dict[UUID, _Rows]:
    rows: dict[UUID, _Rows] = {
        each.id: {"users": [_user(number)], "patients": [], "orders": [], "order_items": []}
        for number, each in enumerate(PRACTICES)
    }
    orders, items = count(1), count(1)
    for patient_id in range(1, patients * len(PRACTICES) + 1):
        tenant = PRACTICES[(patient_id - 1) % len(PRACTICES)].id
        own = rows[tenant]
        own["patients"].append(_patient(random, patient_id, tenant))
        for _ in range(random.choice((0, 1, 1, 2, 3))):
            order_id = next(orders)
            own["orders"].append(_order(random, order_id, tenant, patient_id))
            own["order_items"].extend(_items(random, items, tenant, order_id))
    return rows


def _user(number: int) -> dict[str, Any]:
    practice = PRACTICES[number]
    return {
        "id": number + 1,
        "tenant_id": practice.id,
        "email": practice.email,
        "name": practice.user,
        "password_hash": PasswordHasher().hash(practice.password),
    }


def _patient(random: Random, id_: int, tenant: UUID) -> dict[str, Any]:
    return {
        "id": id_,
        "tenant_id": tenant,
        "first_name": random.choice(_FIRST),
        "last_name": random.choice(_LAST),
        "born": date(1935, 1, 1) + timedelta(days=random.randrange(30_000)),
        "insurance": random.choice(_INSURANCE),
        "notes": random.choice(_NOTES),
    }


def _order(random: Random, id_: int, tenant: UUID, patient_id: int) -> dict[str, Any]:
    status = random.choice(_STATUSES)
    age = random.randrange(20, 400) if status == "delivered" else random.randrange(12)
    ordered = date.today() - timedelta(days=age)  # noqa: DTZ011  (the practice's calendar)
    return {
        "id": id_,
        "tenant_id": tenant,
        "patient_id": patient_id,
        "title": random.choice(_WORKS),
        "status": status,
        "ordered_on": ordered,
        "due_on": ordered + timedelta(days=random.randrange(11, 19)),
    }


def _items(
    random: Random, numbers: Iterator[int], tenant: UUID, order_id: int
) -> Iterator[dict[str, Any]]:
    for _ in range(random.randrange(1, 4)):
        yield {
            "id": next(numbers),
            "tenant_id": tenant,
            "order_id": order_id,
            "material_id": random.randrange(1, len(_MATERIALS) + 1),
            "quantity": random.choice((1, 1, 1, 2, 3)),
            "tooth": f"{random.randrange(1, 5)}{random.randrange(1, 9)}",
        }
