"""Keysets, by Tink, which only this module, `rotation` and `strength` import.

A tenant has one keyset to seal values (AES-256-GCM) and one for blind indexes (HMAC-SHA256 as a
pseudorandom function). Both are stored wrapped by a key-encryption key, with the tenant and the
purpose as associated data.
"""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import tink
from tink import (
    aead,
    core,
    json_proto_keyset_format,
    prf,
    proto_keyset_format,
    secret_key_access,
)

from tenantguard.crypto.format import INDEX_SIZE, PREFIX_SIZE
from tenantguard.errors import KeyUnavailableError, TamperedError, UnknownKeyError

if TYPE_CHECKING:
    from tenantguard.crypto.format import FieldContext

__all__ = [
    "DataKeyset",
    "IndexKeyset",
    "Kek",
    "new_data_keyset",
    "new_index_keyset",
    "new_kek",
    "open_data_keyset",
    "open_handle",
    "open_index_keyset",
    "read_kek",
    "rewrap",
    "wrap_data_keyset",
    "wrap_index_keyset",
]

_CHECK = b"tenantguard check"
_Keyset = TypeVar("_Keyset")
_Act = Callable[[bytes, bytes], bytes]


class Kek(Protocol):
    """A key-encryption key: Tink's AEAD, whose parameters are called so."""

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Return *plaintext* encrypted."""

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext of *ciphertext*."""


class _Keys:
    """The enabled keys of a keyset, as Tink gives them to whoever makes one primitive of them.

    Its own looks for the key anew with each value, which is a fifth of its time.
    """

    def __init__(self, found: Any) -> None:
        self.found = found


class _KeysWrapper(core.PrimitiveWrapper):  # type: ignore[misc]  # Tink has no types
    def wrap(self, pset: Any) -> _Keys:
        return _Keys(pset)

    def primitive_class(self) -> type[_Keys]:
        return _Keys

    def input_primitive_class(self) -> Any:
        return aead.Aead


aead.register()
prf.register()
core.Registry.register_primitive_wrapper(_KeysWrapper())


class DataKeyset:
    """Seals and opens one tenant's values, in Tink's format.

    Attributes:
        handle: The keys, for who composes another keyset of them.
        prefix: What a ciphertext of the key that seals begins with.
        encrypt: Returns a plaintext encrypted by that key, without the prefix, 28 bytes longer,
            given it and its associated data.
        decrypts: By their prefixes what returns the plaintext of a ciphertext without its prefix,
            given its associated data; they raise `refused`.
        refused: What is raised, whatever the reason.
    """

    __slots__ = ("decrypts", "encrypt", "handle", "prefix")

    refused: type[Exception] = tink.TinkError

    def __init__(self, handle: tink.KeysetHandle) -> None:
        self.handle = handle
        keys = handle.primitive(_Keys).found
        primary = keys.primary()
        self.prefix: bytes = primary.identifier
        self.encrypt: _Act = primary.primitive.encrypt
        self.decrypts: dict[bytes, _Act] = {
            key.identifier: key.primitive.decrypt for same in keys.all() for key in same
        }

    def seal(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Return *plaintext* encrypted, 33 bytes longer."""
        return self.prefix + self.encrypt(plaintext, associated_data)

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext of *ciphertext*; raise `refused`."""
        decrypt = self.decrypts.get(ciphertext[:PREFIX_SIZE])
        if decrypt is None:
            raise self.refused
        return decrypt(ciphertext[PREFIX_SIZE:], associated_data)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of its enabled keys, as values have them; first the one that seals."""
        # A prefix is one byte, then the key's number.
        prefixes = dict.fromkeys((self.prefix, *self.decrypts))
        return tuple(int.from_bytes(each[1:], "big") for each in prefixes)

    def failure(self, ciphertext: bytes, column: FieldContext) -> TamperedError | UnknownKeyError:
        """Return why *ciphertext*, a value of *column*, could not be decrypted.

        Returns:
            UnknownKeyError: If its key is not in this keyset.
            TamperedError: If it was altered, or sealed with other associated data.
        """
        name = f"column {column.table}.{column.column}"
        # Tink has one error for every cause; the prefix tells them apart.
        if ciphertext[:PREFIX_SIZE] in self.decrypts:
            return TamperedError(
                f"A value of {name} could not be opened: it was altered, or sealed for another "
                "tenant, table, column or row. Look for rows that were copied or edited by hand; "
                "if a table or column was renamed, give the column its old names as label=."
            )
        return UnknownKeyError(
            f"A value of {name} was sealed with a key that the tenant's keyset does not have: it "
            "belongs to another tenant, tenantguard_keys was restored from another time than the "
            "rows, or the key was retired: `tenantguard keys retire --undo` enables it again."
        )


class IndexKeyset:
    """Computes one tenant's blind indexes."""

    __slots__ = ("_others", "_prf")

    def __init__(self, handle: tink.KeysetHandle) -> None:
        keys = handle.primitive(prf.PrfSet)
        self._prf = keys.primary()
        primary = keys.primary_id()
        self._others = tuple(key for number, key in keys.all().items() if number != primary)

    def compute(self, data: bytes) -> bytes:
        """Return 16 bytes that only this keyset can tell from random ones."""
        index: bytes = self._prf.compute(data, INDEX_SIZE)
        return index

    def candidates(self, data: bytes) -> list[bytes]:
        """Return what each enabled key computes; first what `compute` does."""
        return [self.compute(data), *(each.compute(data, INDEX_SIZE) for each in self._others)]

    @property
    def rotating(self) -> bool:
        """Whether values can have an index that `compute` would not give them."""
        return bool(self._others)


def new_data_keyset(kek: Kek, context: bytes) -> tuple[bytes, bytes]:
    """Return a new keyset for values, wrapped, and its check value."""
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    return wrap_data_keyset(handle, kek, context)


def wrap_data_keyset(handle: tink.KeysetHandle, kek: Kek, context: bytes) -> tuple[bytes, bytes]:
    """Return a keyset for values, wrapped, and its check value."""
    return _wrapped(handle, kek, context), DataKeyset(handle).seal(_CHECK, context)


def new_index_keyset(kek: Kek, context: bytes) -> tuple[bytes, bytes]:
    """Return a new keyset for blind indexes, wrapped, and its check value."""
    handle = tink.new_keyset_handle(prf.prf_key_templates.HMAC_SHA256)
    return wrap_index_keyset(handle, kek, context)


def wrap_index_keyset(handle: tink.KeysetHandle, kek: Kek, context: bytes) -> tuple[bytes, bytes]:
    """Return a keyset for blind indexes, wrapped, and its check value."""
    return _wrapped(handle, kek, context), IndexKeyset(handle).compute(_CHECK)


def open_data_keyset(wrapped: bytes, check: bytes, kek: Kek, context: bytes) -> DataKeyset:
    """Return the unwrapped keyset.

    Raises:
        KeyUnavailableError: If the row was altered or is another's, or the key differs.
    """
    keyset = _unwrapped(DataKeyset, wrapped, kek, context)
    try:
        same = keyset.decrypt(check, context) == _CHECK
    except keyset.refused:
        same = False
    return _checked(keyset, same=same)


def open_index_keyset(wrapped: bytes, check: bytes, kek: Kek, context: bytes) -> IndexKeyset:
    """Return the unwrapped keyset.

    Raises:
        KeyUnavailableError: If the row was altered or is another's, or the key differs.
    """
    keyset = _unwrapped(IndexKeyset, wrapped, kek, context)
    return _checked(keyset, same=compare_digest(keyset.compute(_CHECK), check))


def rewrap(
    purpose: str, wrapped: bytes, check: bytes, context: bytes, *, old: Kek, new: Kek
) -> tuple[bytes, bytes]:
    """Return a keyset that *old* has wrapped, wrapped by *new*, and its check value.

    Raises:
        KeyUnavailableError: If the row was altered or is another's, or *old* differs.
    """
    return _wrapped(open_handle(purpose, wrapped, check, old, context), new, context), check


def open_handle(
    purpose: str, wrapped: bytes, check: bytes, kek: Kek, context: bytes
) -> tink.KeysetHandle:
    """Return the keys of a keyset.

    Raises:
        KeyUnavailableError: If the row was altered or is another's, or the key differs.
    """
    if purpose == "data":
        return open_data_keyset(wrapped, check, kek, context).handle
    handle, keyset = _unwrapped(_searching, wrapped, kek, context)
    _checked(keyset, same=compare_digest(keyset.compute(_CHECK), check))
    return handle


def new_kek() -> str:
    """Return a new key-encryption key as Tink's JSON, in the clear."""
    handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    return cast("str", json_proto_keyset_format.serialize(handle, secret_key_access.TOKEN))


def read_kek(keyset: str) -> Kek:
    """Return the key-encryption key that *keyset*, Tink's JSON, holds.

    Raises:
        KeyUnavailableError: If it holds none.
    """
    try:
        handle = json_proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
        return cast("Kek", handle.primitive(aead.Aead))
    except tink.TinkError:
        # Without the cause: its text could quote the key.
        unreadable = "The key file holds no key that Tink can read. Restore it from its backup."
        raise KeyUnavailableError(unreadable) from None


def _wrapped(handle: tink.KeysetHandle, kek: Kek, context: bytes) -> bytes:
    return cast("bytes", proto_keyset_format.serialize_encrypted(handle, kek, context))


def _unwrapped(
    made: Callable[[tink.KeysetHandle], _Keyset], wrapped: bytes, kek: Kek, context: bytes
) -> _Keyset:
    try:
        return made(proto_keyset_format.parse_encrypted(wrapped, kek, context))
    except tink.TinkError:
        raise _unusable() from None


def _searching(handle: tink.KeysetHandle) -> tuple[tink.KeysetHandle, IndexKeyset]:
    return handle, IndexKeyset(handle)


def _checked(keyset: _Keyset, *, same: bool) -> _Keyset:
    if not same:
        raise _unusable()
    return keyset


def _unusable() -> KeyUnavailableError:
    return KeyUnavailableError(
        "The tenant's row in tenantguard_keys was altered, or belongs to another tenant or "
        "purpose. Restore tenantguard_keys from its backup."
    )
