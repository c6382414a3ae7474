"""Keysets with other keys than before: one added, made the primary one, or retired.

The primary key of a keyset for values seals them; of one for blind indexes it computes those of new
values. The other keys open, and find, what is there.

Tink has no keyset manager in Python: a keyset is composed from its protocol buffer. A new key
stands last, so a keyset whose last key does not seal waits for it to be made primary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import tink
from tink import aead, prf, proto_keyset_format, secret_key_access
from tink.proto import tink_pb2

from tenantguard.crypto.format import CANDIDATES
from tenantguard.crypto.keysets import open_handle, wrap_data_keyset, wrap_index_keyset

if TYPE_CHECKING:
    from collections.abc import Collection

    from tenantguard.crypto.keysets import Kek

__all__ = [
    "Stored",
    "add_key",
    "disable_keys",
    "enable_keys",
    "handle_of",
    "is_full",
    "keys_of",
    "promote_key",
]

Row = tuple[bytes, bytes]
"""A keyset, wrapped, and its check value."""


_TEMPLATES = {
    "data": aead.aead_key_templates.AES256_GCM,
    "index": prf.prf_key_templates.HMAC_SHA256,
}
_WRAPS = {"data": wrap_data_keyset, "index": wrap_index_keyset}


@dataclass(frozen=True, slots=True, repr=False)
class Stored:
    """A keyset as it is stored, and what opens it.

    Every function here raises `KeyUnavailableError` if that does not open it.
    """

    wrapped: bytes
    check: bytes
    kek: Kek
    context: bytes
    purpose: str = "data"


class Key(NamedTuple):
    """A key of a keyset: its number, as sealed values have it, and what it may do.

    Attributes:
        number: The number.
        seals: Whether it is the primary one.
        opens: Whether it is enabled.
    """

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
    """Return *stored* with a new key that is enabled and not the primary yet; None if it has one.

    Also None if it is full.
    """
    keyset = _opened(stored)
    if _waits(keyset) or _is_full(stored, keyset):
        return None
    keyset.key.append(_new_key(stored.purpose, {key.key_id for key in keyset.key}))
    return _closed(keyset, stored)


def is_full(stored: Stored) -> bool:
    """Return whether a key has to be disabled before *stored* can get another.

    It is so with two keys for blind indexes, because a search asks for two. One that waits for a
    key to become the primary one is not.
    """
    keyset = _opened(stored)
    return not _waits(keyset) and _is_full(stored, keyset)


def promote_key(stored: Stored) -> Row | None:
    """Return *stored* with its newest key as the primary one; None if it is that already."""
    keyset = _opened(stored)
    if not _waits(keyset):
        return None
    keyset.primary_key_id = keyset.key[-1].key_id
    return _closed(keyset, stored)


def disable_keys(stored: Stored, numbers: Collection[int]) -> Row | None:
    """Return *stored* whose keys *numbers* open and find nothing any more; None if none did.

    They stay in it and can be enabled again. The primary one is never disabled, and neither is one
    that waits to be it.
    """
    keyset = _opened(stored)
    kept = {keyset.primary_key_id, keyset.key[-1].key_id}
    return _set_status(keyset, stored, set(numbers) - kept, tink_pb2.DISABLED)


def enable_keys(stored: Stored) -> Row | None:
    """Return *stored* whose keys all open again; None if they do.

    Of keys for blind indexes only so many are enabled as a search asks for, the newest first.
    """
    keyset = _opened(stored)
    numbers = [key.key_id for key in keyset.key]
    if stored.purpose == "index":
        numbers = _as_many_as_are_searched(keyset)
    return _set_status(keyset, stored, numbers, tink_pb2.ENABLED)


def _set_status(keyset: Any, stored: Stored, numbers: Collection[int], status: int) -> Row | None:
    changed = [key for key in keyset.key if key.key_id in numbers and key.status != status]
    for key in changed:
        key.status = status
    return _closed(keyset, stored) if changed else None


def _is_full(stored: Stored, keyset: Any) -> bool:
    enabled = sum(key.status == tink_pb2.ENABLED for key in keyset.key)
    return stored.purpose == "index" and enabled >= CANDIDATES


def handle_of(stored: Stored) -> tink.KeysetHandle:
    """Return the keys of *stored*."""
    return open_handle(stored.purpose, stored.wrapped, stored.check, stored.kek, stored.context)


def _as_many_as_are_searched(keyset: Any) -> list[int]:
    disabled = [key.key_id for key in keyset.key if key.status != tink_pb2.ENABLED]
    free = max(0, CANDIDATES - (len(keyset.key) - len(disabled)))
    return disabled[len(disabled) - free :]


def _waits(keyset: Any) -> bool:
    return bool(keyset.key[-1].key_id != keyset.primary_key_id)


def _new_key(purpose: str, taken: Collection[int]) -> Any:
    while True:
        handle = tink.new_keyset_handle(_TEMPLATES[purpose])
        [key] = _composed(handle).key
        # Numbers are random, and a value has no more than the number of its key.
        if key.key_id not in taken:
            return key


def _opened(stored: Stored) -> Any:
    return _composed(handle_of(stored))


def _composed(handle: tink.KeysetHandle) -> Any:
    content = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
    return tink_pb2.Keyset.FromString(content)


def _closed(keyset: Any, stored: Stored) -> Row:
    content = keyset.SerializeToString()
    handle = proto_keyset_format.parse(content, secret_key_access.TOKEN)
    return _WRAPS[stored.purpose](handle, stored.kek, stored.context)
