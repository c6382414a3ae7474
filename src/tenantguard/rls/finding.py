"""What is wrong with a database, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault. It names roles, tables and policies, and never a value or a tenant.

    Attributes:
        code: Stable, such as "policy-changed".
        table: The table's name with its schema, or None.
        message: What was found.
        mend: The command or the SQL that mends it.
    """

    code: str
    table: str | None
    message: str
    mend: str

    def __str__(self) -> str:
        return f"{self.message} {self.mend}"
