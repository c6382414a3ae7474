"""Indexes and predicates that row-level security makes slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.check import leakproof, predicates
from tenantguard.check.rule import Rule
from tenantguard.check.structure import structure_of, tenant_columns_of
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding
    from tenantguard.rls.state import Facts

__all__ = ["RULES"]


def _tenant_index_missing(rule: Rule, subject: Subject) -> Iterator[Finding]:
    columns = tenant_columns_of(subject)
    for target, facts in structure_of(subject).items():
        column = columns[target]
        leading = [each for each in facts["indexes"] if each["columns"][0] == column]
        if subject.by_target[target].kind is Kind.REGISTRY or any(map(_is_usable, leading)):
            continue
        table = ".".join(target)
        failed = "".join(f" {each['name']} is invalid." for each in leading if not each["valid"])
        yield rule.finding(
            table,
            f"No index of {table} leads with the tenant, so each statement reads the rows of all "
            f"tenants.{failed}",
            "Run `tenantguard rls apply` with the owner's address, or on a large table: CREATE "
            "INDEX CONCURRENTLY, as `tenantguard migrate sql` prints it.",
            column,
        )


def _is_usable(index: Facts) -> bool:
    return bool(index["valid"] and index["whole"])


RULES = (
    Rule("tenant-index-missing", Severity.WARNING, _tenant_index_missing),
    *leakproof.RULES,
    *predicates.RULES,
)
