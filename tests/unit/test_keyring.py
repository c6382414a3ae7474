"""Several key-encryption keys: of one environment, each once, the current one first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tenantguard import ConfigurationError, KeyFile, Keyring
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.crypto.keyring import provider_of

if TYPE_CHECKING:
    from pathlib import Path


def key(directory: Path, name: str, environment: str = "test") -> KeyFile:
    path = directory / name
    make_key_file(path, environment=environment)
    return KeyFile(path, environment=environment)


def test_the_current_key_wraps_and_each_is_found(tmp_path: Path) -> None:
    """A keyring is the current key to whoever wraps; a row's key is found by its name."""
    new, old, other = (key(tmp_path, name) for name in ("new", "old", "other"))
    ring = Keyring(new, old)
    assert (ring.environment, ring.uri, ring.kek) == ("test", new.uri, new.kek)
    assert [provider_of(ring, each.uri) for each in (new, old, other)] == [new, old, None]
    assert [provider_of(new, each.uri) for each in (new, old)] == [new, None]
    assert repr(ring) == "<Keyring environment='test', 1 previous>"


def test_keys_of_two_environments_are_refused(tmp_path: Path) -> None:
    """A keyset is bound to its environment, so another one's key would open none."""
    with pytest.raises(ConfigurationError, match=r"different environments.*the same environment="):
        Keyring(key(tmp_path, "a"), key(tmp_path, "b", environment="production"))


def test_a_key_stands_there_once(tmp_path: Path) -> None:
    """The same file twice is a mistake that would hide a missing key."""
    new = key(tmp_path, "a")
    ring = Keyring(new, KeyFile(tmp_path / "a", environment="test"))
    with pytest.raises(ConfigurationError, match=r"are the same.*current one first"):
        _ = ring.kek


def test_a_previous_key_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    """Not with the first row that needs it."""
    ring = Keyring(key(tmp_path, "a"), KeyFile(tmp_path / "gone", environment="test"))
    with pytest.raises(ConfigurationError, match=r"key file"):
        _ = ring.kek


def test_keyrings_do_not_nest(tmp_path: Path) -> None:
    """Which key is the current one is read in one place."""
    ring = Keyring(key(tmp_path, "a"))
    with pytest.raises(ConfigurationError, match=r"not keyrings. List the keys"):
        Keyring(ring)
