"""The examples with the library and without it: with a WHERE by hand."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "integrations"))

from steps import copy_before, loaded

__all__ = ["loaded", "protected", "written_by_hand"]

# The Flask example had no WHERE, and would read everybody's rows. FastAPI's list had one.
_WRITTEN = {
    "flask": {
        "import Blueprint, flash, ": "import Blueprint, flash, g, ",
        "query = select(Patient).": "query = select(Patient).where("
        "Patient.tenant_id == g.user.tenant_id).",
    },
    "starlette": {},
}


def protected(app: str, directory: Path) -> Path:
    """Copy *app* to *directory* with isolation and without encryption; return its package."""
    return copy_before("encrypt", app, directory)


def written_by_hand(app: str, directory: Path) -> Path:
    """Copy *app* to *directory* as a team has it without the library; return its package."""
    package = copy_before("protect", app, directory)
    for old, new in _WRITTEN[app].items():
        _replace(package / "patients.py", old, new)
    return package


def _replace(path: Path, old: str, new: str) -> None:
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{path.name} has changed: {old!r} is not there once.")
    path.write_text(source.replace(old, new), "utf-8")
