"""Signing keys: their file, and what a signature says."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import pytest

from tenantguard.crypto.signing import (
    SigningFile,
    SigningKey,
    add_signing_key,
    make_signing_file,
    promote_signing_key,
    remove_signing_key,
)
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

KEY = SigningKey("00000001", bytes(range(32)), "2026-01-01T00:00:00+00:00")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "signing.json"
    make_signing_file(path, environment="test")
    return path


def _ids(path: Path) -> list[str]:
    return list(SigningFile(path, environment="test").keys)


def test_signature_is_hmac_sha256_of_purpose_and_message() -> None:
    expected = hmac.digest(KEY.secret, b"job|message", hashlib.sha256)
    assert KEY.sign("job", b"message") == expected
    assert KEY.verifies("job", b"message", expected)


@pytest.mark.parametrize(
    ("purpose", "message"), [("other", b"message"), ("job", b"massage"), ("job", b"")]
)
def test_signature_holds_for_its_purpose_and_message_only(purpose: str, message: bytes) -> None:
    assert not KEY.verifies(purpose, message, KEY.sign("job", b"message"))


def test_another_key_does_not_verify() -> None:
    other = SigningKey("00000002", bytes(32), KEY.created)
    assert not other.verifies("job", b"message", KEY.sign("job", b"message"))


def test_file_has_one_key_that_only_its_owner_reads(path: Path) -> None:
    keys = SigningFile(path, environment="test")
    assert list(keys.keys) == [keys.primary.id]
    assert len(keys.primary.secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600


def test_rotation_adds_promotes_and_removes(path: Path) -> None:
    """A new key verifies before it signs, and an old one after it has signed."""
    (old,) = _ids(path)
    new = add_signing_key(path)
    assert _ids(path) == [old, new]
    with pytest.raises(ConfigurationError, match="This key signs"):
        remove_signing_key(path, old)
    promote_signing_key(path, new)
    assert _ids(path) == [new, old]
    remove_signing_key(path, old)
    assert _ids(path) == [new]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("change", [promote_signing_key, remove_signing_key])
def test_unknown_key_is_refused(path: Path, change: Any) -> None:
    with pytest.raises(ConfigurationError, match="no such signing key"):
        change(path, "ffffffff")


def test_existing_file_is_never_overwritten(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="never overwritten"):
        make_signing_file(path, environment="test")
    assert path.read_bytes() == before


def test_keys_of_another_environment_are_refused(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="made for the environment 'test'"):
        _ = SigningFile(path, environment="production").primary


def test_file_open_to_others_is_refused(path: Path) -> None:
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="open to others"):
        _ = SigningFile(path, environment="test").primary


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda _: "[]",
        lambda document: json.dumps({**document, "format": "other"}),
        lambda document: json.dumps({**document, "version": 2}),
        lambda document: json.dumps({**document, "keys": []}),
        lambda document: json.dumps({**document, "keys": [{**document["keys"][0], "id": "x"}]}),
        lambda document: json.dumps({**document, "keys": [{**document["keys"][0], "secret": ""}]}),
        lambda document: json.dumps({**document, "environment": "a b"}),
    ],
)
def test_damaged_file_is_refused_and_not_shown(path: Path, damage: Any) -> None:
    document = json.loads(path.read_text())
    path.write_text(damage(document))
    with pytest.raises(ConfigurationError, match="not one that") as caught:
        _ = SigningFile(path, environment="test").primary
    assert document["keys"][0]["secret"] not in repr(caught.value)


def test_repr_shows_no_secret(path: Path) -> None:
    keys = SigningFile(path, environment="test")
    shown = repr(keys) + repr(keys.primary) + repr(keys.keys)
    document = json.loads(path.read_text())
    assert document["keys"][0]["secret"] not in shown
    assert repr(keys.primary.secret) not in shown
