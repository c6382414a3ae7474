"""A partitioned table's column is encrypted beside writes, its index partition by partition."""

from __future__ import annotations

import uuid  # noqa: TC003  (SQLAlchemy evaluates the annotations)
from typing import TYPE_CHECKING, Any

import pytest
from alembic.util import CommandError
from commanding import Command, assert_could_not_look, serve
from locks import unique_roles
from sqlalchemy import ForeignKey, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapped, mapped_column
from vault import ENVIRONMENT, A
from versioned import Project, World, base, build_world

from tenantguard import Exact, TenantGuard, encrypted_str, rls
from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

VISITS = "visits.note"
INDEX = "ix_visits_note_sealed_bidx"
MADE = f"    op.create_partitioned_index(\n        '{{}}',\n        '{INDEX}',\n"
PARTS = ("visits", "visits_1", "visits_2", "visits_21", "vis%its_22 :x")
ROWS = 30
"""One in each year from 0 on; a partition has ten years."""

TABLES = """
CREATE TABLE visits (
    id serial, year int, tenant_id uuid NOT NULL REFERENCES practices, note text NOT NULL,
    PRIMARY KEY (id, year)
) PARTITION BY RANGE (year);
CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (10);
CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (10) TO (30) PARTITION BY RANGE (year);
CREATE TABLE visits_21 PARTITION OF visits_2 FOR VALUES FROM (10) TO (20);
CREATE TABLE "vis%its_22 :x" PARTITION OF visits_2 FOR VALUES FROM (20) TO (30)
"""


class Base(base()):  # type: ignore[misc]
    __abstract__ = True


class Visit(Base):
    __tablename__ = "visits"
    __table_args__ = {"postgresql_partition_by": "RANGE (year)"}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    year: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    plain: Mapped[str | None] = mapped_column("note")
    sealed: Mapped[str] = encrypted_str(
        name="note_sealed", search=Exact(kept_by="trigger"), migrating="note"
    )


@pytest.fixture(scope="module")
def world(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    key_file = tmp_path_factory.mktemp("keys") / "key.json"
    make_key_file(key_file, environment=ENVIRONMENT)
    built = build_world(create_engine(admin_url), unique_roles(), key_file, ENVIRONMENT)
    keys = built.guards["both"].keys
    built.guards["visits"] = TenantGuard(
        Base.metadata, tenants="practices", roles=built.roles, keys=keys
    )
    yield built
    built.owner.dispose()
    built.admin.dispose()


@pytest.fixture
def visits(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A table with a partition, and one that has partitions itself; all of it plaintext."""
    serve(monkeypatch, guard=world.guards["visits"])
    world.run("DROP TABLE IF EXISTS visits")
    world.begin()
    with world.owner.begin() as connection:
        connection.exec_driver_sql(TABLES, execution_options={"no_parameters": True})
    world.run(
        f"INSERT INTO visits (year, tenant_id, note) SELECT n, '{A}', 'note ' || n "
        f"FROM generate_series(0, {ROWS - 1}) n"
    )
    return world


def valid(world: World) -> dict[str, bool]:
    """Return whether each of the tables has a valid index of search that serves the whole."""
    rows = world.run(
        "SELECT t.relname, bool_and(i.indisvalid) FROM pg_index i "
        "JOIN pg_class t ON t.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = t.oid "
        "AND a.attname = 'note_sealed_bidx' AND a.attnum = ANY (i.indkey::int2[]) "
        f"WHERE i.indexrelid IN (SELECT relid FROM pg_partition_tree('{INDEX}')) GROUP BY 1"
    )
    return dict(rows)


def missing(command: Command) -> list[str]:
    """Return the statements that the dry run prints."""
    steps = command.json("expand", VISITS, "--dry-run", code=1)["steps"]
    return [line for step in steps for line in step["sql"]]


def test_each_partition_is_indexed_beside_writes(visits: World) -> None:
    """Nothing but CREATE INDEX CONCURRENTLY reads rows, and the whole is valid in the end."""
    command = Command(visits.admin)
    made = [line for line in missing(command) if line.startswith("CREATE INDEX")]
    assert [line.split()[2] for line in made].count("CONCURRENTLY") == 3
    assert all("CONCURRENTLY" in line or "ON ONLY" in line for line in made)
    assert command("expand", VISITS).exit_code == 0
    assert valid(visits) == dict.fromkeys(PARTS, True)
    assert command.json("expand", VISITS)["steps"] == []


def test_its_values_are_sealed_and_its_plaintext_dropped(visits: World) -> None:
    """Triggers, checks and the index are such that the whole migration runs."""
    command = Command(visits.admin)
    assert command("expand", VISITS).exit_code == 0
    rls.apply(visits.owner, visits.guards["visits"].catalog, visits.roles)
    assert command.json("backfill", VISITS)["done"] == ROWS
    visits.run("UPDATE visits SET note = 'new' WHERE year = 25")
    assert command.json("backfill", VISITS)["done"] == 1
    assert command.json("verify", VISITS)["rows"] == {"same": ROWS}
    assert command("contract", VISITS).exit_code == 0
    assert valid(visits) == dict.fromkeys(PARTS, True)


@pytest.mark.parametrize("done", range(10))
def test_what_was_ended_is_gone_on_with(visits: World, done: int) -> None:
    """After each of the steps, the rest of them is what is left; nothing is made twice."""
    command = Command(visits.admin)
    steps = command.json("expand", VISITS, "--dry-run", code=1)["steps"]
    first = next(n for n, step in enumerate(steps) if "ON ONLY" in step["sql"][0])
    with visits.owner.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        for step in steps[: first + done]:
            for each in step["sql"]:
                connection.exec_driver_sql(each, execution_options={"no_parameters": True})
    left = command.json("expand", VISITS, "--dry-run", code=1)["steps"]
    assert left == steps[first + done :]
    assert command("expand", VISITS).exit_code == 0
    assert valid(visits) == dict.fromkeys(PARTS, True)


def test_an_index_half_made_is_made_again(visits: World) -> None:
    """CREATE INDEX CONCURRENTLY that was ended leaves one that serves nobody."""
    command = Command(visits.admin)
    [name] = [
        line.split('"')[1] for line in missing(command) if 'CONCURRENTLY "tg_visits_1' in line
    ]
    visits.run("ALTER TABLE visits ADD note_sealed bytea, ADD note_sealed_bidx bytea")
    visits.run(f'CREATE INDEX "{name}" ON visits_1 (tenant_id, note_sealed_bidx)')
    visits.run(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{name}'::regclass")
    assert f'DROP INDEX CONCURRENTLY IF EXISTS "public"."{name}"' in missing(command)
    assert command("expand", VISITS).exit_code == 0
    assert valid(visits) == dict.fromkeys(PARTS, True)


def test_a_partition_that_comes_meanwhile_has_its_index(visits: World) -> None:
    """PostgreSQL makes that one, and it is not made twice."""
    command = Command(visits.admin)
    assert command("expand", VISITS).exit_code == 0
    visits.run("CREATE TABLE visits_3 PARTITION OF visits FOR VALUES FROM (30) TO (40)")
    assert command.json("expand", VISITS)["steps"] == []
    assert valid(visits)["visits_3"]


@pytest.fixture
def project(visits: World, tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "migrations", visits, visits.guards["visits"])
    made.make()
    yield made
    made.leave()


def expand(project: Project) -> Any:
    arguments = ("--revision", "--config", str(project.ini))
    return Command(project.world.admin)("expand", VISITS, *arguments)


def disable(world: World, name: str) -> None:
    """Disable the triggers like *name* in one partition of a partition."""
    for (trigger,) in world.run(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'visits_21'::regclass "
        f"AND starts_with(tgname::text, '{name}')"
    ):
        world.run(f'ALTER TABLE visits_21 DISABLE TRIGGER "{trigger}"')


@pytest.mark.parametrize("name", ["zz_tg_marking", "zz_tg_migrating", "zz_tg_search"])
def test_a_trigger_that_one_partition_lacks_is_none(visits: World, name: str) -> None:
    """What older applications write there would not be noticed; expanding enables it again."""
    command = Command(visits.admin)
    assert command("expand", VISITS).exit_code == 0
    rls.apply(visits.owner, visits.guards["visits"].catalog, visits.roles)
    assert command.json("backfill", VISITS)["done"] == ROWS
    disable(visits, name)
    assert missing(command)
    if name != "zz_tg_search":
        assert_could_not_look(command("contract", VISITS), "lacks the trigger")
    assert command("expand", VISITS).exit_code == 0
    visits.run("UPDATE visits SET note = 'new' WHERE year = 15")
    assert command.json("backfill", VISITS)["done"] == 1
    assert command("contract", VISITS).exit_code == 0


def test_a_migration_drops_nothing_that_one_partition_has_not_watched(project: Project) -> None:
    """The triggers have to be enabled in each."""
    command = Command(project.world.admin)
    assert command("expand", VISITS).exit_code == 0
    rls.apply(project.owner, project.guard.catalog, project.world.roles)
    assert command.json("backfill", VISITS)["done"] == ROWS
    arguments = ("--revision", "--config", str(project.ini))
    assert command("contract", VISITS, *arguments).exit_code == 0
    disable(project.world, "zz_tg_migrating")
    with pytest.raises(DBAPIError, match="the triggers that keep"):
        project.upgrade()
    assert command("expand", VISITS).exit_code == 0
    project.upgrade()
    assert project.world.run("SELECT FROM pg_attribute WHERE attname = 'note'") == []


def test_a_migration_asks_which_partitions_there_are(project: Project) -> None:
    """Those of the database that it is run with, which need not be those it was written with."""
    assert expand(project).exit_code == 0
    written = project.newest().read_text()
    assert MADE.format("visits") in written
    assert "visits_1" not in written
    with project.owner.begin() as connection:
        connection.execute(text("CREATE TABLE visits_3 PARTITION OF visits DEFAULT"))
    project.upgrade()
    assert valid(project.world) == dict.fromkeys([*PARTS, "visits_3"], True)
    assert "Nothing to do" in expand(project).output
    project.downgrade()
    assert project.world.run("SELECT FROM pg_attribute WHERE attname ~ 'sealed'") == []
    with pytest.raises(CommandError, match="--sql cannot write it"):
        project.script("first:head")


def test_a_table_without_partitions_is_refused(project: Project) -> None:
    """A migration that was written for a partitioned one makes no index where there is nothing."""
    assert expand(project).exit_code == 0
    path = project.newest()
    path.write_text(path.read_text().replace(MADE.format("visits"), MADE.format("practices")))
    with pytest.raises(CommandError, match="has no partitions here"):
        project.upgrade()
