"""Views, copies, parts, rules, triggers and publications that show rows beside the policies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.check.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = ()
