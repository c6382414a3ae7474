"""A column of plaintext becomes an encrypted one under running applications, from end to end."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from commanding import Command, serve
from locks import unique_roles
from sqlalchemy import ForeignKey, create_engine, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from vault import ENVIRONMENT, A, B

from tenantguard import (
    Exact,
    KeyFile,
    TenantGuard,
    both,
    encrypted_date,
    encrypted_str,
    rls,
    tenant_context,
)
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL, Engine

BORN = date(1970, 1, 2)


class Before(DeclarativeBase):
    """The application that knows plaintext alone."""


class During(DeclarativeBase):
    """The application that knows both columns."""


class After(DeclarativeBase):
    """The application that knows the sealed column alone."""


class _Practice:
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class _Patient:
    __tablename__ = "patients"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)


class PracticeBefore(_Practice, Before):
    pass


class PracticeDuring(_Practice, During):
    pass


class PracticeAfter(_Practice, After):
    pass


class PatientBefore(_Patient, Before):
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str] = mapped_column(index=True)
    born: Mapped[date | None]


class PatientDuring(_Patient, During):
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    plain_name: Mapped[str] = mapped_column("name", index=True, nullable=True)
    sealed_name: Mapped[str] = encrypted_str(name="name_sealed", search=Exact(), migrating="name")
    name: Mapped[str] = both(sealed_name, plain_name)
    plain_born: Mapped[date | None] = mapped_column("born")
    sealed_born: Mapped[date | None] = encrypted_date(
        name="born_sealed", migrating="born", bind="row"
    )
    born: Mapped[date | None] = both(sealed_born, plain_born)


class PatientAfter(_Patient, After):
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    name: Mapped[str] = encrypted_str(name="name_sealed", search=Exact())
    born: Mapped[date | None] = encrypted_date(name="born_sealed", bind="row")


@dataclass(slots=True)
class App:
    """One version of the application, running."""

    model: Any
    engine: Engine

    def adds(self, *names: str) -> None:
        with tenant_context(A), Session(self.engine) as session:
            session.add_all(self.model(name=name, born=BORN) for name in names)
            session.commit()

    def adds_in_bulk(self, *names: str) -> None:
        with tenant_context(A), Session(self.engine) as session:
            session.execute(insert(self.model), [{"name": name, "born": BORN} for name in names])
            session.commit()

    def renames(self, old: str, new: str) -> None:
        with tenant_context(A), Session(self.engine) as session:
            renamed = update(self.model).where(self.model.name == old).values(name=new)
            assert session.execute(renamed).rowcount == 1  # type: ignore[attr-defined]
            session.commit()

    def has(self, *names: str, without: tuple[str, ...] = ()) -> None:
        """Assert that it reads and finds *names*, and does not find what is *without*."""
        name = self.model.name
        with tenant_context(A), Session(self.engine) as session:
            rows = session.execute(select(name, self.model.born)).all()
            assert sorted(map(tuple, rows)) == sorted((each, BORN) for each in names)
            assert sorted(each.name for each in session.scalars(select(self.model))) == sorted(
                names
            )
            for each in names:
                assert session.scalars(select(name).where(name == each)).all() == [each]
            assert session.scalars(select(name).where(name.in_(without))).all() == []


@dataclass(slots=True)
class Journey:
    admin: Engine
    before: App
    during: App
    after: App
    command: Command
    protect: Any

    def command_ends(self, *arguments: str, code: int = 0) -> None:
        for column in ("patients.name", "patients.born"):
            result = self.command(arguments[0], column, *arguments[1:])
            assert result.exit_code == code, result.output


@pytest.fixture
def journey(admin_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journey]:
    make_key_file(tmp_path / "key.json", environment=ENVIRONMENT)
    keys = KeyFile(tmp_path / "key.json", environment=ENVIRONMENT)
    admin, roles = create_engine(admin_url), unique_roles()
    guards = {
        "before": TenantGuard(Before.metadata, tenants="practices", roles=roles),
        "during": TenantGuard(During.metadata, tenants="practices", roles=roles, keys=keys),
        "after": TenantGuard(After.metadata, tenants="practices", roles=roles, keys=keys),
    }
    Before.metadata.create_all(admin)
    with admin.begin() as connection:
        connection.execute(insert(PracticeBefore), [{"id": A}, {"id": B}])
    rls.apply(admin, guards["before"].catalog, roles, create_roles=True)
    apps = {}
    models = {"before": PatientBefore, "during": PatientDuring, "after": PatientAfter}
    for name, guard in guards.items():
        engine = create_engine(admin_url.set(username=roles.application))
        guard.protect(engine)
        apps[name] = App(models[name], engine)
    serve(monkeypatch, guard=guards["during"])

    def protect() -> None:
        rls.apply(admin, guards["during"].catalog, roles)

    yield Journey(admin, **apps, command=Command(admin), protect=protect)
    for app in apps.values():
        app.engine.dispose()
    admin.dispose()


def test_the_whole_journey(journey: Journey) -> None:
    """After each step every version of the application that runs then reads and finds each value.

    The versions are those that run side by side while the next one is rolled out.
    """
    before, during, after = journey.before, journey.during, journey.after
    before.adds("Ada", "Bo", "Cleo")

    journey.command_ends("expand")
    journey.protect()
    during.has("Ada", "Bo", "Cleo")
    during.adds("Dora")
    during.adds_in_bulk("Emil", "Fritz")
    during.renames("Ada", "Anna")
    before.renames("Dora", "Doro")
    before.renames("Bo", "Bob")
    before.adds("Gerd")
    names = ["Anna", "Bob", "Cleo", "Doro", "Emil", "Fritz", "Gerd"]
    for app in (before, during):
        app.has(*names, without=("Ada", "Bo", "Dora"))

    journey.command_ends("backfill")
    before.renames("Emil", "Emilia")
    during.renames("Fritz", "Friedrich")
    names = ["Anna", "Bob", "Cleo", "Doro", "Emilia", "Friedrich", "Gerd"]
    for app in (before, during):
        app.has(*names, without=("Emil", "Fritz"))

    # The last of the applications that write plaintext alone has gone.
    journey.command_ends("backfill")
    journey.command_ends("verify")
    for app in (during, after):
        app.has(*names)

    after.adds("Hanna")
    after.renames("Anna", "Anne")
    during.renames("Bob", "Robert")
    names = ["Anne", "Robert", "Cleo", "Doro", "Emilia", "Friedrich", "Gerd", "Hanna"]
    for app in (during, after):
        app.has(*names, without=("Anna", "Bob"))
    with journey.admin.connect() as connection:
        plain = set(connection.scalars(text("SELECT name FROM patients WHERE name IS NOT NULL")))
    assert plain == {"Robert", "Cleo", "Doro", "Emilia", "Friedrich", "Gerd"}

    journey.command_ends("contract")
    after.has(*names)
    after.renames("Hanna", "Johanna")
    after.has(*names[:-1], "Johanna", without=("Hanna",))
    with journey.admin.connect() as connection:
        [row, *_] = connection.execute(text("SELECT * FROM patients")).mappings()
    assert {*row} == {
        "id",
        "tenant_id",
        "name_sealed",
        "name_sealed_bidx",
        "born_sealed",
    }
