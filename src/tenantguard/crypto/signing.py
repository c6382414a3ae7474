"""Keys that sign what the application says in a tenant's name: to PostgreSQL, and to its workers.

A signature is HMAC-SHA256 over `PURPOSE|message`; a purpose has no `|`, so that nothing signed for
one purpose is taken for another.
"""

from __future__ import annotations

import json
import re
import secrets
from base64 import b64decode, b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from tenantguard.crypto.secret_file import LABEL, read_secret, replace, require_label, write_new
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    import os

__all__ = [
    "SigningFile",
    "SigningKey",
    "add_signing_key",
    "make_signing_file",
    "promote_signing_key",
    "read_signing_file",
    "remove_signing_key",
]

_FORMAT = "tenantguard signing keys"
_ID = re.compile(r"[0-9a-f]{8}")
_BYTES = 32
_MISSING = "`tenantguard keys signing init` makes one."


@dataclass(frozen=True, slots=True, repr=False)
class SigningKey:
    """One key.

    Attributes:
        id: What names the key beside a signature: eight hexadecimal digits, not a secret.
        secret: The key itself, 32 bytes.
        created: When it was made, in UTC.
    """

    id: str
    secret: bytes
    created: str

    def __repr__(self) -> str:
        return f"<SigningKey {self.id}>"

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Return the signature of *message* for *purpose*, 32 bytes."""
        return self._hmac(purpose, message).finalize()

    def verifies(self, purpose: str, message: bytes, signature: bytes) -> bool:
        """Return whether *signature* is this key's of *message* for *purpose*."""
        try:
            self._hmac(purpose, message).verify(signature)
        except InvalidSignature:
            return False
        return True

    def _hmac(self, purpose: str, message: bytes) -> HMAC:
        mac = HMAC(self.secret, SHA256())
        mac.update(f"{purpose}|".encode() + message)
        return mac


class SigningFile:
    """The signing keys that `tenantguard keys signing init` has written.

    The first key signs; each of them verifies. The file is read once.

    Args:
        path: The file; refused if anybody but its owner can read or write it.
        environment: Where the application runs; keys made for another environment are refused.
    """

    def __init__(self, path: str | os.PathLike[str], *, environment: str) -> None:
        self._path = Path(path)
        self.environment = environment

    def __repr__(self) -> str:
        return f"<SigningFile environment={self.environment!r}>"

    @property
    def primary(self) -> SigningKey:
        """The key that signs.

        Raises:
            ConfigurationError: As for `keys`.
        """
        return next(iter(self.keys.values()))

    @cached_property
    def keys(self) -> dict[str, SigningKey]:
        """Every key by its id, the one that signs first.

        Raises:
            ConfigurationError: If the file is missing, open to others, not a file of signing keys,
                or made for another environment.
        """
        environment, keys = _read(self._path)
        if environment != self.environment:
            raise ConfigurationError(
                f"The signing keys were made for the environment {environment!r}, and the "
                f"application runs in {self.environment!r}. Give each environment its own."
            )
        return keys


def make_signing_file(path: Path, *, environment: str) -> str:
    """Write a new signing key to *path*, which must not exist; return the key's id.

    Raises:
        ConfigurationError: If *path* exists, cannot be written, or *environment* is not a label.
    """
    require_label(environment)
    key = _new_key()
    write_new(Path(path), _document(environment, [key]))
    return key.id


def read_signing_file(path: Path) -> tuple[str, dict[str, SigningKey]]:
    """Return the environment of the file and its keys by id, the one that signs first.

    Raises:
        ConfigurationError: If the file is missing, open to others, or not a file of signing keys.
    """
    return _read(path)


def add_signing_key(path: Path) -> str:
    """Add a new key to the file, one that verifies and does not sign yet; return its id.

    Raises:
        ConfigurationError: If the file cannot be read or written.
    """
    environment, keys = _read(path)
    key = _new_key()
    replace(path, _document(environment, [*keys.values(), key]))
    return key.id


def promote_signing_key(path: Path, key: str) -> None:
    """Let *key*, named by its id, sign from now on; the others go on verifying.

    Raises:
        ConfigurationError: If the file does not have it, or cannot be read or written.
    """
    environment, keys = _read(path)
    first = _named(keys, key)
    others = [each for each in keys.values() if each is not first]
    replace(path, _document(environment, [first, *others]))


def remove_signing_key(path: Path, key: str) -> None:
    """Take *key*, named by its id, out of the file; what it signed is no longer believed.

    Raises:
        ConfigurationError: If it is the one that signs, or as for `promote_signing_key`.
    """
    environment, keys = _read(path)
    gone = _named(keys, key)
    kept = [each for each in keys.values() if each is not gone]
    if next(iter(keys.values())) is gone:
        raise ConfigurationError(
            "This key signs. Let another one sign first: `tenantguard keys signing promote`."
        )
    replace(path, _document(environment, kept))


def _named(keys: dict[str, SigningKey], key: str) -> SigningKey:
    found = keys.get(key)
    if found is None:
        raise ConfigurationError(
            "The file has no such signing key. `tenantguard keys signing list` names those it has."
        )
    return found


def _new_key() -> SigningKey:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return SigningKey(secrets.token_hex(4), secrets.token_bytes(_BYTES), created)


def _document(environment: str, keys: list[SigningKey]) -> str:
    document = {
        "format": _FORMAT,
        "version": 1,
        "environment": environment,
        "keys": [
            {"id": key.id, "created": key.created, "secret": b64encode(key.secret).decode()}
            for key in keys
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _read(path: Path) -> tuple[str, dict[str, SigningKey]]:
    content = _parsed(read_secret(Path(path), _MISSING))
    if content is None:
        raise ConfigurationError(
            "The file is not one that `tenantguard keys signing init` has written, or a newer "
            "version of tenantguard wrote it. Restore it from its backup."
        )
    return content


def _parsed(text: bytes) -> tuple[str, dict[str, SigningKey]] | None:
    """Return the environment and the keys, None if *text* is not a file of signing keys.

    It raises nothing: the errors of the parsers hold the whole text, and so do their tracebacks.
    """
    try:
        document: Any = json.loads(text)
        if document["format"] != _FORMAT or document["version"] != 1:
            return None
        keys = [
            SigningKey(each["id"], b64decode(each["secret"], validate=True), each["created"])
            for each in document["keys"]
        ]
        environment = document["environment"]
        fits = all(_ID.fullmatch(key.id) and len(key.secret) == _BYTES for key in keys)
        if not (fits and keys and LABEL.fullmatch(environment)):
            return None
        return environment, {key.id: key for key in keys}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
