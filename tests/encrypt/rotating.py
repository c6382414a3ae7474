"""Rotating a tenant's keys in the table, as `tenantguard keys rotate` leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tink
from sqlalchemy import text
from tink import aead, proto_keyset_format, secret_key_access
from tink.proto import tink_pb2

from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keysets import DataKeyset, open_data_keyset

if TYPE_CHECKING:
    from vault import Vault

_CHECK = b"tenantguard check"


def rotate(vault: Vault, tenant: Any) -> None:
    """Give *tenant* a new primary key for values beside those that it has."""
    handle = _handle(vault, tenant)
    made = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    keysets = [_clear(each) for each in (handle, made)]
    both = tink_pb2.Keyset(
        primary_key_id=keysets[1].primary_key_id,
        key=[*keysets[0].key, *keysets[1].key],
    )
    rotated = proto_keyset_format.parse(both.SerializeToString(), secret_key_access.TOKEN)
    _store(vault, tenant, rotated)


def data_keyset(vault: Vault, tenant: Any) -> DataKeyset:
    """Return *tenant*'s keyset for values, opened."""
    wrapped, check = _row(vault, tenant)
    return open_data_keyset(wrapped, check, _kek(vault), _context(tenant))


def _handle(vault: Vault, tenant: Any) -> tink.KeysetHandle:
    return proto_keyset_format.parse_encrypted(
        _row(vault, tenant)[0], _kek(vault), _context(tenant)
    )


def _store(vault: Vault, tenant: Any, handle: tink.KeysetHandle) -> None:
    context = _context(tenant)
    wrapped = proto_keyset_format.serialize_encrypted(handle, _kek(vault), context)
    with vault.admin.begin() as connection:
        connection.execute(
            text(
                "UPDATE tenantguard_keys SET wrapped = :wrapped, check_value = :check, "
                "generation = generation + 1 WHERE tenant_id = :tenant AND purpose = 'data'"
            ),
            {
                "wrapped": wrapped,
                "check": DataKeyset(handle).seal(_CHECK, context),
                "tenant": tenant,
            },
        )


def _row(vault: Vault, tenant: Any) -> tuple[bytes, bytes]:
    [row] = vault.run(
        "SELECT wrapped, check_value FROM tenantguard_keys WHERE tenant_id = :tenant "
        "AND purpose = 'data'",
        tenant=tenant,
    )
    return bytes(row[0]), bytes(row[1])


def _clear(handle: tink.KeysetHandle) -> Any:
    serialized = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return tink_pb2.Keyset.FromString(serialized)


def _kek(vault: Vault) -> Any:
    keys = vault.guard.keys
    assert keys is not None
    return keys.kek


def _context(tenant: Any) -> bytes:
    return keyset_context("test", str(tenant).encode(), "data")
