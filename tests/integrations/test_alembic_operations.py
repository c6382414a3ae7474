"""Migrations written by autogenerate: they protect, and they restore what was there before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from alembic import op
from alembic.util import CommandError
from migrated import A, Project, fill, make_project, state

from tenantguard import rls
from tenantguard.integrations.alembic.policies import EnableTenantIsolation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

ALLOWED = "allow_unprotected=true"


@pytest.fixture
def project(new_database: Callable[[], URL], tmp_path: Path) -> Iterator[Project]:
    with make_project(new_database(), tmp_path) as made:
        fill(made.world)
        yield made


def _missing(project: Project) -> list[rls.Step]:
    return rls.apply(project.world.owner, project.guard.catalog, project.guard.roles, dry_run=True)


def test_a_migration_protects_what_apply_would(project: Project) -> None:
    """Autogenerate writes our operations; once they have run, nothing is left to apply."""
    text = project.autogenerate()
    assert "op.enable_tenant_isolation('order')" in text
    project.upgrade()
    assert _missing(project) == []
    project.check()


def test_nothing_is_left_to_migrate_after_apply(project: Project) -> None:
    """What `rls apply` has made, `alembic check` finds as the models ask for it."""
    rls.apply(project.world.owner, project.guard.catalog, project.guard.roles)
    project.check()


def _weakened(project: Project) -> None:
    """Leave what a migration has to put back: other policies, grants, a default, a key."""
    roles, run = project.world.roles, project.world.run
    run('ALTER TABLE "order" ENABLE ROW LEVEL SECURITY')
    run(
        'CREATE POLICY tenantguard_application ON "order" AS RESTRICTIVE FOR UPDATE '
        f"TO PUBLIC, \"{roles.backup}\" USING (total > 0) WITH CHECK (total < 100 OR '%' = ':x')"
    )
    run("""COMMENT ON POLICY tenantguard_application ON "order" IS 'theirs'""")
    run('CREATE POLICY tenantguard_support ON "order" FOR SELECT USING (total > 0)')
    run('CREATE POLICY tenantguard_support_floor ON "order" FOR INSERT WITH CHECK (true)')
    run('CREATE POLICY tenantguard_maintenance ON "order" USING (total > 0)')
    run(f'GRANT TRUNCATE, SELECT ON "order" TO "{roles.application}" WITH GRANT OPTION')
    run('GRANT SELECT ("total") ON "order" TO PUBLIC')
    run(f'GRANT UPDATE ON SEQUENCE order_id_seq TO "{roles.application}"')
    run(f"ALTER TABLE \"order\" ALTER tenant_id SET DEFAULT '{A}'")
    run("GRANT CREATE ON SCHEMA public TO PUBLIC")
    run(
        "CREATE FUNCTION public.users_by_email(key varchar) RETURNS TABLE(id integer) "
        "LANGUAGE sql STABLE AS 'SELECT 1'"
    )
    run(f'ALTER FUNCTION public.users_by_email OWNER TO "{roles.owner}"')


@pytest.mark.parametrize("before", [lambda _project: None, _weakened], ids=["bare", "weakened"])
def test_a_downgrade_restores_what_was_there(
    project: Project, before: Callable[[Project], None]
) -> None:
    """Policies, switches, privileges, defaults, keys and functions are as they were, not off."""
    before(project)
    former = state(project)
    project.autogenerate()
    project.upgrade()
    assert vars(state(project)) != vars(former)
    project.downgrade("-1", ALLOWED)
    assert vars(state(project)) == vars(former)
    project.upgrade()
    assert _missing(project) == []


def test_a_downgrade_needs_the_flag(project: Project) -> None:
    """Without `-x allow_unprotected=true` nothing is undone, and the message says how."""
    project.autogenerate()
    project.upgrade()
    protected = state(project)
    for given in ((), ("allow_unprotected=yes",), ("other=true",)):
        with pytest.raises(CommandError, match="allow_unprotected=true"):
            project.downgrade("-1", *given)
    assert vars(state(project)) == vars(protected)


def test_what_the_page_shows_is_there() -> None:
    """Each operation that docs/alembic.md names exists on `op`, and its migrations are Python."""
    page = (Path(__file__).parents[2] / "docs" / "alembic.md").read_text()
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(block, "docs/alembic.md", "exec")
    named = set(re.findall(r"op\.(\w+)", page)) | set(re.findall(r"`(\w+_tenant_\w+)`", page))
    assert len(named) > 10
    assert [name for name in named if not hasattr(op, name)] == []


def test_a_downgrade_by_hand_says_what_it_needs() -> None:
    """An operation that was not written from a database cannot be reversed by itself."""
    with pytest.raises(CommandError, match="Write the downgrade by hand"):
        EnableTenantIsolation("orders").reverse()
