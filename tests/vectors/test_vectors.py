"""What was sealed once is opened for ever, with the same bytes found by the same blind index."""

from __future__ import annotations

import hashlib
import hmac
import json
import unicodedata
from typing import TYPE_CHECKING

import pytest
import tink
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from frozen import HERE, KINDS, Vector, load, read, written
from tink import proto_keyset_format, secret_key_access
from tink.proto import aes_gcm_pb2, hmac_prf_pb2, tink_pb2
from write import PARTS, add, write

from tenantguard.columns import kinds, normalize
from tenantguard.columns.kind import Tag
from tenantguard.crypto.format import (
    HEADER_SIZE,
    INDEX_SIZE,
    FieldContext,
    keyset_context,
)
from tenantguard.crypto.keysets import open_data_keyset, open_index_keyset, read_kek
from tenantguard.errors import DecryptionError, KeyUnavailableError, TamperedError, UnknownKeyError

if TYPE_CHECKING:
    from pathlib import Path

    from tenantguard.crypto.tenant_keys import TenantKeys

# Only added to: a file whose hash differs is a file that was changed.
FROZEN = {
    "v1/keys.json": "c797ade39fdcb688d58c2f56e5daed722aaedf120a87faaa573e2fc7058ba613",
    "v1/rows.json": "ff82be378729b5a5da61304af643c03e9e7ccc01f0c04b5a79eccb879604fd5c",
    "v1/values.json": "7f0024a973e4b7a73c1b05aceb8148993dbc420d5d455cc4424a50ffa7f64f23",
    "v1/values-compounds.json": "bd09d919e5a7c15f32b32a3aff2371e1ecdb5935b6d065adda49bf5de61ef37a",
    "v1/values-further.json": "8445f74d9c136981e7a968079804bb5adba6dd39976c08ea585cd9832059b03e",
}
VERSIONS = {name: load(name) for name in ("v1",)}
TENANTS = {name: version.tenants() for name, version in VERSIONS.items()}
GROUPS = sorted(
    {
        (name, vector.kind, vector.search or "unsearched")
        for name, version in VERSIONS.items()
        for vector in version.vectors
    }
)
each_group = pytest.mark.parametrize(("version", "kind", "search"), GROUPS)


def vectors_of(version: str, kind: str, search: str) -> list[Vector]:
    wanted = kind, None if search == "unsearched" else search
    found = [each for each in VERSIONS[version].vectors if (each.kind, each.search) == wanted]
    assert len(found) >= 2 * len(TENANTS[version])
    return found


def keys_of(version: str, vector: Vector) -> TenantKeys:
    return TENANTS[version][vector.tenant]


def stored_of(vector: Vector) -> bytes:
    return bytes.fromhex(vector.stored)


# -- the files ----------------------------------------------------------------------------------


def test_known_answers_are_only_added_to() -> None:
    """No file of a version that was released has changed, and there is none without its hash."""
    files = {
        f"{path.parent.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in HERE.glob("v*/*")
    }
    assert files == FROZEN
    assert {name.partition("/")[0] for name in FROZEN} == VERSIONS.keys()


def test_writing_refuses_a_version_that_exists(tmp_path: Path) -> None:
    """The command makes a directory of its own, and changes none."""
    write(tmp_path / "v7")
    assert {path.name for path in tmp_path.glob("v7/*")} == {"keys.json", "values.json"}
    with pytest.raises(SystemExit, match="v1 has everything"):
        add("v1", "again", tmp_path)
    before = (tmp_path / "v7" / "keys.json").read_bytes()
    with pytest.raises(SystemExit, match="v7 exists: known answers are never changed"):
        write(tmp_path / "v7")
    assert (tmp_path / "v7" / "keys.json").read_bytes() == before


def test_every_type_tag_and_normaliser_has_a_known_answer() -> None:
    """A type or a normaliser that is added needs known answers."""
    every = [vector for version in VERSIONS.values() for vector in version.vectors]
    tags = {tag for tag in vars(Tag).values() if isinstance(tag, bytes)}
    assert {bytes.fromhex(vector.packed)[:1] for vector in every} == tags
    types = {kind for kind in vars(kinds).values() if isinstance(kind, kinds.Kind)}
    made = {KINDS[each] for each in ("enum", "compound", "compound as it is")}
    assert {KINDS[vector.kind] for vector in every} == types | made
    searched = {vector.search for vector in every if vector.kind == "str"}
    assert searched >= {None, "exact", PARTS, *normalize._NORMALIZERS}
    padded = {(vector.search, vector.padding) for vector in every}
    assert padded >= {(search, size) for search in (None, PARTS) for size in (None, 16, "pow2")}


# -- the values ---------------------------------------------------------------------------------


@each_group
def test_values_open(version: str, kind: str, search: str) -> None:
    """The installed version opens what the version has sealed, as the same value and type."""
    for vector in vectors_of(version, kind, search):
        keys, stored = keys_of(version, vector), stored_of(vector)
        opened, given = vector.field().open(keys, stored), read(kind, vector.given)
        # What is not a number is not equal to itself.
        assert opened == given or vector.given == "nan"
        assert type(opened) is type(given)
        # 1.1 and 1.10, and equal times in two zones, are equal, and not written alike.
        assert written(kind, opened) == vector.opens_as
        packed = keys.open(FieldContext(vector.table, vector.column), stored)
        assert packed.hex() == vector.packed


@each_group
def test_values_are_packed_and_indexed_as_they_were(version: str, kind: str, search: str) -> None:
    """A value has the plaintext bytes and the blind index that it had."""
    for vector in vectors_of(version, kind, search):
        field, given = vector.field(), read(kind, vector.given)
        assert field.kind.pack(given).hex() == vector.packed
        keys, stored = keys_of(version, vector), stored_of(vector)
        indexes = bytes.fromhex(vector.index or "")
        assert stored.startswith(field.header + indexes)
        for index, place in zip(field.indexes, range(0, len(indexes), INDEX_SIZE), strict=True):
            computed = keys.index(index.prefix, index.of(given))
            assert computed == indexes[place : place + INDEX_SIZE]


@each_group
def test_associated_data_is_what_it_was(version: str, kind: str, search: str) -> None:
    """The bytes that are authenticated with a value never change."""
    for vector in vectors_of(version, kind, search):
        header = stored_of(vector)[:HEADER_SIZE]
        context = FieldContext(vector.table, vector.column)
        found = context.associated_data(vector.tenant.encode(), header)
        assert found.hex() == vector.associated_data


@each_group
def test_a_byte_that_was_changed_is_noticed(version: str, kind: str, search: str) -> None:
    """Whichever byte is changed, nothing is opened."""
    for vector in vectors_of(version, kind, search):
        field, keys, stored = vector.field(), keys_of(version, vector), stored_of(vector)
        for position in range(len(stored)):
            altered = bytearray(stored)
            altered[position] ^= 1 << position % 8
            with pytest.raises(DecryptionError):
                field.open(keys, bytes(altered))


def test_value_opens_for_its_own_tenant_and_column_only() -> None:
    """The other tenant's keys, another label and another type open nothing."""
    for name, version in VERSIONS.items():
        one, other = version.keys["tenants"]
        for vector in version.vectors:
            stored = stored_of(vector)
            with pytest.raises(UnknownKeyError):
                vector.field().open(TENANTS[name][other if vector.tenant == one else one], stored)
            elsewhere = vector.field()
            elsewhere.attach(vector.table, f"{vector.column}x")
            with pytest.raises(TamperedError):
                elsewhere.open(keys_of(name, vector), stored)
            wrong = vector.field()
            wrong.kind = kinds.INT if vector.kind != "int" else kinds.STR
            with pytest.raises(DecryptionError, match="sealed as another type"):
                wrong.open(keys_of(name, vector), stored)


def test_keysets_are_bound_to_their_row() -> None:
    """A wrapped keyset opens for its tenant, purpose and environment only, and unaltered."""
    for version in VERSIONS.values():
        kek, environment = read_kek(json.dumps(version.keys["kek"])), version.keys["environment"]
        one, other = (tenant.encode() for tenant in version.keys["tenants"])
        rows = version.keys["tenants"][one.decode()]
        for purpose, opened in (("data", open_data_keyset), ("index", open_index_keyset)):
            wrapped, check = (
                bytes.fromhex(rows[purpose][part]) for part in ("wrapped", "check_value")
            )
            context = keyset_context(environment, one, purpose)
            opened(wrapped, check, kek, context)
            unfit = (
                (wrapped, check, keyset_context(environment, other, purpose)),
                (wrapped, check, keyset_context("production", one, purpose)),
                (wrapped, check, keyset_context(environment, one, f"{purpose}x")),
                (wrapped, check[:-1] + bytes([check[-1] ^ 1]), context),
                (wrapped[:-1] + bytes([wrapped[-1] ^ 1]), check, context),
            )
            for altered, value, elsewhere in unfit:
                with pytest.raises(KeyUnavailableError, match="was altered, or belongs to another"):
                    opened(altered, value, kek, elsewhere)


# -- without this library -----------------------------------------------------------------------


class ByHand:
    """Opens and searches with AES-GCM and HMAC alone, as somebody would without this library."""

    def __init__(self, version: str, tenant: str) -> None:
        keys = VERSIONS[version].keys
        self._kek = read_kek(json.dumps(keys["kek"]))
        self._rows = keys["tenants"][tenant]
        self._joined = (b"tenantguard keyset", b"\x01", keys["environment"].encode())
        self._tenant = tenant.encode()
        data = self._key("data")
        assert data.key_data.type_url.endswith("crypto.tink.AesGcmKey")
        assert data.output_prefix_type == tink_pb2.TINK
        self.prefix = b"\x01" + data.key_id.to_bytes(4, "big")
        self.aes = aes_gcm_pb2.AesGcmKey.FromString(data.key_data.value).key_value
        index = self._key("index")
        assert index.key_data.type_url.endswith("crypto.tink.HmacPrfKey")
        self.hmac = hmac_prf_pb2.HmacPrfKey.FromString(index.key_data.value).key_value

    def _key(self, purpose: str) -> tink_pb2.Keyset.Key:
        context = joined(*self._joined, self._tenant, purpose.encode())
        wrapped = bytes.fromhex(self._rows[purpose]["wrapped"])
        handle: tink.KeysetHandle = proto_keyset_format.parse_encrypted(wrapped, self._kek, context)
        serialized = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
        (key,) = tink_pb2.Keyset.FromString(serialized).key
        return key


def joined(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@pytest.mark.parametrize("version", VERSIONS)
def test_values_can_be_opened_without_this_library(version: str) -> None:
    """What the format's documentation says is enough: AES-256-GCM, and the parts in their order."""
    by_hand = {tenant: ByHand(version, tenant) for tenant in TENANTS[version]}
    for vector in VERSIONS[version].vectors:
        hand, stored = by_hand[vector.tenant], stored_of(vector)
        assert len(hand.aes) == len(hand.hmac) == 32
        assert stored[:3] == b"\x9eT\x01"
        flags = stored[3]
        size = INDEX_SIZE * ((flags & 1) + (flags >> 4))
        index, sealed = stored[4 : 4 + size], stored[4 + size :]
        assert sealed[:5] == hand.prefix
        parts = (stored[:4], vector.tenant.encode(), vector.table.encode(), vector.column.encode())
        authenticated = joined(b"tenantguard value", *parts, b"data", b"column", b"") + index
        packed = AESGCM(hand.aes).decrypt(sealed[5:17], sealed[17:], authenticated)
        if flags & 4:
            packed = packed.rstrip(b"\0").removesuffix(b"\x80")
        assert packed.hex() == vector.packed


@pytest.mark.parametrize("version", VERSIONS)
def test_blind_indexes_can_be_computed_without_this_library(version: str) -> None:
    """The index of a text, searched as it is, is HMAC-SHA256 of the parts, cut to 16 bytes."""
    by_hand = {tenant: ByHand(version, tenant) for tenant in TENANTS[version]}
    for vector in vectors_of(version, "str", "exact"):
        labels = (vector.table.encode(), vector.column.encode(), b"exact-v1")
        message = joined(b"tenantguard index", *labels) + joined(b"\x01" + vector.given.encode())
        digest = hmac.digest(by_hand[vector.tenant].hmac, message, "sha256")
        assert digest[:16].hex() == vector.index
    for vector in vectors_of(version, "str", "last2:exact"):
        rule = (vector.table.encode(), vector.column.encode(), b"last", b"2", b"exact-v1")
        message = joined(b"tenantguard index", *rule) + joined(b"\x01" + vector.given[-2:].encode())
        digest = hmac.digest(by_hand[vector.tenant].hmac, message, "sha256")
        assert digest[:16].hex() == vector.index
    for vector in vectors_of(version, "compound", "exact"):
        name, born, insured = json.loads(vector.given)
        named = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
        digits = "".join(str(int(each)) for each in insured if each.isdecimal())
        parts = b"\x01" + named.encode(), b"\x05" + born.encode(), b"\x01" + digits.encode()
        folds = (b"compound", b"nfc-casefold-v1", b"exact-v1", b"digits-v1")
        place = vector.table.encode(), vector.column.encode()
        message = joined(b"tenantguard index", *place, *folds) + joined(b"\x11" + joined(*parts))
        digest = hmac.digest(by_hand[vector.tenant].hmac, message, "sha256")
        assert digest[:16].hex() == vector.index
        raw = b"\x01" + name.encode(), b"\x05" + born.encode(), b"\x01" + insured.encode()
        assert vector.packed == (b"\x11" + joined(*raw)).hex()
