"""Roles that policies do not hold, and defaults that open an unbound session."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.check.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = ()
