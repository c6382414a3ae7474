"""The diff in the documentation is the one that protected the example."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

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
