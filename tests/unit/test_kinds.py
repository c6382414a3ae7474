"""Each type of values becomes bytes and comes back; no bytes make it fail in another way."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import IntEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sealing import repeatable

from tenantguard.columns import kinds
from tenantguard.columns.kinds import Kind

ALL = [kind for kind in vars(kinds).values() if isinstance(kind, Kind)]
names = [kind.name for kind in ALL]
each_kind = pytest.mark.parametrize("kind", ALL, ids=names)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
integers = st.one_of(
    st.integers(),
    st.integers(0, 4000).map(lambda bits: 1 << bits),
    st.integers(0, 4000).map(lambda bits: -(1 << bits)),
    st.integers(0, 4000).map(lambda bits: (1 << bits) - 1),
)
decimals = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=60),
        st.integers(-400, 400),
    ),
)
offsets: Any = st.timedeltas(timedelta(hours=-23), timedelta(hours=23)).map(timezone)
utc: Any = st.just(UTC)
within = {"min_value": datetime(2, 1, 1), "max_value": datetime(9998, 12, 31)}  # noqa: DTZ001
datetimes = st.one_of(st.datetimes(), st.datetimes(**within, timezones=offsets))
documents = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    kinds.STR: texts,
    kinds.BYTES: st.binary(max_size=80),
    kinds.INT: integers,
    kinds.DECIMAL: decimals,
    kinds.DATE: st.dates(),
    kinds.DATETIME: datetimes,
    kinds.BOOL: st.booleans(),
    kinds.UUID_: st.uuids(),
    kinds.JSON: documents,
}
LESS = settings(repeatable, max_examples=100)


def same(one: Any, other: Any) -> bool:
    """Return whether both are one value, of one type and written alike."""
    return one == other and type(one) is type(other) and str(one) == str(other)


@each_kind
@given(data=st.data())
@LESS
def test_values_come_back(kind: Kind, data: st.DataObject) -> None:
    """What is packed is unpacked as the same value, of the same type, with the same digits."""
    value = data.draw(VALUES[kind])
    back = kind.unpack(kind.pack(value))
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    if isinstance(value, dict | list):
        assert back == value
    else:
        assert same(back, value.replace(fold=0) if isinstance(value, datetime) else value)


@each_kind
@given(data=st.data())
@LESS
def test_different_values_have_different_bytes(kind: Kind, data: st.DataObject) -> None:
    """No two values are packed alike, unless they are the same."""
    one, other = data.draw(VALUES[kind]), data.draw(VALUES[kind])
    if kind.pack(one) == kind.pack(other):
        assert one == other
    elif one == other:
        # Equal and not packed alike: written differently, or JSON's 1, 1.0 and true.
        assert kind in (kinds.DECIMAL, kinds.JSON)


@given(data=st.data())
@repeatable
def test_types_do_not_share_bytes(data: st.DataObject) -> None:
    """A value of one type is no value of another."""
    one, other = data.draw(st.sampled_from(ALL)), data.draw(st.sampled_from(ALL))
    assume(one is not other)
    packed = one.pack(data.draw(VALUES[one]))
    with pytest.raises(ValueError):  # noqa: PT011  (it has no text: the value must not be in it)
        other.unpack(packed)


# -- equality -----------------------------------------------------------------------------------


def equal(kind: Kind, value: Any) -> bytes:
    assert kind.equal is not None
    return kind.equal(value)


@given(one=decimals, zeros=st.integers(0, 30), other=decimals)
@repeatable
def test_decimals_are_found_by_their_value(one: Decimal, zeros: int, other: Decimal) -> None:
    """1.1 and 1.10 are searched alike, and no two values that differ are."""
    sign, digits, exponent = one.as_tuple()
    assert isinstance(exponent, int)
    longer = Decimal((sign, digits + (0,) * zeros, exponent - zeros))
    assert longer == one
    assert equal(kinds.DECIMAL, longer) == equal(kinds.DECIMAL, one)
    assert (equal(kinds.DECIMAL, one) == equal(kinds.DECIMAL, other)) is (one == other)


@pytest.mark.parametrize("zero", ["0", "-0", "0.00", "-0E+5", "0E-999"])
def test_every_zero_is_found(zero: str) -> None:
    """Zeros are equal, whatever their sign and exponent are."""
    assert equal(kinds.DECIMAL, Decimal(zero)) == equal(kinds.DECIMAL, Decimal(0))


@pytest.mark.parametrize("text", ["12345678901234567890.123000", "1.50E+9"])
def test_decimal_context_changes_no_bytes(text: str) -> None:
    """The application's decimal context has no influence on what is stored, read or found."""
    value = Decimal(text)
    packed, found = kinds.DECIMAL.pack(value), equal(kinds.DECIMAL, value)
    with localcontext(prec=3, capitals=0):
        assert (kinds.DECIMAL.pack(value), equal(kinds.DECIMAL, value)) == (packed, found)
        back = kinds.DECIMAL.unpack(packed)
    assert str(back) == text


def test_decimal_context_hides_no_damage() -> None:
    """Bytes that are no decimal are refused also where the application traps nothing."""
    with localcontext() as context:
        context.clear_traps()
        with pytest.raises(ValueError):  # noqa: PT011
            kinds.DECIMAL.unpack(b"\x04abc")


@given(moment=st.datetimes(**within, timezones=utc), one=offsets, other=offsets)
@repeatable
def test_moments_are_found_in_any_zone(moment: datetime, one: tzinfo, other: tzinfo) -> None:
    """The same moment in two zones is searched alike; a second later is not."""
    here, there = moment.astimezone(one), moment.astimezone(other)
    assert here == there
    assert equal(kinds.DATETIME, here) == equal(kinds.DATETIME, there)
    later = there + timedelta(seconds=1)
    assert equal(kinds.DATETIME, later) != equal(kinds.DATETIME, here)
    assert equal(kinds.DATETIME, here.replace(tzinfo=None)) != equal(kinds.DATETIME, here)


@each_kind
@given(data=st.data())
@LESS
def test_equal_bytes_mean_equal_values(kind: Kind, data: st.DataObject) -> None:
    """Two values have the same search bytes if and only if they are equal."""
    one, other = data.draw(VALUES[kind]), data.draw(VALUES[kind])
    if kind.equal is None:
        assert kind is kinds.JSON
    else:
        assert (kind.equal(one) == kind.equal(other)) is (one == other)


# -- what is refused ----------------------------------------------------------------------------


class Colour(IntEnum):
    RED = 1


class Unending:
    """What a document contains that contains itself."""

    def __new__(cls) -> Any:
        document: list[Any] = []
        document.append(document)
        return document


REFUSED = [
    (kinds.STR, b"bytes"),
    (kinds.STR, 1),
    (kinds.STR, "\ud800"),
    (kinds.BYTES, "text"),
    (kinds.BYTES, 3),
    (kinds.BYTES, [1, 2]),
    (kinds.INT, True),
    (kinds.INT, 1.0),
    (kinds.INT, "1"),
    (kinds.INT, Decimal(1)),
    (kinds.DECIMAL, 1),
    (kinds.DECIMAL, 1.1),
    (kinds.DECIMAL, Decimal("NaN")),
    (kinds.DECIMAL, Decimal("sNaN")),
    (kinds.DECIMAL, Decimal("-Infinity")),
    (kinds.DATE, datetime(2026, 1, 1, tzinfo=UTC)),
    (kinds.DATE, "2026-01-01"),
    (kinds.DATETIME, date(2026, 1, 1)),
    (kinds.DATETIME, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    (kinds.BOOL, 1),
    (kinds.BOOL, "true"),
    (kinds.UUID_, str(UUID(int=1))),
    (kinds.UUID_, bytes(16)),
    (kinds.JSON, math.nan),
    (kinds.JSON, {"a": -math.inf}),
    (kinds.JSON, {"a": b"bytes"}),
    (kinds.JSON, ["\udfff"]),
    (kinds.JSON, {1: 1, "1": 2}),
    (kinds.JSON, Unending()),
]


@pytest.mark.parametrize(
    ("kind", "value"), REFUSED, ids=[f"{k.name}-{v!a:.30}" for k, v in REFUSED]
)
def test_values_of_another_type_are_refused(kind: Kind, value: Any) -> None:
    """A value is never turned into another type's, or stored so that it could not be read."""
    with pytest.raises((TypeError, ValueError, OverflowError, RecursionError)):
        kind.pack(value)


@pytest.mark.parametrize("value", [bytearray(b"ab"), memoryview(b"ab"), memoryview(b"xaxb")[1::2]])
def test_buffers_are_taken_as_bytes(value: Any) -> None:
    """A buffer comes back as bytes."""
    assert kinds.BYTES.unpack(kinds.BYTES.pack(value)) == b"ab"


def test_members_of_an_enumeration_are_their_numbers() -> None:
    """What is an int in Python is stored as one."""
    assert same(kinds.INT.unpack(kinds.INT.pack(Colour.RED)), 1)
