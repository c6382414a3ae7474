"""The application of the histories: entries and their marks, of eight tenants."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

from ledger import TABLES, Row
from locks import unique_roles
from sqlalchemy import URL, Engine, ForeignKey, create_engine, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from tenantguard import TenantGuard, rls

TENANTS = tuple(uuid.UUID(int=(number << 120) | 0x4000_8000_0000_0000_0000) for number in range(8))
_SETTLED = 30.0


class Base(DeclarativeBase):
    pass


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Entry(Base):
    __tablename__ = "entries"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    owner: Mapped[str]
    writer: Mapped[int]
    seq: Mapped[int]
    marks: Mapped[list[Mark]] = relationship(cascade="all, delete-orphan", passive_deletes=True)


class Mark(Base):
    __tablename__ = "marks"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("tenants.id"))
    entry_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("entries.id", ondelete="CASCADE"))
    owner: Mapped[str]
    writer: Mapped[int]
    seq: Mapped[int]


@dataclass(slots=True)
class Site:
    """A database for histories.

    Attributes:
        admin: A superuser's engine, without any lock, straight to the server.
        guard: Protects the application's engines.
        pooler: PgBouncer's address, if it is between the application and the server.
    """

    admin: Engine
    guard: TenantGuard
    pooler: URL | None = None

    @classmethod
    def build(cls, admin_url: URL) -> Site:
        """Make the tables, the tenants, the roles and the policies."""
        admin = create_engine(admin_url)
        guard = TenantGuard(Base.metadata, tenants="tenants", roles=unique_roles())
        Base.metadata.create_all(admin)
        with Session(admin) as session, session.begin():
            session.add_all(Tenant(id=tenant) for tenant in TENANTS)
        rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
        return cls(admin, guard)

    def protect(self, target: Any) -> None:
        """Protect an engine as users do."""
        self.guard.protect(target)

    def address(self) -> URL:
        """Return the address that the application connects to."""
        url = self.pooler or self.admin.url
        return url.set(username=self.guard.roles.application, database=self.admin.url.database)

    def rows(self) -> list[Row]:
        """Return all that the database holds, once no application's transaction is open."""
        self._wait_until_settled()
        columns = "id::text, tenant_id::text, owner, writer, seq"
        with self.admin.connect() as connection:
            return [
                Row(table, *row)
                for table in TABLES
                for row in connection.execute(text(f"SELECT {columns} FROM {table}"))
            ]

    def _wait_until_settled(self) -> None:
        # A COMMIT whose client has gone may still be under way.
        query = text(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = :name AND state != 'idle'"
        )
        deadline = time.monotonic() + _SETTLED
        while time.monotonic() < deadline:
            with self.admin.connect() as connection:
                if not connection.scalar(query, {"name": self.guard.roles.application}):
                    return
            time.sleep(0.02)
        raise TimeoutError("transactions of the application are still open")

    def clear(self) -> None:
        """Remove all rows."""
        with self.admin.begin() as connection:
            connection.execute(text("TRUNCATE entries, marks"))

    def dispose(self) -> None:
        self.admin.dispose()
