"""What the numbers of keys that values have are worth beside their tenants' keysets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar, cast

from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keyring import provider_of
from tenantguard.encrypt.counting import Form
from tenantguard.errors import KeyUnavailableError, UnknownTenantError
from tenantguard.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tenantguard.cli.keys.rows import Keyset, Tenant
    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.encrypt.counting import Rows
    from tenantguard.guard import TenantGuard

__all__ = [
    "NOT_SEALED",
    "UNKNOWN",
    "Standing",
    "Stood",
    "findings",
    "stand",
    "standings",
    "with_other_index_keys",
]

_Opened = TypeVar("_Opened")

UNKNOWN = "value-of-unknown-key"
NOT_SEALED = "value-not-sealed"


class Standing(Enum):
    """Of what rank the key of a value is in its tenant's keyset."""

    PRIMARY = "primary"
    OLDER = "older"
    UNKNOWN = "unknown"
    DESTROYED = "destroyed"
    UNOPENED = "not opened"
    NULL = "no value"
    OTHER = "not sealed"


@dataclass(frozen=True, slots=True, repr=False)
class Stood:
    """Rows, and the standing of what they hold."""

    rows: Rows
    standing: Standing


Numbers = dict[str, "tuple[int, ...] | Standing"]
"""By tenant: the numbers of its keys, that which seals first; or why they are not known."""


def standings(guard: TenantGuard, tenants: Iterable[Tenant]) -> Numbers:
    """Open the keyset for values of each of *tenants* with the guard's key."""
    found: Numbers = {}
    for tenant in tenants:
        keyset = next((each for each in tenant.keysets if each.purpose == "data"), None)
        found[tenant.id] = _numbers(guard, tenant.id, keyset)
    return found


def with_other_index_keys(guard: TenantGuard, tenants: Iterable[Tenant]) -> set[str]:
    """Return those of *tenants* whose values can have blind indexes under several keys."""
    from tenantguard.crypto import keysets  # noqa: PLC0415  (loads Tink)

    found = set()
    for tenant in tenants:
        keyset = next((each for each in tenant.keysets if each.purpose == "index"), None)
        if keyset is not None:
            opened = _opened(guard, tenant.id, keyset, keysets.open_index_keyset)
            if not isinstance(opened, Standing) and opened.rotating:
                found.add(tenant.id)
    return found


def stand(counted: Iterable[Rows], numbers: Numbers) -> list[Stood]:
    """Return *counted* with what each key is worth."""
    return [Stood(rows, _standing(rows, numbers.get(rows.tenant, ()))) for rows in counted]


def findings(stood: Iterable[Stood]) -> Iterator[Finding]:
    """Yield what cannot be read, by column: no finding names a tenant."""
    counts: Counter[tuple[str, Standing]] = Counter()
    for each in stood:
        counts[f"{each.rows.table}.{each.rows.column}", each.standing] += each.rows.rows
    for (column, standing), number in sorted(counts.items(), key=lambda item: item[0][0]):
        if standing is Standing.UNKNOWN:
            yield Finding(
                UNKNOWN,
                column,
                f"{number:,} values were sealed with keys that their tenants' keysets do not have: "
                "they cannot be read.",
                "Restore tenantguard_keys from the backup that the rows came from; --tenants names "
                "the tenants.",
            )
        elif standing is Standing.OTHER:
            yield Finding(
                NOT_SEALED,
                column,
                f"{number:,} rows hold something that is no sealed value; it may be plaintext.",
                "Find who wrote it past the column's type, write the values through the "
                "application, and run `tenantguard rls apply`, whose check refuses it.",
            )


def _numbers(guard: TenantGuard, tenant: str, keyset: Keyset | None) -> tuple[int, ...] | Standing:
    from tenantguard.crypto import keysets  # noqa: PLC0415  (loads Tink)

    if keyset is None:
        return ()
    opened = _opened(guard, tenant, keyset, keysets.open_data_keyset)
    return opened if isinstance(opened, Standing) else opened.numbers


def _opened(
    guard: TenantGuard, tenant: str, keyset: Keyset, opens: Callable[..., _Opened]
) -> _Opened | Standing:
    if keyset.state == "destroyed" or keyset.wrapped is None or keyset.check is None:
        return Standing.DESTROYED
    own = provider_of(cast("KeyProvider", guard.keys), keyset.kek_uri)
    if own is None:
        return Standing.UNOPENED
    try:
        name = guard.catalog.text(guard.catalog.canonical(tenant)).encode()
        context = keyset_context(own.environment, name, keyset.purpose)
        return opens(keyset.wrapped, keyset.check, own.kek, context)
    except (KeyUnavailableError, UnknownTenantError):
        return Standing.UNOPENED


def _standing(rows: Rows, numbers: tuple[int, ...] | Standing) -> Standing:
    if rows.form is Form.NULL:
        return Standing.NULL
    if rows.form is Form.OTHER:
        return Standing.OTHER
    if isinstance(numbers, Standing):
        return numbers
    if rows.key not in numbers:
        return Standing.UNKNOWN
    return Standing.PRIMARY if rows.key == numbers[0] else Standing.OLDER
