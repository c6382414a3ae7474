"""A rule: a fault that hurts, how it is found, and the page that explains it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from tenantguard.findings import Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tenantguard.check.subject import Subject

__all__ = ["Rule", "page_of"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault that is looked for.

    Attributes:
        id: Stable, such as "policy-missing"; the code of its findings and the name of its page.
        severity: How bad it is wherever it is found.
        find: Yields a finding for each place that has the fault.
        offline: Whether the models alone show it, without a database.
    """

    id: str
    severity: Severity
    find: Callable[[Rule, Subject], Iterable[Finding]]
    offline: bool = False

    def finding(
        self, at: str | None, message: str, mend: str, column: str | None = None
    ) -> Finding:
        """Return that the fault is *at* a table, a role or another object."""
        return Finding(self.id, at, message, mend, self.severity, column)


def page_of(rule: str) -> str:
    """Return the page that explains *rule*, in Markdown.

    Raises:
        FileNotFoundError: If there is no such rule.
    """
    return (files("tenantguard.check") / "pages" / f"{rule}.md").read_text(encoding="utf-8")
