"""An application whose columns hold plaintext, and the same while they are being encrypted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from sqlalchemy import DateTime, ForeignKey, Numeric, insert, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from vault import ENVIRONMENT, A, B

from tenantguard import (
    Exact,
    KeyFile,
    Roles,
    TenantGuard,
    encrypted_bool,
    encrypted_bytes,
    encrypted_date,
    encrypted_datetime,
    encrypted_decimal,
    encrypted_int,
    encrypted_json,
    encrypted_str,
    encrypted_uuid,
    rls,
)

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

VALUES: dict[str, Any] = {
    "name": "Zoë \\ '% :x",
    "scan": b"\x00\xff",
    "visits": -7,
    "fee": Decimal("12.50"),
    "born": date(1970, 1, 2),
    "seen_at": datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
    "insured": uuid.UUID(int=7),
    "smoker": True,
    "history": {"a": [1, "ü"]},
}
"""A value of each type that can be encrypted, by its column."""


class Old(DeclarativeBase):
    """The application before."""


class New(DeclarativeBase):
    """The application while it migrates."""


class OldPractice(Old):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class NewPractice(New):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class OldPatient(Old):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    name: Mapped[str] = mapped_column(index=True)
    scan: Mapped[bytes | None]
    visits: Mapped[int | None]
    fee: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    born: Mapped[date | None]
    seen_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    insured: Mapped[uuid.UUID | None]
    smoker: Mapped[bool | None]
    history: Mapped[Any | None] = mapped_column(JSONB)


class NewPatient(New):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    plain_name: Mapped[str | None] = mapped_column("name", index=True)
    name: Mapped[str] = encrypted_str(
        name="name_sealed", search=Exact(normalize="nfc-casefold"), migrating="name"
    )
    plain_scan: Mapped[bytes | None] = mapped_column("scan")
    scan: Mapped[bytes | None] = encrypted_bytes(name="scan_sealed", migrating="scan")
    plain_visits: Mapped[int | None] = mapped_column("visits")
    visits: Mapped[int | None] = encrypted_int(name="visits_sealed", migrating="visits")
    plain_fee: Mapped[Decimal | None] = mapped_column("fee", Numeric(10, 2))
    fee: Mapped[Decimal | None] = encrypted_decimal(name="fee_sealed", migrating="fee")
    plain_born: Mapped[date | None] = mapped_column("born")
    born: Mapped[date | None] = encrypted_date(name="born_sealed", migrating="born", bind="row")
    plain_seen_at: Mapped[datetime | None] = mapped_column("seen_at", DateTime(timezone=True))
    seen_at: Mapped[datetime | None] = encrypted_datetime(
        name="seen_at_sealed", migrating="seen_at"
    )
    plain_insured: Mapped[uuid.UUID | None] = mapped_column("insured")
    insured: Mapped[uuid.UUID | None] = encrypted_uuid(
        name="insured_sealed", search=Exact(kept_by="trigger"), migrating="insured"
    )
    plain_smoker: Mapped[bool | None] = mapped_column("smoker")
    smoker: Mapped[bool | None] = encrypted_bool(name="smoker_sealed", migrating="smoker")
    plain_history: Mapped[Any | None] = mapped_column("history", JSONB)
    history: Mapped[Any | None] = encrypted_json(name="history_sealed", migrating="history")


@dataclass(slots=True)
class Moving:
    """A database with the old tables, their policies, and the tenants A and B.

    Attributes:
        admin: A superuser's engine.
        roles: The roles.
        old: The old application's guard.
        new: The guard of the application that migrates.
    """

    admin: Engine
    roles: Roles
    old: TenantGuard
    new: TenantGuard

    def run(self, statement: str, **values: Any) -> list[Any]:
        """Run SQL as the superuser, committed; return its rows."""
        with self.admin.begin() as connection:
            result = connection.execute(text(statement), values)
            return list(result) if result.returns_rows else []

    def begin(self, rows: int) -> None:
        """Make the table of patients anew, as the old application has it, with *rows* of A."""
        self.run("DROP TABLE IF EXISTS patients")
        Old.metadata.create_all(self.admin)
        rls.apply(self.admin, self.old.catalog, self.roles)
        with self.admin.begin() as connection:
            named = [{"tenant_id": A, **VALUES, "name": f"patient {n}"} for n in range(rows)]
            connection.execute(insert(OldPatient), named)
            connection.execute(insert(OldPatient), {"tenant_id": B, **VALUES})
            connection.execute(insert(OldPatient), {"tenant_id": B, "name": "without the rest"})


def build_moving(admin: Engine, roles: Roles, key_file: Path) -> Moving:
    """Make what stays from test to test."""
    Old.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(OldPractice), [{"id": A}, {"id": B}])
    old = TenantGuard(Old.metadata, tenants="practices", roles=roles)
    rls.apply(admin, old.catalog, roles, create_roles=True)
    keys = KeyFile(key_file, environment=ENVIRONMENT)
    new = TenantGuard(New.metadata, tenants="practices", roles=roles, keys=keys)
    return Moving(admin, roles, old, new)
