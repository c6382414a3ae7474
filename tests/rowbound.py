"""An application whose values are bound to their row."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard import (
    Exact,
    encrypted_int,
    encrypted_json,
    encrypted_str,
)


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class Letter(Base):
    __tablename__ = "letters"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    number: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    subject: Mapped[str] = encrypted_str(bind="row", search=Exact(normalize="nfc-casefold"))
    body: Mapped[str | None] = encrypted_str(bind="row")
    weight: Mapped[int | None] = encrypted_int(bind="row", deferred=True)
    loose: Mapped[str | None] = encrypted_str()
    pages: Mapped[list[Page]] = relationship(back_populates="letter", order_by="Page.id")
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012  (SQLAlchemy's way)


class Page(Base):
    """A key of the application's own numbers; nothing counts them."""

    __tablename__ = "pages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    letter_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("letters.id"))
    text: Mapped[str | None] = encrypted_str(bind="row", search=Exact())
    marks: Mapped[dict[str, Any] | None] = encrypted_json(bind="row")
    letter: Mapped[Letter | None] = relationship(back_populates="pages")


class Account(Base):
    """A key that the database counts."""

    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    iban: Mapped[str | None] = encrypted_str(bind="row")


class Shelf(Base):
    """A key of three columns of each type, the tenant's among them."""

    __tablename__ = "shelves"
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), primary_key=True)
    room: Mapped[str] = mapped_column(String(20), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holds: Mapped[str | None] = encrypted_str(bind="row", search=Exact())


class Person(Base):
    __tablename__ = "persons"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    kind: Mapped[str]
    name: Mapped[str] = encrypted_str(bind="row")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Doctor(Person):
    __tablename__ = "doctors"
    id: Mapped[uuid.UUID] = mapped_column(ForeignKey("persons.id"), primary_key=True)
    practice_id: Mapped[uuid.UUID] = mapped_column("tenant_id", ForeignKey("practices.id"))
    licence: Mapped[str | None] = encrypted_str(bind="row")
    __mapper_args__ = {"polymorphic_identity": "doctor"}  # noqa: RUF012
