"""An application whose attributes read and write two columns each, while one is being encrypted."""

from __future__ import annotations

import uuid
from datetime import date  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from typing import TYPE_CHECKING, Any

from locks import unique_roles
from sqlalchemy import URL, ForeignKey, create_engine, func, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, validates
from vault import ENVIRONMENT, A, B, Vault

from tenantguard import (
    Exact,
    KeyFile,
    TenantGuard,
    both,
    encrypted_date,
    encrypted_dict,
    encrypted_int,
    encrypted_str,
    rls,
)
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.encrypt.migrating import migration_of
from tenantguard.encrypt.schema import expand, structure_of

if TYPE_CHECKING:
    from pathlib import Path


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    city: Mapped[str] = mapped_column(default="")
    plain_name: Mapped[str | None] = mapped_column("name")
    sealed_name: Mapped[str | None] = encrypted_str(
        name="name_sealed", search=Exact(), migrating="name"
    )
    name: Mapped[str | None] = both(sealed_name, plain_name)
    plain_number: Mapped[int | None] = mapped_column("number")
    sealed_number: Mapped[int | None] = encrypted_int(
        name="number_sealed", search=Exact(), migrating="number"
    )
    number: Mapped[int | None] = both(sealed_number, plain_number)
    plain_born: Mapped[date | None] = mapped_column("born")
    sealed_born: Mapped[date | None] = encrypted_date(
        name="born_sealed", search=Exact(), migrating="born", bind="row"
    )
    born: Mapped[date | None] = both(sealed_born, plain_born)
    plain_email: Mapped[str | None] = mapped_column("email")
    sealed_email: Mapped[str | None] = encrypted_str(
        name="email_sealed", search=Exact(normalize="email"), migrating="email"
    )
    email: Mapped[str | None] = both(sealed_email, plain_email, alike=func.lower)
    plain_notes: Mapped[str | None] = mapped_column("notes")
    sealed_notes: Mapped[str | None] = encrypted_str(
        name="notes_sealed", search=Exact(), migrating="notes", reveal={"treatment"}
    )
    notes: Mapped[str | None] = both(sealed_notes, plain_notes)
    plain_remark: Mapped[str | None] = mapped_column("remark")
    sealed_remark: Mapped[str | None] = encrypted_str(
        name="remark_sealed", migrating="remark", on_error="placeholder"
    )
    remark: Mapped[str | None] = both(sealed_remark, plain_remark)
    plain_extras: Mapped[dict[str, Any] | None] = mapped_column("extras", JSONB(none_as_null=True))
    sealed_extras: Mapped[dict[str, Any] | None] = encrypted_dict(
        name="extras_sealed", migrating="extras"
    )
    extras: Mapped[dict[str, Any] | None] = both(sealed_extras, plain_extras)
    visits: Mapped[list[Visit]] = relationship(back_populates="patient")

    @validates("remark")
    def _trimmed(self, _key: str, value: str | None) -> str | None:
        return value.strip() if isinstance(value, str) else value


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    patient_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patients.id"))
    patient: Mapped[Patient] = relationship(back_populates="visits")


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    plain_text: Mapped[str | None] = mapped_column("text")
    sealed_text: Mapped[str | None] = encrypted_str(name="text_sealed", migrating="text")
    text: Mapped[str | None] = both(sealed_text, plain_text)


NAMES = ("name", "number", "born", "email", "notes", "remark", "extras")
"""The attributes that read two columns."""


def build_pairs(admin_url: URL, directory: Path) -> Vault:
    """Make the tables with the triggers of `tenantguard encrypt expand`."""
    key_file = directory / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    admin, roles = create_engine(admin_url), unique_roles()
    keys = KeyFile(key_file, environment=ENVIRONMENT)
    guard = TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=keys)
    Base.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(Practice), [{"id": A}, {"id": B}])
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    with admin.begin() as connection:
        for name in NAMES:
            migration = migration_of(guard.catalog, f"patients.{name}")
            there = structure_of(lambda sql: connection.execute(text(sql)).all(), migration)
            assert there is not None
            for statements in expand(migration, there):
                for each in statements.sql:
                    connection.exec_driver_sql(each.replace("%", "%%"))
    return Vault(admin, guard, admin_url.set(username=roles.application), key_file)
