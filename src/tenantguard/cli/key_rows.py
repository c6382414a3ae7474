"""The tenants' keysets as an operator sees them: all rows of all tenants, and what they are worth.

A role that policies restrict is refused, because an empty answer would look as if all were well.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.cli.key_question import asked_tables, key_question
from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keyring import provider_of
from tenantguard.doctor import Absence, Subject
from tenantguard.doctor.eyes import Eyes
from tenantguard.errors import ConfigurationError, KeyUnavailableError, UnknownTenantError, sqlstate
from tenantguard.findings import Finding
from tenantguard.keytable import KEY_TABLE, PURPOSES
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.guard import TenantGuard

__all__ = [
    "FOREIGN",
    "LOST",
    "Keyset",
    "Tenant",
    "findings",
    "foreign_finding",
    "judge",
    "key_target",
    "open_eyes",
    "printable",
    "read_tenants",
    "require_encryption",
    "unopened_finding",
    "verify",
]

FOREIGN = "key-of-another-kek"
INCOMPLETE = "key-incomplete"
LOST = "key-lost"
UNUSABLE = "key-unusable"
UNKNOWN = "key-of-unknown-tenant"

_NOT_NEEDED = Absence("not needed", chosen=True)
_NOT_MIGRATED = ("42P01", "42703")
"""SQLSTATE of a table or a column that is not there."""

_RESTORE = f"Restore their rows of {KEY_TABLE} from a backup; --tenants names the tenants."
_MESSAGES = {
    LOST: f"tenants have encrypted values and no keyset: rows of {KEY_TABLE} were lost.",
    INCOMPLETE: "tenants have one keyset of two, and lost the other: with a new one in its place, "
    "older values are not opened, or not found.",
    UNUSABLE: "tenants have a keyset that the key does not open: its row was altered, or belongs "
    "to another tenant or purpose.",
    UNKNOWN: "tenants have keysets, and the registry does not have the tenant.",
}
_MENDS = {
    LOST: f"Restore {KEY_TABLE} from the backup that the rows came from; with new keysets their "
    "values would not open. --tenants names the tenants.",
    INCOMPLETE: f"{_RESTORE} Do it before they write encrypted values.",
    UNUSABLE: _RESTORE,
    UNKNOWN: "Restore the tenants, or delete the rows as the maintenance role; --tenants names "
    "them. Then `tenantguard rls apply` adds the foreign key.",
}


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


def open_eyes(guard: TenantGuard, engine: Engine, targets: Iterable[tuple[str, str]]) -> Eyes:
    """Return eyes that see all rows of *targets*.

    Raises:
        ConfigurationError: If rows are hidden.
        CouldNotLookError: If the database cannot be reached.
    """
    eyes = Eyes(_subject(guard, engine), targets)
    for reason in eyes.missed():
        raise ConfigurationError(reason)
    return eyes


def key_target(guard: TenantGuard) -> tuple[str, str]:
    """Return schema and name of the table of keys."""
    return target_of(guard.catalog.entry(guard.catalog.key_table))


def judge(tenants: Iterable[Tenant], provider: KeyProvider | None) -> None:
    """Note what is wrong with *tenants*' rows beside a guard whose keys *provider* has."""
    for tenant in tenants:
        if not tenant.registered:
            tenant.faults.add(UNKNOWN)
        if tenant.lost:
            tenant.faults.add(LOST)
        if tenant.incomplete:
            tenant.faults.add(INCOMPLETE)
        if any(_is_foreign(keyset, provider) for keyset in tenant.keysets):
            tenant.faults.add(FOREIGN)


def verify(guard: TenantGuard, tenant: Tenant, provider: KeyProvider) -> None:
    """Open those of *tenant*'s keysets that *provider*'s key has wrapped; note if one stays shut.

    An id that is not of the registry's type opens none.
    """
    for keyset in tenant.keysets:
        own = provider_of(provider, keyset.kek_uri)
        if own and keyset.state != "destroyed":
            try:
                name = guard.catalog.text(guard.catalog.canonical(tenant.id)).encode()
                context = keyset_context(own.environment, name, keyset.purpose)
                opened = _opens(keyset, context, own)
            except UnknownTenantError:
                opened = False
            if not opened:
                tenant.faults.add(UNUSABLE)


def findings(
    guard: TenantGuard, tenants: list[Tenant], provider: KeyProvider | None
) -> Iterator[Finding]:
    """Yield what was noted, counted: no finding names a tenant."""
    counts = Counter(fault for tenant in tenants for fault in tenant.faults)
    foreign = Counter(
        keyset.kek_uri
        for each in tenants
        for keyset in each.keysets
        if _is_foreign(keyset, provider)
    )
    for other, number in sorted(foreign.items()):
        yield foreign_finding(guard, other, number, provider.uri if provider else "")
    table = ".".join(key_target(guard))
    for code, message in _MESSAGES.items():
        if counts[code]:
            text = f"{counts[code]:,} {message}"
            yield Finding(
                code,
                table,
                text,
                _MENDS[code],
            )


def foreign_finding(guard: TenantGuard, other: str, number: int, uri: str) -> Finding:
    """Return that *number* keysets are wrapped by *other*, which the guard of *uri* lacks."""
    return Finding(
        FOREIGN,
        ".".join(key_target(guard)),
        f"{number:,} keysets are wrapped by {printable(other)}, and TenantGuard(keys=…) has "
        f"{uri}: the application cannot open what they have sealed.",
        "Give keys= the key that wrapped them; its file is in its backup. Keysets that came "
        "with another environment's rows cannot be used here.",
    )


def unopened_finding(guard: TenantGuard, number: int) -> Finding:
    """Return that *number* keysets stay shut."""
    return Finding(
        UNUSABLE,
        ".".join(key_target(guard)),
        f"{number:,} keysets are not opened by the key that their row names: the row was altered, "
        "or belongs to another tenant or purpose.",
        f"`tenantguard keys list --verify --tenants` names the tenants. {_RESTORE}",
    )


def printable(text: str) -> str:
    """Return *text* without characters that a terminal obeys; rows are what somebody wrote."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def _subject(guard: TenantGuard, engine: Engine) -> Subject:
    return Subject(
        catalog=guard.catalog,
        roles=guard.roles,
        mode=guard.mode,
        application=_NOT_NEEDED,
        admin=engine,
        engines=_NOT_NEEDED,
        is_protected=guard.protects,
    )


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


def _is_foreign(keyset: Keyset, provider: KeyProvider | None) -> bool:
    if provider is None or keyset.state == "destroyed":
        return False
    return provider_of(provider, keyset.kek_uri) is None


def _opens(keyset: Keyset, context: bytes, provider: KeyProvider) -> bool:
    from tenantguard.crypto import keysets  # noqa: PLC0415  (loads Tink)

    if keyset.wrapped is None or keyset.check is None:
        return False
    data = keyset.purpose == "data"
    open_keyset = keysets.open_data_keyset if data else keysets.open_index_keyset
    try:
        open_keyset(keyset.wrapped, keyset.check, provider.kek, context)
    except KeyUnavailableError:
        return False
    return True
