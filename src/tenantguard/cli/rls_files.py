"""Writing generated SQL to a file or a directory, and comparing it with what is committed."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from tenantguard.cli.outcome import FINDINGS, HOLDS, could_not_look
from tenantguard.errors import ConfigurationError
from tenantguard.rls import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = [
    "compare_directory",
    "compare_file",
    "is_directory",
    "read_sql",
    "write_directory",
    "write_file",
]


def is_directory(path: Path) -> bool:
    """Return whether *path* is a directory or, if there is nothing, could not be a file's name."""
    return path.is_dir() or not (path.exists() or path.suffix)


def compare_file(path: Path, script: str) -> int:
    """Return how the command ends; print how *path* differs from *script*."""
    differences = list(_difference(path, read_sql(path), script))
    click.echo("".join(differences), nl=False)
    return FINDINGS if differences else HOLDS


def compare_directory(path: Path, texts: Mapping[str, str], *, down: bool) -> int:
    """Return how the command ends; print how *path* differs from *texts*, by name.

    A file of ours that is not in *texts* any more differs too; other files are not looked at.
    """
    if not path.is_dir():
        could_not_look(f"There is no directory {path}. {_how(path)}")
    differences: list[str] = []
    for name, text in texts.items():
        if (path / name).exists():
            differences += _difference(path / name, read_sql(path / name), text)
        else:
            differences.append(f"missing: {path / name}\n")
    differences += [f"stale: {found}\n" for found in _stale(path, texts, down=down)]
    click.echo("".join(differences), nl=False)
    return FINDINGS if differences else HOLDS


def write_file(path: Path, script: str) -> None:
    """Write *script* to *path*."""
    try:
        path.write_text(script, encoding="utf-8")
    except OSError as error:
        could_not_look(f"{path} cannot be written ({error.strerror}). Choose another --out.")
    click.echo(f"1 file written: {path}", err=True)


def write_directory(path: Path, texts: Mapping[str, str], *, down: bool) -> None:
    """Write *texts* by name into *path*, and remove the files of ours that are not among them.

    Nothing is written or removed if a file of one of the names is not ours.
    """
    for name in texts:
        if (path / name).exists() and not is_ours(read_sql(path / name), down=down):
            could_not_look(
                f"{path / name} was not written by this command. Move it away, or choose another "
                "--out."
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
        stale = _stale(path, texts, down=down)
        for name, text in texts.items():
            (path / name).write_text(text, encoding="utf-8")
        for found in stale:
            found.unlink()
    except OSError as error:
        could_not_look(f"{path} cannot be written ({error.strerror}). Choose another --out.")
    gone = f", {len(stale)} of ours removed" if stale else ""
    click.echo(f"{len(texts)} files written to {path}{gone}.", err=True)


def _stale(path: Path, texts: Mapping[str, str], *, down: bool) -> list[Path]:
    return [
        found
        for found in sorted(path.glob("*.sql"))
        if found.name not in texts and is_ours(read_sql(found), down=down)
    ]


def read_sql(path: Path) -> str:
    """Return the committed text at *path*.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path} cannot be read ({type(error).__name__}). {_how(path)}"
        ) from None


def _how(path: Path) -> str:
    return f"Write it with `tenantguard rls sql --out {path}`."


def _difference(path: Path, committed: str, script: str) -> Iterator[str]:
    lines = difflib.unified_diff(
        committed.splitlines(keepends=True),
        script.splitlines(keepends=True),
        fromfile=str(path),
        tofile="what the models ask for",
    )
    yield from (line if line.endswith("\n") else f"{line}\n" for line in lines)
