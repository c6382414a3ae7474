"""Padding of a plaintext before it is sealed, so that the stored length tells a range only.

ISO/IEC 7816-4: a byte 0x80, then zeros. It is authenticated with the value.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Padding", "padding_of", "to_multiple", "to_power_of_two", "unpadded"]

Padding: TypeAlias = int | Literal["pow2"]

_SMALLEST = 16
"""Bytes; powers of two begin here."""
_LARGEST = 1 << 16

_END = b"\x80"


def to_multiple(plaintext: bytes, size: int) -> bytes:
    """Return *plaintext* padded to the next multiple of *size* bytes, by one byte at least."""
    return plaintext + _END + bytes(-(len(plaintext) + 1) % size)


def to_power_of_two(plaintext: bytes) -> bytes:
    """Return *plaintext* padded to the next power of two, 16 bytes at least."""
    size = max(_SMALLEST, 1 << len(plaintext).bit_length())
    return to_multiple(plaintext, size)


def unpadded(padded: bytes) -> bytes | None:
    """Return what was padded; None if *padded* does not end as padding does."""
    plaintext, end, rest = padded.rpartition(_END)
    return plaintext if end and not rest.strip(b"\0") else None


def padding_of(padding: Padding) -> Callable[[bytes], bytes]:
    """Return what pads as *padding* says: to a multiple of so many bytes, or to a power of two.

    Raises:
        ConfigurationError: If it is neither.
    """
    if padding == "pow2":
        return to_power_of_two
    if type(padding) is not int or not 1 < padding <= _LARGEST:
        raise ConfigurationError(
            f"padding= is a number of bytes from 2 to {_LARGEST}, such as 16, of which the padded "
            "length is a multiple; or 'pow2' for the next power of two."
        )
    return partial(to_multiple, size=padding)
