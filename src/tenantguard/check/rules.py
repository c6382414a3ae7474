"""All rules, in the order in which their findings are reported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check import (
    comparisons,
    encrypted,
    functions,
    grants,
    indexes,
    keys,
    policies,
    relations,
    roles,
    server,
    system,
)

if TYPE_CHECKING:
    from tenantguard.check.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = (
    *policies.RULES,
    *comparisons.RULES,
    *roles.RULES,
    *relations.RULES,
    *functions.RULES,
    *grants.RULES,
    *system.RULES,
    *keys.RULES,
    *encrypted.RULES,
    *indexes.RULES,
    *server.RULES,
)
