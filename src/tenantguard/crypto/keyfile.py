"""The key-encryption key in a file that only its owner may read."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tenantguard.crypto.secret_file import LABEL, read_secret, require_label, write_new
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    import os

    from tenantguard.crypto.keysets import Kek

__all__ = ["KeyFile", "KeyProvider", "make_key_file"]

_FORMAT = "tenantguard key-encryption key"
_NAME = re.compile(r"[0-9a-f]{16}")
_MISSING = (
    "`tenantguard keys init` makes one for a new environment; an existing environment's is in its "
    "backup."
)


class KeyProvider(Protocol):
    """Where the key-encryption key is. Asked once, when the first tenant's key is needed."""

    @property
    def environment(self) -> str:
        """The label of the environment, such as `production`, for which the key was made."""

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`; not a secret."""

    @property
    def kek(self) -> Kek:
        """The key, as Tink's AEAD."""


@dataclass(frozen=True, slots=True, repr=False)
class _Content:
    environment: str
    name: str
    keyset: str


class KeyFile:
    """A key-encryption key that `tenantguard keys init` has written.

    The file is read when the first engine is protected.

    Args:
        path: The file; refused if anybody but its owner can read or write it.
        environment: Where the application runs; a key made for another environment is refused.
    """

    def __init__(self, path: str | os.PathLike[str], *, environment: str) -> None:
        self._path = Path(path)
        self.environment = environment

    def __repr__(self) -> str:
        return f"<KeyFile environment={self.environment!r}>"

    @property
    def uri(self) -> str:
        """What names the key in `tenantguard_keys`.

        Raises:
            ConfigurationError: As for `kek`.
        """
        return f"file:{self.environment}/{self._content.name}"

    @cached_property
    def kek(self) -> Kek:
        """The key.

        Raises:
            ConfigurationError: If the file is missing, open to others, not a key file, or made for
                another environment.
            KeyUnavailableError: If it is a key file, and the key in it is damaged.
        """
        from tenantguard.crypto.keysets import read_kek  # noqa: PLC0415  (loads Tink)

        return read_kek(self._content.keyset)

    @cached_property
    def _content(self) -> _Content:
        content = _parsed(read_secret(self._path, _MISSING))
        if content is None:
            raise _not_a_key_file()
        if content.environment != self.environment:
            raise ConfigurationError(
                f"The key file was made for the environment {content.environment!r}, and the "
                f"application runs in {self.environment!r}. Give each environment a key of its own."
            )
        return content


def make_key_file(path: Path, *, environment: str) -> str:
    """Write a new key-encryption key to *path*, which must not exist; return its URI.

    The file can be read and written by its owner only.

    Raises:
        ConfigurationError: If *path* exists, cannot be written, or *environment* is not a label.
    """
    from tenantguard.crypto.keysets import new_kek  # noqa: PLC0415  (loads Tink)

    require_label(environment)
    document = {
        "format": _FORMAT,
        "version": 1,
        "environment": environment,
        "name": secrets.token_hex(8),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "keyset": json.loads(new_kek()),
    }
    write_new(Path(path), json.dumps(document, indent=2) + "\n")
    return f"file:{environment}/{document['name']}"


def _parsed(text: bytes) -> _Content | None:
    """Return what a key file says, None if *text* is not one's.

    It raises nothing: the errors of the parsers hold the whole text, and so do their tracebacks.
    """
    try:
        document: Any = json.loads(text)
        if document["format"] != _FORMAT or document["version"] != 1:
            return None
        environment, name = document["environment"], document["name"]
        # Both are written into messages and into the database.
        if not (LABEL.fullmatch(environment) and _NAME.fullmatch(name)):
            return None
        return _Content(environment, name, json.dumps(document["keyset"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _not_a_key_file() -> ConfigurationError:
    return ConfigurationError(
        "The key file is not one that `tenantguard keys init` has written, or a newer version of "
        "tenantguard wrote it. Restore it from its backup."
    )
