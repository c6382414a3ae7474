"""An application with columns whose reading is restricted, and its database with two tenants."""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from dataclasses import dataclass, fields
from datetime import date, datetime, time  # noqa: TC003
from decimal import Decimal  # noqa: TC003
from enum import Enum
from typing import TYPE_CHECKING, Any

from locks import unique_roles
from sqlalchemy import URL, ForeignKey, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from vault import ENVIRONMENT, A, B, Vault

from tenantguard import (
    Exact,
    KeyFile,
    Last,
    TenantGuard,
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
    rls,
)
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from pathlib import Path

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


def build_masked(admin_url: URL, directory: Path) -> Vault:
    """Make the database, its roles and policies, and a guard."""
    key_file = directory / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    admin, roles = create_engine(admin_url), unique_roles()
    keys = KeyFile(key_file, environment=ENVIRONMENT)
    guard = TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=keys)
    Base.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(Practice), [{"id": A}, {"id": B}])
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    return Vault(admin, guard, admin_url.set(username=roles.application), key_file)


def another_guard(vault: Vault) -> TenantGuard:
    """A guard for the same database, as another process would have it: it has no keys yet."""
    keys = KeyFile(vault.key_file, environment=ENVIRONMENT)
    return TenantGuard(Base.metadata, tenants="practices", roles=vault.guard.roles, keys=keys)
