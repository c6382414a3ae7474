"""Functions that run as somebody else, or that a policy cannot rely on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tenantguard.check.rule import Rule

__all__ = ["RULES"]

RULES: tuple[Rule, ...] = ()
