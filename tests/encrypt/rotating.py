"""Rotating a tenant's keys in the table, as `tenantguard keys rotate` leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tink
from sqlalchemy import text
from tink import aead, proto_keyset_format, secret_key_access
from tink.proto import tink_pb2
from vault import ENVIRONMENT

from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keysets import DataKeyset, open_data_keyset

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from vault import Vault

    from tenantguard import TenantGuard

_CHECK = b"tenantguard check"


def rotate(vault: Vault, tenant: Any) -> None:
    """Give *tenant* a new primary key for values beside those that it has."""
    rotate_at(vault.admin, vault.guard, tenant, ENVIRONMENT)


def rotate_at(admin: Engine, guard: TenantGuard, tenant: Any, environment: str) -> None:
    """Do it in *admin*'s database."""
    assert guard.keys is not None
    kek, context = guard.keys.kek, keyset_context(environment, str(tenant).encode(), "data")
    wrapped, _ = _row(admin, tenant)
    handle = proto_keyset_format.parse_encrypted(wrapped, kek, context)
    made = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    keysets = [_clear(each) for each in (handle, made)]
    both = tink_pb2.Keyset(
        primary_key_id=keysets[1].primary_key_id, key=[*keysets[0].key, *keysets[1].key]
    )
    rotated = proto_keyset_format.parse(both.SerializeToString(), secret_key_access.TOKEN)
    wrapped = proto_keyset_format.serialize_encrypted(rotated, kek, context)
    _store(admin, tenant, wrapped, DataKeyset(rotated).seal(_CHECK, context))


def data_keyset(vault: Vault, tenant: Any) -> DataKeyset:
    """Return *tenant*'s keyset for values, opened."""
    assert vault.guard.keys is not None
    context = keyset_context(ENVIRONMENT, str(tenant).encode(), "data")
    return open_data_keyset(*_row(vault.admin, tenant), vault.guard.keys.kek, context)


def _row(admin: Engine, tenant: Any) -> tuple[bytes, bytes]:
    with admin.connect() as connection:
        row = connection.execute(
            text(
                "SELECT wrapped, check_value FROM tenantguard_keys WHERE tenant_id = :tenant "
                "AND purpose = 'data'"
            ),
            {"tenant": tenant},
        ).one()
    return bytes(row[0]), bytes(row[1])


def _store(admin: Engine, tenant: Any, wrapped: bytes, check: bytes) -> None:
    with admin.begin() as connection:
        connection.execute(
            text(
                "UPDATE tenantguard_keys SET wrapped = :wrapped, check_value = :check, "
                "generation = generation + 1 WHERE tenant_id = :tenant AND purpose = 'data'"
            ),
            {"wrapped": wrapped, "check": check, "tenant": tenant},
        )


def _clear(handle: tink.KeysetHandle) -> Any:
    serialized = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return tink_pb2.Keyset.FromString(serialized)
