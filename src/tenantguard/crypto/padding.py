"""Padding of a plaintext before it is sealed, so that the stored length tells a range only.

ISO/IEC 7816-4: a byte 0x80, then zeros. It is authenticated with the value.
"""

from __future__ import annotations

__all__ = ["SMALLEST", "to_multiple", "to_power_of_two", "unpadded"]

SMALLEST = 16
"""Bytes; powers of two begin here."""

_END = b"\x80"


def to_multiple(plaintext: bytes, size: int) -> bytes:
    """Return *plaintext* padded to the next multiple of *size* bytes, by one byte at least."""
    return plaintext + _END + bytes(-(len(plaintext) + 1) % size)


def to_power_of_two(plaintext: bytes) -> bytes:
    """Return *plaintext* padded to the next power of two, 16 bytes at least."""
    size = max(SMALLEST, 1 << len(plaintext).bit_length())
    return to_multiple(plaintext, size)


def unpadded(padded: bytes) -> bytes | None:
    """Return what was padded; None if *padded* does not end as padding does."""
    plaintext, end, rest = padded.rpartition(_END)
    return plaintext if end and not rest.strip(b"\0") else None
