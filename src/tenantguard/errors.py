"""Every error tenantguard raises.

```
TenantGuardError
├── ConfigurationError          the guard, a table or a command is set up wrongly
├── IsolationError
│   ├── TenantNotSetError       tenant data was asked for and no tenant is active
│   ├── UnknownTenantError      the tenant is malformed or not in the registry
│   ├── TenantSuspendedError    the registry says that the tenant is suspended
│   ├── CrossTenantError        one tenant's work touched another tenant's
│   ├── UnscopedStatementError  a statement that cannot be scoped, and no second lock
│   └── UnsafeRoleError         the database role can bypass row-level security
└── PolicyDriftError            the database's policies are not what the models ask for
```

Messages name classes, tables, columns, roles and options. They never contain a value, a key or a
tenant id. All mix in SQLAlchemy's `DontWrapMixin`, because a wrapped error prints the statement's
parameters.
"""

from sqlalchemy.exc import DontWrapMixin

__all__ = [
    "ConfigurationError",
    "CrossTenantError",
    "IsolationError",
    "PolicyDriftError",
    "TenantGuardError",
    "TenantNotSetError",
    "TenantSuspendedError",
    "UnknownTenantError",
    "UnsafeRoleError",
    "UnscopedStatementError",
    "sqlstate",
]


class TenantGuardError(DontWrapMixin, Exception):
    """Base of all errors raised by tenantguard."""


class ConfigurationError(TenantGuardError):
    """The guard, a table or a command is set up wrongly."""


class IsolationError(TenantGuardError):
    """Something would have crossed the border between tenants."""


class TenantNotSetError(IsolationError):
    """Tenant data was asked for while no tenant is active."""


class UnknownTenantError(IsolationError):
    """The tenant is malformed, or the registry does not have it."""


class TenantSuspendedError(IsolationError):
    """The registry says that the tenant is suspended."""


class CrossTenantError(IsolationError):
    """One tenant's work touched what belongs to another."""


class UnscopedStatementError(IsolationError):
    """The statement cannot be scoped, and no other lock was proven to hold."""


class UnsafeRoleError(IsolationError):
    """The database role of the connection can bypass row-level security."""


class PolicyDriftError(TenantGuardError):
    """The database's policies are not the ones that the models ask for."""


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of *error*, a driver's or SQLAlchemy's; None if it has none."""
    original = getattr(error, "orig", None) or error
    # psycopg2 has a name of its own for it.
    code: str | None = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return code
