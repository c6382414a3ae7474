"""What is wrong with an application or its database, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Finding", "Result", "Severity", "Unseen"]


class Severity(Enum):
    """An *error* keeps tenants from being apart; a *warning* weakens what stands around that."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. It names roles, tables, constraints and settings, and never a value or a tenant.

    Attributes:
        code: Stable, such as "policy-changed".
        object: The table with its schema, the role or engine that it is about, or None.
        message: What was found.
        mend: The command, the SQL or the line of code that mends it.
        severity: How bad it is.
        column: The column of the table that it is about, if it is about one.
    """

    code: str
    object: str | None
    message: str
    mend: str
    severity: Severity = Severity.ERROR
    column: str | None = None

    def __str__(self) -> str:
        return f"{self.message} {self.mend}"


@dataclass(frozen=True, slots=True)
class Unseen:
    """A rule that could not look, or a table that is not proven, and why; nothing is known then."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """What was looked at, what was found, and where one could not look, each in order."""

    looked: tuple[str, ...]
    findings: tuple[Finding, ...]
    unseen: tuple[Unseen, ...] = ()
