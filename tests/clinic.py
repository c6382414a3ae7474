"""A database, to which versions of an application come one after the other."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from locks import unique_roles
from sqlalchemy import URL, Engine, ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from vault import ENVIRONMENT, A, B

from tenantguard import Exact, KeyFile, Last, Roles, TenantGuard, encrypted_str, rls, tenant_context
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class Clinic:
    """A database, to which versions of an application come one after the other."""

    admin: Engine
    roles: Roles
    key_file: Path
    engines: list[Engine]

    def version(self, **columns: Callable[[], Any]) -> Version:
        """The application whose patients have *columns*."""

        class Base(DeclarativeBase):
            pass

        class Practice(Base):
            __tablename__ = "practices"
            id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

        body: dict[str, Any] = {
            "__tablename__": "patients",
            "id": mapped_column(primary_key=True),
            "tenant_id": mapped_column(ForeignKey("practices.id")),
            "__annotations__": {"id": Mapped[int], "tenant_id": Mapped[uuid.UUID]},
        }
        body |= {name: make() for name, make in columns.items()}
        model = type("Patient", (Base,), {**body, "__module__": __name__})
        keys = KeyFile(self.key_file, environment=ENVIRONMENT)
        guard = TenantGuard(Base.metadata, tenants="practices", roles=self.roles, keys=keys)
        return Version(self, guard, model)

    def run(self, statement: str) -> list[Any]:
        """Run *statement* as superuser."""
        with self.admin.begin() as connection:
            result = connection.exec_driver_sql(
                statement, execution_options={"no_parameters": True}
            )
            return list(result.fetchall()) if result.returns_rows else []


@dataclass
class Version:
    clinic: Clinic
    guard: TenantGuard
    patient: Any

    def apply(self, *, by_script: bool = False) -> None:
        if by_script:
            known = self.guard.catalog, self.clinic.roles
            autocommit = self.clinic.admin.execution_options(isolation_level="AUTOCOMMIT")
            with autocommit.connect() as connection:
                for script in (rls.down_sql(*known), rls.sql(*known)):
                    connection.exec_driver_sql(script, execution_options={"no_parameters": True})
        else:
            rls.apply(self.clinic.admin, self.guard.catalog, self.clinic.roles)

    def steps(self) -> list[Any]:
        """What apply would do."""
        with self.clinic.admin.connect() as connection:
            return rls.plan(connection, self.guard.catalog, self.clinic.roles)

    def session(self) -> Session:
        """A session on a protected engine of its own, which verifies anew."""
        url = self.clinic.admin.url.set(username=self.clinic.roles.application)
        engine = create_engine(url)
        self.clinic.engines.append(engine)
        self.guard.protect(engine)
        return Session(engine)

    def add(self, tenant: uuid.UUID, **values: Any) -> None:
        with tenant_context(tenant), self.session() as session:
            session.add(self.patient(**values))
            session.commit()

    def search(self, name: str) -> tuple[list[int], list[int]]:
        """The patients of that name, and all others."""
        column = self.patient.name
        with tenant_context(A), self.session() as session:
            same, others = (
                list(session.scalars(select(self.patient.id).where(each)))
                for each in (column == name, column != name)
            )
        return same, others

    def findings(self) -> list[str]:
        url = self.clinic.admin.url.set(username=self.clinic.roles.application)
        engine = create_engine(url)
        with engine.connect() as connection:
            dbapi: Any = connection.connection.dbapi_connection
            found = rls.verify(dbapi, self.guard.catalog, self.clinic.roles)
        engine.dispose()
        return [each.code for each in found]


def plain() -> Any:
    return encrypted_str(nullable=True)


def generated() -> Any:
    return encrypted_str(search=Exact(), nullable=True)


def kept() -> Any:
    return encrypted_str(search=Exact(kept_by="trigger"), nullable=True)


def kept_twice() -> Any:
    return encrypted_str(
        search=[Exact(kept_by="trigger"), Last(3, kept_by="trigger")], nullable=True
    )


@contextmanager
def open_clinic(url: URL, directory: Path) -> Iterator[Clinic]:
    """A clinic whose patients have an encrypted name that is not searched."""
    key_file = directory / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    made = Clinic(create_engine(url), unique_roles(), key_file, [])
    first = made.version(name=plain)
    first.guard.catalog.metadata.create_all(made.admin)
    made.run(f"INSERT INTO practices VALUES ('{A}'), ('{B}')")
    rls.apply(made.admin, first.guard.catalog, made.roles, create_roles=True)
    yield made
    for engine in (*made.engines, made.admin):
        engine.dispose()
