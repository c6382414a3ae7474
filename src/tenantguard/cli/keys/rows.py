"""The tenants' keysets as an operator sees them: all rows of all tenants.

A role that policies restrict is refused, because an empty answer would look as if all were well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.cli.keys.question import asked_tables, key_question
from tenantguard.cli.seeing import open_eyes
from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.keytable import KEY_TABLE, PURPOSES
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

    from tenantguard.guard import TenantGuard

__all__ = [
    "Keyset",
    "Tenant",
    "key_target",
    "printable",
    "read_tenants",
    "require_encryption",
]

_NOT_MIGRATED = ("42P01", "42703")
"""SQLSTATE of a table or a column that is not there."""


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
    eyes = open_eyes(guard, engine, asked_tables(guard.catalog))
    try:
        with eyes.transaction() as run:
            rows = run(key_question(guard.catalog, wrapped=wrapped))
    except DBAPIError as error:
        if sqlstate(error) not in _NOT_MIGRATED:
            raise
        raise ConfigurationError(
            f"The database lacks the registry, {KEY_TABLE}, or a table or column that the models "
            "encrypt. Run your migrations, then `tenantguard rls apply`."
        ) from None
    return _gathered(rows)


def key_target(guard: TenantGuard) -> tuple[str, str]:
    """Return schema and name of the table of keys."""
    return target_of(guard.catalog.entry(guard.catalog.key_table))


def printable(text: str) -> str:
    """Return *text* without characters that a terminal obeys; rows are what somebody wrote."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


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
