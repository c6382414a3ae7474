"""The rule that no migration writes rows for nobody, where row-level security shows it none."""

from __future__ import annotations

import configparser
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tenantguard.check import Rule
from tenantguard.errors import ConfigurationError
from tenantguard.findings import Severity
from tenantguard.migrate.data_statements import data_statements
from tenantguard.report import Place
from tenantguard.report.places import repository_root
from tenantguard.rls.names import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check import Subject
    from tenantguard.findings import Finding
    from tenantguard.migrate.data_statements import DataStatement

__all__ = ["DATA_STATEMENT", "Migrations", "version_directories"]

DATA_STATEMENT = "migration-data-statement"
_MEND = (
    "Put it into `op.for_each_tenant(…)` or `with op.as_maintenance(…):`; if it was run everywhere "
    "long ago, exempt it with the reason."
)


class Migrations:
    """The scripts that Alembic's configuration *ini* leads to; they are read and not run.

    Attributes:
        places: Where each finding stands, because no model is to blame.
    """

    def __init__(self, ini: Path) -> None:
        self._ini = ini
        self.places: dict[Finding, Place] = {}

    def rule(self) -> Rule:
        """Return the rule that finds their data statements."""
        return Rule(DATA_STATEMENT, Severity.ERROR, self._find, offline=True)

    def _find(self, rule: Rule, subject: Subject) -> Iterator[Finding]:
        root = repository_root().resolve()
        for directory in version_directories(self._ini):
            for each in data_statements(directory):
                if _is_guarded(each, subject):
                    path = Path(os.path.relpath(each.path.resolve(), root)).as_posix()
                    finding = _finding(rule, each, path)
                    self.places.setdefault(finding, Place(path, each.line))
                    yield finding


def version_directories(ini: Path) -> list[Path]:
    """Return the directories of revisions that Alembic's configuration *ini* names.

    Raises:
        ConfigurationError: If it names none.
    """
    # Alembic is not imported here; the file is read as Alembic reads it.
    parser = configparser.ConfigParser({"here": str(ini.resolve().parent)})
    try:
        parser.read_string(ini.read_text(encoding="utf-8"))
        location = parser.get("alembic", "script_location")
        versions = parser.get("alembic", "version_locations", fallback="")
    except (OSError, ValueError, configparser.Error) as error:
        raise ConfigurationError(
            f"{ini} does not say where the migrations are ({type(error).__name__}). Give it "
            "script_location in the section [alembic]."
        ) from None
    if versions.strip():
        return [_located(each) for each in re.split(rf"[\s,;{os.pathsep}]+", versions.strip())]
    return [_located(location) / "versions"]


def _located(name: str) -> Path:
    package, separator, directory = name.partition(":")
    if not separator or Path(name).exists():
        return Path(name)
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"The package of {name!r} cannot be found. Run it where it can.")
    return Path(next(iter(spec.submodule_search_locations))) / directory


def _is_guarded(found: DataStatement, subject: Subject) -> bool:
    """Return whether policies may hide the rows; they may where the table cannot be read."""
    if found.table is None:
        return True
    schema, _, name = found.table.rpartition(".")
    entry = subject.by_target.get((schema or DEFAULT_SCHEMA, name))
    return entry is not None and entry.guarded


def _finding(rule: Rule, found: DataStatement, path: str) -> Finding:
    on = f" on {found.table}" if found.table else ""
    return rule.finding(
        path,
        f"{found.what}{on} says for no tenant what it is for: under FORCE it sees no rows, changes "
        "none, and reports success.",
        _MEND,
    )
