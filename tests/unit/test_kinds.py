"""Each type of values becomes bytes and comes back; no bytes make it fail in another way."""

from __future__ import annotations

import math
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal, localcontext
from enum import Enum, Flag, IntEnum, StrEnum
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sealing import repeatable

from tenantguard.columns import kinds
from tenantguard.columns.compound_kind import compound_of
from tenantguard.columns.kind import Tag, UnknownMember
from tenantguard.columns.kinds import Kind
from tenantguard.errors import ConfigurationError


class Severity(StrEnum):
    """Its values are texts, and differ from its names."""

    MILD = "mild"
    SEVERE = "so bad"
    GRAVE = "so bad"


SEVERITY = kinds.member_of(Severity)
PAIR = compound_of(("name", "paid"), (None, None), (kinds.STR, kinds.DECIMAL))
ALL = [*(kind for kind in vars(kinds).values() if isinstance(kind, Kind)), SEVERITY, PAIR]
names = [kind.name for kind in ALL]
each_kind = pytest.mark.parametrize("kind", ALL, ids=names)

BERLIN = ZoneInfo("Europe/Berlin")
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
# Python compares times in whole seconds of their offsets.
fixed: Any = st.integers(-86_399, 86_399).map(lambda each: timezone(timedelta(seconds=each)))
times = st.one_of(st.times(), st.times(timezones=fixed), st.times(timezones=utc))
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
    kinds.FLOAT: st.floats(allow_nan=False),
    kinds.DATETIME: datetimes,
    kinds.TIME: times,
    kinds.BOOL: st.booleans(),
    kinds.UUID_: st.uuids(),
    kinds.JSON: documents,
    kinds.DICT: st.dictionaries(texts, documents, max_size=4),
    kinds.LIST: st.lists(documents, max_size=4),
    SEVERITY: st.sampled_from(Severity),
    PAIR: st.tuples(texts, decimals),
}
DOCUMENTS = (kinds.JSON, kinds.DICT, kinds.LIST)
UNLIKE = (kinds.DECIMAL, kinds.FLOAT, kinds.TIME, PAIR, *DOCUMENTS)
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
        moment = isinstance(value, datetime | time)
        assert same(back, value.replace(fold=0) if moment else value)


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
        assert kind in UNLIKE


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


@given(number=st.floats())
@repeatable
@example(number=-0.0)
@example(number=math.inf)
@example(number=-math.inf)
@example(number=5e-324)
def test_floats_come_back_with_every_bit(number: float) -> None:
    """Infinities, NaN, the sign of zero and the smallest numbers are what they were."""
    packed = kinds.FLOAT.pack(number)
    assert packed == b"\x0b" + struct.pack(">d", number)
    assert struct.pack(">d", kinds.FLOAT.unpack(packed)) == packed[1:]


def test_floats_are_found_by_their_value() -> None:
    """Both zeros are one, so is all that is not a number; an int finds the float it is equal to."""
    nan = struct.unpack(">d", b"\xff\xf8\0\0\0\0\0\x01")[0]
    for one, other in ((0.0, -0.0), (0.0, 0), (math.nan, nan), (math.nan, -math.nan), (70.0, 70)):
        assert equal(kinds.FLOAT, one) == equal(kinds.FLOAT, other)
    different = [0.0, math.nan, math.inf, -math.inf, 0.1 + 0.2, 0.3, 2.0**53]
    assert len({equal(kinds.FLOAT, each) for each in different}) == len(different)


@given(hour=st.integers(6, 17), one=st.integers(-6, 6), other=st.integers(-6, 6))
@repeatable
def test_times_are_found_in_any_offset(hour: int, one: int, other: int) -> None:
    """Two times that are equal in Python are searched alike, and keep their own offset."""
    here, there = (
        time(hour + each, 30, tzinfo=timezone(timedelta(hours=each))) for each in (one, other)
    )
    assert here == there
    assert equal(kinds.TIME, here) == equal(kinds.TIME, there)
    assert equal(kinds.TIME, here.replace(tzinfo=None)) != equal(kinds.TIME, here)
    assert kinds.TIME.unpack(kinds.TIME.pack(here)).utcoffset() == timedelta(hours=one)


def test_members_are_known_by_their_names() -> None:
    """Another name of a member reads as it and writes as its own; values play no part."""
    assert SEVERITY.pack(Severity.GRAVE) == b"\x0eSEVERE"
    assert SEVERITY.unpack(b"\x0eGRAVE") is Severity.SEVERE
    for name in (b"mild", b"GONE", b"", b"mild\0", b"__class__", b"\xff"):
        with pytest.raises(UnknownMember):
            SEVERITY.unpack(b"\x0e" + name)
    assert kinds.member_of(Severity) is SEVERITY


@pytest.mark.parametrize("enum", [Enum, str, Severity.MILD, StrEnum("Empty", []), None])
def test_what_is_no_enumeration_is_refused(enum: Any) -> None:
    """Where it is declared, not when a value is written."""
    with pytest.raises(ConfigurationError, match=r"takes a class of enum\.Enum with members"):
        kinds.member_of(enum)


def test_every_type_has_a_tag_of_its_own() -> None:
    """No two types begin with the same byte."""
    tags = [tag for tag in vars(Tag).values() if isinstance(tag, bytes)]
    assert sorted(tags) == [bytes([each]) for each in range(1, 18)]


@each_kind
@given(data=st.data())
@LESS
def test_equal_bytes_mean_equal_values(kind: Kind, data: st.DataObject) -> None:
    """Two values have the same search bytes if and only if they are equal."""
    one, other = data.draw(VALUES[kind]), data.draw(VALUES[kind])
    if kind.equal is None:
        assert kind in DOCUMENTS
    else:
        assert (kind.equal(one) == kind.equal(other)) is (one == other)


# -- what is refused ----------------------------------------------------------------------------


class Colour(IntEnum):
    RED = 1


class Right(Flag):
    READ = 1
    WRITE = 2
    SIGN = 4
    BOTH = 3


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
    (kinds.FLOAT, True),
    (kinds.FLOAT, "1.0"),
    (kinds.FLOAT, Decimal(1)),
    (kinds.FLOAT, 2**53 + 1),
    (kinds.FLOAT, 10**400),
    (kinds.DATE, datetime(2026, 1, 1, tzinfo=UTC)),
    (kinds.DATE, "2026-01-01"),
    (kinds.DATETIME, date(2026, 1, 1)),
    (kinds.DATETIME, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
    (kinds.TIME, datetime(2026, 1, 1, tzinfo=UTC)),
    (kinds.TIME, "12:00"),
    (kinds.TIME, time(12, tzinfo=BERLIN)),
    (SEVERITY, "MILD"),
    (SEVERITY, "mild"),
    (SEVERITY, Colour.RED),
    (kinds.member_of(Right), Right.READ | Right.SIGN),
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
    (kinds.DICT, [1]),
    (kinds.DICT, "{}"),
    (kinds.DICT, {"a": math.nan}),
    (kinds.LIST, {"a": 1}),
    (kinds.LIST, (1, 2)),
    (kinds.LIST, Unending()),
    (PAIR, "ab"),
    (PAIR, ("a",)),
    (PAIR, ("a", Decimal(1), "b")),
    (PAIR, (Decimal(1), "a")),
    (PAIR, ("a", None)),
    (PAIR, ["a", Decimal(1)]),
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


@pytest.mark.parametrize("right", [Right.READ, Right.READ | Right.WRITE])
def test_combinations_of_flags_that_have_a_name_are_members(right: Right) -> None:
    """A combination without one is refused."""
    kind = kinds.member_of(Right)
    assert kind.unpack(kind.pack(right)) is right
