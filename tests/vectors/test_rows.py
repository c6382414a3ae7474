"""What was sealed for its row once is opened in that row for ever, and in no other."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from frozen import KINDS, read
from rows import FORMS, KEYS, VALUES, authenticated, bound, packed
from test_vectors import TENANTS, VERSIONS, ByHand, joined

from tenantguard.errors import DecryptionError, TamperedError

every_version = pytest.mark.parametrize("version", VERSIONS)
ANSWERS = {name: bound(name) for name in VERSIONS}


@every_version
def test_values_open_in_their_row(version: str) -> None:
    """The installed version opens what the version has sealed, in its row and not in another."""
    keys = [bytes.fromhex(each.row) for each in ANSWERS[version]]
    for each in ANSWERS[version]:
        tenant, stored = TENANTS[version][each.tenant], bytes.fromhex(each.stored)
        row = bytes.fromhex(each.row)
        assert each.field().open(tenant, stored, row) == read(each.kind, each.given)
        for other in {*keys, b"", row + b"\0", row[1:]} - {row}:
            with pytest.raises(TamperedError):
                each.field().open(tenant, stored, other)


@every_version
def test_keys_have_the_bytes_that_they_had(version: str) -> None:
    """The bytes of a primary key, and what is authenticated with a value, never change."""
    for each in ANSWERS[version]:
        row, stored = packed(each.key), bytes.fromhex(each.stored)
        assert row.hex() == each.row
        found = authenticated(each.tenant, each.table, each.column, row, stored)
        assert found.hex() == each.associated_data


@every_version
def test_a_byte_that_was_changed_is_noticed(version: str) -> None:
    """Whichever byte is changed, nothing is opened."""
    for each in ANSWERS[version][: len(KEYS) * len(FORMS)]:
        field, tenant = each.field(), TENANTS[version][each.tenant]
        row, stored = bytes.fromhex(each.row), bytes.fromhex(each.stored)
        for position in range(len(stored)):
            altered = bytearray(stored)
            altered[position] ^= 1 << position % 8
            with pytest.raises(DecryptionError):
                field.open(tenant, bytes(altered), row)


@every_version
def test_values_can_be_opened_without_this_library(version: str) -> None:
    """What the format's documentation says is enough: AES-256-GCM, and the parts in their order."""
    by_hand = {tenant: ByHand(version, tenant) for tenant in TENANTS[version]}
    for each in ANSWERS[version]:
        hand, stored = by_hand[each.tenant], bytes.fromhex(each.stored)
        flags = stored[3]
        assert flags & 2
        end = 4 + 16 * ((flags & 1) + (flags >> 4))
        labels = (each.tenant.encode(), each.table.encode(), each.column.encode())
        row = bytes.fromhex(each.row)
        data = joined(b"tenantguard value", stored[:4], *labels, b"data", b"row", row)
        sealed = stored[end:]
        plain = AESGCM(hand.aes).decrypt(sealed[5:17], sealed[17:], data + stored[4:end])
        if flags & 4:
            plain = plain.rstrip(b"\0").removesuffix(b"\x80")
        assert KINDS[each.kind].unpack(plain) == read(each.kind, each.given)


@every_version
def test_every_form_and_key_has_a_known_answer(version: str) -> None:
    """Each type of a key, each type of a value, and each form of the header is there."""
    answers = ANSWERS[version]
    assert {each.kind for each in answers} == VALUES.keys()
    assert {bytes.fromhex(each.stored)[3] for each in answers} == {0x02, 0x03, 0x17}
    assert [[tuple(part) for part in each.key] for each in answers][: 3 * len(KEYS) : 3] == KEYS
