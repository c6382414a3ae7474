"""What README shows, works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import practice
from flask import Flask
from starlette.applications import Starlette

from tenantguard.integrations.flask import FlaskGuard
from tenantguard.integrations.starlette import TenantMiddleware
from tenantguard.resolvers import session_key

if TYPE_CHECKING:
    import pytest
    from locks import World

README = Path(__file__).parents[2] / "README.md"


def test_the_fifteen_lines_run_as_shown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart, executed to the letter, reads one practice's patients."""
    example, *_ = python_blocks()
    models = ModuleType("myapp.models")
    vars(models).update(Base=practice.Base, Patient=practice.Patient, practice_id=practice.A)
    monkeypatch.setitem(sys.modules, "myapp", ModuleType("myapp"))
    monkeypatch.setitem(sys.modules, "myapp.models", models)
    monkeypatch.setenv("APP_ROLE", world.guard.roles.application)
    monkeypatch.setenv("TENANTGUARD_DATABASE_URL", world.app_url.render_as_string())
    names: dict[str, object] = {}
    exec(compile(example, str(README), "exec"), names)
    names["engine"].dispose()  # type: ignore[attr-defined]
    patients = names["patients"]
    assert isinstance(patients, list)
    assert {patient.name for patient in patients} == {"patient a0", "patient a1", "patient a2"}


def test_the_lines_for_web_apps_run_as_shown(world: World) -> None:
    """Both adapters are set up by one line."""
    _, lines, _ = python_blocks()
    flask_line, starlette_line = lines.splitlines()
    names: dict[str, object] = {"guard": world.guard, "session_key": session_key}
    exec(flask_line, {**names, "app": Flask("app"), "FlaskGuard": FlaskGuard})
    app = Starlette()
    exec(starlette_line, {**names, "app": app, "TenantMiddleware": TenantMiddleware})
    assert [str(each.cls) for each in app.user_middleware] == [str(TenantMiddleware)]


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_page_that_readme_links_exists() -> None:
    """No link in README leads nowhere."""
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
