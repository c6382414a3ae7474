"""A list of 1 000 rows with three encrypted columns, through the ORM, against plaintext.

They are read from one protected engine, in transactions of their own, on a local socket; for
comparison also through the least type that encrypts with one key of Tink's.
"""

from __future__ import annotations

import gc
from datetime import date, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from bench import compare, often, report
from encryption_data import Base, PlainVisit, Visit, clinic, tenant
from encryption_values import new_aead, over_tink
from sqlalchemy import ForeignKey, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from tenantguard import Exact, encrypted_date, encrypted_str, tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

ROWS = 1_000
COLUMNS = 3
FIRST = date(2000, 1, 1)
KEY = new_aead()


class TinkVisit(Base):
    __tablename__ = "tink_visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[Any] = mapped_column(ForeignKey("practices.id"), index=True)
    patient: Mapped[str] = mapped_column(over_tink(KEY))
    day: Mapped[str] = mapped_column(over_tink(KEY))
    notes: Mapped[str] = mapped_column(over_tink(KEY))


class BoundVisit(Base):
    __tablename__ = "bound_visits"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant_id: Mapped[Any] = mapped_column(ForeignKey("practices.id"), index=True)
    patient: Mapped[str] = encrypted_str(bind="row", search=Exact())
    day: Mapped[date] = encrypted_date(bind="row")
    notes: Mapped[str] = encrypted_str(bind="row")


def values(number: int) -> dict[str, Any]:
    day = FIRST + timedelta(days=number)
    name, notes = f"patient {number:08}", f"crown {number:08}, colour A2, try-in next week"
    return {"tenant_id": tenant(0), "patient": name, "day": day, "notes": notes}


def entities(engine: Engine, model: Any) -> Callable[[], object]:
    def read() -> int:
        with Session(engine) as session:
            listed = session.scalars(select(model)).all()
        if len(listed) != ROWS or str(listed[0].day) != str(FIRST):
            raise ValueError("The list is not what was written.")
        return len(listed)

    return read


def tuples(engine: Engine, model: Any) -> Callable[[], object]:
    query = select(model.id, model.patient, model.day, model.notes)

    def read() -> int:
        with Session(engine) as session:
            return len(session.execute(query).all())

    return read


def main() -> None:
    with clinic(1) as built, tenant_context(tenant(0)):
        rows = [values(number) for number in range(ROWS)]
        built.write(PlainVisit, rows)
        built.write(Visit, rows)
        built.write(BoundVisit, [row | {"id": number} for number, row in enumerate(rows)])
        built.write(TinkVisit, [row | {"day": str(row["day"])} for row in rows])
        built.run("VACUUM ANALYZE")
        # A full collection would take ten times as long as a list, and always hit the same turn.
        gc.collect()
        gc.freeze()
        for kind, reading in (("entities", entities), ("tuples of columns", tuples)):
            work = {
                "plaintext": often(reading(built.engine, PlainVisit)),
                f"{COLUMNS} encrypted columns": often(reading(built.engine, Visit)),
                f"{COLUMNS} bound to their row": often(reading(built.engine, BoundVisit)),
                f"{COLUMNS} by TypeDecorator over Tink": often(reading(built.engine, TinkVisit)),
            }
            samples = compare(work, rounds=100, repeat=2)
            report(f"A list of {ROWS} rows, {kind}", samples, base="plaintext")
            plain, *others = (median(each) for each in samples.values())
            more = ", ".join(f"{(each - plain) / ROWS / COLUMNS:.2f} µs" for each in others)
            print(f"  more for each value than plaintext: {more}")
