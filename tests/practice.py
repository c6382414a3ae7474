"""The application that the tests protect: practices, their patients and orders."""

from __future__ import annotations

import uuid
from datetime import date  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from typing import Any

from sqlalchemy import Column, ForeignKey, Table, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard import Roles, TenantGuard


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    email: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


order_tags = Table(
    "order_tags",
    Base.metadata,
    Column("tenant_id", ForeignKey("practices.id"), nullable=False),
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tags"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str]


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    name: Mapped[str]
    born: Mapped[date | None]
    referred_by_id: Mapped[int | None] = mapped_column(
        ForeignKey("patients.id", ondelete="SET NULL")
    )
    referred_by: Mapped[Patient | None] = relationship(remote_side="Patient.id")
    orders: Mapped[list[Order]] = relationship(
        back_populates="patient", cascade="all, delete-orphan", order_by="Order.id"
    )


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id", ondelete="CASCADE"))
    material_id: Mapped[int | None] = mapped_column(ForeignKey("materials.id"))
    what: Mapped[str]
    cents: Mapped[int] = mapped_column(default=0)
    patient: Mapped[Patient] = relationship(back_populates="orders")
    tags: Mapped[list[Tag]] = relationship(secondary=order_tags)


class Material(Base):
    __tablename__ = "materials"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Migration(Base):
    __tablename__ = "schema_versions"
    version: Mapped[str] = mapped_column(primary_key=True)


A = uuid.UUID("aaaaaaaa-0000-4000-8000-000000000001")
B = uuid.UUID("bbbbbbbb-0000-4000-8000-000000000002")
UNKNOWN = uuid.UUID("cccccccc-0000-4000-8000-000000000003")


def make_guard(roles: Roles, **options: Any) -> TenantGuard:
    guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        shared={"materials": "price list of the trade association"},
        untenanted={"schema_versions": "migration state"},
        roles=roles,
        **options,
    )
    guard.identity_lookup(User, by="email")
    return guard
