"""Keys for caches that tenants share."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING
from uuid import UUID

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["CacheKeyPart", "tenant_key"]

CacheKeyPart = str | bytes | int | UUID
"""What a key may be made of: values that are the same whenever they are equal."""

_TENANT_DIGITS = 32


def tenant_key(tenant: str, parts: Iterable[CacheKeyPart]) -> str:
    """Return the key of *parts* for *tenant*: other parts or another tenant, another key.

    Raises:
        ConfigurationError: If a part is not a str, bytes, int or UUID.
    """
    digest = sha256()
    for part in parts:
        encoded = _encoded(part)
        # With its length, so that no two lists of parts are the same bytes.
        digest.update(b"%d:" % len(encoded) + encoded)
    whose = sha256(tenant.encode("utf-8", "surrogatepass")).hexdigest()
    return f"tg:{whose[:_TENANT_DIGITS]}:{digest.hexdigest()}"


def _encoded(part: CacheKeyPart) -> bytes:
    if isinstance(part, bytes):
        return b"bytes " + part
    if type(part) not in (str, int, UUID):
        raise ConfigurationError(
            "cache_key() takes str, bytes, int and UUID. Turn other values into text that is the "
            "same whenever they are equal."
        )
    return f"{type(part).__name__} {part}".encode("utf-8", "surrogatepass")
