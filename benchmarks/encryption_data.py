"""A database with encrypted columns, and the same values as plaintext, under the same policies."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import bench  # noqa: F401  (puts the tests' modules into reach)
from locks import unique_roles
from sqlalchemy import URL, Engine, ForeignKey, Index, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard import (
    Exact,
    KeyFile,
    TenantGuard,
    encrypted_date,
    encrypted_str,
    rls,
    tenant_context,
)
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENT = "benchmark"
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Patient(Base):
    """Each patient's name twice: encrypted, and as text with an index as one has it by hand."""

    __tablename__ = "patients"
    __table_args__ = (Index("ix_patients_plain_name", "tenant_id", "plain_name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    plain_name: Mapped[str]
    name: Mapped[str] = encrypted_str(search=Exact(normalize="nfc-casefold"))


class PlainVisit(Base):
    __tablename__ = "plain_visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    patient: Mapped[str]
    day: Mapped[date]
    notes: Mapped[str]


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    patient: Mapped[str] = encrypted_str(search=Exact())
    day: Mapped[date] = encrypted_date()
    notes: Mapped[str] = encrypted_str()


@dataclass(frozen=True, slots=True)
class Clinic:
    """The database.

    Attributes:
        admin: A superuser's engine, without any lock and without keys.
        engine: The application's, protected.
        guard: The guard that protects it.
        app_url: The address of the application's login.
        key_file: The key-encryption key's file.
    """

    admin: Engine
    engine: Engine
    guard: TenantGuard
    app_url: URL
    key_file: Path

    def run(self, statement: str, **values: Any) -> list[Any]:
        """Run SQL as the superuser, each statement for itself; return its rows."""
        admin = self.admin.execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def write(self, model: type[Base], rows: list[dict[str, Any]]) -> None:
        """Insert *rows* as their tenant does, with sealed values where columns are encrypted."""
        with tenant_context(rows[0]["tenant_id"]), self.engine.begin() as connection:
            connection.execute(insert(model), rows)


@contextmanager
def clinic(tenants: int) -> Iterator[Clinic]:
    """Give a fresh database with *tenants*."""
    with embedded_server(SETTINGS) as server, TemporaryDirectory() as directory:
        key_file = Path(directory) / "key.json"
        make_key_file(key_file, environment=ENVIRONMENT)
        admin, roles = create_engine(server.url()), unique_roles()
        guard = TenantGuard(
            Base.metadata,
            tenants="practices",
            roles=roles,
            keys=KeyFile(key_file, environment=ENVIRONMENT),
        )
        Base.metadata.create_all(admin)
        with admin.begin() as connection:
            rows = [{"id": tenant(number)} for number in range(tenants)]
            connection.execute(insert(Practice), rows)
        rls.apply(admin, guard.catalog, roles, create_roles=True)
        app_url = server.url(user=roles.application)
        engine = create_engine(app_url)
        guard.protect(engine)
        built = Clinic(admin, engine, guard, app_url, key_file)
        print(f"\nPostgreSQL {built.run('SHOW server_version')[0][0]}")
        yield built
        engine.dispose()
        admin.dispose()


def tenant(number: int) -> uuid.UUID:
    return uuid.UUID(int=(0xAAAAAAAA << 96) + number)
