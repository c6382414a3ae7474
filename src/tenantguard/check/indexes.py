"""Indexes and predicates that row-level security makes slow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.check.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = ()
