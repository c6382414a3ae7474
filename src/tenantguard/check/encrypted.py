"""What encrypted columns need, and the database has otherwise: lost keys, searches that miss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check.guarded import read_guarded
from tenantguard.check.rule import Rule
from tenantguard.findings import Severity
from tenantguard.rls.drift import drift

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["RULES"]


def _drift(rule: Rule, subject: Subject) -> Iterator[Finding]:
    """Find what goes by the code of *rule* of what `rls.verify` finds of encrypted columns."""
    guarded = subject.once(read_guarded)
    for table in guarded.tables.values():
        found = drift(table.entry, table.facts, guarded.forms) if table.facts is not None else ()
        for each in found:
            if each.code == rule.id:
                yield rule.finding(each.object, each.message, each.mend, each.column)


RULES: tuple[Rule, ...] = (
    Rule("key-table-changed", Severity.ERROR, _drift),
    Rule("search-column-missing", Severity.ERROR, _drift),
    Rule("search-column-changed", Severity.ERROR, _drift),
    Rule("search-trigger-changed", Severity.ERROR, _drift),
    Rule("format-check-missing", Severity.ERROR, _drift),
)
