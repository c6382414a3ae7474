"""The file of exported keysets: one line a keyset, as it is stored, and a checksum at the end."""

# ruff: noqa: S608  (statements are put together from quoted names and literals of our own)

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.cli.keys.rows import key_target
from tenantguard.cli.seeing import open_eyes
from tenantguard.crypto.secret_file import write_new
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import Engine

    from tenantguard.guard import TenantGuard

__all__ = ["ExportedRow", "read_export", "write_export"]

_FORMAT = {"format": "tenantguard wrapped keys", "version": 1}
_TIMES = ("created_at", "rotated_at", "shredded_at")
_COLUMNS = ", ".join(
    (
        "k.tenant_id::text, k.purpose, k.generation, k.kek_uri, k.state",
        "pg_catalog.encode(k.wrapped, 'hex'), pg_catalog.encode(k.check_value, 'hex')",
        *(
            f"pg_catalog.to_char(k.{name} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"
            for name in _TIMES
        ),
    )
)


@dataclass(frozen=True, slots=True, repr=False)
class ExportedRow:
    """A row of `tenantguard_keys`; bytes in hexadecimal digits, times as PostgreSQL reads them."""

    tenant: str
    purpose: str
    generation: int
    kek_uri: str
    state: str
    wrapped: str | None
    check: str | None
    created_at: str
    rotated_at: str | None
    shredded_at: str | None


def write_export(guard: TenantGuard, engine: Engine, path: Path, environment: str | None) -> int:
    """Write all keysets to *path*, which must not exist; return how many.

    They are from one snapshot. Only the file's owner may read it: it has the tenants' ids.

    Raises:
        ConfigurationError: If *path* cannot be written, or rows are hidden.
    """
    target = key_target(guard)
    with open_eyes(guard, engine, {target}).transaction() as run:
        rows = run(f"SELECT {_COLUMNS} FROM {qualified(target)} k ORDER BY k.tenant_id, k.purpose")
    lines = [json.dumps({**_FORMAT, "environment": environment})]
    lines += (json.dumps(asdict(ExportedRow(*row))) for row in rows)
    text = "".join(f"{line}\n" for line in lines)
    end = {"rows": len(rows), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    write_new(path, f"{text}{json.dumps(end)}\n")
    return len(rows)


def read_export(path: Path, environment: str) -> list[ExportedRow]:
    """Return what `write_export` has written to *path*.

    Raises:
        ConfigurationError: If it cannot be read, is damaged or cut off, or is of another
            environment.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}.") from None
    rows = _parsed(content, environment)
    if rows is None:
        raise ConfigurationError(
            f"{path} is not what `tenantguard keys export` has written, is damaged or cut off, or "
            f"was written in another environment than {environment!r}. Nothing was imported; take "
            "another copy."
        )
    return rows


def _parsed(content: bytes, environment: str) -> list[ExportedRow] | None:
    """Return the rows; None if they are not whole. It raises nothing that quotes them."""
    body, _, last = content.rstrip(b"\n").rpartition(b"\n")
    try:
        end: Any = json.loads(last)
        head, *rows = (json.loads(line) for line in body.splitlines())
        whole = hashlib.sha256(body + b"\n").hexdigest() == end["sha256"]
        if not whole or head != {**_FORMAT, "environment": environment}:
            return None
        return list(_rows(rows)) if len(rows) == end["rows"] else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _rows(rows: list[dict[str, Any]]) -> Iterator[ExportedRow]:
    for row in rows:
        found = ExportedRow(**row)
        for digits in (found.wrapped, found.check):
            bytes.fromhex(digits or "")
        if isinstance(found.generation, bool) or not isinstance(found.generation, int):
            raise TypeError
        yield found
