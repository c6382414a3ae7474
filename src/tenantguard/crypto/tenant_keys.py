"""One tenant's unwrapped keys, and what they do with a column's values."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.crypto.format import (
    HEADER_SIZE,
    INDEX_SIZE,
    LAYOUTS,
    PREFIX_SIZE,
    bound_to,
    search_input,
)
from tenantguard.crypto.padding import unpadded
from tenantguard.errors import (
    KeyUnavailableError,
    NotEncryptedError,
    TamperedError,
    TenantShreddedError,
    UnknownKeyError,
)

if TYPE_CHECKING:
    from tenantguard.crypto.format import FieldContext
    from tenantguard.crypto.keysets import DataKeyset, IndexKeyset

__all__ = ["TenantKeys"]


class _Associated(dict["FieldContext", bytes]):
    """What is authenticated with values of one tenant and header, by column; made when needed."""

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
    _known: dict[bytes, tuple[_Associated, int, bool, bool]] = field(
        default_factory=dict, init=False
    )

    def seal(
        self,
        context: FieldContext,
        header: bytes,
        plaintext: bytes,
        indexes: bytes = b"",
        row: bytes | None = None,
    ) -> bytes:
        """Return *plaintext* as it is stored: 37 bytes longer, and 16 for each blind index.

        Args:
            context: The column that the value belongs to.
            header: How it is stored; what *plaintext*, *indexes* and *row* are has to fit.
            plaintext: The value's bytes, padded if the header says so.
            indexes: Its blind indexes, one after the other.
            row: The bytes of the row's primary key, if the value is to open there only.

        Raises:
            KeyUnavailableError: If the tenant has no key that may seal.
            TenantShreddedError: If it was destroyed.
        """
        # Without a keyset to search with an index is no value's; it would never be found.
        data = self.data
        if data is None or not self.writable or (indexes and self.searching is None):
            raise self._unavailable()
        known = self._known.get(header) or self._format(header, context)
        authenticated = known[0][context]
        if row is not None:
            authenticated += bound_to(row)
        if indexes:
            sealed = data.encrypt(plaintext, authenticated + indexes)
            return header + indexes + data.prefix + sealed
        return header + data.prefix + data.encrypt(plaintext, authenticated)

    def open(self, context: FieldContext, stored: bytes, row: bytes | None = None) -> bytes:
        """Return the plaintext of *stored*, a value of *row* if it is bound to its row.

        Raises:
            NotEncryptedError: If it does not have the stored format.
            UnknownKeyError: If it was sealed with another tenant's key.
            TamperedError: If it was altered, or sealed for another tenant, table, column or row,
                or is bound to its row and is opened without, or the other way round.
            KeyUnavailableError: If the tenant has no key.
            TenantShreddedError: If it was destroyed.
        """
        data = self.data
        if data is None:
            raise self._unavailable()
        header = stored[:HEADER_SIZE]
        associated, end, padded, bound = self._known.get(header) or self._format(header, context)
        authenticated = associated[context]
        if bound or row is not None:
            authenticated += _place(row, context, bound=bound)
        if end != HEADER_SIZE:
            authenticated += stored[HEADER_SIZE:end]
        begin = end + PREFIX_SIZE
        decrypt = data.decrypts.get(stored[end:begin])
        if decrypt is not None:
            try:
                plaintext = decrypt(stored[begin:], authenticated)
            except data.refused:
                pass
            else:
                return _without_padding(plaintext, context) if padded else plaintext
        error = data.failure(stored[end:], context)
        if isinstance(error, UnknownKeyError):
            # Perhaps a key has been added since: the next statement asks the table again.
            self.expires = 0.0
        raise error

    def _format(self, header: bytes, context: FieldContext) -> tuple[_Associated, int, bool, bool]:
        layout = LAYOUTS.get(header)
        if layout is None:
            raise NotEncryptedError(
                f"Column {context.table}.{context.column} holds something that is not a sealed "
                "value of a format that this version knows. It was written past the column's "
                "type, or by a newer version of tenantguard."
            )
        known = _Associated(self.tenant, header), layout.end, layout.padded, layout.bound
        return self._known.setdefault(header, known)

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

    def candidates(self, prefix: bytes, normalized: bytes) -> list[bytes]:
        """Return every blind index that *normalized* can be stored with; errors as for `index`."""
        if self.searching is None:
            return [self.index(prefix, normalized)]
        return self.searching.candidates(search_input(prefix, normalized))

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


def _place(row: bytes | None, context: FieldContext, *, bound: bool) -> bytes:
    """Return what binds a value to *row*; refuse a value that is bound otherwise."""
    if row is not None and bound:
        return bound_to(row)
    name = f"{context.table}.{context.column}"
    raise TamperedError(
        f"A value of column {name} is bound to its row, and the column is not declared so. Declare "
        "it with bind='row', or look for rows that were copied or edited by hand."
        if bound
        else f"A value of column {name} is not bound to its row, as the column is declared. If it "
        "was sealed before bind='row' was added, accept it with accepts='column' until all are "
        "sealed anew; else look for rows that were copied or edited by hand."
    )


def _without_padding(padded: bytes, context: FieldContext) -> bytes:
    plaintext = unpadded(padded)
    if plaintext is None:
        raise TamperedError(
            f"A value of column {context.table}.{context.column} says that it is padded, and is "
            "not: something else than tenantguard has sealed it with the tenant's key. Restore "
            "the value from a backup, and find out who has the key."
        )
    return plaintext
