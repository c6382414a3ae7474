"""An application that searches by several columns together, and its database with two tenants."""

from __future__ import annotations

import uuid
from datetime import date  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from typing import TYPE_CHECKING, Any

from locks import unique_roles
from sqlalchemy import URL, ForeignKey, create_engine, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from vault import ENVIRONMENT, A, B, Vault

from tenantguard import (
    KeyFile,
    Roles,
    TenantGuard,
    encrypted_compound,
    encrypted_date,
    encrypted_int,
    encrypted_str,
    rls,
)
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["A", "B", "Base", "Card", "Nurse", "Patient", "Person", "Staff", "build"]


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    city: Mapped[str] = mapped_column(default="")
    name: Mapped[str | None] = encrypted_str()
    born: Mapped[date | None] = encrypted_date()
    name_and_born: Mapped[tuple[str, date] | None] = encrypted_compound(
        "name", "born", normalize={"name": "nfc-casefold"}
    )


class Card(Base):
    """Plain and encrypted parts with defaults, bound to the row with the compound."""

    __tablename__ = "cards"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    note: Mapped[str] = mapped_column(default="")
    issuer: Mapped[str] = mapped_column(default="AOK")
    year: Mapped[int | None] = encrypted_int(default=lambda: 2026, bind="row")
    holder: Mapped[str | None] = encrypted_str(bind="row")
    found_by: Mapped[tuple[str, int, str] | None] = encrypted_compound(
        "issuer", "year", "holder", bind="row", padding=16
    )
    serial: Mapped[str | None] = mapped_column()
    held: Mapped[tuple[str, str] | None] = encrypted_compound(
        "holder", "serial", normalize={"serial": "digits"}, bind="row"
    )


class Person(Base):
    """Restricted parts restrict what is made of them."""

    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    first: Mapped[str] = encrypted_str()
    last: Mapped[str] = encrypted_str(reveal={"treatment"})
    both: Mapped[tuple[str, str]] = encrypted_compound("first", "last")


class Staff(Base):
    """Each SELECT joins the tables of all subclasses; parent and child have a compound."""

    __tablename__ = "staff"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    kind: Mapped[str]
    name: Mapped[str] = encrypted_str()
    room: Mapped[int] = mapped_column()
    placed: Mapped[tuple[str, int]] = encrypted_compound("name", "room")
    __mapper_args__ = {  # noqa: RUF012  (SQLAlchemy's way)
        "polymorphic_on": "kind",
        "polymorphic_identity": "staff",
        "with_polymorphic": "*",
    }


class Nurse(Staff):
    __tablename__ = "nurses"
    id: Mapped[int] = mapped_column(ForeignKey("staff.id"), primary_key=True)
    practice_id: Mapped[uuid.UUID] = mapped_column("tenant_id", ForeignKey("practices.id"))
    ward: Mapped[str] = encrypted_str()
    shift: Mapped[int] = mapped_column()
    at: Mapped[tuple[str, int]] = encrypted_compound("ward", "shift")
    __mapper_args__ = {"polymorphic_identity": "nurse"}  # noqa: RUF012


def make_guard(roles: Roles, key_file: Path, **options: Any) -> TenantGuard:
    keys = KeyFile(key_file, environment=ENVIRONMENT)
    return TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=keys, **options)


def build(admin_url: URL, directory: Path) -> Vault:
    key_file = directory / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    admin = create_engine(admin_url)
    guard = make_guard(unique_roles(), key_file)
    Base.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(Practice), [{"id": A}, {"id": B}])
    rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
    return Vault(admin, guard, admin_url.set(username=guard.roles.application), key_file)
