"""`tenantguard rls apply` against a database."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from rls_world import A, B, World, fill, make_world

from tenantguard import TenantGuard
from tenantguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL


@pytest.fixture
def world(new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with make_world(new_database()) as made:
        fill(made)
        catalog = made.catalog
        module = ModuleType("cli_database_guard")
        guard = TenantGuard(
            made.metadata,
            tenants="practices",
            shared=catalog.shared,
            untenanted=catalog.untenanted,
            roles=made.roles,
        )
        module.guard = guard  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(sys, "path", list(sys.path))
        yield made


def apply(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(
        main,
        ["rls", "apply", "--guard", "cli_database_guard:guard", *arguments],
        env={"TENANTGUARD_ADMIN_URL": world.url.render_as_string(hide_password=False)},
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
