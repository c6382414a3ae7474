"""How the commands for values reach rows and keys: the guard's own ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.encrypt.entering import Access

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.guard import TenantGuard

__all__ = ["access_to"]


def access_to(guard: TenantGuard, engine: Engine) -> Access:
    """Return how rows of *engine*'s database are reached tenant by tenant.

    With a signed setting that is the maintenance role, because only the application can sign:
    each statement then names its tenant, as it does anyhow.

    Raises:
        ConfigurationError: If the guard has no keys=, or they cannot be read.
    """
    keystore = guard._open_keystore()  # noqa: SLF001  (the commands are the guard's own)

    def keys(connection: Connection, tenant: str, create: bool) -> TenantKeys:  # noqa: FBT001
        with guard.tenant_context(tenant):
            return keystore.keys_for(connection, create)

    role = guard.roles.maintenance if guard.catalog.signed else guard.roles.application
    return Access(engine, role, keys)
