"""`tenantguard rls apply` against a database."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import pytest
from click.testing import CliRunner, Result
from rls_world import A, B, World, _drop_roles, fill, make_world

from tenantguard import TenantGuard, rls
from tenantguard.catalog import Roles
from tenantguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sqlalchemy import URL


@pytest.fixture
def world(new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with make_world(new_database()) as made:
        fill(made)
        catalog = made.catalog
        serve(monkeypatch, made, made.roles, catalog.shared, catalog.untenanted)
        yield made


@pytest.fixture
def without_roles(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Guarded]:
    """The same, with roles that the server does not have; `loose` has unclassified tables."""
    roles = Roles(*(f"{world.url.database}_n{number}" for number in range(5)))
    serve(monkeypatch, world, roles, world.catalog.shared, world.catalog.untenanted)
    yield Guarded(world, roles)
    rls.apply_roles(world.admin, roles)
    _drop_roles(world.url, roles)


class Guarded(NamedTuple):
    world: World
    roles: Roles

    def existing(self) -> int:
        [[count]] = self.world.run(
            f"SELECT count(*) FROM pg_roles WHERE rolname ~ '^{self.world.url.database}_n'"
        )
        return int(count)


def serve(
    monkeypatch: pytest.MonkeyPatch,
    world: World,
    roles: Roles,
    shared: Mapping[str, str],
    untenanted: Mapping[str, str],
) -> None:
    """Let the commands find a guard, and one with nothing declared."""
    module = ModuleType("cli_database_guard")
    module.guard = TenantGuard(  # type: ignore[attr-defined]
        world.metadata, tenants="practices", shared=shared, untenanted=untenanted, roles=roles
    )
    module.loose = TenantGuard(  # type: ignore[attr-defined]
        world.metadata, tenants="practices", roles=roles
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", list(sys.path))


def apply(world: World, *arguments: str) -> Result:
    return command(world.url, "apply", "guard", *arguments)


def command(url: URL, name: str, guard: str, *arguments: str) -> Result:
    return CliRunner().invoke(
        main,
        ["rls", name, "--guard", f"cli_database_guard:{guard}", *arguments],
        env={"TENANTGUARD_ADMIN_URL": url.render_as_string(hide_password=False)},
    )


def test_dry_run_then_apply_then_nothing(world: World) -> None:
    """Missing steps are findings of a dry run; applied once, there are none."""
    dry = apply(world, "--dry-run")
    assert dry.exit_code == 1
    assert "missing: public.order force row level security" in dry.stdout
    made = apply(world, "--format", "json")
    assert made.exit_code == 0
    document = json.loads(made.stdout)
    assert (document["version"], document["applied"]) == (1, True)
    assert {"table": "public.order", "kind": "force", "name": "row level security"} in document[
        "steps"
    ]
    again = apply(world, "--dry-run")
    assert (again.exit_code, again.stderr) == (0, "")
    assert "Nothing to do" in again.stdout


def test_crossing_rows_are_a_finding(world: World) -> None:
    """Rows that cross tenants end with 1 and one line without values."""
    world.run(f"""INSERT INTO "Oth er"."Li""n%e" VALUES (7, '{B}', 1, NULL)""")
    result = apply(world)
    assert result.exit_code == 1
    assert "point at another tenant's rows" in result.stderr
    assert result.stderr.count("\n") == 1
    assert str(A) not in result.output
    assert str(B) not in result.output


def test_roles_are_made_before_tables_are_classified(without_roles: Guarded) -> None:
    """Unclassified tables stop `apply`, and nothing is made; the roles alone are made, once."""
    url = without_roles.world.url
    refused = command(url, "apply", "loose", "--create-roles")
    assert refused.exit_code == 2
    assert "Unclassified tables" in refused.stderr
    assert "`tenantguard rls roles --apply`" in refused.stderr
    assert without_roles.existing() == 0
    made = command(url, "roles", "loose", "--apply")
    assert (made.exit_code, made.stdout.count("made: role")) == (0, 5)
    assert without_roles.existing() == 5
    again = command(url, "roles", "loose", "--apply")
    assert (again.exit_code, again.stdout) == (0, "Nothing to do: the roles exist.\n")


def test_roles_take_a_superuser(without_roles: Guarded) -> None:
    """A role that may not create roles is told who may, and none is made."""
    world = without_roles.world
    result = command(world.url.set(username=world.roles.application), "roles", "guard", "--apply")
    assert result.exit_code == 2
    assert "Connect as a superuser" in result.stderr
    assert without_roles.existing() == 0


def test_dry_run_without_roles_names_the_one_that_lists_everything(without_roles: Guarded) -> None:
    """On a new server the refusal names the options that list everything, and they do."""
    world = without_roles.world
    refused = apply(world, "--dry-run")
    assert refused.exit_code == 2
    assert "`tenantguard rls apply --dry-run --create-roles` lists everything" in refused.stderr
    listed = apply(world, "--dry-run", "--create-roles")
    assert listed.exit_code == 1
    assert listed.stdout.count("missing: role ") == 5
    assert "missing: public.order force row level security" in listed.stdout
    assert without_roles.existing() == 0


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg_async", "psycopg2"])
def test_address_of_any_driver_is_taken(world: World, driver: str) -> None:
    """The address may be the one that the application has, whatever its driver."""
    url = world.url.set(drivername=f"postgresql+{driver}")
    dry = command(url, "apply", "guard", "--dry-run")
    assert dry.exit_code == 1, dry.output
    assert "missing: public.order force row level security" in dry.stdout
    assert command(url, "roles", "guard", "--apply").exit_code == 0
