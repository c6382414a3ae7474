"""The stored format: whatever is stored, it is the value that was sealed, or a typed error."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from sealing import exact, field_of, new_keys, padded_field, repeatable
from test_kinds import ALL, PAIR, SEVERITY, VALUES, Severity, each_kind

from tenantguard.columns import kinds
from tenantguard.columns.search import Exact, Last, Prefix
from tenantguard.crypto.format import (
    HEADER_SIZE,
    INDEX_OFFSET,
    INDEX_SIZE,
    LAYOUTS,
    MAGIC,
    MAX_INDEXES,
    PLAIN,
    SEARCHABLE,
    FieldContext,
    _joined,
    header_of,
    keyset_context,
    search_input,
)
from tenantguard.crypto.padding import to_multiple
from tenantguard.crypto.tenant_keys import TenantKeys
from tenantguard.errors import (
    DecryptionError,
    NotEncryptedError,
    TamperedError,
    UnknownKeyError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.columns.field import Field
    from tenantguard.columns.search import Searches

KEYS, OTHERS = new_keys("a"), new_keys("b")
PAD = partial(to_multiple, size=16)
CONTEXT = FieldContext("patients", "name")
EXAMPLES: dict[kinds.Kind, Any] = {
    kinds.STR: "",
    kinds.BYTES: SEARCHABLE + bytes(60),
    kinds.INT: 2**64,
    kinds.DECIMAL: Decimal("1.10"),
    kinds.DATE: date(2026, 11, 22),
    kinds.FLOAT: 0.1,
    kinds.DATETIME: datetime(2026, 11, 22, tzinfo=UTC),
    kinds.TIME: time(12, 30, tzinfo=UTC),
    kinds.BOOL: True,
    kinds.UUID_: UUID(int=1),
    kinds.JSON: {"a": [1]},
    kinds.DICT: {"a": [1]},
    kinds.LIST: [{"a": 1}],
    PAIR: ("x", Decimal("1.10")),
    SEVERITY: Severity.MILD,
}
BOUND = header_of(0, padded=False, bound=True)
HEADERS = (PLAIN, SEARCHABLE, *(header_of(number, padded=True) for number in (0, 1, MAX_INDEXES)))
SEVERAL: Searches = [Last(4, normalize="digits"), Exact(), Prefix(3, normalize="nfc-casefold")]
FIELDS = [
    *(field_of(kind, search) for kind in ALL for search in (None, exact(kind))),
    *(padded_field(kind, padding) for kind in ALL for padding in (16, "pow2")),
    field_of(kinds.STR, SEVERAL),
    padded_field(kinds.STR, 16, SEVERAL),
]
parts = st.lists(st.binary(max_size=12), max_size=5)
labels = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
tenants = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6).map(str.encode)


# -- opening ------------------------------------------------------------------------------------


@given(stored=st.binary(max_size=120))
@repeatable
@example(stored=b"")
@example(stored=PLAIN)
@example(stored=SEARCHABLE)
@example(stored=SEARCHABLE + bytes(INDEX_SIZE))
def test_any_bytes_are_refused(stored: bytes) -> None:
    """What was never sealed is refused with an error of its own, after each header too."""
    for header in (b"", MAGIC, PLAIN[:3], *HEADERS):
        for field in (FIELDS[0], FIELDS[-1]):
            with pytest.raises(DecryptionError):
                field.open(KEYS, header + stored)
        for row in (None, b"row"):
            with pytest.raises((NotEncryptedError, TamperedError, UnknownKeyError)):
                KEYS.open(CONTEXT, header + stored, row)


@st.composite
def mutations(draw: Any, stored: bytes) -> bytes:
    """Real bytes with some changed, removed, added, doubled or exchanged."""
    position = draw(st.integers(0, len(stored)))
    end = draw(st.integers(position, len(stored)))
    kept, cut, rest = stored[:position], stored[position:end], stored[end:]
    other = draw(st.one_of(st.binary(max_size=20), st.just(cut * 2), st.just(cut[::-1])))
    return bytes(kept + other + rest)


@given(data=st.data())
@repeatable
def test_changed_values_are_refused(data: st.DataObject) -> None:
    """A real value that was changed is refused, or it is the same bytes."""
    field = data.draw(st.sampled_from(FIELDS))
    value = data.draw(VALUES[field.kind])
    stored = field.seal(KEYS, value)
    changed = data.draw(mutations(stored))
    if changed == stored:
        assert field.open(KEYS, changed) == value
        return
    with pytest.raises(DecryptionError):
        field.open(KEYS, changed)


@each_kind
def test_every_truncation_and_extension_is_refused(kind: kinds.Kind) -> None:
    """A value that lacks an end or a beginning, or has one too many, is refused."""
    for field in (each for each in FIELDS if each.kind is kind):
        stored = field.seal(KEYS, EXAMPLES[kind])
        for size in range(len(stored)):
            for shorter in (stored[:size], stored[-size:] if size else b""):
                with pytest.raises(DecryptionError):
                    field.open(KEYS, shorter)
        for longer in (stored + b"\0", b"\0" + stored, stored * 2):
            with pytest.raises(DecryptionError):
                field.open(KEYS, longer)


@given(one=st.binary(max_size=30), other=st.binary(max_size=30))
@repeatable
def test_parts_of_two_values_are_no_value(one: bytes, other: bytes) -> None:
    """One value's header, index or ciphertext with another's rest is refused."""
    assume(one != other)
    field = field_of(kinds.BYTES, Exact())
    first, second = field.seal(KEYS, one), field.seal(KEYS, other)
    plain = field_of(kinds.BYTES).seal(KEYS, one)
    end = INDEX_OFFSET + INDEX_SIZE
    for mixed in (
        second[:end] + first[end:],
        first[: end + 17] + second[end + 17 :],
        PLAIN + first[end:],
        first[:end] + plain[INDEX_OFFSET:],
    ):
        with pytest.raises(DecryptionError):
            field.open(KEYS, mixed)


@given(data=st.data())
@repeatable
def test_sealed_values_open(data: st.DataObject) -> None:
    """What is sealed opens, and not for another tenant or column."""
    field = data.draw(st.sampled_from(FIELDS))
    value = data.draw(VALUES[field.kind])
    stored = field.seal(KEYS, value)
    assert field.open(KEYS, stored) == value
    assert stored != field.seal(KEYS, value)
    with pytest.raises(UnknownKeyError):
        field.open(OTHERS, stored)
    moved = field_of(field.kind, field.search, column="city")
    with pytest.raises(TamperedError):
        moved.open(KEYS, stored)
    same_key = TenantKeys(b"c", data=KEYS.data, searching=KEYS.searching)
    with pytest.raises(TamperedError):
        field.open(same_key, stored)


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: f"{field.kind.name}-{field.header[3]}")
def test_value_of_another_place_is_refused(field: Field) -> None:
    """Whatever type it is: another column, table, tenant or type, and any bit that was changed."""
    stored = field.seal(KEYS, EXAMPLES[field.kind])
    same_key = TenantKeys(b"c", data=KEYS.data, searching=KEYS.searching)
    for keys, table, column, error in (
        (KEYS, "patients", "city", TamperedError),
        (KEYS, "doctors", "name", TamperedError),
        (same_key, "patients", "name", TamperedError),
        (OTHERS, "patients", "name", UnknownKeyError),
    ):
        place = field.copy()
        place.attach(table, column)
        with pytest.raises(error):
            place.open(keys, stored)
    for kind in ALL:
        if kind is not field.kind:
            with pytest.raises(DecryptionError, match="another type"):
                field_of(kind).open(KEYS, stored)
    for position in range(len(stored)):
        for bit in range(8) if position < HEADER_SIZE else (position % 8,):
            changed = bytearray(stored)
            changed[position] ^= 1 << bit
            with pytest.raises(DecryptionError):
                field.open(KEYS, bytes(changed))


def test_magic_begins_no_text() -> None:
    """No text in UTF-8 begins as a sealed value does, hence the database can refuse plaintext."""
    for rest in (b"", b"\x80\x80", b"abc"):
        with pytest.raises(UnicodeDecodeError):
            (MAGIC + rest).decode()


# Bit 3 is not known, and further indexes need a first.
def sealed(
    plaintext: bytes,
    indexes: bytes = b"",
    pad: Callable[[bytes], bytes] | None = None,
    row: bytes | None = None,
) -> bytes:
    number = len(indexes) // INDEX_SIZE
    header = header_of(number, padded=pad is not None, bound=row is not None)
    return KEYS.seal(CONTEXT, header, pad(plaintext) if pad else plaintext, indexes, row)


UNKNOWN = [flags for flags in range(256) if flags & 0x08 or (flags & 0xF0 and not flags & 1)]


@pytest.mark.parametrize(
    "header",
    [MAGIC + b"\x00\x00", MAGIC + b"\x02\x00", *(PLAIN[:3] + bytes([each]) for each in UNKNOWN)],
    ids=bytes.hex,
)
def test_unknown_versions_and_flags_are_refused(header: bytes) -> None:
    """A format to come is not taken for today's."""
    for indexes, pad in ((b"", None), (bytes(INDEX_SIZE * MAX_INDEXES), PAD)):
        stored = sealed(b"\x01Anna", indexes, pad)
        with pytest.raises(NotEncryptedError, match=r"patients\.name .*newer version"):
            KEYS.open(CONTEXT, header + stored[4:])


def test_every_header_is_readable_or_unknown() -> None:
    """The flags that are read are 17 numbers of indexes, padded or not, and bound or not."""
    readable = {header[-1] for header in LAYOUTS}
    assert readable.isdisjoint(UNKNOWN)
    assert len(readable) == 4 * (MAX_INDEXES + 1) == 256 - len(UNKNOWN)
    assert (header_of(0, padded=False), header_of(1, padded=False)) == (PLAIN, SEARCHABLE)


@given(data=st.data())
@repeatable
def test_values_with_further_indexes_and_padding_open(data: st.DataObject) -> None:
    """As many indexes as fit, and padding, are read back; the header says how many there are."""
    number, plain = data.draw(st.integers(0, MAX_INDEXES)), data.draw(st.binary(max_size=40))
    indexes = data.draw(st.binary(min_size=INDEX_SIZE * number, max_size=INDEX_SIZE * number))
    pad = data.draw(st.sampled_from([None, PAD]))
    row = data.draw(st.one_of(st.none(), st.binary(max_size=20)))
    stored = sealed(plain, indexes, pad, row)
    assert KEYS.open(CONTEXT, stored, row) == plain
    assert stored[HEADER_SIZE:].startswith(indexes)
    layout = HEADER_SIZE + len(indexes), pad is not None, row is not None
    assert LAYOUTS[stored[:HEADER_SIZE]] == layout
    changed = data.draw(mutations(stored))
    if changed != stored:
        with pytest.raises(DecryptionError):
            KEYS.open(CONTEXT, changed, row)


@given(row=st.binary(max_size=20), other=st.one_of(st.none(), st.binary(max_size=20)))
@repeatable
@example(row=b"", other=None)
@example(row=b"", other=b"\0\0\0\0")
def test_value_opens_in_its_row_only(row: bytes, other: bytes | None) -> None:
    """A value that is bound to its row opens neither in another nor without one."""
    for indexes, pad in ((b"", None), (bytes(INDEX_SIZE), None), (bytes(2 * INDEX_SIZE), PAD)):
        stored = sealed(b"\x01Anna", indexes, pad, row)
        assert KEYS.open(CONTEXT, stored, row) == b"\x01Anna"
        if other != row:
            with pytest.raises(TamperedError):
                KEYS.open(CONTEXT, stored, other)
    with pytest.raises(TamperedError, match=r"patients\.name is bound to its row, and the column"):
        KEYS.open(CONTEXT, stored)
    with pytest.raises(TamperedError, match=r"patients\.name is not bound to its row, as the"):
        KEYS.open(CONTEXT, sealed(b"\x01Anna"), row)


@pytest.mark.parametrize("other", LAYOUTS, ids=bytes.hex)
def test_header_is_authenticated(other: bytes) -> None:
    """A value whose flags were changed, with indexes added or taken away, does not open."""
    plain, index = PAD(b"\x01Anna"), bytes(INDEX_SIZE)
    for number, pad, row in ((0, None, None), (2, None, b"1"), (2, PAD, None)):
        stored = sealed(plain, index * number, pad, row)
        begin, end = LAYOUTS[stored[:HEADER_SIZE]].end, LAYOUTS[other].end
        moved = other + index * ((end - HEADER_SIZE) // INDEX_SIZE) + stored[begin:]
        if moved != stored:
            for place in (row, b"1", None):
                with pytest.raises(TamperedError):
                    KEYS.open(CONTEXT, moved, place)


def test_wrong_padding_is_refused() -> None:
    """Authentic bytes that are not padded as they say are an error of their own."""
    for wrong in (b"", b"\x01Anna", b"\x01Anna\x80\x00\x01", bytes(16)):
        # The padding of nothing, added as it is.
        stored = sealed(b"", b"", wrong.__add__)
        with pytest.raises(TamperedError, match=r"patients\.name says that it is padded, and is"):
            KEYS.open(CONTEXT, stored)


# -- what is authenticated ----------------------------------------------------------------------


@given(one=parts)
@repeatable
@example(one=[])
@example(one=[b""])
@example(one=[b"\0\0\0\1a"])
def test_parts_can_be_read_back(one: list[bytes]) -> None:
    """The encoding of a list names that list alone, because the list can be read from it."""
    encoded, read = _joined(*one), []
    while encoded:
        size = int.from_bytes(encoded[:4], "big")
        read.append(encoded[4 : 4 + size])
        encoded = encoded[4 + size :]
    assert read == one


@given(one=parts, other=parts)
@repeatable
def test_no_list_begins_another_of_its_length(one: list[bytes], other: list[bytes]) -> None:
    """What follows a list, such as the blind index, is never taken for a part of it."""
    if len(one) == len(other) and one != other:
        assert not _joined(*one).startswith(_joined(*other))


@given(data=st.data())
@repeatable
def test_associated_data_names_one_place(data: st.DataObject) -> None:
    """Another tenant, table, column or header gives other associated data."""
    place = st.tuples(labels, labels, tenants, st.sampled_from([PLAIN, SEARCHABLE, BOUND]))
    one, other = data.draw(place), data.draw(place)
    first, second = (
        FieldContext(table, column).associated_data(tenant, header)
        for table, column, tenant, header in (one, other)
    )
    assert (first == second) is (one == other)


@given(data=st.data())
@repeatable
def test_blind_index_input_names_one_value(data: st.DataObject) -> None:
    """Another column, normaliser or value gives another input of the blind index."""
    question = st.tuples(labels, labels, labels, st.binary(max_size=8))
    one, other = data.draw(question), data.draw(question)
    first, second = (
        search_input(FieldContext(table, column).search_prefix(named), value)
        for table, column, named, value in (one, other)
    )
    assert (first == second) is (one == other)


@given(data=st.data())
@repeatable
def test_keyset_context_names_one_row(data: st.DataObject) -> None:
    """Another environment, tenant or purpose gives another context of a wrapped keyset."""
    row = st.tuples(labels, tenants, labels)
    one, other = data.draw(row), data.draw(row)
    assert (keyset_context(*one) == keyset_context(*other)) is (one == other)
