"""The stored format of a keyset behind a service: a data key, wrapped there, and what it sealed.

    version (1 byte) | size of the wrapped key (2) | wrapped key | nonce (12) | AES-256-GCM

The associated data is authenticated with the content, whatever the service makes of its digest.
"""

from __future__ import annotations

import os
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tenantguard.errors import KeyUnavailableError
from tenantguard.kms.flights import Flights

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EnvelopeKek", "KeyService", "altered", "digest_of"]

_VERSION = b"\x01"
_BITS = 256
_NONCE_SIZE = 12
_SIZE_SIZE = 2
_START = len(_VERSION) + _SIZE_SIZE


class KeyService(Protocol):
    """Wraps and unwraps one data key by a key that it does not give away."""

    def wrap(self, key: bytes, digest: str) -> bytes:
        """Return *key*, 32 bytes, wrapped and, if the service can, bound to *digest*."""

    def unwrap(self, wrapped: bytes, digest: str) -> bytes:
        """Return the key that *wrapped* holds."""


class EnvelopeKek:
    """A key-encryption key behind a service, asked once for each keyset.

    Those who open the same keyset at the same time share one question. An event loop goes on while
    the service answers.

    Args:
        service: Makes the client of the service, when it is first needed.
    """

    def __init__(self, service: KeyService) -> None:
        self._service = service
        self._flights = Flights()

    def __repr__(self) -> str:
        return "<EnvelopeKek>"

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> bytes:
        """Return *plaintext* sealed by a data key of its own.

        Raises:
            KeyUnavailableError: If the service does not wrap the data key.
        """
        return self._flights.alone(partial(_seal, self._service, plaintext, associated_data))

    def decrypt(self, ciphertext: bytes, associated_data: bytes) -> bytes:
        """Return the plaintext of *ciphertext*.

        Raises:
            KeyUnavailableError: If the service does not unwrap the data key, or *ciphertext* was
                altered or sealed with other associated data.
        """
        work: Callable[[], bytes] = partial(_open, self._service, ciphertext, associated_data)
        return self._flights.shared((ciphertext, associated_data), work)


def digest_of(associated_data: bytes) -> str:
    """Return what a service is told of *associated_data*, 64 hexadecimal digits.

    The tenant's id is in it. Whoever reads the service's log can compute the digest of an id that
    they guess, and of no other.
    """
    return sha256(b"tenantguard key service" + associated_data).hexdigest()


def altered() -> KeyUnavailableError:
    """Return the error for a wrapped keyset that its key does not open."""
    return KeyUnavailableError(
        "A wrapped keyset does not open: the tenant's row in tenantguard_keys was altered, or "
        "belongs to another tenant, purpose or environment. Restore tenantguard_keys from its "
        "backup."
    )


def _seal(service: KeyService, plaintext: bytes, associated_data: bytes) -> bytes:
    key, nonce = AESGCM.generate_key(_BITS), os.urandom(_NONCE_SIZE)
    wrapped = service.wrap(key, digest_of(associated_data))
    head = _VERSION + len(wrapped).to_bytes(_SIZE_SIZE, "big") + wrapped
    return head + nonce + AESGCM(key).encrypt(nonce, plaintext, _bound(head, associated_data))


def _open(service: KeyService, ciphertext: bytes, associated_data: bytes) -> bytes:
    end = _START + int.from_bytes(ciphertext[len(_VERSION) : _START], "big")
    head, nonce = ciphertext[:end], ciphertext[end : end + _NONCE_SIZE]
    if not ciphertext.startswith(_VERSION) or len(nonce) < _NONCE_SIZE:
        raise KeyUnavailableError(
            "A wrapped keyset does not have the format of a key service: its row in "
            "tenantguard_keys was altered, or written by a newer version of tenantguard."
        )
    key = service.unwrap(head[_START:], digest_of(associated_data))
    try:
        content = ciphertext[end + _NONCE_SIZE :]
        return AESGCM(key).decrypt(nonce, content, _bound(head, associated_data))
    except (InvalidTag, ValueError):
        # Also a key of another size, which no service of ours has wrapped.
        pass
    raise altered()


def _bound(head: bytes, associated_data: bytes) -> bytes:
    # The head says its own size, so no two pairs give the same bytes.
    return head + associated_data
