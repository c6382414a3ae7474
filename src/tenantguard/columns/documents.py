"""What JSON can hold: any of it, an object, or an array."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from tenantguard.columns.kind import Kind, Tag, after

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DICT", "JSON", "LIST"]

_Document = TypeVar("_Document", dict[str, Any], list[Any])


def _packed(tag: bytes, value: Any) -> bytes:
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return tag + text.encode()


def _unpacked(tag: bytes, packed: bytes) -> Any:
    text = after(tag, packed).decode()
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError from None


def _refuse_constant(_name: str) -> float:
    """Refuse NaN and the infinities, which Python takes and JSON does not have."""
    raise ValueError


def _pack_json(value: Any) -> bytes:
    return _packed(Tag.JSON, value)


def _unpack_json(packed: bytes) -> Any:
    return _unpacked(Tag.JSON, packed)


def _of(
    type_: type[_Document], tag: bytes
) -> tuple[Callable[[Any], bytes], Callable[[bytes], _Document]]:
    """Return how documents of one type are packed and unpacked."""

    def pack(value: Any) -> bytes:
        if not isinstance(value, type_):
            raise TypeError
        return _packed(tag, value)

    def unpack(packed: bytes) -> _Document:
        value = _unpacked(tag, packed)
        if not isinstance(value, type_):
            raise ValueError  # noqa: TRY004  (the bytes are wrong)
        return value

    return pack, unpack


JSON = Kind("what JSON can hold", object, _pack_json, _unpack_json, None)
DICT = Kind("a dict that JSON can hold", dict, *_of(dict, Tag.DICT), None)
LIST = Kind("a list that JSON can hold", list, *_of(list, Tag.LIST), None)
