"""Keysets for values with other keys than before: one added, made the one that seals, or retired.

Tink has no keyset manager in Python: a keyset is composed from its protocol buffer. A new key
stands last, so a keyset whose last key does not seal waits for it to be made primary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import tink
from tink import aead, proto_keyset_format, secret_key_access
from tink.proto import tink_pb2

from tenantguard.crypto.keysets import open_data_keyset, wrap_data_keyset

if TYPE_CHECKING:
    from collections.abc import Collection

    from tenantguard.crypto.keysets import Kek

__all__ = ["Stored", "add_key", "disable_keys", "enable_keys", "keys_of", "promote_key"]

Row = tuple[bytes, bytes]
"""A keyset, wrapped, and its check value."""


class Stored(NamedTuple):
    """A data keyset as it is stored, and what opens it.

    Every function here raises `KeyUnavailableError` if that does not open it.
    """

    wrapped: bytes
    check: bytes
    kek: Kek
    context: bytes


class Key(NamedTuple):
    """A key of a keyset: its number, as the values have it, and what it may do."""

    number: int
    seals: bool
    opens: bool


def keys_of(stored: Stored) -> list[Key]:
    """Return the keys of *stored*, the oldest first."""
    keyset = _opened(stored)
    return [
        Key(key.key_id, key.key_id == keyset.primary_key_id, key.status == tink_pb2.ENABLED)
        for key in keyset.key
    ]


def add_key(stored: Stored) -> Row | None:
    """Return *stored* with a new key that opens and does not seal yet; None if it has one."""
    keyset = _opened(stored)
    if _waits(keyset):
        return None
    keyset.key.append(_new_key({key.key_id for key in keyset.key}))
    return _closed(keyset, stored)


def promote_key(stored: Stored) -> Row | None:
    """Return *stored* with its newest key as the one that seals; None if it is that already."""
    keyset = _opened(stored)
    if not _waits(keyset):
        return None
    keyset.primary_key_id = keyset.key[-1].key_id
    return _closed(keyset, stored)


def disable_keys(stored: Stored, numbers: Collection[int]) -> Row | None:
    """Return *stored* whose keys *numbers* open nothing any more; None if none did.

    They stay in it and can be enabled again. The one that seals is never disabled, and neither is
    one that waits for it.
    """
    keyset = _opened(stored)
    kept = {keyset.primary_key_id, keyset.key[-1].key_id}
    return _set_status(keyset, stored, set(numbers) - kept, tink_pb2.DISABLED)


def enable_keys(stored: Stored) -> Row | None:
    """Return *stored* whose keys all open again; None if they do."""
    keyset = _opened(stored)
    return _set_status(keyset, stored, {key.key_id for key in keyset.key}, tink_pb2.ENABLED)


def _set_status(keyset: Any, stored: Stored, numbers: Collection[int], status: int) -> Row | None:
    changed = [key for key in keyset.key if key.key_id in numbers and key.status != status]
    for key in changed:
        key.status = status
    return _closed(keyset, stored) if changed else None


def _waits(keyset: Any) -> bool:
    return bool(keyset.key[-1].key_id != keyset.primary_key_id)


def _new_key(taken: Collection[int]) -> Any:
    while True:
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
        [key] = _composed(handle).key
        # Numbers are random, and a value has no more than the number of its key.
        if key.key_id not in taken:
            return key


def _opened(stored: Stored) -> Any:
    keyset = open_data_keyset(stored.wrapped, stored.check, stored.kek, stored.context)
    return _composed(keyset.handle)


def _composed(handle: tink.KeysetHandle) -> Any:
    content = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return tink_pb2.Keyset.FromString(content)


def _closed(keyset: Any, stored: Stored) -> Row:
    content = keyset.SerializeToString()
    handle = proto_keyset_format.parse(content, secret_key_access.TOKEN)
    return wrap_data_keyset(handle, stored.kek, stored.context)
