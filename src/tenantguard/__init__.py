"""Tenant isolation for existing Python web applications."""

from tenantguard.catalog import Roles
from tenantguard.context import current_tenant, tenant_context
from tenantguard.errors import (
    ConfigurationError,
    CrossTenantError,
    IsolationError,
    PolicyDriftError,
    TenantGuardError,
    TenantNotSetError,
    TenantSuspendedError,
    UnknownTenantError,
    UnsafeRoleError,
    UnscopedStatementError,
)
from tenantguard.guard import TenantGuard

__all__ = [
    "ConfigurationError",
    "CrossTenantError",
    "IsolationError",
    "PolicyDriftError",
    "Roles",
    "TenantGuard",
    "TenantGuardError",
    "TenantNotSetError",
    "TenantSuspendedError",
    "UnknownTenantError",
    "UnsafeRoleError",
    "UnscopedStatementError",
    "current_tenant",
    "tenant_context",
]
