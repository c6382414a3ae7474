"""The code that the documentation shows, and an application for it to run in."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING, Any

import sqlalchemy
from locks import unique_roles
from sqlalchemy import Engine, ForeignKey, create_engine, insert, orm
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, declared_attr, mapped_column
from vault import A, B

import tenantguard
from tenantguard import KeyFile, Roles, TenantGuard, rls
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[1]


def blocks(page: Path, language: str = "python") -> list[str]:
    """Return the code blocks of *page* in *language*."""
    block = re.compile(rf"^ *```{language}\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
    return [dedent(each) for each in block.findall(page.read_text())]


def halves(block: str) -> tuple[str, str]:
    """Split *block* before its last paragraph: what declares models, and what works with them."""
    declared, _, used = block.rpartition("\n\n")
    return declared, used


def new_base() -> type[DeclarativeBase]:
    """Return a `Base` that gives its models what the pages leave out: table, id and tenant."""

    class Registry(DeclarativeBase):
        pass

    class Practice(Registry):
        __tablename__ = "practices"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

    class Base(Registry):
        __abstract__ = True

        @declared_attr.directive
        def __tablename__(cls) -> str:  # noqa: N805
            return f"{cls.__name__.lower()}s"

        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))

    del Practice
    return Base


@dataclass(slots=True)
class Shown:
    """The application that a page is about, as far as the page has declared it.

    Attributes:
        admin: A superuser's engine.
        directory: Where key files are, whatever the page calls their directories.
        roles: The guards' roles.
        names: What the page's code can use, and what it has defined.
    """

    admin: Engine
    directory: Path
    roles: Roles = field(default_factory=unique_roles)
    names: dict[str, Any] = field(default_factory=dict)
    _engines: list[Engine] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `TenantGuard` and `KeyFile`, imported or not, work with what a test may use."""
        monkeypatch.setattr(tenantguard, "TenantGuard", partial(TenantGuard, roles=self.roles))
        monkeypatch.setattr(tenantguard, "KeyFile", self._key_file)
        of_tenantguard = {name: getattr(tenantguard, name) for name in tenantguard.__all__}
        of_sqlalchemy = {
            **{name: getattr(orm, name) for name in ("Mapped", "Session", "mapped_column")},
            **{name: getattr(sqlalchemy, name) for name in ("ForeignKey", "func", "select")},
        }
        modules = {"os": os, "uuid": uuid}
        self.names |= {"__name__": "shown", **modules, **of_tenantguard, **of_sqlalchemy}
        self.names["Base"] = new_base()

    def run(self, code: str) -> None:
        """Run *code* as it stands."""
        # Without this file's own `from __future__ import annotations`.
        exec(compile(code, "shown", "exec", dont_inherit=True), self.names)

    def run_in_class(self, code: str, name: str) -> None:
        """Run *code*, the lines of a class's body, as those of the model *name*."""
        self.run(f"class {name}(Base):\n{indent(code, '    ')}")

    def evaluate(self, line: str) -> Any:
        return eval(line, self.names)

    def protect(self, guard: TenantGuard | None = None) -> Engine:
        """Make the tables, the tenants A and B, and the locks; connect as users do."""
        guard = guard or self.guard()
        metadata = guard.catalog.metadata
        metadata.create_all(self.admin)
        with self.admin.begin() as connection:
            connection.execute(insert(metadata.tables["practices"]), [{"id": A}, {"id": B}])
        rls.apply(self.admin, guard.catalog, self.roles, create_roles=True)
        return self.connect(guard)

    def connect(self, guard: TenantGuard) -> Engine:
        """Return a protected engine, which the page's code finds as `engine` and in `session`."""
        engine = create_engine(self.admin.url.set(username=self.roles.application))
        self._engines.append(engine)
        guard.protect(engine)
        self.names.update(guard=guard, engine=engine, session=Session(engine))
        return engine

    def guard(self) -> TenantGuard:
        """Return a guard of the models that are declared, with a key."""
        keys = self._key_file("page.json", environment="production")
        metadata = self.names["Base"].metadata
        return TenantGuard(metadata, tenants="practices", roles=self.roles, keys=keys)

    def _key_file(self, path: str, *, environment: str) -> KeyFile:
        here = self.directory / Path(path).name
        if not here.exists():
            make_key_file(here, environment=environment)
        return KeyFile(here, environment=environment)

    def close(self) -> None:
        if "session" in self.names:
            self.names["session"].close()
        for each in (*self._engines, self.admin):
            each.dispose()
