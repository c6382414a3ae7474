"""What a type of values is, and the byte that each begins with inside of its seal. Both are final.

What follows that byte is readable without this library: UTF-8, big-endian numbers, ISO 8601, JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Kind", "Tag", "UnknownMember", "after"]


class Tag:
    """The first byte of a value, which says which type it is."""

    STR, BYTES, INT, DECIMAL, DATE = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05"
    AWARE, NAIVE, BOOL, UUID, JSON = b"\x06", b"\x07", b"\x08", b"\x09", b"\x0a"
    FLOAT, AWARE_TIME, NAIVE_TIME = b"\x0b", b"\x0c", b"\x0d"
    MEMBER, DICT, LIST, COMPOUND = b"\x0e", b"\x0f", b"\x10", b"\x11"


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
        rule: What tells the blind indexes of *equal* from those of other rules; empty if the search
            says it.
    """

    name: str
    python_type: type[Any]
    pack: Callable[[Any], bytes]
    unpack: Callable[[bytes], Any]
    equal: Callable[[Any], bytes] | None
    few: bool = False
    rule: tuple[str, ...] = ()


class UnknownMember(ValueError):  # noqa: N818  (it never leaves the package)
    """Bytes name a member that the enumeration does not have."""


def after(tag: bytes, packed: bytes) -> bytes:
    """Return what follows *tag* in *packed*.

    Raises:
        ValueError: If *packed* does not begin with it.
    """
    if packed[:1] != tag:
        raise ValueError
    return packed[1:]
