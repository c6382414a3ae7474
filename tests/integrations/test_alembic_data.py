"""Data statements in migrations: for nobody they are an error, and never `UPDATE 0`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.util import CommandError
from migrated import A, B, Project, fill, make_migrated_world, project_of
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tenantguard import rls

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rls_world import World
    from sqlalchemy import URL

REFUSED = "would be affected by row-level security policy"
TOTALS = 'SELECT tenant_id, total FROM "order" ORDER BY id'
BEFORE = [(A, 10), (B, 20)]
ORDERS = 'sa.table("order", sa.column("id"), sa.column("tenant_id"), sa.column("total"))'

NAIVE = {
    "update": """op.execute('UPDATE "order" SET total = 0')""",
    "delete": """op.execute('DELETE FROM "order"')""",
    "insert": f"""op.execute("INSERT INTO \\"order\\" (tenant_id) VALUES ('{A}')")""",
    "select into": """op.execute('UPDATE jobs SET id = (SELECT max(total) FROM "order")')""",
    "merge": """op.execute('MERGE INTO "order" o USING jobs j ON o.id = j.id '
    'WHEN MATCHED THEN DELETE')""",
    "bulk insert": f"""op.bulk_insert({ORDERS}, [{{"tenant_id": "{A}", "total": 1}}])""",
    "construct": f"""op.execute({ORDERS}.update().values(total=0))""",
    "connection": """op.get_bind().execute(sa.text('UPDATE "order" SET total = 0'))""",
    "in autocommit": """with op.get_context().autocommit_block():
    op.execute('UPDATE "order" SET total = 0')""",
    "after autocommit": """with op.get_context().autocommit_block():
    op.execute('SELECT 1')
op.execute('UPDATE "order" SET total = 0')""",
}


@pytest.fixture(scope="module")
def world(new_database: Callable[[], URL]) -> Iterator[World]:
    with make_migrated_world(new_database()) as made:
        yield made


@pytest.fixture(params=[False, True], ids=["one transaction", "one each"])
def project(world: World, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    world.run("DROP TABLE IF EXISTS alembic_version; TRUNCATE practices RESTART IDENTITY CASCADE")
    fill(world)
    with project_of(world, tmp_path, transaction_per_migration=request.param) as made:
        rls.apply(world.owner, made.guard.catalog, made.guard.roles)
        yield made


def _for_each(project: Project, statement: str) -> str:
    roles = project.guard.roles
    return (
        f'op.for_each_tenant({statement}, registry="practices", key="id", '
        f'application="{roles.application}", maintenance="{roles.maintenance}")'
    )


def _maintenance(project: Project) -> str:
    return f'op.as_maintenance("{project.guard.roles.maintenance}", reason="a test")'


def _totals(project: Project) -> list[object]:
    return [tuple(row) for row in project.world.run(TOTALS)]


def test_without_ours_nothing_is_changed_and_nothing_said(project: Project) -> None:
    """The positive control: the owner's plain UPDATE under FORCE reports success, and 0 rows."""
    with project.world.owner.begin() as connection:
        assert connection.execute(text('UPDATE "order" SET total = 0')).rowcount == 0
    assert _totals(project) == BEFORE


@pytest.mark.parametrize("statement", NAIVE.values(), ids=NAIVE)
def test_a_data_statement_for_nobody_is_an_error(project: Project, statement: str) -> None:
    """Text and constructs, in every transaction of a migration, also the second one's."""
    project.version("second", "op.execute('SELECT 1')")
    project.version("third", statement)
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()
    assert _totals(project) == BEFORE


def test_a_statement_runs_once_a_tenant(project: Project) -> None:
    """Each tenant's rows change once, as its own; afterwards nobody is entered any more."""
    other = """'INSERT INTO "order" (total) SELECT count(*) FROM "order"'"""
    steps = [
        _for_each(project, """'UPDATE "order" SET total = total + 1'"""),
        _for_each(project, f"{ORDERS}.update().values(total=sa.text('total * 2'))"),
        _for_each(project, other),
    ]
    project.version("second", "\n".join(steps))
    project.upgrade()
    assert _totals(project) == [(A, 22), (B, 42), (A, 1), (B, 1)]
    project.version("third", "\n".join([steps[0], NAIVE["update"]]))
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()


def test_maintenance_reaches_all_rows_inside_the_block_alone(project: Project) -> None:
    """Also where blocks are nested; after the last of them the owner is itself again."""
    block = "\n".join(
        [
            f"with {_maintenance(project)}:",
            f"    with {_maintenance(project)}:",
            """        op.execute('UPDATE "order" SET total = total + 1')""",
            """    op.execute('UPDATE "order" SET total = total + 1')""",
        ]
    )
    project.version("second", block)
    project.upgrade()
    assert _totals(project) == [(A, 12), (B, 22)]
    project.version("third", f"{block}\n{NAIVE['update']}")
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()


def test_an_error_does_not_leave_the_maintenance_role(project: Project) -> None:
    """What catches it goes on as the owner, and without what the block had changed."""
    block = "\n".join(
        [
            "try:",
            f"    with {_maintenance(project)}:",
            """        op.execute('UPDATE "order" SET total = 0')""",
            "        raise ValueError",
            "except ValueError:",
            f"    {NAIVE['update']}",
        ]
    )
    project.version("second", block)
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()
    assert _totals(project) == BEFORE


def test_a_registry_that_shows_more_than_the_tenant_is_refused(project: Project) -> None:
    """A role that sees all tenants would change every row as often as there are tenants."""
    project.world.run("ALTER TABLE practices DISABLE ROW LEVEL SECURITY")
    project.version("second", _for_each(project, """'UPDATE "order" SET total = 0'"""))
    with pytest.raises(DBAPIError, match="does not show it alone"):
        project.upgrade()


def test_a_setting_that_no_policy_reads_is_refused(project: Project) -> None:
    """A tenant that is not believed, as with a signed setting, sees no row of the registry."""
    call = _for_each(project, """'UPDATE "order" SET total = 0'""")
    project.version("second", call.rstrip(")") + ', setting="a.b")')
    with pytest.raises(DBAPIError, match="does not show it alone"):
        project.upgrade()


def test_a_maintenance_role_that_sees_no_tenant_is_refused(project: Project) -> None:
    """Without its policy it would find no tenants, and the statement would run for none."""
    project.world.run("DROP POLICY tenantguard_maintenance ON practices")
    project.version("second", _for_each(project, """'UPDATE "order" SET total = 0'"""))
    with pytest.raises(DBAPIError, match="sees no tenant in the registry"):
        project.upgrade()


def test_the_owner_may_see_its_rows_without_force(project: Project) -> None:
    """FORCE is lifted inside the block alone, and is back after it."""
    block = """with op.without_force("order", reason="a test"):
    op.execute('UPDATE "order" SET total = total + 1')"""
    project.version("second", block)
    project.upgrade()
    assert _totals(project) == [(A, 11), (B, 21)]
    project.version("third", NAIVE["update"])
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()


def test_a_foreign_key_is_not_validated_against_no_rows(project: Project) -> None:
    """Plain, it is refused; without FORCE, PostgreSQL checks it against all rows."""
    key = "op.create_foreign_key('own', 'order', 'practices', ['tenant_id'], ['id'])"
    project.version("second", key)
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()
    project.scripts()[-1].unlink()
    lifted = f"""with op.without_force("order", "practices", reason="a key"):\n    {key}"""
    project.version("second", f"{lifted}\nop.drop_constraint('own', 'order')")
    project.upgrade()


def test_a_function_in_sql_needs_its_body_unchecked(project: Project) -> None:
    """PostgreSQL plans the body, which reads what policies would hide."""
    made = """op.execute('CREATE FUNCTION own() RETURNS bigint LANGUAGE sql '
    'AS $$ SELECT count(*) FROM "order" $$')"""
    project.version("second", made)
    with pytest.raises(DBAPIError, match=REFUSED):
        project.upgrade()
    project.scripts()[-1].unlink()
    unchecked = "op.execute('SET LOCAL check_function_bodies = off')"
    project.version("second", f"{unchecked}\n{made}\nop.execute('DROP FUNCTION own')")
    project.upgrade()


@pytest.mark.parametrize(
    "call", ["op.as_maintenance('role', reason=' ')", "op.without_force('order', reason='')"]
)
def test_reaching_all_tenants_needs_a_reason(project: Project, call: str) -> None:
    """An empty one is refused before anything is sent."""
    project.version("second", f"with {call}:\n    pass")
    with pytest.raises(CommandError, match="give it a reason"):
        project.upgrade()


def test_maintenance_needs_a_transaction(project: Project) -> None:
    """In an autocommit block the role would not stay, so the block is refused."""
    project.version(
        "second",
        f"with op.get_context().autocommit_block():\n    with {_maintenance(project)}:\n"
        "        pass",
    )
    with pytest.raises(CommandError, match="autocommit block"):
        project.upgrade()


def test_the_script_has_the_same_protection(project: Project) -> None:
    """`--sql` writes it behind each BEGIN, and our operations as SQL that runs by itself."""
    project.version("second", _for_each(project, """'UPDATE "order" SET total = total + 1'"""))
    block = f"""with {_maintenance(project)}:
    op.execute('UPDATE "order" SET total = total + 1')"""
    project.version("third", block)
    script = project.upgrade_sql().replace("\n\n", "\n")
    assert script.count("BEGIN;\nSET LOCAL row_security = off;") == script.count("BEGIN;") > 0
    with project.world.owner.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute("DROP TABLE alembic_version; COMMIT")
        cursor.execute(script)
    assert _totals(project) == [(A, 12), (B, 22)]


def test_a_connection_is_its_callers_again_afterwards(project: Project) -> None:
    """What else runs on a connection that migrations had is not held by their setting."""
    with project.world.owner.connect() as connection:
        project.connection = connection
        project.version("second", "op.execute('SELECT 1')")
        project.upgrade()
        connection.rollback()
        assert connection.execute(text("SHOW row_security")).scalar() == "on"
