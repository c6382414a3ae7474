"""`tenantguard prove`: its exit codes and what it writes."""

from __future__ import annotations

import json
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from zoo import ZOO, Zoo, build_zoo

from tenantguard.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

TABLES = {
    "parents": ZOO["parents"],
    "children": ZOO["children"],
    "odd": "(id int PRIMARY KEY, tenant_id uuid NOT NULL REFERENCES practices, a int CHECK (a > a)"
    " NOT NULL)",
    "notes": "(parent_id bigint NOT NULL REFERENCES parents)",
}


@pytest.fixture(scope="module")
def zoo(admin_url: URL) -> Iterator[Zoo]:
    built = build_zoo(admin_url, TABLES, "")
    yield built
    built.dispose()


@pytest.fixture(autouse=True)
def _served(zoo: Zoo, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("prove_guard")
    module.guard = zoo.guard  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", list(sys.path))


def command(zoo: Zoo, *arguments: str) -> Result:
    address = zoo.admin.url.render_as_string(hide_password=False)
    given = ["prove", "--guard", "prove_guard:guard", "--admin-url", address, *arguments]
    return CliRunner().invoke(main, given)


def test_it_ends_with_0_if_all_is_proven(zoo: Zoo) -> None:
    result = command(zoo, "--table", "parents", "--table", "notes")
    assert result.exit_code == 0
    assert "public.parents: proven, 16 probes held" in result.output
    assert "public.notes: application only, through parent_id" in result.output
    assert "1 table looked at: 0 errors, 0 warnings; 0 could not be looked at." in result.output


def test_it_ends_with_1_on_a_finding(zoo: Zoo) -> None:
    zoo.run("ALTER TABLE parents DISABLE ROW LEVEL SECURITY")
    try:
        result = command(zoo, "--table", "parents", "--format", "json")
    finally:
        zoo.run("ALTER TABLE parents ENABLE ROW LEVEL SECURITY")
    assert result.exit_code == 1
    document = json.loads(result.output)
    assert document["command"] == "prove"
    assert document["looked"] == ["public.parents"]
    assert "prove-read" in {each["code"] for each in document["findings"]}
    assert {each["object"] for each in document["findings"]} == {"public.parents"}


def test_it_ends_with_2_if_a_table_is_not_proven(zoo: Zoo) -> None:
    """The others are proven all the same, and no value and no tenant is written."""
    result = command(zoo)
    assert result.exit_code == 2
    assert "public.odd: not proven" in result.output
    assert "No value was found for a of public.odd" in result.output
    assert "public.children: proven" in result.output


def test_a_dry_run_sends_nothing(zoo: Zoo) -> None:
    result = command(zoo, "--dry-run", "--admin-url", "postgresql://nowhere.invalid/x")
    assert result.exit_code == 0
    assert "public.children: would lock it and try; rows are made in children, parents" in (
        result.output
    )
    assert "public.notes: not tried, through parent_id; application only" in result.output


def test_another_form_goes_to_a_file(zoo: Zoo, tmp_path: Path) -> None:
    file = tmp_path / "prove.sarif"
    result = command(zoo, "--table", "parents", "--format", "sarif", "--out", str(file))
    assert result.exit_code == 0
    assert json.loads(file.read_text())["version"] == "2.1.0"
    assert "public.parents: proven" in result.output


def test_the_applications_own_login_ends_with_2(zoo: Zoo) -> None:
    """One sentence for all tables, which says whose login is needed."""
    result = command(zoo, "--admin-url", zoo.app_url.render_as_string(hide_password=False))
    assert result.exit_code == 2
    assert result.output.count("owns none of the tables") == 1
    assert "or that of the tables' owner" in result.output


def test_an_unknown_table_ends_with_2(zoo: Zoo) -> None:
    result = command(zoo, "--table", "nothing")
    assert result.exit_code == 2
    assert "--table: no table 'nothing' holds rows of tenants." in result.output
