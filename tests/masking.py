"""An application with columns whose reading is restricted."""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from dataclasses import dataclass, fields
from datetime import date, datetime, time  # noqa: TC003
from decimal import Decimal  # noqa: TC003
from enum import Enum
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard import (
    Exact,
    Last,
    encrypted_bool,
    encrypted_bytes,
    encrypted_date,
    encrypted_datetime,
    encrypted_decimal,
    encrypted_dict,
    encrypted_enum,
    encrypted_float,
    encrypted_int,
    encrypted_json,
    encrypted_list,
    encrypted_str,
    encrypted_time,
    encrypted_uuid,
)

CARE = {"treatment"}
"""What most columns of the application are read for."""


class Jaw(Enum):
    UPPER = "upper"
    LOWER = "lower"


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Patient(Base):
    """Who may read: everybody *name*, purposes most, nobody by a purpose *secret*."""

    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    city: Mapped[str] = mapped_column(default="")
    name: Mapped[str] = encrypted_str(search=Exact())
    notes: Mapped[str | None] = encrypted_str(reveal=CARE)
    email: Mapped[str | None] = encrypted_str(
        search=[Exact(normalize="email"), Last(4)], reveal=["treatment", "billing"]
    )
    secret: Mapped[str | None] = encrypted_str(search=Exact(), reveal=())
    scan: Mapped[bytes | None] = encrypted_bytes(reveal=CARE)
    number: Mapped[int | None] = encrypted_int(reveal=CARE)
    fee: Mapped[Decimal | None] = encrypted_decimal(reveal=CARE)
    born: Mapped[date | None] = encrypted_date(reveal=CARE)
    seen_at: Mapped[datetime | None] = encrypted_datetime(reveal=CARE)
    smoker: Mapped[bool | None] = encrypted_bool(reveal=CARE)
    insured: Mapped[uuid.UUID | None] = encrypted_uuid(reveal=CARE)
    history: Mapped[dict[str, Any] | None] = encrypted_json(reveal=CARE)
    weight: Mapped[float | None] = encrypted_float(reveal=CARE)
    comes_at: Mapped[time | None] = encrypted_time(reveal=CARE)
    jaw: Mapped[Jaw | None] = encrypted_enum(Jaw, reveal=CARE)
    extras: Mapped[dict[str, Any] | None] = encrypted_dict(reveal=CARE)
    teeth: Mapped[list[Any] | None] = encrypted_list(reveal=CARE)
    letter: Mapped[str | None] = encrypted_str(on_error="placeholder")
    report: Mapped[str | None] = encrypted_str(on_error="placeholder", reveal=CARE)
    visits: Mapped[list[Visit]] = relationship(back_populates="patient", order_by="Visit.id")


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id"))
    reason: Mapped[str] = encrypted_str(reveal=CARE, bind="row")
    patient: Mapped[Patient] = relationship(back_populates="visits")


@dataclass
class Draft:
    """What an application copies out of a patient."""

    city: str
    notes: str | None

    @classmethod
    def of(cls, patient: Patient) -> Draft:
        return cls(**{each.name: getattr(patient, each.name) for each in fields(cls)})
