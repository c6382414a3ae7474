"""Whatever bytes a type is given to read, there is a value that can be stored, or ValueError."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sealing import repeatable
from test_kinds import DOCUMENTS, LESS, SEVERITY, VALUES, each_kind

from tenantguard.columns import kinds


def value_or_refusal(kind: kinds.Kind, packed: bytes) -> None:
    try:
        value = kind.unpack(packed)
    except ValueError:
        return
    assert isinstance(value, kind.python_type)
    if kind in (*DOCUMENTS, kinds.DATETIME):
        # 1e999 is read as infinite, and a time that UTC does not have is read.
        return
    back = kind.unpack(kind.pack(value))
    assert back == value or back != back  # noqa: PLR0124  (only NaN differs from itself)


@each_kind
@given(packed=st.binary(max_size=60))
@repeatable
@example(packed=b"")
def test_any_bytes_are_a_value_or_refused(kind: kinds.Kind, packed: bytes) -> None:
    """Whatever the bytes are, there is a value that can be stored, or ValueError."""
    value_or_refusal(kind, packed)
    for tag in range(18):
        value_or_refusal(kind, bytes([tag]) + packed)


@each_kind
@given(data=st.data())
@LESS
def test_damaged_bytes_are_a_value_or_refused(kind: kinds.Kind, data: st.DataObject) -> None:
    """The same, close to what is stored."""
    packed = bytearray(kind.pack(data.draw(VALUES[kind])))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    value_or_refusal(kind, bytes(packed))
    value_or_refusal(kind, bytes(packed[: data.draw(st.integers(0, len(packed)))]))


@pytest.mark.parametrize(
    ("kind", "packed"),
    [
        (kinds.JSON, b"\x0a" + b"[" * 200_000),
        (kinds.JSON, b"\x0aNaN"),
        (kinds.JSON, b"\x0a[-Infinity]"),
        (kinds.JSON, b"\x0a" + b"9" * 5000),
        (kinds.DECIMAL, b"\x04NaN"),
        (kinds.DECIMAL, b"\x04-Infinity"),
        (kinds.DECIMAL, b"\x041E999999999999999999999"),
        (kinds.DATETIME, b"\x062026-01-01T00:00:00"),
        (kinds.DATETIME, b"\x072026-01-01T00:00:00+00:00"),
        (kinds.DICT, b"\x0f[]"),
        (kinds.DICT, b"\x0fnull"),
        (kinds.DICT, b"\x0a{}"),
        (kinds.LIST, b"\x10{}"),
        (kinds.LIST, b"\x10" + b"[" * 200_000),
        (kinds.FLOAT, b"\x0b" + bytes(7)),
        (kinds.FLOAT, b"\x0b" + bytes(9)),
        (kinds.TIME, b"\x0c12:00:00"),
        (kinds.TIME, b"\x0d12:00:00+00:00"),
        (kinds.TIME, b"\x0d"),
        (SEVERITY, b"\x0eGONE"),
        (kinds.BOOL, b"\x08\x02"),
        (kinds.BOOL, b"\x08"),
        (kinds.UUID_, b"\x09" + bytes(15)),
        (kinds.UUID_, b"\x09" + bytes(17)),
        (kinds.STR, b"\x01\xff"),
    ],
)
def test_what_no_value_becomes_is_refused(kind: kinds.Kind, packed: bytes) -> None:
    """Bytes that nothing is packed as are refused with ValueError alone."""
    with pytest.raises(ValueError):  # noqa: PT011
        kind.unpack(packed)
