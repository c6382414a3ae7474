"""`tenantguard rls check` and `rls explain`: what they look at, how they end, what they print."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import MetaData, text
from sqlalchemy.exc import DBAPIError
from write_index import INDEX

from tenantguard import TenantGuard
from tenantguard.check import RULES, Rule, page_of, server
from tenantguard.cli import main
from tenantguard.cli.explain import BESIDE, SEVERITIES, index
from tenantguard.cli.migrations import version_directories
from tenantguard.errors import ConfigurationError
from tenantguard.findings import Severity
from tenantguard.integrations.alembic_upgrade import is_elsewhere, leads_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from locks import World

    from tenantguard.check import Subject
    from tenantguard.findings import Finding

PATCHED = "tenantguard.cli.check.RULES"


def one(rule: Rule, _subject: Subject) -> Iterator[Finding]:
    yield rule.finding("public.patients", "Patients are open.", "Close them.", "name")


def asking(rule: Rule, subject: Subject) -> Iterator[Finding]:
    if subject.ask("SELECT to_json(to_regclass('public.patients') IS NULL)::text"):
        yield rule.finding("public.patients", "No patients.", "Make some.")


def failing(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    subject.ask("SELECT to_json(1/0)::text")
    yield from ()


def losing(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    subject.ask("SELECT to_json(pg_terminate_backend(pg_backend_pid()))::text")
    yield from ()


def losing_unnoticed(rule: Rule, subject: Subject) -> Iterator[Finding]:
    with suppress(DBAPIError):
        yield from losing(rule, subject)


def counting(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    subject.ask("SELECT to_json(count(*))::text FROM public.orders")
    yield from ()


def counting_again(_rule: Rule, subject: Subject) -> Iterator[Finding]:
    waits = subject.ask("SELECT to_json(current_setting('lock_timeout'))::text")
    assert waits == "1ms"
    subject.ask("SELECT to_json(count(*) + 1)::text FROM public.orders")
    yield from ()


A_RULE = RULES[0].id
OTHER = RULES[1].id
FINDS = Rule(A_RULE, Severity.ERROR, one, offline=True)
ASKS = Rule(OTHER, Severity.WARNING, asking)
FAILS = Rule(OTHER, Severity.WARNING, failing)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> Path:
    """An empty directory whose pyproject.toml names the world's guard."""
    module = ModuleType("served")
    module.guard = world.guard  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "served", module)
    monkeypatch.chdir(tmp_path)
    declare(tmp_path)
    monkeypatch.setenv(
        "TENANTGUARD_ADMIN_URL", world.admin.url.render_as_string(hide_password=False)
    )
    return tmp_path


def declare(project: Path, more: str = "") -> None:
    named = '[tool.tenantguard]\nguard = "served:guard"\n'
    (project / "pyproject.toml").write_text(f"{named}{more}", encoding="utf-8")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rls", *arguments])


@pytest.fixture
def finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATCHED, (FINDS, ASKS))


@pytest.mark.usefixtures("project")
def test_a_clean_database_ends_with_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rule but the server's own, on a database as the generator makes it."""
    rules = [rule for rule in RULES if rule not in server.RULES]
    monkeypatch.setattr(PATCHED, rules)
    result = run("check")
    assert result.exit_code == 0, result.output
    assert f"{len(rules)} rules looked at: 0 errors, 0 warnings; 0 could not" in result.output


@pytest.mark.usefixtures("project", "finding")
def test_a_finding_ends_with_1_and_names_the_model() -> None:
    result = run("check", "--format", "json")
    assert result.exit_code == 1
    document = json.loads(result.output)
    assert [(each["code"], each["object"]) for each in document["findings"]] == [
        (A_RULE, "public.patients")
    ]
    assert document["looked"] == [A_RULE, OTHER]


@pytest.mark.usefixtures("project")
def test_a_rule_that_could_not_look_ends_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PATCHED, (FINDS, FAILS))
    result = run("check")
    assert result.exit_code == 2
    assert f"? {OTHER}: not looked at. PostgreSQL refused (22012" in result.output
    assert "Patients are open." in result.output


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("lose", [losing, losing_unnoticed])
def test_a_lost_connection_is_one_line(
    monkeypatch: pytest.MonkeyPatch, lose: Callable[[Rule, Subject], Iterator[Finding]]
) -> None:
    """No other rule is asked, and none is listed; nor where a rule takes it for its own failure."""
    monkeypatch.setattr(PATCHED, (Rule(A_RULE, Severity.ERROR, lose), ASKS, FAILS))
    result = run("check")
    assert result.exit_code == 2
    [line] = result.output.splitlines()
    assert "ended the connection" in line
    assert "run the command again" in line


@pytest.mark.usefixtures("project")
def test_a_lock_is_waited_for_once(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Rules that ask for the locked table say what to do, and the others look all the same."""
    monkeypatch.setattr("tenantguard.check.subject.LOCK_TIMEOUT", "50ms")
    finds = (counting, counting_again, one)
    rules = [Rule(RULES[at].id, Severity.ERROR, find) for at, find in enumerate(finds)]
    monkeypatch.setattr(PATCHED, rules)
    with world.admin.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        result = run("check", "--format", "json")
    assert result.exit_code == 2
    document = json.loads(result.output)
    assert document["looked"] == [rules[2].id]
    assert len(document["unseen"]) == 2
    for each in document["unseen"]:
        assert re.search(r"55P03.*holds a lock.*pg_locks.*run again", each["reason"])


@pytest.mark.usefixtures("project")
def test_an_address_that_does_not_answer_ends_with_2(tmp_path: Path) -> None:
    """And neither the address nor its password is printed."""
    result = run("check", "--admin-url", f"postgresql+psycopg://u:secret@/x?host={tmp_path}")
    assert result.exit_code == 2
    assert "secret" not in result.output
    assert str(tmp_path) not in result.output


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--offline", "x.sql", "--migrations", "alembic.ini"), "Give one of"),
        (("--offline", "--admin-url", "postgresql://x"), "Give one of"),
        (("--write-baseline",), "needs --baseline"),
        (("--baseline", "none.json"), "There is no baseline"),
        (("--migrations", "none.ini"), "There is no none.ini"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run("check", *arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.usefixtures("project", "finding")
def test_without_a_database_the_models_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only by the rules that need no database, and no address is asked for."""
    monkeypatch.delenv("TENANTGUARD_ADMIN_URL")
    result = run("check", "--offline", "--format", "json")
    assert json.loads(result.output)["looked"] == [A_RULE]
    assert run("check").exit_code == 2


@pytest.mark.parametrize("name", ["policies.sql", "sql"])
@pytest.mark.parametrize("create_roles", [(), ("--create-roles",)])
@pytest.mark.usefixtures("project")
def test_committed_sql_that_fits_has_no_finding(name: str, create_roles: tuple[str, ...]) -> None:
    """A file or a directory, with the roles or without."""
    assert run("sql", "--out", name, *create_roles).exit_code == 0
    result = run("check", "--offline", name)
    assert result.exit_code == 0, result.output
    assert "1 rule" in result.output or f"{len(offline()) + 1} rules" in result.output


def offline() -> list[str]:
    return [rule.id for rule in RULES if rule.offline]


@pytest.mark.parametrize("name", ["policies.sql", "sql"])
def test_committed_sql_that_differs_names_the_table(name: str, project: Path) -> None:
    """A line that somebody took out is an error at that table, and nowhere else."""
    run("sql", "--out", name)
    line = 'ALTER TABLE "public"."patients" FORCE ROW LEVEL SECURITY;\n'
    [path] = [each for each in files_of(project / name) if line in each.read_text("utf-8")]
    path.write_text(path.read_text("utf-8").replace(line, ""), encoding="utf-8")
    result = run("check", "--offline", name, "--format", "json")
    assert result.exit_code == 1
    found = json.loads(result.output)["findings"]
    assert [(each["code"], each["object"]) for each in found] == [
        ("sql-differs", "public.patients")
    ]


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.sql"))


@pytest.mark.parametrize(
    ("name", "text_"),
    [
        ("policies.sql", "DROP TABLE patients;"),
        ("policies.sql", "-- a remark"),
        ("sql/index.sql", "\\! true"),
    ],
)
def test_committed_sql_with_more_in_it_differs(name: str, text_: str, project: Path) -> None:
    """Whatever somebody added, wherever: it is not what the models ask for."""
    top = name.partition("/")[0]
    run("sql", "--out", top)
    with (project / name).open("a", encoding="utf-8") as file:
        file.write(f"{text_}\n")
    result = run("check", "--offline", top)
    assert result.exit_code == 1
    assert "sql-differs" in result.output


@pytest.mark.usefixtures("project")
def test_committed_sql_that_is_not_there_could_not_be_looked_at() -> None:
    for name in ("none.sql", "none"):
        result = run("check", "--offline", name)
        assert result.exit_code == 2
        assert "? sql-differs: not looked at." in result.output


@pytest.mark.usefixtures("project", "finding")
def test_a_baseline_takes_what_is_there_and_shows_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("check", "--baseline", "known.json", "--write-baseline").exit_code == 0
    again = run("check", "--baseline", "known.json")
    assert again.exit_code == 0
    assert f"accepted error {A_RULE} at public.patients.name" in again.output
    monkeypatch.setattr(PATCHED, (FINDS, Rule(OTHER, Severity.WARNING, one)))
    assert run("check", "--baseline", "known.json").exit_code == 1


@pytest.mark.usefixtures("project")
def test_no_baseline_is_written_of_what_could_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setattr(PATCHED, (FINDS, FAILS))
    assert run("check", "--baseline", "known.json", "--write-baseline").exit_code == 2
    assert not (project / "known.json").exists()


@pytest.mark.usefixtures("finding")
def test_an_exemption_of_the_project_holds(project: Path) -> None:
    exempt = f'[[tool.tenantguard.exempt]]\nrule = "{A_RULE}"\nobject = "public.patients"\n'
    declare(project, f'{exempt}reason = "moved in May"\n')
    result = run("check")
    assert result.exit_code == 0
    assert "moved in May" in result.output


def test_an_exemption_of_no_rule_could_not_look(project: Path) -> None:
    """A typing error in the project is not taken for an exemption."""
    declare(project, '[[tool.tenantguard.exempt]]\nrule = "no-such"\nreason = "x"\n')
    result = run("check")
    assert result.exit_code == 2
    assert "names no rule that there is" in result.output


@pytest.mark.usefixtures("finding")
def test_a_file_gets_the_form_and_the_terminal_the_text(project: Path) -> None:
    result = run("check", "--format", "sarif", "--out", "check.sarif")
    assert result.exit_code == 1
    assert f"error {A_RULE}" in result.output
    document = json.loads((project / "check.sarif").read_text("utf-8"))
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    assert [each["id"] for each in rules] == [A_RULE, OTHER]
    assert rules[0]["help"]["markdown"] == page_of(A_RULE)


def test_every_rule_has_a_page_with_a_summary() -> None:
    """Those that look at what is committed too."""
    for rule in BESIDE:
        page = page_of(rule)
        assert page.splitlines()[0] == f"# {rule}"
        assert re.findall(r"^## (.*)$", page, re.MULTILINE) == [
            *("How it hurts", "How it is found", "What to do")
        ]
    lines = run("explain").output.splitlines()
    assert [line.split()[0] for line in lines] == list(SEVERITIES)
    assert all(len(line.split()) > 5 for line in lines)


def test_the_index_lists_every_rule() -> None:
    """Its id, its severity, and the first sentence of its page."""
    assert INDEX.read_text("utf-8") == index(), "Run: python tests/check/write_index.py"


def test_a_rule_is_explained_by_its_page() -> None:
    assert run("explain", A_RULE).output == page_of(A_RULE)
    unknown = run("explain", "no-such")
    assert unknown.exit_code == 2
    assert "`tenantguard rls explain` lists them" in unknown.output


ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, engine_from_config, pool

options = {{}}
URL = {address}
engine = create_engine(URL, poolclass=pool.NullPool, **options)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
from alembic import op
from practice import Base
from tenantguard.rls import generate
import served

revision = "1"
down_revision = None

def upgrade():
    Base.metadata.create_all(op.get_bind())
    guard = served.guard
    for step in generate(guard.catalog, guard.roles):
        for line in step.up:
            if {kept}:
                options = {{"no_parameters": True}}
                op.get_bind().exec_driver_sql(line, execution_options=options)
"""
SERVED = """
from practice import Base, User
from tenantguard import TenantGuard

guard = TenantGuard(
    Base.metadata,
    tenants="practices",
    shared={"materials": "price list of the trade association"},
    untenanted={"schema_versions": "migration state"},
)
guard.identity_lookup(User, by="email")
"""
ADDRESSES = {
    "configuration": 'context.config.get_main_option("sqlalchemy.url")',
    "argument": 'context.get_x_argument(as_dictionary=True)["url"]',
    "DATABASE_URL": 'os.environ["DATABASE_URL"]',
    "MY_DATABASE": 'os.environ["MY_DATABASE"]',
}
MADE = """context.config.get_main_option("sqlalchemy.url")
import psycopg
options["creator"] = lambda: psycopg.connect({other!r})
"""
ELSEWHERE = '"postgresql+psycopg://u@127.0.0.1:1/elsewhere"'


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A project with one migration, which makes the tables and what the generator asks for."""
    (tmp_path / "alembic" / "versions").mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text("[alembic]\nscript_location = alembic\n", "utf-8")
    (tmp_path / "served.py").write_text(SERVED, encoding="utf-8")
    declare(tmp_path)
    migrating(tmp_path)
    return tmp_path


def migrating(project: Path, address: str = ADDRESSES["configuration"], kept: str = "True") -> None:
    (project / "alembic" / "env.py").write_text(ENV.format(address=address), "utf-8")
    revision = REVISION.format(kept=kept)
    (project / "alembic" / "versions" / "1.py").write_text(revision, encoding="utf-8")


def in_a_process(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
    path = os.pathsep.join([str(project), tests, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-m", "tenantguard", "rls", "check", *arguments],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("way", list(ADDRESSES))
def test_what_the_migrations_make_is_checked(migrations: Path, way: str) -> None:
    """Wherever env.py takes its address from; the server is gone afterwards."""
    migrating(migrations, ADDRESSES[way])
    more = ("--url-variable", way) if way.isupper() else ()
    ended = in_a_process(migrations, "--migrations", "alembic.ini", *more)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "0 errors, 0 warnings" in ended.stdout


def test_a_migration_that_leaves_something_out_is_found(migrations: Path) -> None:
    """A table without FORCE, in a database that nobody has yet."""
    migrating(migrations, kept="'patients\" FORCE ROW' not in line")
    ended = in_a_process(migrations, "--migrations", "alembic.ini", "--format", "json")
    found = json.loads(ended.stdout)["findings"]
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert {each["object"] for each in found} == {"public.patients"}


def test_a_data_statement_for_nobody_is_found_at_its_line(migrations: Path) -> None:
    """It would change no row under FORCE; the finding names the script, and no model."""
    script = migrations / "alembic" / "versions" / "1.py"
    more = ("UPDATE patients SET name = 'x'", "DELETE FROM materials")
    lines = [f'    op.execute("{each}")\n' for each in more]
    script.write_text(script.read_text("utf-8") + "".join(lines), encoding="utf-8")
    ended = in_a_process(migrations, "--migrations", "alembic.ini", "--format", "json")
    assert ended.returncode == 1, ended.stderr
    [found] = json.loads(ended.stdout)["findings"]
    line = len(script.read_text("utf-8").splitlines()) - 1
    assert found["code"] == "migration-data-statement"
    assert found["place"] == {"file": "alembic/versions/1.py", "line": line}
    assert "'x'" not in ended.stdout


@pytest.mark.parametrize(
    ("more", "directories"),
    [
        ("script_location = alembic", ["alembic/versions"]),
        ("script_location = %(here)s/alembic", ["{here}/alembic/versions"]),
        (
            "script_location = practice_scripts:alembic",
            ["{here}/practice_scripts/alembic/versions"],
        ),
        ("script_location = alembic\nversion_locations = a, b c", ["a", "b", "c"]),
    ],
)
def test_the_scripts_are_where_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str, directories: list[str]
) -> None:
    """As Alembic reads it, without importing Alembic."""
    (tmp_path / "practice_scripts").mkdir()
    (tmp_path / "practice_scripts" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    ini = tmp_path / "alembic.ini"
    ini.write_text(f"[alembic]\n{more}\n", encoding="utf-8")
    expected = [each.replace("{here}", str(tmp_path)) for each in directories]
    assert [each.as_posix() for each in version_directories(ini)] == expected


@pytest.mark.parametrize("more", ["", "[alembic]\n", "[alembic]\nscript_location = %(no)s\n"])
def test_a_configuration_that_names_no_scripts_is_refused(tmp_path: Path, more: str) -> None:
    ini = tmp_path / "alembic.ini"
    ini.write_text(more, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="script_location"):
        version_directories(ini)


def test_another_database_is_not_migrated(migrations: Path) -> None:
    """An env.py that takes its address from elsewhere is stopped before it connects."""
    migrating(migrations, ELSEWHERE)
    ended = in_a_process(migrations, "--migrations", "alembic.ini")
    assert ended.returncode == 2
    assert "env.py connects to another database" in ended.stderr


def test_another_database_is_not_migrated_by_a_connection_made_elsewhere(
    migrations: Path, world: World
) -> None:
    """SQLAlchemy does not know where a creator= connects to; nothing is sent on it."""
    url = world.admin.url.set(drivername="postgresql").render_as_string(hide_password=False)
    migrating(migrations, MADE.format(other=url))
    ended = in_a_process(migrations, "--migrations", "alembic.ini")
    assert ended.returncode == 2, ended.stdout
    assert "env.py connects to another database" in ended.stderr
    with world.admin.connect() as connection:
        assert connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None


@pytest.mark.parametrize(
    "parameters",
    [
        {"host": "db.example"},
        {"host": "/socket,db.example"},
        {"host": "/socket", "hostaddr": "192.0.2.1"},
        {"host": "/socket", "service": "production"},
        {"dsn": "postgresql:///x"},
        {},
    ],
)
def test_only_the_socket_that_is_given_will_do(parameters: dict[str, str]) -> None:
    """Whatever else a driver's arguments say is another database."""
    assert leads_elsewhere("/socket", (), parameters)
    assert leads_elsewhere("/socket", ("host=x",), {"host": "/socket"})
    assert not leads_elsewhere("/socket", (), {"host": "/socket", "user": "u", "dbname": "x"})


def test_a_connection_to_another_server_is_elsewhere(world: World) -> None:
    """Also one that may not be asked."""
    with world.admin.connect() as connection:
        [directory] = connection.execute(text("SHOW unix_socket_directories")).one()
        raw = connection.connection.driver_connection
        assert not is_elsewhere(directory, raw)
        assert is_elsewhere(f"{directory}x", raw)
    assert is_elsewhere(directory, None)


def test_migrations_that_fail_could_not_be_looked_at(migrations: Path) -> None:
    migrating(migrations, kept="1 / 0")
    ended = in_a_process(migrations, "--migrations", "alembic.ini")
    assert ended.returncode == 2
    assert "`alembic upgrade head` failed" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.usefixtures("project")
def test_without_the_server_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantguard.cli.ephemeral.find_spec", lambda _: None)
    result = run("check", "--migrations", "alembic.ini")
    assert result.exit_code == 2
    assert "pip install 'tenantguard[demo]' alembic" in result.output


@pytest.mark.usefixtures("project")
def test_a_configuration_that_does_not_fit_could_not_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A guard whose registry is missing has no tables that could be checked."""
    served = sys.modules["served"]
    monkeypatch.setattr(served, "guard", TenantGuard(MetaData(), tenants="practices"))
    result = run("check")
    assert result.exit_code == 2
    assert "registry" in result.output


def test_nothing_is_left_in_the_database(project: Path, world: World) -> None:
    """The check reads, in one transaction that is rolled back."""
    assert project
    with world.admin.connect() as connection:
        before = connection.execute(text("SELECT count(*) FROM pg_class")).scalar()
    run("check")
    with world.admin.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM pg_class")).scalar() == before
