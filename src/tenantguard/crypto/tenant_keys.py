"""One tenant's unwrapped keys, and what they do with a column's values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.crypto.format import (
    HEADER_SIZE,
    INDEX_OFFSET,
    INDEX_SIZE,
    PLAIN,
    SEARCHABLE,
    search_input,
)
from tenantguard.errors import KeyUnavailableError, NotEncryptedError, TenantShreddedError

if TYPE_CHECKING:
    from tenantguard.crypto.format import FieldContext
    from tenantguard.crypto.keysets import DataKeyset, IndexKeyset

__all__ = ["TenantKeys"]

_INDEX_END = INDEX_OFFSET + INDEX_SIZE


class _Associated(dict["FieldContext", bytes]):
    """What is authenticated with one tenant's values, by column; made when first needed."""

    __slots__ = ("_header", "_tenant")

    def __init__(self, tenant: bytes, header: bytes) -> None:
        super().__init__()
        self._tenant = tenant
        self._header = header

    def __missing__(self, context: FieldContext) -> bytes:
        self[context] = made = context.associated_data(self._tenant, self._header)
        return made


@dataclass(slots=True, repr=False, eq=False)
class TenantKeys:
    """What one tenant's values are sealed, opened and searched with.

    Attributes:
        tenant: The canonical text of the tenant's id.
        data: The keyset for values; None if the tenant has none, or it was destroyed.
        searching: The keyset for blind indexes; likewise.
        writable: Whether new values may be sealed.
        shredded: Whether a keyset was destroyed.
        expires: When to look again, by the monotonic clock in seconds.
    """

    tenant: bytes
    data: DataKeyset | None = None
    searching: IndexKeyset | None = None
    writable: bool = True
    shredded: bool = False
    expires: float = 0.0
    _plain: _Associated = field(init=False)
    _searchable: _Associated = field(init=False)

    def __post_init__(self) -> None:
        self._plain = _Associated(self.tenant, PLAIN)
        self._searchable = _Associated(self.tenant, SEARCHABLE)

    def seal(self, context: FieldContext, plaintext: bytes, index: bytes | None) -> bytes:
        """Return *plaintext* as it is stored: 37 bytes longer, 53 with the blind *index*.

        Raises:
            KeyUnavailableError: If the tenant has no key that may seal.
            TenantShreddedError: If it was destroyed.
        """
        if self.data is None or not self.writable:
            raise self._unavailable()
        if index is None:
            return PLAIN + self.data.seal(plaintext, self._plain[context])
        if self.searching is None:
            # The index is no value's; what has it would never be found.
            raise self._unavailable()
        associated = self._searchable[context] + index
        return SEARCHABLE + index + self.data.seal(plaintext, associated)

    def open(self, context: FieldContext, stored: bytes) -> bytes:
        """Return the plaintext of *stored*.

        Raises:
            NotEncryptedError: If it does not have the stored format.
            UnknownKeyError: If it was sealed with another tenant's key.
            TamperedError: If it was altered, or sealed for another tenant, table or column.
            KeyUnavailableError: If the tenant has no key.
            TenantShreddedError: If it was destroyed.
        """
        if self.data is None:
            raise self._unavailable()
        header = stored[:HEADER_SIZE]
        if header == PLAIN:
            return self.data.open(stored[HEADER_SIZE:], self._plain[context], context)
        if header == SEARCHABLE:
            associated = self._searchable[context] + stored[INDEX_OFFSET:_INDEX_END]
            return self.data.open(stored[_INDEX_END:], associated, context)
        raise NotEncryptedError(
            f"Column {context.table}.{context.column} holds something that is not a sealed value "
            "of a format that this version knows. It was written past the column's type, or by a "
            "newer version of tenantguard."
        )

    def index(self, prefix: bytes, normalized: bytes) -> bytes:
        """Return the blind index of *normalized*.

        Without a keyset nothing can have been written that is to be found: the answer then is
        16 bytes that no value has.

        Raises:
            TenantShreddedError: If the keyset was destroyed.
        """
        if self.searching is not None:
            return self.searching.compute(search_input(prefix, normalized))
        if self.shredded:
            raise self._unavailable()
        return os.urandom(INDEX_SIZE)

    def _unavailable(self) -> KeyUnavailableError | TenantShreddedError:
        if self.shredded:
            return TenantShreddedError(
                "The tenant's key was destroyed, so its encrypted fields cannot be read, written "
                "or searched any more."
            )
        if self.data is not None and not self.writable:
            return KeyUnavailableError("The tenant's key is decrypt-only; nothing new is sealed.")
        return KeyUnavailableError(
            "The tenant has no key that this transaction can see. If another transaction has just "
            "made it, try again; else the tenant's rows in tenantguard_keys were lost: restore "
            "them from a backup."
        )
