"""The receipt of destroyed keys: what is gone, and what can still be read, and until when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import click

from tenantguard.cli.keys.report import VERSION
from tenantguard.keystore import KNOWN_EVERYWHERE

__all__ = ["Receipt", "write_receipt"]


_CACHES = (
    "by processes that have the keys in their cache, and by transactions and results that are "
    "open; what these still write is lost with the rest"
)
_COPIES = (
    "by who has the key-encryption key and a backup, an export or another copy of "
    "tenantguard_keys from before"
)
_FILES = (
    "by who has the key-encryption key and reads the files of PostgreSQL: the write-ahead log and "
    "its archive, and dead rows"
)
_PLAIN = (
    "by whoever reads the database, without any key: what its rows hold in {}, the plaintext of a "
    "column that is being encrypted"
)
_GONE = (
    "Its encrypted fields cannot be read, written or searched any more, and its keys are never "
    "made again. They can still be read"
)
_LEFT = (
    "and by nobody else. Lengths, blind indexes and plain columns stay in the rows until those are "
    "deleted."
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was destroyed. It does not name the tenant: file it with what does.

    Attributes:
        at: When, in UTC.
        before: Whether they had been destroyed before this run.
        keysets: SHA-256 of each keyset as it was stored, by purpose; it tells a copy of it.
        reason: Why.
        backups: When the last backup that has the keys will be gone, as far as that was said.
        plain: Columns of plaintext that encrypted ones have not taken the place of yet.
    """

    at: str
    before: bool
    keysets: dict[str, str]
    reason: str
    backups: date | None
    plain: tuple[str, ...] = ()
    still: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "still", list(self._still()))

    def _still(self) -> list[tuple[str, str]]:
        until = f"until {self.backups}" if self.backups else "for as long as such copies are kept"
        return [
            (_CACHES, f"until {self._caches()}, or until they end"),
            (_COPIES, until),
            (_FILES, "until the log is recycled, its archive is gone, and VACUUM has run"),
            *((_PLAIN.format(name), "until it is emptied there") for name in self.plain),
        ]

    def _caches(self) -> str:
        # Others could still read the keysets until the commit, which came after that time.
        at = datetime.strptime(self.at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return f"{at + timedelta(seconds=KNOWN_EVERYWHERE):%Y-%m-%dT%H:%M:%SZ}"


def write_receipt(receipt: Receipt, output: str) -> None:
    """Write *receipt* as text or JSON."""
    if output == "json":
        document = {
            "version": VERSION,
            "destroyed_at": receipt.at,
            "destroyed_before": receipt.before,
            "keysets": [
                {"purpose": purpose, "sha256": digest}
                for purpose, digest in receipt.keysets.items()
            ],
            "reason": receipt.reason,
            "backups_until": receipt.backups and receipt.backups.isoformat(),
            "still_readable": [{"how": how, "until": until} for how, until in receipt.still],
        }
        click.echo(json.dumps(document, indent=2))
        return
    click.echo("\n".join(_lines(receipt)))


def _lines(receipt: Receipt) -> list[str]:
    if receipt.before:
        first = f"The tenant's keys were destroyed before, at {receipt.at}."
    else:
        first = f"Destroyed {len(receipt.keysets)} keysets of the tenant, at {receipt.at}."
    return [
        first,
        f"Reason: {receipt.reason}",
        *(f"SHA-256 of {name}: {digest}" for name, digest in receipt.keysets.items()),
        _GONE,
        *(f"- {how}: {until};" for how, until in receipt.still),
        _LEFT,
    ]
