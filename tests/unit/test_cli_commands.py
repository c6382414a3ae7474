"""The command line: what it prints, how it ends, and what it never prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from tenantguard.cli import main

if TYPE_CHECKING:
    from pathlib import Path

_numbers = count()

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid
from tenantguard import TenantGuard

metadata = MetaData()
Table("practices", metadata, Column("id", Uuid, primary_key=True))
Table("orders", metadata, Column("id", Integer, primary_key=True), Column("tenant_id", Uuid))
Table("lines", metadata, Column("id", Integer, primary_key=True),
    Column("order_id", ForeignKey("orders.id")), Column("other_id", ForeignKey("orders.id")))
options = dict(tenants="practices", untenanted={"alembic_version": "[migration] state"})
guard = TenantGuard(metadata, shared={"lines": "an example"}, **options)
loose = TenantGuard(metadata, **options)
nothing = TenantGuard(metadata, tenants="nowhere")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a fresh module with guards, importable from the current directory."""
    name = f"cli_models_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("TENANTGUARD_ADMIN_URL", raising=False)
    return name


def run(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=env)


def assert_could_not_look(result: Result, pattern: str) -> None:
    """One line on stderr that says what to do, and 2."""
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.fullmatch(rf"tenantguard: .*{pattern}.*\n", result.stderr)


def test_tables_lists_every_kind(module: str) -> None:
    """Each table has its kind, its column and the reason, as text and as versioned JSON."""
    text = run("tables", "--guard", f"{module}:guard")
    assert text.exit_code == 0
    assert re.search(r"orders +scoped +tenant_id", text.stdout)
    assert re.search(r"alembic_version +untenanted +- +\[migration\] state", text.stdout)
    document = json.loads(run("tables", "--guard", f"{module}:guard", "--format", "json").stdout)
    assert document["version"] == 1
    assert [(each["table"], each["kind"], each["column"]) for each in document["tables"]] == [
        ("alembic_version", "untenanted", None),
        ("lines", "shared", None),
        ("orders", "scoped", "tenant_id"),
        ("practices", "registry", "id"),
    ]


@pytest.mark.parametrize("output", ["text", "json"])
def test_unclassified_table_is_a_finding(module: str, output: str) -> None:
    """A table nobody classified ends with 1; the text says how to classify it."""
    result = run("tables", "--guard", f"{module}:loose", "--format", output)
    assert result.exit_code == 1
    assert "unclassified" in result.stdout
    if output == "text":
        assert "migrate sql lines" in result.stdout
        assert "shared=" in result.stdout


def test_tables_are_never_cut_outside_a_terminal(module: str, tmp_path: Path) -> None:
    """In a pipe or a file each table has one line with its whole name and reason."""
    name, reason = "n" * 63, " ".join(["because"] * 30)
    (tmp_path / f"{module}_long.py").write_text(
        f"from sqlalchemy import Column, Integer, Table\nfrom {module} import *\n"
        f"Table({name!r}, metadata, Column('id', Integer, primary_key=True), schema={name!r})\n"
        f"guard = TenantGuard(metadata, shared={{'lines': 'x', '{name}.{name}': {reason!r}}},"
        " **options)\n"
    )
    code = f"from tenantguard.cli import main; main(['tables', '--guard', '{module}_long:guard'])"
    for columns in ("40", "80"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": columns},
        )
        assert re.search(rf"(?m)^{name}\.{name} +shared +- +{reason} *$", done.stdout)
        assert len(done.stdout.splitlines()) == 6


def test_guard_comes_from_pyproject(module: str, tmp_path: Path) -> None:
    """Without --guard, the current project's pyproject.toml names it."""
    (tmp_path / "pyproject.toml").write_text(f'[tool.tenantguard]\nguard = "{module}:guard"\n')
    assert run("tables").exit_code == 0


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (None, "no pyproject.toml here.*--guard"),
        ("[tool.other]\n", "names no guard"),
        ("[tool\n", "cannot be read"),
        ("tool = 1\n", "names no guard"),
        ("[tool.tenantguard]\nguard = 3\n", "names no guard"),
        ('[tool.tenantguard]\nguard = "x"\n', "form module:attribute"),
    ],
)
def test_bad_pyproject_is_one_line(
    module: str, tmp_path: Path, content: str | None, pattern: str
) -> None:
    """A pyproject.toml that does not name a guard is explained, not traced."""
    del module
    if content is not None:
        (tmp_path / "pyproject.toml").write_text(content)
    assert_could_not_look(run("tables"), pattern)


@pytest.mark.parametrize(
    ("suffix", "pattern"),
    [(":absent", "is not a TenantGuard"), ("_no:guard", "no module"), (":nothing", "registry")],
)
def test_bad_guard_is_one_line(module: str, suffix: str, pattern: str) -> None:
    """A guard that is not there, or does not fit its models, is explained."""
    assert_could_not_look(run("tables", "--guard", f"{module}{suffix}"), pattern)


def test_module_that_fails_is_one_line(module: str, tmp_path: Path) -> None:
    """A module that raises on import is named, without what it raised."""
    (tmp_path / f"{module}_bad.py").write_text("raise RuntimeError('secret-token')")
    result = run("tables", "--guard", f"{module}_bad:guard")
    assert_could_not_look(result, "failed .RuntimeError.")
    assert "secret-token" not in result.stderr


def test_sql_is_checked_against_a_file(module: str, tmp_path: Path) -> None:
    """--out writes what --check accepts; a changed file is a finding with a diff."""
    guard = ("--guard", f"{module}:guard")
    path = tmp_path / "policies.sql"
    assert run("rls", "sql", *guard, "--out", str(path)).exit_code == 0
    assert path.read_text() == run("rls", "sql", *guard).stdout
    assert run("rls", "sql", *guard, "--check", str(path)).exit_code == 0
    path.write_text(path.read_text().replace('" FORCE ROW', '" NO FORCE ROW', 1))
    result = run("rls", "sql", *guard, "--check", str(path))
    assert result.exit_code == 1
    assert re.search(r"(?m)^-.* NO FORCE ROW LEVEL SECURITY;$", result.stdout)
    assert re.search(r"(?m)^\+.* FORCE ROW LEVEL SECURITY;$", result.stdout)
    missing = run("rls", "sql", *guard, "--check", str(tmp_path / "absent.sql"))
    assert_could_not_look(missing, "cannot be read.*--out")
    unwritable = run("rls", "sql", *guard, "--out", str(tmp_path / "no" / "where.sql"))
    assert_could_not_look(unwritable, "cannot be written")


def test_sql_down_and_roles(module: str) -> None:
    """--down prints the way back; --create-roles adds the roles."""
    guard = ("--guard", f"{module}:guard")
    assert "DISABLE ROW LEVEL SECURITY" in run("rls", "sql", *guard, "--down").stdout
    assert "CREATE ROLE" not in run("rls", "sql", *guard).stdout
    assert "CREATE ROLE" in run("rls", "sql", *guard, "--create-roles").stdout


def test_sql_refuses_unclassified_tables(module: str) -> None:
    """No SQL is printed while a table's owner is unknown; what need not wait is named."""
    assert_could_not_look(
        run("rls", "sql", "--guard", f"{module}:loose"),
        "Unclassified tables: lines.*tenantguard rls roles --apply",
    )


def test_roles_need_no_classification(module: str) -> None:
    """The roles' SQL is the one of `rls sql --create-roles`, also before tables are classified."""
    printed = run("rls", "roles", "--guard", f"{module}:loose")
    assert printed.exit_code == 0
    assert printed.stdout.count("CREATE ROLE") == 5
    script = run("rls", "sql", "--create-roles", "--guard", f"{module}:guard").stdout
    assert script.startswith(printed.stdout)


def test_migration_is_printed_with_its_locks(module: str) -> None:
    """Every step says its lock and whether it runs in a transaction."""
    arguments = ("migrate", "sql", "lines", "--guard", f"{module}:loose")
    open_ = run(*arguments)
    assert open_.exit_code == 0
    assert "COMPLETE THIS STATEMENT" in open_.stdout
    chosen = run(*arguments, "--from-parent", "orders.other_id").stdout
    assert 'WHERE c."other_id" = p."id"' in chosen
    steps = len(re.findall(r"(?m)^-- Step \d+\.", chosen))
    assert steps == len(re.findall(r"(?m)^-- Lock: ", chosen))
    assert steps == len(re.findall(r"(?m)^-- Runs (?:in|outside) a transaction\.", chosen))
    assert chosen.index("VALIDATE CONSTRAINT") < chosen.index('"lines" FORCE ROW LEVEL SECURITY')


def test_migration_says_where_its_roles_come_from(module: str) -> None:
    """The script names the command that creates its roles, or begins by creating them."""
    arguments = ("migrate", "sql", "lines", "--guard", f"{module}:loose")
    without = run(*arguments).stdout
    assert "CREATE ROLE" not in without
    assert "must exist: `tenantguard rls roles --apply`" in without.partition("-- Step 1.")[0]
    created = run(*arguments, "--create-roles").stdout
    assert "must exist" not in created
    assert created.partition("-- Step 2.")[0].count("CREATE ROLE") == 5
    assert created.count("CREATE ROLE") == 5


def test_migration_accepts_the_default_schema(module: str) -> None:
    """A table without a schema is found as public.table too, as PostgreSQL's messages write it."""
    plain, public = (
        run("migrate", "sql", name, "--guard", f"{module}:loose")
        for name in ("lines", "public.lines")
    )
    assert public.exit_code == 0
    assert public.stdout.partition("-- Step 1.")[2] == plain.stdout.partition("-- Step 1.")[2]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (("other.lines",), "no table 'other.lines'"),
        (("linse",), "no table 'linse'. Did you mean 'lines'"),
        (("practices",), "practices is registry"),
        (("lines", "--from-parent", "orders.x"), "Choose one of: orders.order_id, orders.other_id"),
    ],
)
def test_wrong_table_is_one_line(module: str, arguments: tuple[str, ...], pattern: str) -> None:
    """A wrong name is answered with the right ones."""
    result = run("migrate", "sql", *arguments, "--guard", f"{module}:loose")
    assert_could_not_look(result, re.escape(pattern))


@pytest.mark.parametrize(
    ("url", "pattern"),
    [
        (None, "--admin-url or TENANTGUARD_ADMIN_URL"),
        ("postgresql://u:hunter2@127.0.0.1:1/x", "cannot be reached"),
        ("postgres://u:hunter2@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:1/x?ssl=disable", "cannot be reached"),
        ("postgresql+psycopg_async://u:hunter2@127.0.0.1:1/x", "cannot be reached"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:1/x?hunter2=1", "Write it for psycopg"),
        ("u:hunter2@127.0.0.1", "cannot be read"),
        ("postgresql://u:hunter2@h:port/x", "cannot be read"),
        ("postgresql+nothing://u:hunter2@h/x", "cannot be read"),
        ("sqlite:///hunter2", "not PostgreSQL"),
    ],
)
@pytest.mark.parametrize("given", ["option", "environment"])
def test_bad_address_is_one_line_without_it(
    module: str, url: str | None, pattern: str, given: str
) -> None:
    """An address that does not work is explained, and neither it nor its password is printed."""
    arguments = ["rls", "apply", "--guard", f"{module}:guard"]
    env = {}
    if url is not None and given == "option":
        arguments += ["--admin-url", url]
    elif url is not None:
        env["TENANTGUARD_ADMIN_URL"] = url
    result = run(*arguments, env=env)
    assert_could_not_look(result, pattern)
    assert "hunter2" not in result.output


def test_help_and_version_do_not_load_the_demo() -> None:
    """The demonstration and its extra are not needed for anything else."""
    code = (
        "import sys; sys.modules['tenantguard.demo'] = None\n"
        "from click.testing import CliRunner; from tenantguard.cli import main\n"
        "run = lambda *a: CliRunner().invoke(main, a)\n"
        "assert run('--help').exit_code == 0 and 'demo' in run('--help').output\n"
        "assert run('--version').exit_code == 0\n"
        "assert run('tables').exit_code == 2\n"
        "result = run('demo')\n"
        "assert result.exit_code == 2, result\n"
        "assert \"pip install 'tenantguard[demo]'\" in result.output\n"
        "loaded = {'flask', 'starlette', 'alembic', 'tink', 'tenantguard.integrations'}\n"
        "assert not loaded & set(sys.modules), loaded & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd="/")


def test_module_is_the_command(module: str) -> None:
    """`python -m tenantguard` does what the script does, exit codes included."""
    command = [sys.executable, "-m", "tenantguard"]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("tenantguard, version ")
    for guard, code in (("guard", 0), ("loose", 1), ("absent", 2)):
        done = subprocess.run(
            [*command, "tables", "--guard", f"{module}:{guard}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
