"""What the tenants' keysets are worth: what is wrong with them, and what mends it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tenantguard.cli.keys.rows import key_target
from tenantguard.cli.terminal import printable
from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keyring import provider_of
from tenantguard.errors import KeyUnavailableError, UnknownTenantError
from tenantguard.findings import Finding
from tenantguard.keytable import KEY_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.cli.keys.rows import Keyset, Tenant
    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.guard import TenantGuard

__all__ = [
    "FOREIGN",
    "LOST",
    "findings",
    "foreign_finding",
    "judge",
    "unopened_finding",
    "verify",
]

FOREIGN = "key-of-another-kek"
INCOMPLETE = "key-incomplete"
LOST = "key-lost"
UNUSABLE = "key-unusable"
UNKNOWN = "key-of-unknown-tenant"

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
