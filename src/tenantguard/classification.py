"""What a table may be, and what the generated SQL speaks of."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, get_args

from sqlalchemy import Column, Table

from tenantguard.errors import ConfigurationError

__all__ = [
    "DIALECTS",
    "SETTING",
    "WRITTEN",
    "Dialect",
    "Entry",
    "IdentityLookup",
    "Kind",
    "Parent",
    "Roles",
    "TenantLookup",
]

SETTING = "tenantguard.tenant"
"""The transaction-local PostgreSQL setting that carries the tenant."""

Dialect = Literal["postgres", "citus"]
"""What a database may be."""

DIALECTS: tuple[Dialect, ...] = get_args(Dialect)


class Kind(Enum):
    """Whose a table is."""

    REGISTRY = "registry"
    SCOPED = "scoped"
    CHILD = "child"
    SHARED = "shared"
    UNTENANTED = "untenanted"
    UNCLASSIFIED = "unclassified"
    SYSTEM = "system"
    KEYS = "keys"


WRITTEN = frozenset({Kind.SCOPED, Kind.CHILD})
"""The tables that are written in a tenant's name."""


@dataclass(frozen=True, slots=True)
class Parent:
    """Where a child's rows get their tenant from.

    Attributes:
        column: The child's foreign key.
        key: The column that it refers to, of a scoped table or another child.
    """

    column: Column[Any]
    key: Column[Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One table's classification.

    *column* is the column whose value names the tenant: the tenant column of a scoped table or of
    the keys, the primary key of the registry, else None. *parents* are a child's: foreign keys that
    are never NULL.
    """

    name: str
    schema: str | None
    kind: Kind
    reason: str
    table: Table | None = None
    column: Column[Any] | None = None
    parents: tuple[Parent, ...] = ()

    @property
    def fullname(self) -> str:
        """The table's name with its schema, unquoted, for messages."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def guarded(self) -> bool:
        """Whether the rows name their tenant, so that row-level security can hold them."""
        return self.column is not None

    @property
    def owned(self) -> bool:
        """Whether the rows belong to tenants."""
        return self.guarded or bool(self.parents)


@dataclass(frozen=True, slots=True)
class Roles:
    """The PostgreSQL roles the generated SQL speaks of.

    Attributes:
        application: Logs in for the application; reads and writes rows, owns nothing.
        owner: Owns the tables; cannot log in.
        maintenance: Sees all rows through a policy of its own; cannot log in and is never granted
            to *application*.
        support: Acts for one tenant at a time, read only.
        backup: Reads everything for `pg_dump` (BYPASSRLS); never used by the application.
    """

    application: str = "tenantguard_app"
    owner: str = "tenantguard_owner"
    maintenance: str = "tenantguard_maintenance"
    support: str = "tenantguard_support"
    backup: str = "tenantguard_backup"

    def __post_init__(self) -> None:
        names = (self.application, self.owner, self.maintenance, self.support, self.backup)
        if len(set(names)) != len(names) or not all(names):
            raise ConfigurationError("Roles: each of the five roles needs a name of its own.")


@dataclass(frozen=True, slots=True)
class IdentityLookup:
    """A sign-in question that is asked before the tenant is known.

    The answer to one *key* is the user's primary key, tenant and secret (a password hash), and
    nothing else. The database function is called *function*.
    """

    table: Table
    key: Column[Any]
    identity: Column[Any]
    tenant: Column[Any]
    secret: Column[Any]
    function: str

    @property
    def answer(self) -> dict[str, Column[Any]]:
        """The columns that are returned, by their names in the result."""
        return {"identity": self.identity, "tenant": self.tenant, "secret": self.secret}


@dataclass(frozen=True, slots=True)
class TenantLookup:
    """The question which tenant a name means, asked before the tenant is known.

    The answer to one *key* of the registry is the tenant's id, and nothing else. The database
    function is called *function*.
    """

    table: Table
    key: Column[Any]
    tenant: Column[Any]
    function: str

    @property
    def answer(self) -> dict[str, Column[Any]]:
        """The columns that are returned, by their names in the result."""
        return {"tenant": self.tenant}
