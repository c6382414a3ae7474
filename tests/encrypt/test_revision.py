"""`tenantguard encrypt` writes Alembic migrations that do what it does itself, and take it back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from alembic.util import CommandError
from commanding import Command, assert_could_not_look, serve
from locks import unique_roles
from moving import New
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from vault import ENVIRONMENT
from versioned import COLUMN, PLAIN, ROWS, SEALED, TABLE, Project, World, build_world

from tenantguard import TenantGuard, rls
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.encrypt.migrating import migration_of
from tenantguard.encrypt.schema import Structure
from tenantguard.integrations.alembic.from_migration import contracting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from click.testing import Result
    from sqlalchemy import URL


@pytest.fixture(scope="module")
def world(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    key_file = tmp_path_factory.mktemp("keys") / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    built = build_world(create_engine(admin_url), unique_roles(), key_file, ENVIRONMENT)
    yield built
    built.owner.dispose()
    built.admin.dispose()


@pytest.fixture
def project(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Migrations of an application whose models have both columns, its database the plain one."""
    serve(monkeypatch, guard=world.guards["both"])
    world.begin()
    made = Project(tmp_path / "migrations", world, world.guards["both"])
    made.make()
    yield made
    made.leave()


def run(project: Project, verb: str, *arguments: str) -> Result:
    """Ask for a migration, or with other verbs do what is asked."""
    if verb in {"expand", "contract"}:
        arguments = (*arguments, "--revision", "--config", str(project.ini))
    return Command(project.world.admin)(verb, COLUMN, *arguments)


def written(project: Project, verb: str, *arguments: str) -> Path:
    """Return the migration that the command writes."""
    result = run(project, verb, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    path = project.newest()
    assert str(path) in result.output
    return path


def expanded(project: Project) -> None:
    """Write and apply what makes the encrypted column, and protect the keys."""
    written(project, "expand")
    project.upgrade()
    rls.apply(project.owner, project.guard.catalog, project.world.roles)


def sealed(project: Project) -> None:
    """Expand, and seal every value."""
    expanded(project)
    assert run(project, "backfill").exit_code == 0


def encrypting(world: World, statement: str) -> None:
    """Write as the commands do, past the triggers."""
    world.run(f"BEGIN; SET LOCAL tenantguard.encrypting = 'on'; {statement}; COMMIT")


def count(world: World, condition: str) -> int:
    """Return how many rows fulfil *condition*."""
    [[number]] = world.run(f'SELECT count(*) FROM "{TABLE}" WHERE {condition}')
    return int(number)


def test_the_migrations_do_it_all_and_autogenerate_finds_nothing(
    project: Project, world: World
) -> None:
    """Expanded, sealed and contracted by the tables' owner; each time, nothing is left to do."""
    expanded(project)
    project.check()
    assert "Nothing to do" in run(project, "expand").output
    assert run(project, "backfill").exit_code == 0
    assert run(project, "verify").exit_code == 0
    written(project, "contract")
    project.upgrade()
    assert "Nothing to do" in run(project, "contract").output
    project.guard = world.guards["sealed"]
    project.check()
    columns = {row[1]: row[2] for row in world.shape() if row[0] == "column"}
    assert columns[SEALED] == "true"
    assert PLAIN not in columns
    assert not [row for row in world.shape() if row[0] in {"trigger", "function"}]


def test_several_searches_are_made_and_taken_away(
    project: Project, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its index, also where a trigger keeps the columns, which goes with them."""
    project.guard = world.guards["several"]
    serve(monkeypatch, guard=project.guard)
    before = world.shape()
    expanded(project)
    project.check()
    by_migration = world.shape()
    assert sum(row[0] == "index" and "bidx" in row[1] for row in by_migration) == 3
    project.downgrade()
    assert world.shape() == before
    assert Command(world.admin)("expand", COLUMN).exit_code == 0
    assert world.shape() == by_migration


def test_the_database_is_as_the_command_leaves_it(project: Project, world: World) -> None:
    """Columns, checks, index, triggers, owners: the migration makes no other."""
    written(project, "expand")
    project.upgrade()
    by_migration = world.shape()
    world.begin()
    assert Command(world.admin)("expand", COLUMN).exit_code == 0
    assert world.shape() == by_migration


def test_a_reviewer_reads_steps_locks_and_durations(project: Project) -> None:
    """Each step is a transaction with its lock_timeout; the index is made outside of any."""
    text = written(project, "expand", "-m", "seal names").read_text()
    assert text.startswith('"""seal names\n')
    assert "    # Lock: ACCESS EXCLUSIVE, while the table is rewritten.\n    with op.own_tr" in text
    index = text.index("    with op.get_context().autocommit_block():\n        op.run_sql(")
    assert "CREATE INDEX CONCURRENTLY" in text[index:].splitlines()[2]
    assert text.count("with op.own_transaction(lock_timeout='3s'):") == 7


def test_it_can_be_read_first(project: Project) -> None:
    """As Python, or as JSON; 1 says that something is missing, and nothing is written."""
    before = project.newest()
    result = run(project, "expand", "--dry-run")
    assert result.exit_code == 1
    assert result.output.startswith("def upgrade():\n    # Add the encrypted column")
    document = json.loads(run(project, "expand", "--dry-run", "--format", "json").output)
    assert (document["column"], document["path"], document["steps"]) == (COLUMN, None, 7)
    assert "op.require_plaintext(" in document["downgrade"]
    assert project.newest() == before
    document = json.loads(run(project, "expand", "--format", "json").output)
    assert document["path"] == str(project.newest())


def test_no_step_holds_the_lock_of_another(project: Project) -> None:
    """While rows are looked at, nothing is left of the ACCESS EXCLUSIVE before."""
    path = written(project, "expand")
    held = (
        "DO $$ BEGIN IF EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid() "
        f"AND relation = '\"{TABLE}\"'::regclass) THEN RAISE 'held'; END IF; END $$"
    )
    lines = path.read_text().splitlines()
    [at] = [n for n, line in enumerate(lines) if "VALIDATE CONSTRAINT" in line]
    lines.insert(at - 1, f"        op.run_sql({held!r})")
    path.write_text("\n".join(lines))
    project.upgrade()


@pytest.mark.parametrize("step", range(1, 7))
def test_what_was_ended_in_between_is_run_again(project: Project, world: World, step: int) -> None:
    """Steps that are done stay done; the migration counts as run when the last of them is."""
    path = written(project, "expand")
    text = path.read_text()
    begin = "    with op.own_transaction(lock_timeout='3s'):\n"
    parts = text.split(begin)
    fails = f"{begin}        op.run_sql('SELECT 1 / 0')\n"
    path.write_text(begin.join(parts[:step]) + fails + begin + begin.join(parts[step:]))
    with pytest.raises(DBAPIError, match="division by zero"):
        project.upgrade()
    path.write_text(text)
    project.upgrade()
    assert "Nothing to do" in run(project, "expand").output
    assert world.run("SELECT version_num FROM alembic_version") != [("first",)]


def test_the_downgrade_leaves_what_was_there(project: Project, world: World) -> None:
    """No column, check, index, trigger or function stays, and NOT NULL is back."""
    before = world.shape()
    sealed(project)
    project.downgrade()
    assert world.shape() == before
    project.upgrade()
    assert count(world, f'"{SEALED}" IS NULL') == ROWS


def test_the_downgrade_does_not_lose_values(project: Project, world: World) -> None:
    """A row that is sealed alone stops it, unless that is allowed; then NOT NULL stays away."""
    sealed(project)
    world.run(f'UPDATE "{TABLE}" SET "{SEALED}" = "{SEALED}" || \'\\x00\'::bytea WHERE id = 1')
    before = world.shape()
    with pytest.raises(DBAPIError, match="and no plaintext, which would be lost") as raised:
        project.downgrade()
    assert "encrypt backfill --decrypt" in str(raised.value)
    assert world.shape() == before
    project.downgrade("allow_loss=true")
    assert count(world, f'"{PLAIN}" IS NULL') == 1


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_is_dropped_that_no_trigger_has_watched(
    project: Project, world: World, number: int
) -> None:
    """Neither column: without a trigger, one of the two may be older than the other."""
    sealed(project)
    written(project, "contract")
    trigger = [row[1] for row in world.shape() if row[0] == "trigger"][number]
    world.run(f'ALTER TABLE "{TABLE}" DISABLE TRIGGER "{trigger}"')
    with pytest.raises(DBAPIError, match="the triggers that keep"):
        project.upgrade()
    with pytest.raises(DBAPIError, match="the triggers that keep"):
        project.downgrade()
    assert count(world, f'"{PLAIN}" IS NOT NULL AND "{SEALED}" IS NOT NULL') == ROWS


def test_contract_stops_where_a_row_is_not_sealed(project: Project, world: World) -> None:
    """It drops nothing, the application may go on writing, and it can be run again."""
    sealed(project)
    written(project, "contract")
    before = world.shape()
    world.run(f'UPDATE "{TABLE}" SET "{PLAIN}" = \'new\' WHERE id = 1')
    with pytest.raises(DBAPIError, match="rows have no sealed value, so their plaintext stays"):
        project.upgrade()
    assert world.shape() == before
    assert run(project, "backfill").exit_code == 0
    project.upgrade()
    assert PLAIN not in {row[1] for row in world.shape()}


def test_contract_is_not_written_unless_all_values_are_the_same(
    project: Project, world: World
) -> None:
    """The command compares, as the only one that has the keys."""
    sealed(project)
    before = project.newest()
    encrypting(world, f'UPDATE "{TABLE}" SET "{PLAIN}" = \'another\' WHERE id = 1')
    result = run(project, "contract")
    assert result.exit_code == 1
    assert "1 rows have another value sealed than their plaintext" in result.output
    assert "another'" not in result.output
    assert project.newest() == before


def test_rows_without_any_value_are_fine_where_the_model_allows_them(world: World) -> None:
    """What is demanded is that no plaintext is without its sealed value, and no more."""
    keys = world.guards["both"].keys
    guard = TenantGuard(New.metadata, tenants="practices", roles=world.roles, keys=keys)
    migration = migration_of(guard.catalog, "patients.scan")
    there = Structure({"scan": False, "scan_sealed": False}, {}, {}, trigger=True)
    said = "\n".join(
        line for step in contracting(migration, there, keep=False).up for line in step.statements()
    )
    assert 'CHECK ("scan" IS NULL OR "scan_sealed" IS NOT NULL) NOT VALID' in said
    assert "SET NOT NULL" not in said


def test_what_was_dropped_does_not_come_back(project: Project, world: World) -> None:
    """The downgrade says what brings the values back."""
    sealed(project)
    written(project, "contract")
    project.upgrade()
    before = world.shape()
    with pytest.raises(NotImplementedError, match="encrypt backfill --decrypt"):
        project.downgrade()
    assert world.shape() == before


def test_what_was_kept_comes_back(project: Project, world: World) -> None:
    """With --keep name and triggers are as before, and what may be newer is not dropped."""
    sealed(project)
    before = world.shape()
    written(project, "contract", "--keep")
    project.upgrade()
    assert f"{PLAIN}_plaintext" in {row[1] for row in world.shape()}
    project.downgrade()
    assert world.shape() == before
    assert run(project, "verify").exit_code == 0
    project.newest().unlink()
    with pytest.raises(DBAPIError, match="may be newer, and would be lost"):
        project.downgrade()
    project.downgrade("allow_loss=true")
    assert SEALED not in {row[1] for row in world.shape()}


def test_what_autogenerate_has_made_is_not_made_again(project: Project, world: World) -> None:
    """The column may be the models' migration's; the triggers and NULL are not, nor their end."""
    rls.apply(project.owner, world.guards["old"].catalog, world.roles)
    project.autogenerate()
    project.upgrade()
    columns = {row[1]: row[2] for row in world.shape() if row[0] == "column"}
    assert columns[SEALED] == columns[PLAIN] == "false"
    before = world.shape()
    text = written(project, "expand").read_text()
    assert text.count("with op.") == 2
    assert "CREATE OR REPLACE TRIGGER" in text
    project.upgrade()
    project.check()
    project.downgrade()
    assert world.shape() == before


def test_the_script_without_a_database_does_the_same(project: Project, world: World) -> None:
    """What `--sql` writes is run statement by statement, up and down."""
    before = world.shape()
    path = written(project, "expand")
    revision = path.name.partition("_")[0]
    up = project.script("first:head")
    down = project.script("head:first", down=True)
    project.upgrade()
    after = world.shape()
    world.begin()
    world.run(
        "CREATE TABLE alembic_version (version_num text); "
        f'ALTER TABLE alembic_version OWNER TO "{world.roles.owner}"; '
        "INSERT INTO alembic_version VALUES ('first')"
    )
    sent(world, up)
    assert (world.shape(), world.run("TABLE alembic_version")) == (after, [(revision,)])
    sent(world, down)
    assert (world.shape(), world.run("TABLE alembic_version")) == (before, [("first",)])


def sent(world: World, script: list[str]) -> None:
    """Send *script* as psql does."""
    with world.owner.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for each in script:
            connection.exec_driver_sql(each, execution_options={"no_parameters": True})


ASYNCHRONOUS = """\
    import asyncio
    from sqlalchemy.ext.asyncio import create_async_engine

    def run(connection):
        configure(project.guard, connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()

    async def connect():
        made = create_async_engine(
            project.owner.url,
            connect_args={"options": f"-c role={project.world.roles.owner}"},
        )
        async with made.connect() as connection:
            await connection.run_sync(run)
        await made.dispose()

    asyncio.run(connect())
"""


@pytest.mark.parametrize("way", ["asynchronous", "a transaction each"])
def test_other_ways_to_run_migrations(project: Project, world: World, way: str) -> None:
    """An asynchronous engine, and a transaction for each migration: up, up, down and up again."""
    env = project.directory / "env.py"
    plainly = env.read_text()
    there, begin = plainly.partition("else:\n")[:2]
    changed = f"{there}{begin}{ASYNCHRONOUS}"
    if way != "asynchronous":
        changed = plainly.replace("options = {", 'options = {"transaction_per_migration": True, ')
    before = world.shape()
    written(project, "expand")
    env.write_text(changed)
    for step in (project.upgrade, project.upgrade, project.downgrade):
        step()
    assert world.shape() == before
    project.upgrade()
    rls.apply(project.owner, project.guard.catalog, world.roles)
    assert run(project, "backfill").exit_code == 0
    written(project, "contract")
    project.upgrade()
    assert PLAIN not in {row[1] for row in world.shape()}


def test_a_transaction_that_is_not_alembics_is_not_committed(project: Project) -> None:
    """It is said in words that env.py has to leave the transaction to Alembic."""
    path = written(project, "expand")
    env = project.directory / "env.py"
    env.write_text(env.read_text().replace("owner.connect()", "owner.begin()"))
    with pytest.raises(CommandError, match="is not Alembic's"):
        project.upgrade()
    assert path.exists()


def test_options_that_do_not_go_together_are_refused(project: Project, world: World) -> None:
    """A migration is for the database of env.py, and a message is a migration's."""
    command = Command(world.admin)
    assert_could_not_look(command("expand", COLUMN, "-m", "x"), "go with --revision")
    assert_could_not_look(run(project, "expand", "--admin-url", "x"), "Leave --admin-url out")
