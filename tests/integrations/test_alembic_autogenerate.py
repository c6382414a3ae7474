"""Autogenerate and `alembic check` see the second lock, for applications that ask for it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from migrated import Project, fill, make_migrated_world, project_of
from sqlalchemy import Column, ForeignKey, Integer, Table, Uuid

from tenantguard import Exact, encrypted_str, rls
from tenantguard.integrations.alembic_plugin import NAME
from tenantguard.migrate.autogenerate import include_object
from tenantguard.rls.kept import keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rls_world import World
    from sqlalchemy import URL

ROOT = Path(__file__).parents[2]
ALLOWED = "allow_unprotected=true"

DIFFERENCES = {
    "policy missing": (
        'DROP POLICY tenantguard_application_floor ON "order"',
        "create_tenant_policy",
    ),
    "policy changed": (
        'ALTER POLICY tenantguard_application ON "order" USING (true)',
        "create_tenant_policy",
    ),
    "disabled": ('ALTER TABLE "order" DISABLE ROW LEVEL SECURITY', "enable_tenant_isolation"),
    "not forced": ('ALTER TABLE "order" NO FORCE ROW LEVEL SECURITY', "enable_tenant_isolation"),
    "grant to all": ('GRANT SELECT ON "order" TO PUBLIC', "grant_tenant_privileges"),
    "no default": (
        'ALTER TABLE "order" ALTER tenant_id DROP DEFAULT',
        "set_tenant_default",
    ),
    "nullable": (
        'ALTER TABLE "order" ALTER tenant_id DROP NOT NULL',
        "alter_column",
    ),
    "no composite key": (
        """DO $$ DECLARE c text; BEGIN
        SELECT conname INTO c FROM pg_constraint WHERE conname LIKE 'tg%order_fkey%';
        EXECUTE format('ALTER TABLE "Oth er"."Li%%ne" DROP CONSTRAINT %I', c); END $$""",
        "create_tenant_foreign_key",
    ),
    "no lookup": ("DROP FUNCTION users_by_email", "create_tenant_object"),
}


@pytest.fixture(scope="module")
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    with make_migrated_world(new_database()) as made:
        fill(made)
        yield made


@pytest.fixture
def project(world: World, tmp_path: Path) -> Iterator[Project]:
    world.run("DROP TABLE IF EXISTS alembic_version")
    with project_of(world, tmp_path) as made:
        rls.apply(world.owner, made.guard.catalog, made.guard.roles)
        yield made


def _missing(project: Project) -> list[rls.Step]:
    return rls.apply(project.world.owner, project.guard.catalog, project.guard.roles, dry_run=True)


def test_nothing_is_left_after_apply(project: Project) -> None:
    """What `rls apply` has made is what the models ask for, NOT NULL and defaults included."""
    project.options["compare_server_default"] = True
    project.check()


@pytest.mark.parametrize(("fault", "verb"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_a_difference_is_seen_and_mended(project: Project, fault: str, verb: str) -> None:
    """`alembic check` fails, and a migration that autogenerate writes brings it back."""
    project.world.run(fault)
    with pytest.raises(CommandError, match="New upgrade operations detected"):
        project.check()
    assert f"op.{verb}(" in project.autogenerate()
    project.upgrade()
    project.check()


def test_a_new_table_is_protected_by_the_migration_that_makes_it(project: Project) -> None:
    """Policies, keys and privileges follow its CREATE TABLE; both go together without a flag."""
    metadata = project.world.metadata
    table = Table(
        "parcels",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Uuid, nullable=False),
        Column("order_id", ForeignKey("order.id")),
    )
    try:
        text = project.autogenerate()
        assert text.index("op.create_table('parcels'") < text.index(
            "op.enable_tenant_isolation('parcels'"
        )
        project.upgrade()
        assert _missing(project) == []
        project.downgrade("-1")
        project.upgrade()
        project.check()
        project.downgrade("-1")
    finally:
        metadata.remove(table)


def test_what_keeps_a_search_column_comes_with_it(project: Project) -> None:
    """Trigger and check follow the columns, and go with them, function and all."""
    world = project.world
    table = world.metadata.tables["jobs"]
    project.guard.catalog.untenanted = {"alembic_version": "migration state"}
    project.guard.catalog._entries.clear()
    tenant: Column[Any] = Column("tenant_id", Uuid, nullable=False)
    name = Column("name", encrypted_str(search=Exact(kept_by="trigger")).column.type)
    functions = f"SELECT count(*) FROM pg_proc WHERE proname = '{keeper('jobs', 'name')}'"
    try:
        table.append_column(tenant)
        table.append_column(name)
        text = project.autogenerate()
        assert text.index("sa.Column('name_bidx'") < text.index("'search trigger'")
        project.upgrade()
        project.check()
        assert _missing(project) == []
        assert world.run(functions) == [(1,)]
        project.downgrade("-1", ALLOWED)
        assert world.run(functions) == [(0,)]
    finally:
        for each in (table.c.name_bidx, name, tenant):
            table._columns.remove(each)
        table.constraints = {each for each in table.constraints if not each.info}
        table.indexes.clear()
        world.run("DROP TABLE IF EXISTS tenantguard_keys")


def test_a_table_that_gets_its_tenant_column_is_protected_with_it(project: Project) -> None:
    """The column and what stands on it are one migration."""
    table = project.world.metadata.tables["jobs"]
    project.guard.catalog.untenanted = {"alembic_version": "migration state"}
    project.guard.catalog._entries.clear()
    column: Column[Any] = Column("tenant_id", Uuid, nullable=False)
    table.append_column(column)
    try:
        text = project.autogenerate()
        assert text.index("op.add_column('jobs'") < text.index("op.enable_tenant_isolation('jobs'")
        project.upgrade()
        project.check()
        with pytest.raises(CommandError, match=ALLOWED):
            project.downgrade("-1")
        project.downgrade("-1", ALLOWED)
    finally:
        table._columns.remove(column)


@pytest.fixture
def loaded_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put our plugin where Alembic 1.18 and later load it from the entry point: first."""
    project.check()
    plugins = sys.modules.get("alembic.runtime.plugins")
    if plugins is not None:
        loaded = plugins._all_plugins
        monkeypatch.setattr(plugins, "_all_plugins", {NAME: loaded[NAME], **loaded})


@pytest.mark.usefixtures("loaded_first")
def test_a_plugin_that_is_loaded_first_compares_last(project: Project) -> None:
    """What `rls` made is left alone, and a new column is there before what protects it."""
    project.options["compare_server_default"] = True
    project.check()
    metadata = project.world.metadata
    table = Table("parcels", metadata, Column("id", Integer, primary_key=True))
    table.append_column(Column("tenant_id", Uuid, nullable=False))
    try:
        text = project.autogenerate()
    finally:
        metadata.remove(table)
    assert text.index("op.create_table('parcels'") < text.index("op.set_tenant_default(")


def test_an_unclassified_table_stops_it(project: Project) -> None:
    """A table that nobody has decided about gets no migration that looks complete."""
    table = Table("undecided", project.world.metadata, Column("id", Integer, primary_key=True))
    try:
        with pytest.raises(CommandError, match="Unclassified tables: undecided"):
            project.check()
    finally:
        project.world.metadata.remove(table)


def test_another_application_of_the_environment_is_left_alone(project: Project) -> None:
    """Without our configure there is no guard, so nothing is compared and nothing is imported."""
    project.world.run('ALTER TABLE "order" DISABLE ROW LEVEL SECURITY')
    options = {"include_schemas": True, "include_object": include_object}
    with project.world.owner.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        found = compare_metadata(context, project.world.metadata)
    assert {each[0] for each in found if isinstance(each, tuple)} <= {"remove_table"}


def test_theirs_is_asked_as_well(project: Project) -> None:
    """include_object and render_item of env.py hold beside ours."""
    asked: list[str] = []

    def include(_object: Any, _name: Any, type_: str, *_: Any) -> bool:
        asked.append(type_)
        return type_ != "table"

    def render(type_: str, *_: Any) -> Any:
        asked.append(f"render {type_}")
        return False

    project.options.update(include_object=include, render_item=render)
    table = Table("parcels", project.world.metadata, Column("id", Integer, primary_key=True))
    project.guard.catalog.untenanted = {**project.guard.catalog.untenanted, "parcels": "a test"}
    try:
        text = project.autogenerate()
    finally:
        project.world.metadata.remove(table)
    assert "table" in asked
    assert "op.create_table" not in text
    assert "op.grant_tenant_privileges('parcels'" in text.replace("(\n        ", "(")


def _entry_point() -> EntryPoint:
    [(name, value)] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "entry-points"
    ]["alembic.plugins"].items()
    return EntryPoint(name, value, "alembic.plugins")


def test_the_entry_point_fits_each_version_of_alembic() -> None:
    """Up to 1.20.0 it is iterated over, from 1.20.1 on it has to be a module."""
    loaded = _entry_point().load()
    assert isinstance(loaded, ModuleType)
    assert list(loaded) == [loaded]


def test_alembic_can_load_the_plugin_while_it_is_loaded_itself() -> None:
    """In a fresh process; and it loads no more of ours than that, whose applications they are."""
    entry = _entry_point()
    script = (
        "import sys, importlib.metadata as m\n"
        f"entry = m.EntryPoint({entry.name!r}, {entry.value!r}, {entry.group!r})\n"
        "m.entry_points = lambda **_: [entry]\n"
        "import alembic, alembic.autogenerate\n"
        "print([n for n in sys.modules if n.startswith('tenantguard.integrations.alembic.')])\n"
        "from tenantguard.integrations.alembic import configure\n"
        "print(alembic.op.create_tenant_policy.__name__)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["[]", "create_tenant_policy"]
