"""What the first lock needs to know, handed down by the guard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect
    from sqlalchemy.orm import Mapper

    from tenantguard.catalog import Catalog
    from tenantguard.context import TenantId

__all__ = ["Scope", "scope_of"]

_ATTRIBUTE = "_tenantguard_scope"


@dataclass(frozen=True, slots=True)
class Scope:
    """The first lock of one engine.

    Attributes:
        catalog: Which table is whose.
        tenant: Returns the active tenant's canonical id; raises `TenantNotSetError`.
        text_allowed: Whether the second lock was proven active on this engine, so that text, which
            cannot be scoped, may pass.
        observe: Told what would be refused or scoped, instead of doing it; None enforces.
        system: Whether the engine is the one of system access: its sessions are pinned to that,
            and nothing else is done.
        reading: Returns all that the right to read restricted columns depends on; None if there are
            no such columns.
        forget: Expires the restricted attributes of objects.
        tenant_keys: The attribute that holds the tenant, by mapper; filled on first use.
        references: The relationships to tenants' objects, each with the attribute that holds their
            tenant, by mapper; filled on first use.
    """

    catalog: Catalog
    tenant: Callable[[], TenantId]
    text_allowed: Callable[[], bool]
    observe: Callable[[str, str], None] | None = None
    system: bool = False
    reading: Callable[[], object] | None = None
    forget: Callable[[list[Any]], object] = bool
    tenant_keys: WeakKeyDictionary[Mapper[Any], str | None] = field(
        default_factory=WeakKeyDictionary
    )
    references: WeakKeyDictionary[Mapper[Any], list[tuple[str, str]]] = field(
        default_factory=WeakKeyDictionary
    )

    def canonical(self, value: Any) -> TenantId:
        """Return *value* as the registry's key would hold it."""
        return self.catalog.canonical(value)


def scope_of(dialect: Dialect) -> Scope | None:
    """Return the scope attached to *dialect*, or None."""
    scope: Scope | None = getattr(dialect, _ATTRIBUTE, None)
    return scope


def set_scope(dialect: Dialect, scope: Scope) -> None:
    """Remember that *scope* guards *dialect*."""
    setattr(dialect, _ATTRIBUTE, scope)
