"""Numbers: of any size, with the digits that they had, or as IEEE 754 has them."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

from tenantguard.columns.kind import Kind, Tag, after

__all__ = ["DECIMAL", "FLOAT", "INT"]

_DOUBLE = struct.Struct(">d")
_ZERO, _NAN = _DOUBLE.pack(0.0), _DOUBLE.pack(math.nan)


def _pack_int(value: Any) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return Tag.INT + value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _unpack_int(packed: bytes) -> int:
    return int.from_bytes(after(Tag.INT, packed), "big", signed=True)


def _pack_decimal(value: Any) -> bytes:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise TypeError
    # The application's decimal context may write a small e.
    return Tag.DECIMAL + str(value).upper().encode("ascii")


def _equal_decimal(value: Any) -> bytes:
    """Return the same bytes for 1.1 and 1.10, whatever the context's precision is."""
    packed = _pack_decimal(value)
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return Tag.DECIMAL + b"0E0"
    significant = text.rstrip("0")
    shifted = exponent + len(text) - len(significant)
    return packed[:1] + f"{'-' * sign}{significant}E{shifted}".encode()


def _unpack_decimal(packed: bytes) -> Decimal:
    try:
        value = Decimal(after(Tag.DECIMAL, packed).decode("ascii"))
    except ArithmeticError:
        raise ValueError from None
    if not value.is_finite():
        raise ValueError
    return value


def _pack_float(value: Any) -> bytes:
    if not isinstance(value, float):
        value = _whole(value)
    return Tag.FLOAT + _DOUBLE.pack(value)


def _whole(value: Any) -> float:
    """Return an int as the float that is equal: type checkers take one for a float."""
    if not isinstance(value, int) or isinstance(value, bool) or float(value) != value:
        raise TypeError
    return float(value)


def _equal_float(value: Any) -> bytes:
    """Return the same bytes for both zeros, and for everything that is not a number."""
    packed = _pack_float(value)
    if value != value:  # noqa: PLR0124  (only what is not a number differs from itself)
        return Tag.FLOAT + _NAN
    return packed if value else Tag.FLOAT + _ZERO


def _unpack_float(packed: bytes) -> float:
    double = after(Tag.FLOAT, packed)
    if len(double) != _DOUBLE.size:
        raise ValueError
    value: float = _DOUBLE.unpack(double)[0]
    return value


INT = Kind("an int", int, _pack_int, _unpack_int, _pack_int)
DECIMAL = Kind("a finite Decimal", Decimal, _pack_decimal, _unpack_decimal, _equal_decimal)
FLOAT = Kind("a float", float, _pack_float, _unpack_float, _equal_float)
