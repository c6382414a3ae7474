"""Keys, indexes and defaults of the tables that have a tenant column, asked once for all rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.rls.names import target_of
from tenantguard.rls.state import structure_question
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from tenantguard.check.subject import Subject
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["structure_of", "tenant_columns_of"]


def tenant_columns_of(subject: Subject) -> dict[Target, str]:
    """Return the tables that row-level security can hold, each with its tenant column."""
    return {
        target_of(each): each.column.name
        for each in subject.entries
        if each.column is not None and not is_view(each)
    }


def structure_of(subject: Subject) -> dict[Target, Facts]:
    """Return what `read_structure` says of those tables; those that do not exist are left out."""
    answer = subject.ask(structure_question(tenant_columns_of(subject)))
    return {(facts["s"], facts["t"]): facts for facts in answer}
