"""The tenants' keysets as an operator sees them: all rows of all tenants.

A role that policies restrict is refused, because an empty answer would look as if all were well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenantguard.cli.keys.question import asked_tables, key_question
from tenantguard.cli.seeing import seen_whole
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import PURPOSES
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from tenantguard.guard import TenantGuard

__all__ = [
    "NO_SUCH_TENANT",
    "Keyset",
    "Tenant",
    "key_target",
    "read_tenants",
    "require_encryption",
]

NO_SUCH_TENANT = "Neither the registry nor tenantguard_keys has the tenant that --tenant names."


@dataclass(frozen=True, slots=True, repr=False)
class Keyset:
    """One row of `tenantguard_keys`; *wrapped* and *check* are read only if asked for."""

    purpose: str
    state: str
    kek_uri: str
    created_at: str
    wrapped: bytes | None
    check: bytes | None


@dataclass(slots=True, repr=False)
class Tenant:
    """A tenant's keysets.

    Attributes:
        id: As PostgreSQL writes it.
        registered: Whether the registry has the tenant.
        lost: Whether it has encrypted values and no keyset.
        keysets: In the order of their purposes.
        faults: Codes of what is wrong with them.
    """

    id: str
    registered: bool
    lost: bool = False
    keysets: list[Keyset] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    @property
    def waiting(self) -> bool:
        """Whether keysets can be made for it: there are none, and no value needs those of old."""
        return not (self.keysets or self.lost)

    @property
    def incomplete(self) -> bool:
        """Whether a keyset is missing beside one that is there."""
        return bool(self.keysets) and {each.purpose for each in self.keysets} != set(PURPOSES)


def require_encryption(guard: TenantGuard) -> None:
    """Raise a `ConfigurationError` if no model has an encrypted column."""
    if not guard.catalog.encrypts:
        raise ConfigurationError(
            "The models have no encrypted columns, so no tenant has a key. If they should have, "
            "import the modules that define them where the guard is made."
        )


def read_tenants(guard: TenantGuard, engine: Engine, *, wrapped: bool = False) -> list[Tenant]:
    """Return the registry's tenants and everybody who has keysets, in one answer.

    Raises:
        ConfigurationError: If the configuration does not fit the MetaData, a table or a column is
            missing, or rows are hidden.
        CouldNotLookError: If the database cannot be reached, or policies hide rows.
    """
    guard.catalog.check()
    with seen_whole(guard, engine, asked_tables(guard.catalog)) as run:
        return _gathered(run(key_question(guard.catalog, wrapped=wrapped)))


def key_target(guard: TenantGuard) -> tuple[str, str]:
    """Return schema and name of the table of keys."""
    return target_of(guard.catalog.entry(guard.catalog.key_table))


def _gathered(rows: Iterable[Any]) -> list[Tenant]:
    found: dict[str, Tenant] = {}
    for name, registered, lost, purpose, state, uri, created, wrapped, check in rows:
        tenant = found.setdefault(name, Tenant(name, registered, lost))
        if purpose is not None:
            content = (_bytes(each) for each in (wrapped, check))
            tenant.keysets.append(Keyset(purpose, state, uri, created, *content))
    return list(found.values())


def _bytes(content: Any) -> bytes | None:
    # psycopg2 returns a view of memory.
    return None if content is None else bytes(content)
