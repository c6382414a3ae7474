"""The stored format of a value, and what is authenticated with it. Both are final.

    magic (2 bytes) | version | flags | blind index (16 bytes, if flags say so) | Tink ciphertext

The blind index stands at the same bytes in every format to come, because a generated column reads
it there. The magic is not the start of any UTF-8 text, so the database can refuse plaintext.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "HEADER_SIZE",
    "INDEX_OFFSET",
    "INDEX_SIZE",
    "MAGIC",
    "PLAIN",
    "SEARCHABLE",
    "FieldContext",
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
INDEX_OFFSET = HEADER_SIZE

_MODE = b"column"


@dataclass(frozen=True, slots=True, eq=False)
class FieldContext:
    """Which column a value belongs to, for good: its labels do not follow a rename."""

    table: str
    column: str

    def associated_data(self, tenant: bytes, header: bytes) -> bytes:
        """Return what is authenticated with each value of *tenant*; the blind index follows."""
        parts = (b"tenantguard value", header, tenant, *self._labels(), b"data", _MODE, b"")
        return _joined(*parts)

    def search_prefix(self, normalizer: str) -> bytes:
        """Return what the blind index is computed of, before the normalised value."""
        return _joined(b"tenantguard index", *self._labels(), normalizer.encode())

    def _labels(self) -> tuple[bytes, bytes]:
        return self.table.encode(), self.column.encode()


def search_input(prefix: bytes, normalized: bytes) -> bytes:
    """Return the input of the blind index's pseudorandom function."""
    return prefix + len(normalized).to_bytes(4, "big") + normalized


def keyset_context(environment: str, tenant: bytes, purpose: str) -> bytes:
    """Return what is authenticated with a wrapped keyset, so that rows cannot be exchanged."""
    return _joined(b"tenantguard keyset", _VERSION, environment.encode(), tenant, purpose.encode())


def _joined(*parts: bytes) -> bytes:
    """Return *parts*, each after its length, so that no two lists give the same bytes."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
