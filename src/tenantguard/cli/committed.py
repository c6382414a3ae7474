"""The rule that what is committed as SQL is what the models ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import Rule
from tenantguard.cli.rls_files import is_directory, read_sql
from tenantguard.errors import ConfigurationError
from tenantguard.findings import Severity
from tenantguard.report.script_text import sections
from tenantguard.rls import files
from tenantguard.rls import sql as up_sql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tenantguard.check import Subject
    from tenantguard.findings import Finding

__all__ = ["SQL_DIFFERS", "committed_sql", "read_script"]

SQL_DIFFERS = "sql-differs"
_CLUSTER = "-- cluster: cluster\n"


def committed_sql(path: Path) -> Rule:
    """Return the rule that *path*, a script or a directory of its parts, fits the models."""

    def find(rule: Rule, subject: Subject) -> Iterator[Finding]:
        committed = read_script(path)
        wanted = _wanted(subject, path, create_roles=_CLUSTER in committed)
        if committed == wanted:
            return
        mend = f"Run `tenantguard rls sql --out {path}`, read what changes, and commit it."
        found = list(_differences(committed, wanted))
        for title in dict.fromkeys(found):
            at = title if title and "." in title else None
            of = f" of {title}" if title else ""
            yield rule.finding(at, f"The committed SQL{of} is not what the models ask for.", mend)
        if not found:
            yield rule.finding(None, "The committed SQL is in another order or form.", mend)

    return Rule(SQL_DIFFERS, Severity.ERROR, find, offline=True)


def read_script(path: Path) -> str:
    """Return the script at *path*; of a directory, its files in the order of its index.

    Raises:
        ConfigurationError: If it cannot be read, or the index names what is not there.
    """
    if not path.is_dir():
        return read_sql(path)
    return joined({each.name: read_sql(each) for each in sorted(path.glob("*.sql"))})


def joined(texts: dict[str, str]) -> str:
    """Return the script that `index.sql` of *texts* runs.

    Raises:
        ConfigurationError: If there is no index, or one that names what is not there.
    """
    index = texts.get("index.sql")
    if index is None:
        raise ConfigurationError(
            "The directory has no index.sql. Write it with `tenantguard rls sql --out DIR`."
        )
    parts = []
    for line in index.splitlines():
        name = line.removeprefix("\\ir ")
        if name == line:
            # A comment, a setting of psql, or something that is not ours and must not be lost.
            parts.append("" if line.startswith("--") or line in _SETTINGS else f"{line}\n")
        elif name in texts:
            parts.append(texts[name])
        else:
            raise ConfigurationError(
                f"index.sql runs {name}, which is not there. Write the directory anew with "
                "`tenantguard rls sql --out DIR`."
            )
    return "\n".join(filter(None, parts))


_SETTINGS = {"", "\\set ON_ERROR_STOP on"}


def _wanted(subject: Subject, path: Path, *, create_roles: bool) -> str:
    catalog, roles = subject.catalog, subject.roles
    if is_directory(path):
        return joined(files(catalog, roles, create_roles=create_roles))
    return up_sql(catalog, roles, create_roles=create_roles)


def _differences(committed: str, wanted: str) -> Iterator[str | None]:
    theirs, ours = sections(committed), sections(wanted)
    for each in [*ours, *theirs]:
        if (each in theirs) is not (each in ours):
            yield each.title
