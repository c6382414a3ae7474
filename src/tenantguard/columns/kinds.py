"""The types of values: how each becomes bytes, and comes back. The bytes are final."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tenantguard.columns.documents import DICT, JSON, LIST
from tenantguard.columns.kind import Kind, Tag, after
from tenantguard.columns.members import member_of
from tenantguard.columns.moments import DATE, DATETIME, TIME
from tenantguard.columns.numbers import DECIMAL, FLOAT, INT

__all__ = [
    "BOOL",
    "BYTES",
    "DATE",
    "DATETIME",
    "DECIMAL",
    "DICT",
    "FLOAT",
    "INT",
    "JSON",
    "LIST",
    "STR",
    "TIME",
    "UUID_",
    "Kind",
    "member_of",
]

_STR, _BYTES, _BOOL, _UUID = Tag.STR, Tag.BYTES, Tag.BOOL, Tag.UUID


def _pack_str(value: Any) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    return _STR + value.encode()


def _unpack_str(packed: bytes) -> str:
    # As `after` does it, without the call: the most frequent type.
    if packed[:1] != _STR:
        raise ValueError
    return packed[1:].decode()


def _pack_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError
    return _BYTES + bytes(value)


def _unpack_bytes(packed: bytes) -> bytes:
    return after(_BYTES, packed)


def _pack_bool(value: Any) -> bytes:
    if not isinstance(value, bool):
        raise TypeError
    return _BOOL + (b"\x01" if value else b"\x00")


def _unpack_bool(packed: bytes) -> bool:
    value = after(_BOOL, packed)
    if value not in (b"\x00", b"\x01"):
        raise ValueError
    return value == b"\x01"


def _pack_uuid(value: Any) -> bytes:
    if not isinstance(value, UUID):
        raise TypeError
    return _UUID + value.bytes


def _unpack_uuid(packed: bytes) -> UUID:
    return UUID(bytes=after(_UUID, packed))


STR = Kind("a str", str, _pack_str, _unpack_str, _pack_str)
BYTES = Kind("bytes", bytes, _pack_bytes, _unpack_bytes, _pack_bytes)
BOOL = Kind("a bool", bool, _pack_bool, _unpack_bool, _pack_bool, few=True)
UUID_ = Kind("a UUID", UUID, _pack_uuid, _unpack_uuid, _pack_uuid)
