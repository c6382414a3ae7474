"""What the keys of a keyset are: the algorithm and the size of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tink import proto_keyset_format, secret_key_access
from tink.proto import aes_gcm_pb2, common_pb2, hmac_prf_pb2, tink_pb2

from tenantguard.crypto.rotation import handle_of

if TYPE_CHECKING:
    from tenantguard.crypto.rotation import Stored

__all__ = ["Strength", "strengths"]


class Strength(NamedTuple):
    """An algorithm, and the size of its key in bits."""

    algorithm: str
    bits: int


def strengths(stored: Stored) -> list[Strength]:
    """Return what the keys of *stored* are, those that are disabled left out.

    Raises:
        KeyUnavailableError: If it does not open.
    """
    handle = handle_of(stored)
    content = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    keyset = tink_pb2.Keyset.FromString(content)
    return [
        _strength(key.key_data.type_url.rpartition(".")[2], key.key_data.value)
        for key in keyset.key
        if key.status == tink_pb2.ENABLED
    ]


def _strength(kind: str, value: bytes) -> Strength:
    if kind == "AesGcmKey":
        return Strength("AES-GCM", 8 * len(aes_gcm_pb2.AesGcmKey.FromString(value).key_value))
    if kind == "HmacPrfKey":
        key = hmac_prf_pb2.HmacPrfKey.FromString(value)
        named = common_pb2.HashType.Name(key.params.hash)
        return Strength(f"HMAC-{named}", 8 * len(key.key_value))
    return Strength(kind, 0)
