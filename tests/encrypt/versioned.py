"""A table of plaintext whose schema Alembic changes, as its owner; names need all their quotes."""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from argparse import Namespace
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic
from alembic import command
from alembic.config import Config
from sqlalchemy import ForeignKey, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from vault import A, B

from tenantguard import Exact, KeyFile, Last, Prefix, Roles, TenantGuard, encrypted_str, rls

if TYPE_CHECKING:
    from sqlalchemy import Engine

TABLE, PLAIN, SEALED = "pa%t :x", "na%me :y", "Sea led"
COLUMN = f"{TABLE}.{PLAIN}"
ROWS = 12

_ENV = """\
from alembic import context
from tenantguard.integrations.alembic import configure
from versioned import current

project = current()
options = {"target_metadata": project.guard.catalog.metadata}
if context.is_offline_mode():
    configure(project.guard, url="postgresql+psycopg://", **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with project.owner.connect() as connection:
        configure(project.guard, connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""

_PROJECTS: list[Project] = []


def current() -> Project:
    """Return the project whose `env.py` runs."""
    return _PROJECTS[-1]


@dataclass(slots=True)
class World:
    """A database with a table of plaintext, its owner, and the guards of three versions.

    Attributes:
        admin: A superuser's engine.
        owner: An engine of the tables' owner, whose rows FORCE hides.
        roles: The roles.
        guards: Of the application with plaintext, with both columns, with several searches too,
            and with the sealed column alone.
    """

    admin: Engine
    owner: Engine
    roles: Roles
    guards: dict[str, TenantGuard]

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run SQL as the superuser, committed; return its rows."""
        with self.admin.begin() as connection:
            result = connection.exec_driver_sql(
                statement, execution_options={"no_parameters": True}
            )
            return [tuple(row) for row in result] if result.returns_rows else []

    def begin(self) -> None:
        """Make the table anew, with rows of both tenants."""
        self.run(f'DROP TABLE IF EXISTS "{TABLE}", alembic_version')
        for (name,) in self.run("SELECT proname FROM pg_proc WHERE proname LIKE 'zz%'"):
            self.run(f'DROP FUNCTION "{name}"')
        old = self.guards["old"].catalog
        old.metadata.create_all(self.owner)
        rls.apply(self.owner, old, self.roles)
        table = old.metadata.tables[TABLE]
        with self.admin.begin() as connection:
            rows = [{"tenant_id": (A, B)[n % 2], PLAIN: f"name {n}"} for n in range(ROWS)]
            connection.execute(insert(table), rows)

    def shape(self) -> list[tuple[Any, ...]]:
        """Return all that migrations change of the table."""
        table = f"""'"{TABLE}"'::regclass"""
        return self.run(
            "SELECT 'column', attname::text, attnotnull::text, attgenerated::text "
            f"FROM pg_attribute WHERE attrelid = {table} AND attnum > 0 AND NOT attisdropped "
            "UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid), convalidated::text "
            f"FROM pg_constraint WHERE conrelid = {table} "
            "UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), "
            f"indisvalid::text FROM pg_index WHERE indrelid = {table} "
            "UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid), tgenabled::text "
            f"FROM pg_trigger WHERE tgrelid = {table} AND NOT tgisinternal "
            "UNION ALL SELECT 'function', proname, prosrc, proowner::regrole::text FROM pg_proc "
            "WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'zz%' ORDER BY 1, 2, 3"
        )


@dataclass(slots=True)
class Project:
    """A directory of migrations for a world."""

    directory: Path
    world: World
    guard: TenantGuard

    @property
    def owner(self) -> Engine:
        return self.world.owner

    @property
    def ini(self) -> Path:
        return self.directory / "alembic.ini"

    def make(self) -> None:
        """Write the files, and the table of versions; nothing else changes."""
        templates = Path(alembic.__file__).parent / "templates" / "generic"
        (self.directory / "versions").mkdir(parents=True)
        (self.directory / "env.py").write_text(_ENV)
        template = (templates / "script.py.mako").read_text()
        (self.directory / "script.py.mako").write_text(template)
        self.ini.write_text(f"[alembic]\nscript_location = {self.directory}\n")
        _PROJECTS.append(self)
        command.revision(self.config(), "first", rev_id="first")
        self.upgrade()

    def leave(self) -> None:
        _PROJECTS.remove(self)

    def config(self, *x: str) -> Config:
        options = Namespace(x=list(x))
        return Config(str(self.ini), cmd_opts=options, output_buffer=StringIO(), stdout=StringIO())

    def newest(self) -> Path:
        """Return the script that was written last."""
        return max(
            (self.directory / "versions").glob("*.py"), key=lambda each: each.stat().st_ctime_ns
        )

    def upgrade(self) -> None:
        command.upgrade(self.config(), "head")

    def downgrade(self, *x: str) -> None:
        command.downgrade(self.config(*x), "-1")

    def script(self, span: str, *, down: bool = False) -> list[str]:
        """Return the statements of `--sql`."""
        config = self.config()
        (command.downgrade if down else command.upgrade)(config, span, sql=True)
        output: Any = config.output_buffer
        return [each for each in output.getvalue().split(";\n\n") if each.strip()]

    def check(self) -> None:
        """Fail if autogenerate would write anything."""
        command.check(self.config())

    def autogenerate(self) -> str:
        """Write a migration by autogenerate and return its text."""
        command.revision(self.config(), "written", autogenerate=True)
        return self.newest().read_text()


def build_world(admin: Engine, roles: Roles, key_file: Path, environment: str) -> World:
    """Make what stays from test to test."""
    owner = create_engine(admin.url, connect_args={"options": f"-c role={roles.owner}"})
    keys = KeyFile(key_file, environment=environment)
    guards = {
        name: TenantGuard(made.metadata, tenants="practices", roles=roles, keys=keys)
        for name, made in {
            "old": _old(),
            "both": _both(Exact()),
            "several": _both([Exact(kept_by="trigger"), Last(3, kept_by="trigger"), Prefix(3)]),
            "sealed": _sealed(),
        }.items()
    }
    world = World(admin, owner, roles, guards)
    rls_roles = (roles.owner, roles.application, roles.maintenance, roles.support, roles.backup)
    for role in rls_roles:
        world.run(f'CREATE ROLE "{role}" NOINHERIT')
    world.run(f'ALTER ROLE "{roles.application}" LOGIN; ALTER ROLE "{roles.backup}" BYPASSRLS')
    world.run(f'ALTER SCHEMA public OWNER TO "{roles.owner}"')
    world.run(f'GRANT "{roles.maintenance}", "{roles.application}" TO "{roles.owner}"')
    for guard in guards.values():
        practices = guard.catalog.metadata.tables["practices"]
        practices.create(owner, checkfirst=True)
    with admin.begin() as connection:
        connection.execute(text("INSERT INTO practices VALUES (:a), (:b)"), {"a": A, "b": B})
    return world


def _old() -> Any:
    base_ = base()

    class Patient(base_):  # type: ignore[valid-type, misc]
        __tablename__ = TABLE
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
        plain: Mapped[str] = mapped_column(PLAIN)

    return base_


def _both(search: Any) -> Any:
    base_ = base()

    class Patient(base_):  # type: ignore[valid-type, misc]
        __tablename__ = TABLE
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
        plain: Mapped[str | None] = mapped_column(PLAIN)
        sealed: Mapped[str] = encrypted_str(name=SEALED, search=search, migrating=PLAIN)

    return base_


def _sealed() -> Any:
    base_ = base()

    class Patient(base_):  # type: ignore[valid-type, misc]
        __tablename__ = TABLE
        id: Mapped[int] = mapped_column(primary_key=True)
        tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
        sealed: Mapped[str] = encrypted_str(name=SEALED, search=Exact())

    return base_


def base() -> Any:
    """Return a declarative base with the registry of tenants."""

    class Base(DeclarativeBase):
        pass

    class Practice(Base):
        __tablename__ = "practices"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

    del Practice
    return Base
