"""The stored format of a value, and what is authenticated with it. Both are final.

    magic (2 bytes) | version | flags | blind indexes (16 bytes each) | Tink ciphertext

Flags, from the lowest bit: 0 has a blind index; 1 is bound to its row; 2 is padded inside; 3 is
free; 4 to 7 are the number of further indexes. Blind indexes stand at the same bytes in every
format to come, because generated columns read them there. The magic is not the start of any UTF-8
text, so the database can refuse plaintext.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

__all__ = [
    "BOUND",
    "CANDIDATES",
    "FURTHER",
    "HEADER_SIZE",
    "INDEX_OFFSET",
    "INDEX_SIZE",
    "LAYOUTS",
    "MAGIC",
    "MAX_INDEXES",
    "PLAIN",
    "PREFIX_SIZE",
    "SEARCHABLE",
    "FieldContext",
    "Layout",
    "bound_to",
    "header_of",
    "is_bound",
    "keyset_context",
    "search_input",
]

MAGIC = b"\x9eT"
_VERSION = b"\x01"
PLAIN = MAGIC + _VERSION + b"\x00"
"""The header of a value without a blind index."""
SEARCHABLE = MAGIC + _VERSION + b"\x01"
"""The header of a value with one."""
HEADER_SIZE = 4
INDEX_SIZE = 16
CANDIDATES = 2
"""For so many of its indexes a value is looked for: so many keys for them can be enabled."""
INDEX_OFFSET = HEADER_SIZE
FURTHER = 0x10
"""What a further blind index adds to the flags."""
MAX_INDEXES = 16
PREFIX_SIZE = 5
"""A Tink ciphertext begins with so many bytes that tell its key: 0x01, and the key's number."""

BOUND = 0x02
"""What the flags of a value have that is bound to its row."""

_INDEXED, _PADDED = 0x01, 0x04


class Layout(NamedTuple):
    """How a value is stored, as its header says.

    Attributes:
        end: Where the blind indexes end and the ciphertext begins.
        padded: Whether the plaintext is padded inside of the ciphertext.
        bound: Whether the value opens in its row only.
    """

    end: int
    padded: bool
    bound: bool


@cache
def header_of(indexes: int, *, padded: bool, bound: bool = False) -> bytes:
    """Return the header of a value with that many blind *indexes*."""
    flags = _INDEXED | FURTHER * (indexes - 1) if indexes else 0
    return MAGIC + _VERSION + bytes([flags | _PADDED * padded | BOUND * bound])


def is_bound(stored: bytes) -> bool:
    """Return whether *stored* says that it is bound to its row."""
    return any(flags & BOUND for flags in stored[HEADER_SIZE - 1 : HEADER_SIZE])


LAYOUTS = {
    header_of(number, padded=padded, bound=bound): Layout(
        INDEX_OFFSET + INDEX_SIZE * number, padded, bound
    )
    for number in range(MAX_INDEXES + 1)
    for padded in (False, True)
    for bound in (False, True)
}
"""Each header that this version can read; every other is refused."""


@dataclass(frozen=True, slots=True, eq=False)
class FieldContext:
    """Which column a value belongs to, for good: its labels do not follow a rename."""

    table: str
    column: str

    def associated_data(self, tenant: bytes, header: bytes) -> bytes:
        """Return what is authenticated with each value of *tenant*; the blind indexes follow.

        If *header* says that values are bound to their rows, `bound_to` follows first.
        """
        mode = (b"row",) if header[-1] & BOUND else (b"column", b"")
        return _joined(b"tenantguard value", header, tenant, *self._labels(), b"data", *mode)

    def search_prefix(self, *rule: str) -> bytes:
        """Return what the blind index is computed of, before the normalised value.

        Args:
            rule: The normaliser with its version; of a part of the value, which part stands before
                it: `last` or `prefix`, and the number of characters.
        """
        return _joined(b"tenantguard index", *self._labels(), *(each.encode() for each in rule))

    def _labels(self) -> tuple[bytes, bytes]:
        return self.table.encode(), self.column.encode()


def bound_to(row: bytes) -> bytes:
    """Return what binds a value to *row*, the bytes of its row's primary key."""
    return len(row).to_bytes(4, "big") + row


def search_input(prefix: bytes, normalized: bytes) -> bytes:
    """Return the input of the blind index's pseudorandom function."""
    return prefix + len(normalized).to_bytes(4, "big") + normalized


def keyset_context(environment: str, tenant: bytes, purpose: str) -> bytes:
    """Return what is authenticated with a wrapped keyset, so that rows cannot be exchanged."""
    return _joined(b"tenantguard keyset", _VERSION, environment.encode(), tenant, purpose.encode())


def _joined(*parts: bytes) -> bytes:
    """Return *parts*, each after its length, so that no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
