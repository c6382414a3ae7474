"""Files with a secret in them, which only their owner may read."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["LABEL", "read_secret", "replace", "require_label", "write_new"]

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
"""What an environment's label looks like."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_label(environment: str) -> None:
    """Raise `ConfigurationError` unless *environment* is a label."""
    if not LABEL.fullmatch(environment):
        raise ConfigurationError(
            "An environment's label has up to 63 letters, digits, '.', '_' and '-', such as "
            "'production'."
        )


def write_new(path: Path, text: str) -> None:
    """Write *text* to *path*, which must not exist.

    Raises:
        ConfigurationError: If *path* exists or cannot be written.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        descriptor = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError:
        raise ConfigurationError(
            f"{path} exists and is never overwritten: if it is a key, what that was used for would "
            "be lost. Name another file."
        ) from None
    except OSError as error:
        raise _not_written(path, error) from None
    try:
        _fill(descriptor, text)
        _keep(path)
    except BaseException as error:
        # Half a key would stand in the way of a whole one.
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _not_written(path, error) from None
        raise


def replace(path: Path, text: str) -> None:
    """Put *text* in the place of what *path* holds, all at once.

    Raises:
        ConfigurationError: If it cannot be written; *path* is then as it was.
    """
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    write_new(beside, text)
    try:
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise _not_written(path, error) from None
    _keep(path)


def read_secret(path: Path, otherwise: str) -> bytes:
    """Return what *path* holds.

    Raises:
        ConfigurationError: If it cannot be read, with *otherwise* as what to do, or others than
            its owner may read or write it.
    """
    try:
        with path.open("rb") as file:
            _refuse_open_to_others(path, os.fstat(file.fileno()))
            return file.read()
    except OSError as error:
        raise ConfigurationError(
            f"The key file {path} cannot be read: {error.strerror}. {otherwise}"
        ) from None


def _fill(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if os.name == "posix":
            # The umask may have taken the owner's own rights away.
            os.fchmod(descriptor, stat.S_IRUSR | stat.S_IWUSR)
        file.write(text)
        file.flush()
        os.fsync(descriptor)


def _keep(path: Path) -> None:
    """Have the directory written too: a key that a crash takes away takes all it wrapped."""
    # Not every file system can, and not every directory that may be written may be read.
    with suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _not_written(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{path} cannot be written: {error.strerror}. Name a file in a directory that exists and "
        "that you may write to."
    )


def _refuse_open_to_others(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and status.st_mode & _OTHERS:
        raise ConfigurationError(
            f"The key file {path} is open to others than its owner. Run `chmod 600` on it, and "
            "consider who could have read it."
        )
