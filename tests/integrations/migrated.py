"""An application with Alembic: its directory of migrations, its database and its owner."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import alembic
from alembic import command
from alembic.config import Config

from tenantguard import TenantGuard
from tenantguard.integrations.alembic.former import Former, read_former
from tenantguard.rls.generate import entries
from tenantguard.rls.names import target_of

sys.path.insert(0, str(Path(__file__).parents[1] / "db"))

from rls_world import A, B, World, make_world, models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection

__all__ = [
    "A",
    "B",
    "Project",
    "current",
    "fill",
    "make_migrated_world",
    "make_project",
    "project_of",
    "state",
]

_ENV = """\
from alembic import context
from migrated import current
from tenantguard.integrations.alembic import configure

project = current()
options = {"target_metadata": project.guard.catalog.metadata, "include_schemas": True}
options.update(project.options)
if context.is_offline_mode():
    configure(project.guard, url="postgresql+psycopg://", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    with project.connected() as connection:
        configure(project.guard, connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""

_VERSION = '''\
"""{revision}"""
from alembic import op
import sqlalchemy as sa

revision, down_revision = {revision!r}, {down!r}


def upgrade():
{upgrade}


def downgrade():
{downgrade}
'''

_PROJECTS: list[Project] = []


def current() -> Project:
    """Return the project whose `env.py` runs."""
    return _PROJECTS[-1]


@dataclass
class Project:
    """A directory of migrations for one world."""

    directory: Path
    world: World
    guard: TenantGuard
    options: dict[str, Any] = field(default_factory=dict)
    connection: Connection | None = None

    def __post_init__(self) -> None:
        template = Path(alembic.__file__).parent / "templates" / "generic" / "script.py.mako"
        (self.directory / "versions").mkdir(parents=True)
        (self.directory / "env.py").write_text(_ENV)
        (self.directory / "script.py.mako").write_text(template.read_text())
        self.ini.write_text(f"[alembic]\nscript_location = {self.directory}\n")

    @property
    def ini(self) -> Path:
        return self.directory / "alembic.ini"

    def connected(self) -> AbstractContextManager[Connection]:
        """Return what `env.py` works on: the owner's, unless a test has given its own."""
        return nullcontext(self.connection) if self.connection else self.world.owner.connect()

    def config(self, *x: str) -> Config:
        options = Namespace(x=list(x))
        return Config(str(self.ini), cmd_opts=options, output_buffer=StringIO(), stdout=StringIO())

    def version(self, revision: str, upgrade: str, downgrade: str = "pass") -> None:
        """Write a migration on top of the newest."""
        self.write(
            _VERSION.format(
                revision=revision,
                down=self.newest(),
                upgrade=_indented(upgrade),
                downgrade=_indented(downgrade),
            ),
            revision,
        )

    def write(self, text: str, revision: str) -> None:
        number = len(self.scripts())
        (self.directory / "versions" / f"{number:02}_{revision}.py").write_text(text)

    def scripts(self) -> list[Path]:
        return sorted((self.directory / "versions").glob("*.py"))

    def newest(self) -> str | None:
        from alembic.script import ScriptDirectory  # noqa: PLC0415

        return ScriptDirectory.from_config(self.config()).get_current_head()

    def upgrade(self, to: str = "head", *x: str) -> None:
        command.upgrade(self.config(*x), to)

    def downgrade(self, to: str, *x: str) -> None:
        command.downgrade(self.config(*x), to)

    def upgrade_sql(self) -> str:
        config = self.config()
        command.upgrade(config, "head", sql=True)
        output: Any = config.output_buffer
        return str(output.getvalue())

    def check(self) -> None:
        command.check(self.config())

    def autogenerate(self) -> str:
        """Write a migration by autogenerate and return its text."""
        before = set(self.scripts())
        command.revision(self.config(), "written", autogenerate=True)
        [made] = set(self.scripts()) - before
        return made.read_text()


def fill(world: World) -> None:
    """Two tenants with an order each, and a line of A's order."""
    world.run(
        f"INSERT INTO practices VALUES ('{A}', 'a'), ('{B}', 'b');"
        f"INSERT INTO \"order\" (tenant_id, total) VALUES ('{A}', 10), ('{B}', 20);"
        f"INSERT INTO users VALUES (1, '{A}', 'a@a', 'hash');"
        f"""INSERT INTO "Oth er"."Li%ne" VALUES (1, '{A}', 1, NULL)"""
    )


def _indented(lines: str) -> str:
    return "\n".join(f"    {line}" for line in lines.splitlines())


@contextmanager
def make_migrated_world(url: URL) -> Iterator[World]:
    """Make a database with its tables and no protection; the owner may be each role."""
    # SQLAlchemy 2.0.30 cannot reflect a name with a quote.
    with make_world(url, models("Li%ne")) as world:
        world.run(f'GRANT "{world.roles.application}" TO "{world.roles.owner}"')
        yield world


@contextmanager
def project_of(world: World, directory: Path, **options: Any) -> Iterator[Project]:
    """Make the migrations of *world*. An empty first one is applied: the table of versions is."""
    guard = TenantGuard(
        world.metadata,
        tenants="practices",
        shared=dict(world.catalog.shared),
        untenanted=dict(world.catalog.untenanted),
        roles=world.roles,
    )
    guard.catalog.lookups.extend(world.catalog.lookups)
    project = Project(directory, world, guard, options)
    _PROJECTS.append(project)
    try:
        project.version("first", "pass")
        project.upgrade()
        yield project
    finally:
        _PROJECTS.remove(project)


@contextmanager
def make_project(url: URL, directory: Path, **options: Any) -> Iterator[Project]:
    """Make a project with a world of its own."""
    with make_migrated_world(url) as world, project_of(world, directory, **options) as project:
        yield project


def state(project: Project) -> Former:
    """Return what the database has of all that migrations change."""
    catalog = project.guard.catalog
    tables = {target_of(entry): () for entry in entries(catalog)}
    with project.world.admin.connect() as connection:
        return read_former(connection, tables, [("public", "users_by_email")])
