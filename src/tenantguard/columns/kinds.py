"""The types of values: how each becomes bytes, and comes back. The bytes are final.

One byte says which type it is. What follows is readable without this library: UTF-8, big-endian
numbers, ISO 8601.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BOOL", "BYTES", "DATE", "DATETIME", "DECIMAL", "INT", "JSON", "STR", "UUID_", "Kind"]

_STR, _BYTES, _INT, _DECIMAL, _DATE = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
_AWARE, _NAIVE, _BOOL, _UUID, _JSON = b"\x06", b"\x07", b"\x08", b"\x09", b"\x0a"


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """A type of values.

    Attributes:
        name: What a column of it takes, for messages.
        python_type: The type of its values.
        pack: Returns a value's bytes; raises ValueError or TypeError for another type.
        unpack: Returns the value of such bytes; raises ValueError for others.
        equal: Like *pack*, but the same bytes for values that are equal; None cannot be searched.
        few: Whether there are so few values that a blind index would tell them.
    """

    name: str
    python_type: type[Any]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    equal: Callable[[Any], bytes] | None
    few: bool = False


def _after(tag: bytes, packed: bytes) -> bytes:
    if packed[:1] != tag:
        raise ValueError
    return packed[1:]


def _pack_str(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    return _STR + value.encode()


def _unpack_str(packed: bytes) -> str:
    # As `_after` does it, without the call: the most frequent type.
    if packed[:1] != _STR:
        raise ValueError
    return packed[1:].decode()


def _pack_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return _BYTES + bytes(value)


def _unpack_bytes(packed: bytes) -> bytes:
    return _after(_BYTES, packed)


def _pack_int(value: Any) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return _INT + value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _unpack_int(packed: bytes) -> int:
    return int.from_bytes(_after(_INT, packed), "big", signed=True)


def _pack_decimal(value: Any) -> bytes:
    if not isinstance(value, Decimal) or not value.is_finite():
        raise TypeError
    # The application's decimal context may write a small e.
    return _DECIMAL + str(value).upper().encode("ascii")


def _equal_decimal(value: Any) -> bytes:
    """Return the same bytes for 1.1 and 1.10, whatever the context's precision is."""
    packed = _pack_decimal(value)
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    if not text:
        return _DECIMAL + b"0E0"
    significant = text.rstrip("0")
    shifted = exponent + len(text) - len(significant)
    return packed[:1] + f"{'-' * sign}{significant}E{shifted}".encode()


def _unpack_decimal(packed: bytes) -> Decimal:
    try:
        value = Decimal(_after(_DECIMAL, packed).decode("ascii"))
    except ArithmeticError:
        raise ValueError from None
    if not value.is_finite():
        raise ValueError
    return value


def _pack_date(value: Any) -> bytes:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return _DATE + value.isoformat().encode("ascii")


def _unpack_date(packed: bytes) -> date:
    return date.fromisoformat(_after(_DATE, packed).decode("ascii"))


def _pack_datetime(value: Any) -> bytes:
    if not isinstance(value, datetime):
        raise TypeError
    if value.utcoffset() is None:
        return _NAIVE + value.replace(tzinfo=None).isoformat().encode("ascii")
    return _AWARE + value.astimezone(UTC).isoformat().encode("ascii")


def _unpack_datetime(packed: bytes) -> datetime:
    value = datetime.fromisoformat(packed[1:].decode("ascii"))
    if packed[:1] != (_NAIVE if value.tzinfo is None else _AWARE):
        raise ValueError
    return value


def _pack_bool(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise TypeError
    return _BOOL + (b"\x01" if value else b"\x00")


def _unpack_bool(packed: bytes) -> bool:
    value = _after(_BOOL, packed)
    if value not in (b"\x00", b"\x01"):
        raise ValueError
    return value == b"\x01"


def _pack_uuid(value: Any) -> bytes:
    if not isinstance(value, UUID):
        raise TypeError
    return _UUID + value.bytes


def _unpack_uuid(packed: bytes) -> UUID:
    return UUID(bytes=_after(_UUID, packed))


def _pack_json(value: Any) -> bytes:
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return _JSON + text.encode()


def _unpack_json(packed: bytes) -> Any:
    text = _after(_JSON, packed).decode()
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError from None


def _refuse_constant(_name: str) -> float:
    """Refuse NaN and the infinities, which Python takes and JSON does not have."""
    raise ValueError


STR = Kind("a str", str, _pack_str, _unpack_str, _pack_str)
BYTES = Kind("bytes", bytes, _pack_bytes, _unpack_bytes, _pack_bytes)
INT = Kind("an int", int, _pack_int, _unpack_int, _pack_int)
DECIMAL = Kind("a finite Decimal", Decimal, _pack_decimal, _unpack_decimal, _equal_decimal)
DATE = Kind("a date", date, _pack_date, _unpack_date, _pack_date)
DATETIME = Kind("a datetime", datetime, _pack_datetime, _unpack_datetime, _pack_datetime)
BOOL = Kind("a bool", bool, _pack_bool, _unpack_bool, _pack_bool, few=True)
UUID_ = Kind("a UUID", UUID, _pack_uuid, _unpack_uuid, _pack_uuid)
JSON = Kind("what JSON can hold", object, _pack_json, _unpack_json, None)
