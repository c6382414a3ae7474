"""The examples as a team has them without the library: with a WHERE by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
DIFFS = {"flask_app": "protect-flask.diff", "starlette_app": "protect-starlette.diff"}

# The Flask example had no WHERE, and would read everybody's rows. FastAPI's list had one.
_WRITTEN = {
    "flask_app": {
        "import Blueprint, flash, ": "import Blueprint, flash, g, ",
        "query = select(Patient).": "query = select(Patient).where("
        "Patient.tenant_id == g.user.tenant_id).",
    },
    "starlette_app": {},
}


def examples_before(directory: Path) -> Path:
    """Copy the examples to *directory* and take the library out of them."""
    copy = directory / "examples"
    shutil.copytree(EXAMPLES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, diff in DIFFS.items():
        command = ["git", "apply", "--reverse", str(ROOT / "docs" / diff)]
        subprocess.run(command, cwd=directory, check=True)
        for old, new in _WRITTEN[name].items():
            _replace(copy / name / "patients.py", old, new)
    return copy


def _replace(path: Path, old: str, new: str) -> None:
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{path.name} has changed: {old!r} is not there once.")
    path.write_text(source.replace(old, new), "utf-8")
