"""Finding the guard and the database that a command is about."""

from __future__ import annotations

import importlib
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenantguard.cli.outcome import could_not_look
from tenantguard.doctor import Absence, engine_for
from tenantguard.guard import TenantGuard

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["ADMIN_URL", "admin_engine", "load_guard"]

ADMIN_URL = "TENANTGUARD_ADMIN_URL"
"""Environment variable with the owner's database address."""

_PYPROJECT = Path("pyproject.toml")
_HOW = (
    'Name it with --guard "myapp.security:guard", or in pyproject.toml: '
    '[tool.tenantguard] guard = "myapp.security:guard".'
)


def load_guard(name: str | None) -> TenantGuard:
    """Return the guard at "module:attribute", or the one that ./pyproject.toml names.

    The current directory is importable, as it is for `python -m`.
    """
    name = name or _from_pyproject()
    module_name, separator, attribute = name.partition(":")
    if not (module_name and separator and attribute):
        could_not_look(f"The guard {name!r} does not have the form module:attribute. {_HOW}")
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    found = _import(module_name)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, TenantGuard):
        could_not_look(f"{name!r} is not a TenantGuard. {_HOW}")
    return found


def admin_engine(url: str | None) -> Engine:
    """Return an engine for the owner's address, which is never printed."""
    given = url or os.environ.get(ADMIN_URL)
    if not given:
        could_not_look(f"Give the owner's database address with --admin-url or {ADMIN_URL}.")
    engine = engine_for(given, whose="admin")
    if isinstance(engine, Absence):
        could_not_look(engine.reason)
    return engine


def _from_pyproject() -> str:
    try:
        content = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))
    except FileNotFoundError:
        could_not_look(f"No guard was named, and there is no pyproject.toml here. {_HOW}")
    except (OSError, ValueError) as error:
        could_not_look(f"pyproject.toml cannot be read ({type(error).__name__}). {_HOW}")
    tool = content.get("tool")
    section = tool.get("tenantguard") if isinstance(tool, dict) else None
    name = section.get("guard") if isinstance(section, dict) else None
    if not isinstance(name, str):
        could_not_look(f"pyproject.toml names no guard. {_HOW}")
    return name


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        could_not_look(f"There is no module {error.name!r} here. {_HOW}")
    except Exception as error:  # noqa: BLE001  (the application's own code may raise anything)
        could_not_look(
            f"Importing {module_name!r} failed ({type(error).__name__}). "
            f'`python -c "import {module_name}"` shows why.'
        )
