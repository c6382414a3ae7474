"""A second application: one table of each shape that PostgreSQL and SQLAlchemy know.

Its MetaData has partitions, children by INHERITS, views and materialised views as tables, and some
of each that it does not know.
"""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from attacking import Stage
from locks import World, unique_roles
from practice import A, B
from sqlalchemy import (
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
    select,
    text,
)
from sqlalchemy.ext.declarative import AbstractConcreteBase
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, column_property, mapped_column
from sqlalchemy.orm import relationship as related

from tenantguard import Roles, TenantGuard, rls
from tenantguard.rls.names import qualified

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine


class Base(DeclarativeBase):
    metadata = MetaData()


def _tenant() -> Any:
    return mapped_column(ForeignKey("practices.id"), index=True)


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]


class Reading(Base):
    """Partitioned by day."""

    __tablename__ = "readings"
    __table_args__ = {"postgresql_partition_by": "RANGE (day)"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    day: Mapped[date] = mapped_column(primary_key=True, default=date(2025, 5, 5))
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]


class Person(Base):
    """The parent of `staff` and `guests`, by INHERITS."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]


class Staff(Base):
    __tablename__ = "staff"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]


class Sample(Base):
    """In a schema of its own."""

    __tablename__ = "samples"
    __table_args__ = {"schema": "lab"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]


class Bed(Base):
    """With the tenant in its key."""

    __tablename__ = "beds"
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    stays: Mapped[list[Stay]] = related(back_populates="bed")


class Stay(Base):
    __tablename__ = "stays"
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "bed_number"], ["beds.tenant_id", "beds.number"]),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    bed_number: Mapped[int]
    name: Mapped[str]
    bed: Mapped[Bed] = related(back_populates="stays")


class Folder(Base):
    """A tree."""

    __tablename__ = "folders"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("folders.id"))
    children: Mapped[list[Folder]] = related(back_populates="parent", join_depth=3)
    parent: Mapped[Folder | None] = related(remote_side="Folder.id", back_populates="children")


class Device(Base):
    """One table for three classes."""

    __tablename__ = "devices"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "device"}  # noqa: RUF012


class Scanner(Device):
    dpi: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "scanner"}  # noqa: RUF012


class Document(Base):
    """The parent of `invoices`, which has a tenant column of its own."""

    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    kind: Mapped[str]
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "document"}  # noqa: RUF012


class Invoice(Document):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    tenant_id: Mapped[uuid.UUID] = column_property(
        Column("tenant_id", ForeignKey("practices.id"), nullable=False, index=True),
        Document.__table__.c.tenant_id,
    )
    cents: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "invoice"}  # noqa: RUF012


class Notice(AbstractConcreteBase, Base):
    """Two classes with a whole table each."""

    strict_attrs = True
    name: Mapped[str]


class Mail(Notice):
    __tablename__ = "mails"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "mail", "concrete": True}  # noqa: RUF012


class Call(Notice):
    __tablename__ = "calls"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = _tenant()
    name: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "call", "concrete": True}  # noqa: RUF012


class Line(Base):
    """With names that need quotes."""

    __tablename__ = 'Order "Lines" %'
    id: Mapped[int] = mapped_column("Line Id", primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column("Owner's", ForeignKey("practices.id"), index=True)
    name: Mapped[str] = mapped_column("select")


parts = Table(
    "readings_2025",
    Base.metadata,
    Column("id", primary_key=True, type_=Reading.__table__.c.id.type, autoincrement=False),
    Column("tenant_id", ForeignKey("practices.id"), nullable=False, index=True),
    Column("name", String, nullable=False),
)
listed = Table(
    "reading_list",
    Base.metadata,
    Column("tenant_id", Uuid),
    Column("name", String),
    info={"is_view": True},
)
totals = Table(
    "reading_totals",
    Base.metadata,
    Column("tenant_id", Uuid),
    Column("name", String),
    info={"is_view": True},
)

_NOT_CREATED = {"readings_2025", "staff", "reading_list", "reading_totals"}

_DDL = """
CREATE TABLE readings_2025 PARTITION OF readings FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE readings_rest PARTITION OF readings DEFAULT;
CREATE TABLE staff (PRIMARY KEY (id)) INHERITS (people);
CREATE TABLE guests (PRIMARY KEY (id)) INHERITS (people);
CREATE VIEW reading_list AS SELECT tenant_id, name FROM readings;
CREATE MATERIALIZED VIEW reading_totals AS SELECT tenant_id, name FROM readings;
"""

SIMPLE: dict[str, Any] = {
    "partitioned": Reading,
    "parent by INHERITS": Person,
    "child by INHERITS": Staff,
    "another schema": Sample,
    "composite key": Bed,
    "tree": Folder,
    "single table": Device,
    "single table's subclass": Scanner,
    "joined": Document,
    "joined subclass": Invoice,
    "concrete": Mail,
    "quoted names": Line,
}
"""Mapped classes with rows a0, a1, a2 of A, and b0, b1, b2 of B."""


def make_shape_guard(roles: Roles) -> TenantGuard:
    return TenantGuard(
        Base.metadata,
        tenants="practices",
        tenant_columns={Line.__tablename__: "Owner's"},
        untenanted={"reading_totals": "sums for the nightly report"},
        roles=roles,
    )


def build_shapes(admin_url: URL) -> World:
    admin = create_engine(admin_url)
    roles = unique_roles()
    guard = make_shape_guard(roles)
    with admin.begin() as connection:
        connection.execute(text("CREATE SCHEMA lab"))
        tables = [one for one in Base.metadata.sorted_tables if one.name not in _NOT_CREATED]
        Base.metadata.create_all(connection, tables)
        for statement in filter(str.strip, _DDL.split(";")):
            connection.execute(text(statement))
    fill_shapes(admin)
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    return World(admin, guard, admin_url.set(username=roles.application))


def fill_shapes(admin: Engine) -> None:
    """Give each tenant three rows of each shape; a folder's parent is the one before it."""
    with Session(admin) as session:
        session.add_all([Practice(id=A, name="Praxis A"), Practice(id=B, name="Praxis B")])
        session.flush()
        for tenant, letter in ((A, "a"), (B, "b")):
            for number in range(3):
                _add_row(session, tenant, f"{letter}{number}", number)
        session.commit()
        session.execute(text("REFRESH MATERIALIZED VIEW reading_totals"))
        session.commit()


def _add_row(session: Session, tenant: uuid.UUID, name: str, number: int) -> None:
    plain = (Sample, Mail, Call, Line, Person, Staff, Scanner, Invoice)
    session.add_all(model(tenant_id=tenant, name=name) for model in plain)
    session.add(Reading(tenant_id=tenant, name=name))
    bed = Bed(tenant_id=tenant, number=number, name=name)
    before = session.scalar(
        select(Folder.id).where(Folder.tenant_id == tenant).order_by(-Folder.id)
    )
    session.add_all([bed, Folder(tenant_id=tenant, name=name, parent_id=before)])
    session.flush()
    if number < 2:
        session.add(Stay(tenant_id=tenant, bed=bed, name=name))
    session.flush()


@dataclass(frozen=True, slots=True)
class Mark:
    """One tenant's rows of each shape, at which work is aimed: each named *name*."""

    tenant: uuid.UUID
    name: str
    ids: dict[str, Any]


def key_of(model: Any) -> Any:
    """Return the column that tells the rows of one tenant apart."""
    return model.number if model is Bed else model.id


def mark(world: World, tenant: uuid.UUID, name: str) -> Mark:
    with Session(world.admin) as session:
        ids = {
            shape: session.scalars(
                select(key_of(model)).where(model.tenant_id == tenant, model.name == name)
            ).first()
            for shape, model in SIMPLE.items()
        }
    return Mark(tenant, name, ids)


class ShapeStage(Stage):
    """A stage on the world of shapes; its rows are those of all tables."""

    def rows(self) -> dict[uuid.UUID, list[str]]:
        found: dict[uuid.UUID, list[str]] = {A: [], B: []}
        with self.world.admin.connect() as connection:
            for table in _whole_tables():
                column = '"Owner\'s"' if "Order" in table else "tenant_id"
                query = f"SELECT {column}, to_jsonb(t)::text FROM {table} t ORDER BY 1, 2"
                for tenant, row in connection.execute(text(query)):
                    found.setdefault(tenant, []).append(f"{table}: {row}")
        return found

    def restore(self) -> None:
        with self.world.admin.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            tables = ", ".join(('"public"."practices"', *_whole_tables()))
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
        fill_shapes(self.world.admin)


def _whole_tables() -> list[str]:
    return [
        qualified((table.schema or "public", table.name))
        for table in Base.metadata.sorted_tables
        if table.name not in {*_NOT_CREATED, "practices"}
    ]
