"""An application with encrypted columns of every type, and its database with two tenants."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, time  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from decimal import Decimal  # noqa: TC003
from enum import Enum
from typing import TYPE_CHECKING, Any

from drivers import engine_of
from locks import unique_roles
from sqlalchemy import URL, Engine, ForeignKey, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from tenantguard import (
    Exact,
    KeyFile,
    Last,
    Prefix,
    Roles,
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

A = uuid.UUID("aaaaaaaa-0000-4000-8000-00000000000a")
B = uuid.UUID("bbbbbbbb-0000-4000-8000-00000000000b")
ENVIRONMENT = "test"


class Base(DeclarativeBase):
    pass


class Severity(Enum):
    MILD = "mild"
    SEVERE = "so bad"


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    city: Mapped[str] = mapped_column(default="")
    # Either form of search columns: generated, and kept by a trigger.
    name: Mapped[str] = encrypted_str(search=Exact(normalize="nfc-casefold"))
    phone: Mapped[str | None] = encrypted_str(search=Exact(normalize="digits"))
    email: Mapped[str | None] = encrypted_str(search=Exact(normalize="email", kept_by="trigger"))
    born: Mapped[date | None] = encrypted_date(search=Exact(kept_by="trigger"))
    insured: Mapped[uuid.UUID | None] = encrypted_uuid(search=Exact())
    fee: Mapped[Decimal | None] = encrypted_decimal(search=Exact())
    number: Mapped[int | None] = encrypted_int(search=Exact())
    smoker: Mapped[bool | None] = encrypted_bool(
        search=Exact(few_values="two values; the tests search for them")
    )
    seen_at: Mapped[datetime | None] = encrypted_datetime(search=Exact())
    scan: Mapped[bytes | None] = encrypted_bytes(search=Exact())
    weight: Mapped[float | None] = encrypted_float(search=Exact())
    wakes: Mapped[time | None] = encrypted_time(search=Exact())
    severity: Mapped[Severity | None] = encrypted_enum(
        Severity, search=Exact(few_values="two values; the tests search for them")
    )
    extras: Mapped[dict[str, Any] | None] = encrypted_dict()
    tags: Mapped[list[Any] | None] = encrypted_list()
    policy: Mapped[str | None] = encrypted_str(
        search=[
            Exact(normalize="digits"),
            Last(4, normalize="digits", kept_by="trigger"),
            Prefix(3, normalize="nfc-casefold"),
        ],
        padding=16,
    )
    history: Mapped[dict[str, Any] | None] = encrypted_json()
    notes: Mapped[str | None] = encrypted_str()
    visits: Mapped[list[Visit]] = relationship(back_populates="patient", order_by="Visit.id")


class Visit(Base):
    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    patient_id: Mapped[int] = mapped_column(ForeignKey("patients.id"))
    reason: Mapped[str] = encrypted_str(search=Exact(kept_by="trigger"))
    patient: Mapped[Patient] = relationship(back_populates="visits")


@dataclass(slots=True)
class Vault:
    """The database, protected, with the tenants A and B and no other rows.

    Attributes:
        admin: A superuser's engine, without any lock and without keys.
        guard: The guard whose roles and policies the database has.
        app_url: The address of the application's login.
        key_file: The key-encryption key's file.
        base: What the application's models are declared on.
    """

    admin: Engine
    guard: TenantGuard
    app_url: URL
    key_file: Path
    base: type[DeclarativeBase] = Base
    _engines: list[Engine] = field(default_factory=list)

    def engine(self, driver: str = "psycopg", **options: Any) -> Engine:
        """An engine as users have it, with the module's guard and its cache of keys."""
        return self.protected_by(self.guard, driver, **options)

    def fresh_engine(self, driver: str = "psycopg", **options: Any) -> Engine:
        """The same with a guard of its own, which has no keys in its cache yet."""
        return self.protected_by(self.another_guard(), driver, **options)

    def another_guard(self) -> TenantGuard:
        """A guard for the same database, as another process would have it."""
        return make_guard(self.guard.roles, self.key_file, base=self.base)

    def protected_by(self, guard: TenantGuard, driver: str = "psycopg", **options: Any) -> Engine:
        engine = engine_of(self.app_url, driver, **options)
        self._engines.append(engine)
        guard.protect(engine)
        return engine

    def run(self, statement: str, **values: Any) -> list[Any]:
        """Run SQL as the superuser, committed; return its rows."""
        with self.admin.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def close_engines(self) -> None:
        """Close what a test has opened, where that test has run: in a greenlet or not."""
        for engine in self._engines:
            engine.dispose()
        self._engines.clear()

    def dispose(self) -> None:
        self.close_engines()
        self.admin.dispose()


def make_guard(
    roles: Roles, key_file: Path, *, base: type[DeclarativeBase] = Base, **options: Any
) -> TenantGuard:
    keys = KeyFile(key_file, environment=ENVIRONMENT)
    return TenantGuard(base.metadata, tenants="practices", roles=roles, keys=keys, **options)


def build_vault(
    admin_url: URL,
    directory: Path,
    *,
    roles: Roles | None = None,
    base: type[DeclarativeBase] = Base,
) -> Vault:
    key_file = directory / "key.json"
    if not key_file.exists():
        make_key_file(key_file, environment=ENVIRONMENT)
    admin = create_engine(admin_url)
    roles = roles or unique_roles()
    guard = make_guard(roles, key_file, base=base)
    base.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(base.metadata.tables["practices"]), [{"id": A}, {"id": B}])
    rls.apply(admin, guard.catalog, roles, create_roles=True)
    return Vault(admin, guard, admin_url.set(username=roles.application), key_file, base)
