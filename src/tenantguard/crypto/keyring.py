"""Several key-encryption keys at once, while rows move from one to the next."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.crypto.keysets import Kek

__all__ = ["Keyring", "provider_of"]


class Keyring:
    """A key-encryption key, and those before it that rows may still be wrapped by.

    New keysets are wrapped by *current*; a stored one is opened by the key that its row names.
    `tenantguard keys rewrap` brings all rows under *current*.

    Args:
        current: The key that wraps.
        previous: Keys that only open.

    Raises:
        ConfigurationError: If the keys are for different environments, or one is a keyring.
    """

    def __init__(self, current: KeyProvider, *previous: KeyProvider) -> None:
        self.current = current
        self.previous = previous
        if any(isinstance(each, Keyring) for each in (current, *previous)):
            raise ConfigurationError(
                "A Keyring holds keys, not keyrings. List the keys of the other one in this one."
            )
        if {each.environment for each in previous} - {current.environment}:
            raise ConfigurationError(
                "The keys of a Keyring are for different environments. A keyset is bound to its "
                "environment: give all keys the same environment=."
            )

    def __repr__(self) -> str:
        return f"<Keyring environment={self.environment!r}, {len(self.previous)} previous>"

    @property
    def environment(self) -> str:
        """The environment of all its keys."""
        return self.current.environment

    @property
    def uri(self) -> str:
        """What names the current key in `tenantguard_keys`."""
        return self.current.uri

    @property
    def kek(self) -> Kek:
        """The current key.

        Raises:
            ConfigurationError: If two of the keys are the same, or one's file is not usable.
        """
        _ = self.by_uri
        return self.current.kek

    @cached_property
    def by_uri(self) -> dict[str, KeyProvider]:
        """The keys by what names them, the current one first."""
        keys = {each.uri: each for each in (self.current, *self.previous)}
        if len(keys) <= len(self.previous):
            raise ConfigurationError(
                "Two keys of the Keyring are the same. Give each once, the current one first."
            )
        return keys


def provider_of(keys: KeyProvider, uri: str) -> KeyProvider | None:
    """Return what *keys* has under the name *uri*, itself or one of a keyring's."""
    if isinstance(keys, Keyring):
        return keys.by_uri.get(uri)
    return keys if keys.uri == uri else None
