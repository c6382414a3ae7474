"""Applying the second lock to a database, as the tables' owner, who is no superuser."""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING

import psycopg
import pytest
from rls_world import A, B, World, catalog_of, fill, make_world, models, statements
from sqlalchemy import Column, Integer, Table, Uuid, create_engine
from sqlalchemy.exc import DBAPIError

from tenantguard import migrate, rls
from tenantguard.errors import ConfigurationError, CrossTenantError, TenantGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

LINE = '"Oth er"."Li""n%e"'
QUESTIONS = (
    "SELECT",
    "WITH",
    "SHOW",
    "SAVEPOINT",
    "ROLLBACK",
    "SET LOCAL search_path",
    "SET LOCAL jit",
    "DO $",
)


@pytest.fixture
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    with make_world(new_database()) as made:
        yield made


@pytest.fixture
def applied(world: World) -> World:
    fill(world)
    rls.apply(world.owner, world.catalog, world.roles)
    return world


def missing(world: World) -> list[str]:
    with world.owner.connect() as connection:
        return [str(step) for step in rls.plan(connection, world.catalog, world.roles)]


def test_owner_is_not_a_superuser(world: World) -> None:
    """The suite's owner is an ordinary role: nothing below holds only because of a superuser."""
    with world.owner.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT rolname, rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user"
        ).one()
    assert tuple(row) == (world.roles.owner, False)


def test_second_run_sends_no_ddl(applied: World) -> None:
    """What is there is not made again: the second run asks, and changes nothing."""
    before = applied.run("SELECT oid, xmin FROM pg_policy ORDER BY oid")
    with statements(applied.owner) as sent:
        assert rls.apply(applied.owner, applied.catalog, applied.roles) == []
    assert sent
    assert [each for each in sent if not each.lstrip().startswith(QUESTIONS)] == []
    assert not any("ALTER" in each or "GRANT" in each for each in sent if "CREATE TEMP" not in each)
    assert applied.run("SELECT oid, xmin FROM pg_policy ORDER BY oid") == before


def test_dry_run_changes_nothing(world: World) -> None:
    """A dry run returns the steps and leaves the database as it was."""
    steps = rls.apply(world.owner, world.catalog, world.roles, dry_run=True)
    assert steps
    assert world.run("SELECT count(*) FROM pg_policy")[0][0] == 0
    assert missing(world) == [str(step) for step in steps]


@pytest.mark.parametrize("role", ["owner", "superuser"])
def test_tenant_sees_its_own_rows_only(world: World, role: str) -> None:
    """With the policies alone, a tenant reads and writes its own rows, and without one, none."""
    fill(world)
    rls.apply(world.owner if role == "owner" else world.admin, world.catalog, world.roles)
    app = world.roles.application
    assert world.run_as(app, A, 'SELECT id FROM "order"') == [(1,)]
    assert world.run_as(app, None, 'SELECT id FROM "order"') == []
    assert world.run_as(app, A, 'UPDATE "order" SET total = 0 RETURNING id') == [(1,)]
    assert world.run_as(app, A, "SELECT count(*) FROM practices") == [(1,)]
    assert world.run_as(app, A, 'INSERT INTO "order" (total) VALUES (5) RETURNING tenant_id') == [
        (A,)
    ]
    with pytest.raises(DBAPIError, match="row-level security"):
        world.run_as(app, A, f"INSERT INTO \"order\" (id, tenant_id) VALUES (99, '{B}')")
    with pytest.raises(DBAPIError, match="permission denied"):
        world.run_as(app, A, "UPDATE practices SET name = 'x'")
    with pytest.raises(DBAPIError, match="permission denied"):
        world.run_as(app, A, "SELECT * FROM jobs")
    with pytest.raises(DBAPIError, match="permission denied"):
        world.run_as(app, A, 'TRUNCATE "order" CASCADE')
    with pytest.raises(DBAPIError, match="permission denied"):
        world.run_as(app, A, "CREATE TABLE public.mine ()")


def test_other_roles_see_what_they_are_for(applied: World) -> None:
    """Support reads one tenant and writes nothing; maintenance sees all; the owner sees none."""
    roles = applied.roles
    assert applied.run_as(roles.support, B, 'SELECT id FROM "order"') == [(2,)]
    with pytest.raises(DBAPIError, match="permission denied"):
        applied.run_as(roles.support, B, 'DELETE FROM "order"')
    assert applied.run_as(roles.maintenance, None, 'SELECT count(*) FROM "order"') == [(2,)]
    assert applied.run_as(roles.backup, None, 'SELECT count(*) FROM "order"') == [(2,)]
    assert applied.run_as(roles.owner, A, 'SELECT count(*) FROM "order"') == [(0,)]
    with (
        applied.as_application() as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to set role"),
    ):
        connection.execute(f'SET ROLE "{roles.maintenance}"')


@pytest.mark.parametrize(
    ("damage", "step"),
    [
        (
            'ALTER POLICY tenantguard_application ON "order" USING (true) WITH CHECK (true)',
            "public.order policy tenantguard_application",
        ),
        (
            'ALTER POLICY tenantguard_application ON "order" WITH CHECK (true)',
            "public.order policy tenantguard_application",
        ),
        (
            'ALTER POLICY tenantguard_application_floor ON "order" TO PUBLIC',
            "public.order policy tenantguard_application_floor",
        ),
        (
            'DROP POLICY tenantguard_maintenance ON "order"',
            "public.order policy tenantguard_maintenance",
        ),
        ('ALTER TABLE "order" NO FORCE ROW LEVEL SECURITY', "public.order force"),
        ('ALTER TABLE "order" DISABLE ROW LEVEL SECURITY', "public.order enable"),
        ('ALTER TABLE "order" ALTER tenant_id DROP NOT NULL', "public.order not null"),
        ('ALTER TABLE "order" ALTER tenant_id DROP DEFAULT', "public.order default"),
        (f"ALTER TABLE \"order\" ALTER tenant_id SET DEFAULT '{B}'", "public.order default"),
        ('GRANT SELECT ON "order" TO PUBLIC', "public.order grants"),
        ("GRANT UPDATE (name) ON practices TO PUBLIC", "public.practices grants"),
        ("GRANT INSERT ON materials TO {app}", "public.materials grants"),
        ("GRANT SELECT ON jobs TO {app}", "public.jobs grants"),
        ("REVOKE USAGE ON SEQUENCE order_id_seq FROM {app}", "public.order grants"),
        ("GRANT CREATE ON SCHEMA public TO {app}", "public schema"),
        ("GRANT EXECUTE ON FUNCTION users_by_email TO PUBLIC", "public.users lookup"),
        ("ALTER FUNCTION users_by_email SECURITY INVOKER", "public.users lookup"),
        ("ALTER FUNCTION users_by_email RESET search_path", "public.users lookup"),
        ("ALTER FUNCTION users_by_email OWNER TO {owner}", "public.users lookup"),
        ("DROP FUNCTION users_by_email", "public.users lookup"),
    ],
)
def test_every_difference_is_found_and_mended(applied: World, damage: str, step: str) -> None:
    """Whatever was changed by hand, the plan names exactly that, and applying restores it."""
    roles = applied.roles
    applied.run(damage.replace("{app}", roles.application).replace("{owner}", roles.owner))
    found = missing(applied)
    assert len(found) == 1
    assert found[0].startswith(step)
    rls.apply(applied.admin, applied.catalog, roles)
    assert missing(applied) == []


def test_equal_policy_in_another_writing_is_no_difference(applied: World) -> None:
    """Policies are compared as PostgreSQL stores them, not as they were typed."""
    expression = (
        "(tenant_id) = ((select (nullif(current_setting('tenantguard.tenant', true), ''))::uuid))"
    )
    applied.run(
        f'ALTER POLICY tenantguard_application ON "order" USING ({expression}) '
        f"WITH CHECK ({expression})"
    )
    assert missing(applied) == []


def test_interrupted_run_is_finished(world: World) -> None:
    """A run that dies in the middle leaves whole tables, and the next one does the rest."""
    fill(world)

    class StopError(Exception):
        pass

    def stop(done: int, total: int, step: rls.Step) -> None:
        del step
        if done > total // 2:
            raise StopError

    with pytest.raises(StopError):
        rls.apply(world.owner, world.catalog, world.roles, progress=stop)
    rest = missing(world)
    assert rest
    made = rls.apply(world.owner, world.catalog, world.roles)
    assert [str(step) for step in made] == rest
    assert missing(world) == []


def drop_composite_key(world: World) -> None:
    [[name]] = world.run(
        "SELECT quote_ident(conname) FROM pg_constraint WHERE conname ~ 'order_fkey_'"
    )
    world.run(f"ALTER TABLE {LINE} DROP CONSTRAINT {name}")


def cross(world: World) -> None:
    world.run(f"INSERT INTO {LINE} VALUES (7, '{B}', 1, NULL)")


def test_crossing_data_is_refused(world: World) -> None:
    """Rows that point at another tenant's rows stop the run; the message has no values."""
    fill(world)
    cross(world)
    with pytest.raises(CrossTenantError, match="point at another tenant's rows") as caught:
        rls.apply(world.owner, world.catalog, world.roles)
    text = str(caught.value)
    assert 'Oth er.Li"n%e' in text
    assert "tg_Li" in text
    assert str(A) not in text
    assert str(B) not in text
    assert caught.value.__suppress_context__
    query = text.partition("Find them with: ")[2]
    assert [row[0] for row in world.run(query)] == [7]


@pytest.mark.parametrize("forced", [LINE, '"order"', "both"])
def test_crossing_data_is_refused_under_force(applied: World, forced: str) -> None:
    """Also where FORCE hides the rows from the owner's validation, which would succeed."""
    drop_composite_key(applied)
    cross(applied)
    for table in {LINE, '"order"'} - ({forced} if forced != "both" else {LINE, '"order"'}):
        applied.run(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
    with pytest.raises(CrossTenantError, match="point at another tenant's rows"):
        rls.apply(applied.owner, applied.catalog, applied.roles)
    applied.run(f'DELETE FROM {LINE} WHERE "Id" = 7')
    rls.apply(applied.owner, applied.catalog, applied.roles)
    assert missing(applied) == []
    states = applied.run("SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relrowsecurity")
    assert states == [(True,)]


def test_validation_under_force_would_succeed_without_lifting(applied: World) -> None:
    """The negative control: PostgreSQL itself validates crossing data when FORCE hides it."""
    drop_composite_key(applied)
    cross(applied)
    with applied.owner.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER TABLE {LINE.replace('%', '%%')} ADD CONSTRAINT trap "
            'FOREIGN KEY (tenant_id, "order") REFERENCES "order" (tenant_id, id)'
        )
    assert applied.run("SELECT convalidated FROM pg_constraint WHERE conname = 'trap'") == [(True,)]


def test_key_left_unvalidated_is_validated(applied: World) -> None:
    """A key that exists but was never checked counts as missing, and is checked."""
    applied.run("UPDATE pg_constraint SET convalidated = false WHERE conname ~ 'order_fkey_'")
    found = missing(applied)
    assert len(found) == 1
    rls.apply(applied.owner, applied.catalog, applied.roles)
    assert missing(applied) == []


def test_set_null_keeps_the_tenant(applied: World) -> None:
    """ON DELETE SET NULL empties the child's column and not its tenant; CASCADE does not cross."""
    applied.run(f"INSERT INTO {LINE} VALUES (2, '{A}', NULL, 1)")
    applied.run_as(applied.roles.application, A, 'DELETE FROM "order" WHERE id = 1')
    rows = applied.run(f'SELECT "Id", tenant_id, "order" FROM {LINE} ORDER BY 1')
    assert rows == [(1, A, None), (2, A, None)]
    applied.run_as(applied.roles.application, A, f'DELETE FROM {LINE} WHERE "Id" = 1')
    assert applied.run(f"SELECT count(*) FROM {LINE}") == [(0,)]


def test_new_rows_cannot_point_at_another_tenant(applied: World) -> None:
    """A foreign key to another tenant's row is refused, though foreign keys ignore policies."""
    with pytest.raises(DBAPIError, match="foreign key constraint"):
        applied.run_as(
            applied.roles.application, A, f'INSERT INTO {LINE} ("Id", "order") VALUES (8, 2)'
        )


def test_identity_lookup_answers_one_key(applied: World) -> None:
    """Before a tenant is known, the function answers one key, and the table answers nothing."""
    app = applied.roles.application
    question = "SELECT * FROM users_by_email('{}')"
    assert applied.run_as(app, None, question.format("a@a")) == [(1, A, "hash")]
    assert applied.run_as(app, None, question.format("%")) == []
    assert applied.run_as(app, None, "SELECT * FROM users") == []
    with pytest.raises(DBAPIError, match="permission denied"):
        applied.run_as(applied.roles.support, None, question.format("a@a"))
    create = applied.run(
        f"SELECT has_schema_privilege('{applied.roles.maintenance}', 'public', 'CREATE')"
    )
    assert create == [(False,)]


def test_down_removes_what_up_made(world: World) -> None:
    """After down, policies, keys, indexes, defaults, functions and privileges are as before."""
    picture = """
        SELECT (SELECT count(*) FROM pg_policy), (SELECT count(*) FROM pg_constraint),
            (SELECT count(*) FROM pg_index), (SELECT count(*) FROM pg_attrdef),
            (SELECT count(*) FROM pg_proc),
            (SELECT count(*) FROM pg_class WHERE relrowsecurity OR relforcerowsecurity),
            (SELECT count(*) FROM pg_class, aclexplode(relacl) a
             JOIN pg_roles r ON r.oid = a.grantee
             WHERE r.rolname LIKE '%_app')
    """
    before = world.run(picture)
    rls.apply(world.owner, world.catalog, world.roles)
    assert world.run(picture) != before
    with world.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(
            rls.down_sql(world.catalog, world.roles), execution_options={"no_parameters": True}
        )
    after = world.run(picture)
    # NOT NULL stays, and PostgreSQL 18 counts it as a constraint.
    assert [*after[0][:1], *after[0][2:]] == [*before[0][:1], *before[0][2:]]


def test_script_does_what_apply_does(world: World) -> None:
    """The script of `rls sql`, run by the owner, leaves nothing for the plan."""
    script = rls.sql(world.catalog, world.roles)
    with world.owner.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(script, execution_options={"no_parameters": True})
    assert missing(world) == []


def test_roles_are_created_on_request_only(new_database: Callable[[], URL]) -> None:
    """Missing roles are an error that names the option; with it they are made, without powers."""
    with make_world(new_database()) as world:
        other = type(world.roles)(*(f"{world.url.database}_x{number}" for number in range(5)))
        with pytest.raises(ConfigurationError, match="rls apply --create-roles"):
            rls.apply(world.admin, world.catalog, other)
        try:
            rls.apply(world.admin, world.catalog, other, create_roles=True)
            rows = world.run(
                "SELECT rolname, rolcanlogin, rolbypassrls, rolsuper OR rolcreaterole "
                "FROM pg_roles "
                f"WHERE rolname LIKE '{world.url.database}_x%' ORDER BY 1"
            )
            assert [row[1:] for row in rows] == [
                (True, False, False),
                (False, False, False),
                (False, False, False),
                (False, False, False),
                (False, True, False),
            ]
            members = world.run(
                "SELECT count(*) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member "
                f"WHERE r.rolname = '{other.application}'"
            )
            assert members == [(0,)]
        finally:
            world.run(
                "".join(
                    f'DROP OWNED BY "{name}" CASCADE; DROP ROLE "{name}";'
                    for name in (
                        other.application,
                        other.support,
                        other.maintenance,
                        other.backup,
                        other.owner,
                    )
                )
            )


def test_missing_table_and_column_are_named(world: World) -> None:
    """A table or column that migrations have not made yet is an error that says so."""
    metadata = models()
    Table("new", metadata, Column("id", Integer, primary_key=True), Column("tenant_id", Uuid))
    with pytest.raises(ConfigurationError, match=r"no table public\.new"):
        rls.apply(world.owner, catalog_of(metadata), world.roles)
    metadata = models()
    metadata.tables["materials"].append_column(Column("tenant_id", Uuid))
    catalog = catalog_of(metadata)
    catalog.shared = {}
    with pytest.raises(ConfigurationError, match="materials has no column 'tenant_id'"):
        rls.apply(world.owner, catalog, world.roles)


def test_column_of_another_type_is_refused(world: World) -> None:
    """A tenant column whose type in the database is not the models' is named, not guessed at."""
    world.run(f"ALTER TABLE {LINE} ALTER tenant_id TYPE text")
    with pytest.raises(ConfigurationError, match="is text in the database"):
        rls.apply(world.owner, world.catalog, world.roles)


def test_rows_without_a_tenant_are_named(world: World) -> None:
    """Rows without a tenant stop the run with the command that fills them."""
    world.run(f'INSERT INTO {LINE} ("Id") VALUES (1)')
    with pytest.raises(ConfigurationError, match=r"rows without a tenant.*migrate sql"):
        rls.apply(world.owner, world.catalog, world.roles)


def test_rows_for_all_tenants_are_refused_by_the_models_name(world: World) -> None:
    """NULL is not "all tenants": the refusal says where such rows belong, and its command runs."""
    world.run('ALTER TABLE "order" ALTER tenant_id DROP NOT NULL')
    world.run('INSERT INTO "order" (total) VALUES (1)')
    with pytest.raises(ConfigurationError, match=r"NULL never means all.*shared=") as caught:
        rls.apply(world.owner, world.catalog, world.roles)
    [name] = re.findall("`tenantguard migrate sql (.*?)`", str(caught.value))
    assert name == "order"
    assert migrate.sql(world.catalog, world.roles, name)


def test_stranger_may_not_apply(world: World) -> None:
    """An address whose role does not own the tables is told to use the owner's."""
    engine = create_engine(world.url.set(username=world.roles.application))
    with pytest.raises(ConfigurationError, match="Connect as the tables' owner"):
        rls.apply(engine, world.catalog, world.roles)
    engine.dispose()


def test_locked_table_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that is released in time is waited for; one that is not ends in a plain error."""
    monkeypatch.setattr(sys.modules["tenantguard.rls.generate"], "LOCK_TIMEOUT", "100ms")
    with world.admin.connect() as reader:
        reader.exec_driver_sql('LOCK TABLE "order" IN ACCESS SHARE MODE')
        with pytest.raises(TenantGuardError, match="stayed locked"):
            rls.apply(world.owner, world.catalog, world.roles, attempts=1)
        threading.Timer(0.3, reader.rollback).start()
        rls.apply(world.owner, world.catalog, world.roles, attempts=8)
    assert missing(world) == []


def test_set_null_is_refused_before_postgresql_15(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where SET NULL cannot spare the tenant column, the run stops before it changes anything."""
    module = sys.modules["tenantguard.rls.plan"]
    read = module.read_roles
    monkeypatch.setattr(module, "read_roles", lambda *args: (140018, read(*args)[1]))
    with pytest.raises(ConfigurationError, match="before PostgreSQL 15"):
        rls.apply(world.owner, world.catalog, world.roles)
    assert world.run("SELECT count(*) FROM pg_policy") == [(0,)]


def test_refusal_of_the_server_names_the_step(world: World) -> None:
    """What else PostgreSQL refuses is reported with the step, the code and no statement."""
    [step] = [
        step
        for step in rls.generate(world.catalog, world.roles)
        if step.table == "public.order" and step.kind.value == "unique key"
    ]
    world.run(f'CREATE SEQUENCE "{step.name}"')
    with pytest.raises(ConfigurationError, match=r"refused public\.order unique key .*\(42P07\)"):
        rls.apply(world.owner, world.catalog, world.roles)
