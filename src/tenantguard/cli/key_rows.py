"""The tenants' keysets as an operator sees them: all rows of all tenants, and what they are worth.

A role that policies restrict is refused, because an empty answer would look as if all were well.
"""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from tenantguard.crypto.format import keyset_context
from tenantguard.doctor import Absence, Subject
from tenantguard.doctor.eyes import Eyes
from tenantguard.doctor.report import Finding, Severity
from tenantguard.errors import ConfigurationError, KeyUnavailableError, UnknownTenantError, sqlstate
from tenantguard.keytable import KEY_TABLE, PURPOSES
from tenantguard.rls.names import DEFAULT_SCHEMA, qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.guard import TenantGuard

__all__ = [
    "FOREIGN",
    "Keyset",
    "Tenant",
    "findings",
    "judge",
    "key_target",
    "printable",
    "read_tenants",
    "verify",
]

FOREIGN = "key-of-another-kek"
INCOMPLETE = "key-incomplete"
UNUSABLE = "key-unusable"
UNKNOWN = "key-of-unknown-tenant"

_NOT_NEEDED = Absence("not needed", chosen=True)
_NO_TABLE = "42P01"

_RESTORE = f"Restore their rows of {KEY_TABLE} from a backup; --tenants names the tenants."
_MESSAGES = {
    INCOMPLETE: "tenants have one keyset of two, and lost the other: with a new one in its place, "
    "older values are not opened, or not found.",
    UNUSABLE: "tenants have a keyset that the key does not open: its row was altered, or belongs "
    "to another tenant or purpose.",
    UNKNOWN: "tenants have keysets, and the registry does not have the tenant.",
}
_MENDS = {
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
        keysets: In the order of their purposes.
        faults: Codes of what is wrong with them.
    """

    id: str
    registered: bool
    keysets: list[Keyset] = field(default_factory=list)
    faults: set[str] = field(default_factory=set)

    @property
    def incomplete(self) -> bool:
        """Whether a keyset is missing beside one that is there."""
        return bool(self.keysets) and {each.purpose for each in self.keysets} != set(PURPOSES)


def read_tenants(guard: TenantGuard, engine: Engine, *, wrapped: bool = False) -> list[Tenant]:
    """Return the registry's tenants and everybody who has keysets, in one answer.

    Raises:
        ConfigurationError: If the models have no encrypted columns, or a table is missing.
        CouldNotLookError: If the database cannot be reached, or policies hide rows.
    """
    if not guard.catalog.encrypts:
        raise ConfigurationError(
            "The models have no encrypted columns, so no tenant has a key. If they should have, "
            "import the modules that define them where the guard is made."
        )
    eyes = Eyes(_subject(guard, engine), (target_of(guard.catalog.registry), key_target(guard)))
    for reason in eyes.missed():
        raise ConfigurationError(reason)
    try:
        with eyes.transaction() as run:
            rows = run(_question(guard, wrapped=wrapped))
    except DBAPIError as error:
        if sqlstate(error) != _NO_TABLE:
            raise
        raise ConfigurationError(
            f"The database has no registry, or no table {KEY_TABLE}. Run `tenantguard rls apply`."
        ) from None
    return _gathered(rows)


def key_target(guard: TenantGuard) -> tuple[str, str]:
    """Return schema and name of the table of keys."""
    return (guard.catalog.key_table.schema or DEFAULT_SCHEMA, KEY_TABLE)


def judge(tenants: Iterable[Tenant], uri: str | None) -> None:
    """Note what is wrong with *tenants*' rows beside a guard whose key is *uri*."""
    for tenant in tenants:
        if not tenant.registered:
            tenant.faults.add(UNKNOWN)
        if tenant.incomplete:
            tenant.faults.add(INCOMPLETE)
        if any(_is_foreign(keyset, uri) for keyset in tenant.keysets):
            tenant.faults.add(FOREIGN)


def verify(guard: TenantGuard, tenant: Tenant, provider: KeyProvider) -> None:
    """Open those of *tenant*'s keysets that *provider*'s key has wrapped; note if one stays shut.

    An id that is not of the registry's type opens none.
    """
    for keyset in tenant.keysets:
        if keyset.kek_uri == provider.uri and keyset.state != "destroyed":
            try:
                name = guard.catalog.text(guard.catalog.canonical(tenant.id)).encode()
                context = keyset_context(provider.environment, name, keyset.purpose)
                opened = _opens(keyset, context, provider)
            except UnknownTenantError:
                opened = False
            if not opened:
                tenant.faults.add(UNUSABLE)


def findings(guard: TenantGuard, tenants: list[Tenant], uri: str | None) -> Iterator[Finding]:
    """Yield what was noted, counted: no finding names a tenant."""
    counts = Counter(fault for tenant in tenants for fault in tenant.faults)
    foreign = Counter(
        keyset.kek_uri for each in tenants for keyset in each.keysets if _is_foreign(keyset, uri)
    )
    table = ".".join(key_target(guard))
    for other, number in sorted(foreign.items()):
        yield Finding(
            FOREIGN,
            Severity.ERROR,
            table,
            f"{number:,} keysets are wrapped by {printable(other)}, and TenantGuard(keys=…) has "
            f"{uri}: the application cannot open what they have sealed.",
            "Give keys= the key that wrapped them; its file is in its backup. Keysets that came "
            "with another environment's rows cannot be used here.",
        )
    for code, message in _MESSAGES.items():
        if counts[code]:
            text = f"{counts[code]:,} {message}"
            yield Finding(code, Severity.ERROR, table, text, _MENDS[code])


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


def _question(guard: TenantGuard, *, wrapped: bool) -> str:
    """Return the question that is answered from one snapshot, in text that every driver reads."""
    _, key = guard.catalog.registry_key()
    content = "k.wrapped, k.check_value" if wrapped else "NULL, NULL"
    form = """'YYYY-MM-DD"T"HH24:MI:SS"Z"'"""
    return f"""
    SELECT coalesce(r.{quote(key.name)}::text, k.tenant_id::text), r.{quote(key.name)} IS NOT NULL,
        k.purpose, k.state, k.kek_uri, coalesce(pg_catalog.to_char(
            k.created_at AT TIME ZONE 'UTC', {form}), k.created_at::text), {content}
    FROM {qualified(target_of(guard.catalog.registry))} r
    FULL JOIN {qualified(key_target(guard))} k ON k.tenant_id = r.{quote(key.name)}
    ORDER BY 1, k.purpose"""


def _gathered(rows: Iterable[Any]) -> list[Tenant]:
    found: dict[str, Tenant] = {}
    for name, registered, purpose, state, uri, created, wrapped, check in rows:
        tenant = found.setdefault(name, Tenant(name, registered))
        if purpose is not None:
            content = (_bytes(each) for each in (wrapped, check))
            tenant.keysets.append(Keyset(purpose, state, uri, created, *content))
    return list(found.values())


def _bytes(content: Any) -> bytes | None:
    # psycopg2 returns a view of memory.
    return None if content is None else bytes(content)


def _is_foreign(keyset: Keyset, uri: str | None) -> bool:
    return uri is not None and keyset.state != "destroyed" and keyset.kek_uri != uri


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
