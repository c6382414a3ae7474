"""TenantGuard: the only place where the parts meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tenantguard.catalog import Catalog, Roles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Engine, MetaData

__all__ = ["TenantGuard"]

Mode = Literal["off", "observe", "enforce"]


class TenantGuard:
    """The tenant isolation of one application."""

    def __init__(
        self,
        metadata: MetaData,
        *,
        tenants: str,
        tenant_column: str = "tenant_id",
        tenant_columns: Mapping[str, str] | None = None,
        shared: Mapping[str, str] | None = None,
        untenanted: Mapping[str, str] | None = None,
        roles: Roles | None = None,
        mode: Mode = "enforce",
        system_engine: Engine | None = None,
    ) -> None:
        self.catalog = Catalog(
            metadata,
            tenants,
            tenant_column,
            dict(tenant_columns or {}),
            dict(shared or {}),
            dict(untenanted or {}),
        )
        self.roles = roles or Roles()
        self.mode = mode
        self.system_engine = system_engine
