"""`tenantguard rls revision` writes what the database is missing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from migrated import Project, fill, make_project, state

from tenantguard import rls
from tenantguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL


@pytest.fixture
def project(new_database: Callable[[], URL], tmp_path: Path) -> Iterator[Project]:
    with make_project(new_database(), tmp_path) as made:
        fill(made.world)
        yield made


def _run(project: Project, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["rls", "revision", "--config", str(project.ini), *arguments])


def _missing(project: Project) -> list[rls.Step]:
    return rls.apply(project.world.owner, project.guard.catalog, project.guard.roles, dry_run=True)


def test_the_migration_brings_all_and_takes_it_back(project: Project) -> None:
    """Written, applied, undone: nothing is missing in between, and all is as before at the end."""
    former = state(project)
    result = _run(project, "-m", "protect all")
    assert result.exit_code == 0, result.output
    [_, path] = project.scripts()
    assert str(path) in result.output
    assert "op.enable_tenant_isolation('order')" in path.read_text()
    project.upgrade()
    assert _missing(project) == []
    assert _run(project).exit_code == 0
    assert len(project.scripts()) == 2
    project.downgrade("-1", "allow_unprotected=true")
    assert vars(state(project)) == vars(former)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        ("--dry-run", "    op.enable_tenant_isolation('order')\n"),
        ("--sql", 'ALTER TABLE "public"."order" FORCE ROW LEVEL SECURITY;\n'),
    ],
)
def test_it_can_be_read_first(project: Project, option: str, line: str) -> None:
    """As Python with the downgrade, or as SQL; 1 says that something is missing."""
    result = _run(project, option)
    assert result.exit_code == 1, result.output
    assert line in result.output
    assert len(project.scripts()) == 1


def test_a_guard_of_its_own_may_be_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """--guard decides in place of the one of env.py."""
    monkeypatch.setattr("migrated.other", project.guard, raising=False)
    assert _run(project, "--guard", "migrated:other", "--dry-run").exit_code == 1
    result = _run(project, "--guard", "migrated:missing", "--dry-run")
    assert result.exit_code == 2
    assert "'migrated:missing' is not a TenantGuard" in result.output


def test_a_database_that_is_behind_is_refused(project: Project) -> None:
    """What it is missing may be in the migrations that it does not have yet."""
    project.version("second", "pass")
    result = _run(project)
    assert result.exit_code == 2
    assert "Run `alembic upgrade head` first." in result.output


def test_an_env_that_is_not_ours_is_refused(project: Project) -> None:
    """A migration with our operations would fail there."""
    env = project.directory / "env.py"
    text = env.read_text().replace("configure(project.guard, ", "context.configure(")
    env.write_text(text.replace("import configure", "import missing_operations"))
    result = _run(project)
    assert result.exit_code == 2
    assert "Call it in place of context.configure(connection=…)." in result.output


def test_a_missing_file_is_named(project: Project) -> None:
    """And the option that names another."""
    result = CliRunner().invoke(main, ["rls", "revision", "--config", f"{project.ini}.missing"])
    assert result.exit_code == 2
    assert "Name Alembic's file with --config." in result.output


def test_what_alembic_refuses_is_one_line(project: Project) -> None:
    """Without its directory of scripts, for example."""
    project.ini.write_text("[alembic]\n")
    result = _run(project)
    assert result.exit_code == 2
    assert result.output.startswith("tenantguard: Alembic stops: ")


def test_the_command_works_without_alembic() -> None:
    """Other commands do not need it, and this one says what to install."""
    script = (
        "import sys; sys.modules['alembic'] = None\n"
        "from tenantguard.cli import main\n"
        "main(['rls', 'revision', '--config', __file__])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script.replace("__file__", "'pyproject.toml'")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "pip install alembic" in result.stderr
