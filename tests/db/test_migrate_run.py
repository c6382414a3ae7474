"""The script of `migrate sql`, run against tables with rows, next to tables under policies."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from rls_world import A, B, World, _drop_roles, catalog_of, fill, make_world, models
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid

from tenantguard import migrate, rls
from tenantguard.catalog import Roles
from tenantguard.errors import ConfigurationError, CrossTenantError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    from tenantguard.catalog import Catalog


def with_visits(*, column: bool) -> MetaData:
    """The models with a table of visits, which belong to an order, and notes on visits."""
    metadata = models()
    Table(
        "visits",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("order_id", ForeignKey("order.id", ondelete="SET NULL")),
        Column("earlier_id", ForeignKey("visits.id")),
        *([Column("tenant_id", Uuid, nullable=False)] if column else []),
    )
    Table(
        "notes",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("tenant_id", Uuid, nullable=False),
        Column("visit_id", ForeignKey("visits.id")),
    )
    return metadata


@pytest.fixture
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    """A protected database in which visits have no tenant column yet."""
    with make_world(new_database()) as made:
        before = with_visits(column=False)
        with made.owner.begin() as connection:
            before.create_all(connection)
        catalog = catalog_of(before)
        catalog.untenanted = {**catalog.untenanted, "visits": "not migrated yet"}
        fill(made)
        made.run("INSERT INTO visits (order_id) VALUES (1), (2), (1)")
        made.run("UPDATE visits SET earlier_id = 1 WHERE id = 3")
        made.run(f"INSERT INTO notes (tenant_id, visit_id) VALUES ('{A}', 1), ('{B}', 2)")
        rls.apply(made.owner, catalog, made.roles)
        yield made


def run_as_owner(world: World, script: str) -> None:
    """Run each step on its own under autocommit, as psql would."""
    run_steps(world, script, options=f"-c role={world.roles.owner}")


def run_steps(world: World, script: str, **options: Any) -> None:
    url = world.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True, **options) as connection:
        for block in re.split(r"(?m)^-- Step \d+\..*$", script)[1:]:
            connection.execute(block.encode())


def rest(world: World, catalog: Catalog) -> list[str]:
    with world.owner.connect() as connection:
        return [str(step) for step in rls.plan(connection, catalog, world.roles)]


@pytest.mark.parametrize("column", [False, True])
def test_script_leaves_nothing_for_the_plan(world: World, column: bool) -> None:  # noqa: FBT001
    """Whether the model has the column or not, only other tables' keys are left to `apply`."""
    catalog = catalog_of(with_visits(column=column))
    run_as_owner(world, migrate.sql(catalog, world.roles, "visits"))
    after = catalog_of(with_visits(column=True))
    [left] = rest(world, after)
    assert left.startswith("public.notes foreign key tg_notes_tenant_id_visit_id_fkey")
    rls.apply(world.owner, after, world.roles)
    assert rest(world, after) == []
    rows = world.run("SELECT id, tenant_id FROM visits ORDER BY 1")
    assert rows == [(1, A), (2, B), (3, A)]
    assert world.run_as(world.roles.application, B, "SELECT id FROM visits") == [(2,)]
    forced = world.run(
        "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname IN ('order', 'notes')"
    )
    assert forced == [(True,)]


def test_script_can_be_repeated(world: World) -> None:
    """A script that stopped is run again from its beginning without harm."""
    script = migrate.sql(catalog_of(with_visits(column=False)), world.roles, "visits")
    run_as_owner(world, script)
    once = rest(world, catalog_of(with_visits(column=True)))
    run_as_owner(world, script)
    assert rest(world, catalog_of(with_visits(column=True))) == once


def test_down_removes_the_migrations_index(world: World) -> None:
    """What down removes includes the unique index that the migration made without a constraint."""
    catalog = catalog_of(with_visits(column=True))
    run_as_owner(world, migrate.sql(catalog, world.roles, "visits"))
    names = "SELECT count(*) FROM pg_class WHERE relname ~ '^tg_visits'"
    assert world.run(names)[0][0] > 0
    with world.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            rls.down_sql(catalog, world.roles), execution_options={"no_parameters": True}
        )
    assert world.run(names) == [(0,)]


def test_row_without_a_parent_stops_the_script(world: World) -> None:
    """A row whose tenant cannot be derived is not guessed at: the check refuses it."""
    world.run("INSERT INTO visits (order_id) VALUES (NULL)")
    script = migrate.sql(catalog_of(with_visits(column=False)), world.roles, "visits")
    with pytest.raises(psycopg.errors.CheckViolation):
        run_as_owner(world, script)


def test_crossing_child_stops_what_adds_its_key(world: World) -> None:
    """A note of one tenant on a visit of another is found by the notes' own script and `apply`."""
    world.run(f"INSERT INTO notes (tenant_id, visit_id) VALUES ('{A}', 2)")
    catalog = catalog_of(with_visits(column=True))
    run_as_owner(world, migrate.sql(catalog, world.roles, "visits"))
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        run_as_owner(
            world, migrate.sql(catalog, world.roles, "notes", from_parent="visits.visit_id")
        )
    with pytest.raises(CrossTenantError, match="another tenant's rows"):
        rls.apply(world.owner, catalog, world.roles)


@pytest.fixture
def bare(new_database: Callable[[], URL]) -> Iterator[World]:
    """A database with nothing of tenantguard but its roles."""
    with make_world(new_database()) as made:
        fill(made)
        yield made


def chain(*, column: bool) -> MetaData:
    """Groups of a practice, members of a group, tasks of a member: parent, child, grandchild."""
    metadata = models()
    for name, parent in (("groups", "practices"), ("members", "groups"), ("tasks", "members")):
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("parent_id", ForeignKey(f"{parent}.id")),
            *([Column("tenant_id", Uuid, nullable=False)] if column else []),
        )
    return metadata


def test_tables_are_migrated_one_after_another(bare: World) -> None:
    """All columns are in the models, none in the database: parents first, `apply` last."""
    with bare.owner.begin() as connection:
        chain(column=False).create_all(connection)
    bare.run(f"INSERT INTO groups (parent_id) VALUES ('{A}'), ('{B}')")
    bare.run("INSERT INTO members (parent_id) VALUES (1), (2)")
    bare.run("INSERT INTO tasks (parent_id) VALUES (2), (1)")
    catalog = catalog_of(chain(column=True))
    with pytest.raises(ConfigurationError, match="`tenantguard migrate sql groups`"):
        rls.apply(bare.owner, catalog, bare.roles)
    for name in ("groups", "members", "tasks"):
        run_as_owner(bare, migrate.sql(catalog, bare.roles, name))
    left = rest(bare, catalog)
    assert [step for step in left if re.match(r"public\.(groups|members|tasks)", step)] == []
    rls.apply(bare.owner, catalog, bare.roles)
    assert rest(bare, catalog) == []
    assert bare.run("SELECT tenant_id FROM tasks ORDER BY id") == [(B,), (A,)]


def mutual(*, column: bool) -> MetaData:
    """Trips on an order, with a current stop; stops of a trip."""
    metadata = models()
    key = ForeignKey("stops.id", use_alter=True, name="current_stop")
    Table(
        "trips",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("order_id", ForeignKey("order.id")),
        Column("stop_id", key),
        *([Column("tenant_id", Uuid, nullable=False)] if column else []),
    )
    Table(
        "stops",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("trip_id", ForeignKey("trips.id")),
        *([Column("tenant_id", Uuid, nullable=False)] if column else []),
    )
    return metadata


def test_tables_that_refer_to_each_other(bare: World) -> None:
    """The first script stops at the other table's missing column, and is repeated after that's."""
    with bare.owner.begin() as connection:
        mutual(column=False).create_all(connection)
    bare.run("INSERT INTO trips (order_id) VALUES (1), (2)")
    bare.run("INSERT INTO stops (trip_id) VALUES (1), (2)")
    bare.run("UPDATE trips SET stop_id = id")
    catalog = catalog_of(mutual(column=True))
    trips = migrate.sql(catalog, bare.roles, "trips", from_parent="order.order_id")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        run_as_owner(bare, trips)
    run_as_owner(bare, migrate.sql(catalog, bare.roles, "stops"))
    run_as_owner(bare, trips)
    rls.apply(bare.owner, catalog, bare.roles)
    assert rest(bare, catalog) == []


def test_script_creates_its_roles(bare: World) -> None:
    """On a server without the roles, a superuser runs the script with its first step."""
    with bare.owner.begin() as connection:
        chain(column=False).create_all(connection)
    catalog = catalog_of(chain(column=True))
    roles = Roles(*(f"{bare.url.database}_n{number}" for number in range(5)))
    with pytest.raises(psycopg.errors.UndefinedObject, match=r"role .* does not exist"):
        run_steps(bare, migrate.sql(catalog, roles, "groups"))
    try:
        run_steps(bare, migrate.sql(catalog, roles, "groups", create_roles=True))
        assert bare.run("SELECT count(*) FROM pg_policy") == [(5,)]
    finally:
        rls.apply_roles(bare.admin, roles)
        _drop_roles(bare.url, roles)


def test_backfill_without_lifting_would_do_nothing(world: World) -> None:
    """The negative control: under FORCE the owner's own UPDATE reports success and fills no row."""
    world.run("ALTER TABLE visits ADD tenant_id uuid")
    with world.owner.begin() as connection:
        result: Any = connection.exec_driver_sql(
            'UPDATE visits SET tenant_id = p.tenant_id FROM "order" p WHERE p.id = order_id'
        )
        assert result.rowcount == 0


def test_incomplete_placeholder_fails(world: World) -> None:
    """A backfill that nobody completed is a syntax error, not an empty column."""
    catalog = catalog_of(with_visits(column=False))
    Table("visits2", catalog.metadata, Column("id", Integer, primary_key=True))
    world.run(f'CREATE TABLE visits2 (id int); ALTER TABLE visits2 OWNER TO "{world.roles.owner}"')
    with pytest.raises(psycopg.errors.SyntaxError):
        run_as_owner(world, migrate.sql(catalog, world.roles, "visits2"))
