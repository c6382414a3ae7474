"""The diff in the documentation is the one that protected the example."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import set_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

ROOT = Path(__file__).resolve().parents[2]
DIFF = ROOT / "docs" / "protect-flask.diff"


def _apply(directory: Path, *options: str) -> None:
    command = ["git", "apply", *options, str(DIFF)]
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
    }
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def unprotected(tmp_path: Path) -> Path:
    """The example as it was before."""
    shutil.copytree(
        ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")
    )
    _apply(tmp_path, "--reverse")
    return tmp_path / "examples" / "flask_app"


def test_diff_is_short() -> None:
    """At most 25 lines were added or removed."""
    lines = DIFF.read_text("utf-8").splitlines()
    changed = [
        line for line in lines if line[:1] in {"+", "-"} and line[:4] not in {"+++ ", "--- "}
    ]
    assert 0 < len(changed) <= 25


def test_unprotected_example_knows_nothing_of_tenantguard(unprotected: Path) -> None:
    """Reversed, the diff leaves an app without the library, that can be compiled."""
    for path in unprotected.rglob("*.py"):
        source = path.read_text("utf-8")
        assert "tenantguard" not in source
        compile(source, str(path), "exec")


def test_diff_makes_the_example(unprotected: Path) -> None:
    """Applied again, the diff gives the example, byte for byte."""
    _apply(unprotected.parents[1])
    for path in unprotected.rglob("*.py"):
        original = ROOT / "examples" / "flask_app" / path.relative_to(unprotected)
        assert path.read_bytes() == original.read_bytes()


def test_no_tenant_condition_in_the_example(unprotected: Path) -> None:
    """Neither version filters by tenant: that is the library's work."""
    for directory in (unprotected, ROOT / "examples" / "flask_app"):
        for path in directory.glob("*.py"):
            source = path.read_text("utf-8")
            assert ".tenant_id ==" not in source
            assert "filter_by(tenant_id" not in source


def test_unprotected_example_shows_everybody_everything(
    unprotected: Path, new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: what the diff mends was broken, and the policies alone close it."""
    spec = spec_from_file_location("unprotected_app", unprotected / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    before = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "unprotected_app", before)
    spec.loader.exec_module(before)
    with set_up(new_database(), patients=3, tell=lambda _text: nullcontext()) as stage:
        assert _patients(before, stage.admin.url) == (200, 6)
        assert _patients(stage.example, stage.application) == (200, 3)
        assert _patients(before, stage.application) == (403, 0)
    for name in [name for name in sys.modules if name.startswith("unprotected_app.")]:
        monkeypatch.delitem(sys.modules, name)


def _patients(package: Any, address: URL) -> tuple[int, int]:
    """Return the status and the number of patients that the first practice is shown."""
    app = package.create_app({"DATABASE_URL": address, "SECRET_KEY": "test"})
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id=1, practice_id=str(PRACTICES[0].id))
    page = client.get("/patients/")
    app.extensions["engine"].dispose()
    return page.status_code, len(re.findall(r'href="/patients/\d+"', page.text))
