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
├── EnvelopeError               a job's message does not prove whose job it is
│   └── EnvelopeExpiredError    it did, and waited for too long
├── EncryptionError
│   ├── KeyUnavailableError     the tenant's key cannot be used here
│   ├── TenantShreddedError     the tenant's key was destroyed on purpose
│   ├── EncryptedValueError     a value that its encrypted column cannot take
│   ├── EncryptedQueryError     a question that ciphertext cannot answer
│   ├── MaskedError             a value that may not be read here was used, or searched
│   └── DecryptionError
│       ├── UnknownKeyError     sealed with a key that the tenant's keyset does not have
│       ├── TamperedError       altered, or moved from another tenant, table, column or row
│       └── NotEncryptedError   not a value that was sealed
└── PolicyDriftError            the database's policies are not what the models ask for
```

Messages name classes, tables, columns, roles and options. They never contain a value, a key or a
tenant id. All mix in SQLAlchemy's `DontWrapMixin`, because a wrapped error prints the statement's
parameters.
"""

from sqlalchemy.exc import DontWrapMixin

__all__ = [
    "LOCK_NOT_AVAILABLE",
    "LOST",
    "ConfigurationError",
    "CrossTenantError",
    "DecryptionError",
    "EncryptedQueryError",
    "EncryptedValueError",
    "EncryptionError",
    "EnvelopeError",
    "EnvelopeExpiredError",
    "IsolationError",
    "KeyUnavailableError",
    "MaskedError",
    "NotEncryptedError",
    "PolicyDriftError",
    "TamperedError",
    "TenantGuardError",
    "TenantNotSetError",
    "TenantShreddedError",
    "TenantSuspendedError",
    "UnknownKeyError",
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


class EnvelopeError(TenantGuardError):
    """The message of a job does not prove for which tenant it is."""


class EnvelopeExpiredError(EnvelopeError):
    """The job is genuine, and waited longer than its envelope is believed."""


class EncryptionError(TenantGuardError):
    """A field could not be sealed, opened or searched."""


class KeyUnavailableError(EncryptionError):
    """The tenant's key does not exist, or cannot be used here."""


class TenantShreddedError(EncryptionError):
    """The tenant's key was destroyed, and with it what it had sealed."""


class EncryptedValueError(EncryptionError):
    """The value is not of the type that its encrypted column takes."""


class EncryptedQueryError(EncryptionError):
    """Ciphertext has no order, no parts and no equality; the question needs the plaintext."""


class MaskedError(EncryptionError):
    """A value that may not be read here was searched, or its mask compared, written or pickled."""


class DecryptionError(EncryptionError):
    """A stored value could not be opened."""


class UnknownKeyError(DecryptionError):
    """The value was sealed with a key that the tenant's keyset does not have."""


class TamperedError(DecryptionError):
    """The value was altered, or sealed for another tenant, table, column or row."""


class NotEncryptedError(DecryptionError):
    """What is stored is not a sealed value of a known format."""


class PolicyDriftError(TenantGuardError):
    """The database's policies are not the ones that the models ask for."""


LOCK_NOT_AVAILABLE = "55P03"
"""PostgreSQL's code of a lock that another session keeps."""

LOST = ("08", "57P")
"""What PostgreSQL's codes begin with that say that a connection has ended."""


def sqlstate(error: BaseException) -> str | None:
    """Return PostgreSQL's code of *error*, a driver's or SQLAlchemy's; None if it has none."""
    original = getattr(error, "orig", None) or error
    # psycopg2 has a name of its own for it.
    code: str | None = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None)
    return code
