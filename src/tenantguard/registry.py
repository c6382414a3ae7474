"""What the registry of tenants has answered, so that not every transaction has to ask it."""

from __future__ import annotations

from collections import OrderedDict
from math import inf
from threading import Lock
from time import monotonic

from tenantguard.errors import TenantSuspendedError, UnknownTenantError

__all__ = ["Registry"]

_KNOWN_TENANTS = 10_000
_RECHECK = 30.0
"""Seconds for which the registry's word that a tenant is not suspended holds."""


class Registry:
    """The tenants that the registry has, as far as it was asked.

    Args:
        suspends: Whether the registry can say that a tenant is suspended. If it cannot, its word
            that it has a tenant holds for good.
    """

    def __init__(self, *, suspends: bool) -> None:
        self._suspends = suspends
        self._known: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def is_unknown(self, tenant: str) -> bool:
        """Return whether the registry has to be asked for *tenant*, given as text."""
        return self._known.get(tenant, 0.0) <= monotonic()

    def answered(self, tenant: str, rows: int) -> None:
        """Take the registry's answer: no row, unknown; two, suspended.

        Raises:
            TenantSuspendedError: If it says that *tenant* is suspended.
            UnknownTenantError: If it does not have *tenant*.
        """
        if rows == 1:
            self._remember(tenant)
            return
        self._known.pop(tenant, None)
        if rows:
            raise TenantSuspendedError(
                "The registry says that the active tenant is suspended. Its requests are refused "
                "until the registry says otherwise."
            )
        raise UnknownTenantError(
            "The registry does not have the active tenant. Create the tenant first, or "
            "correct what the resolver returns."
        )

    def _remember(self, tenant: str) -> None:
        with self._lock:
            self._known[tenant] = monotonic() + _RECHECK if self._suspends else inf
            if len(self._known) > _KNOWN_TENANTS:
                self._known.popitem(last=False)
