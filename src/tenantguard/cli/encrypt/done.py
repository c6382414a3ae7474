"""What the commands that write many values print at their end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from tenantguard.encrypt.working import Done

__all__ = ["Work", "write_done"]

_VERSION = 1
_MENDS = {
    "UnknownKeyError": "sealed with a key that the tenant's keyset does not have; restore "
    "tenantguard_keys from the backup that the rows came from.",
    "TamperedError": "altered, or moved from another tenant, table, column or row; if a table or "
    "column was renamed, give the column its old names as label=.",
    "NotEncryptedError": "no sealed value of a format that this version knows.",
    "DecryptionError": "sealed as another type than the column's; declare the column as it was.",
    "EncryptedValueError": "a value that the column's type does not take.",
    "KeyUnavailableError": "the tenant's keys cannot be used; `tenantguard keys list --verify` "
    "says why.",
    "TenantShreddedError": "the tenant's key was destroyed.",
}


@dataclass(frozen=True, slots=True, repr=False)
class Work:
    """What was to be done.

    Attributes:
        verb: What is done with a value, such as "sealed anew".
        waiting: How many values, by column.
        compared: How many of them are opened to see whether there is anything to do.
        shut: How many tenants were left out because their keysets do not open.
        seconds: How long it took.
    """

    verb: str
    waiting: Counter[str]
    compared: int
    shut: int
    seconds: float


def write_done(work: Work, done: Done, *, output: str, dry_run: bool) -> None:
    """Write what was to be done, what was, and what is left and why."""
    if output == "json":
        click.echo(json.dumps(_document(work, done, dry_run=dry_run), indent=2))
        return
    for line in _lines(work, done, dry_run=dry_run):
        click.echo(line)


def _document(work: Work, done: Done, *, dry_run: bool) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "dry_run": dry_run,
        "waiting": [
            {"column": column, "values": number} for column, number in sorted(work.waiting.items())
        ],
        "compared": work.compared,
        "done": done.values.total(),
        "failed": [
            {"table": table, "reason": reason, "rows": number}
            for (table, reason), number in sorted(done.failed.items())
        ],
        "tenants_without_usable_keys": work.shut + done.shut.total(),
        "locked": done.left,
        "seconds": round(work.seconds, 3),
    }


def _lines(work: Work, done: Done, *, dry_run: bool) -> Iterator[str]:
    for column, number in sorted(work.waiting.items()):
        yield f"{column}: {number:,} values"
    if work.compared:
        yield f"{work.compared:,} of them are opened, to compare their blind indexes."
    if not work.waiting:
        yield f"Nothing to do: no value is to be {work.verb}."
    elif dry_run:
        most = "at most " if work.compared else ""
        yield (
            f"{most}{work.waiting.total():,} values are to be {work.verb}. Run it without "
            "--dry-run."
        )
    else:
        number = done.values.total()
        rate = f", {number / work.seconds:,.0f} a second" if number else ""
        yield f"{number:,} values {work.verb} in {work.seconds:.1f} s{rate}."
    for (table, reason), number in sorted(done.failed.items()):
        yield f"✗ {table}: {number:,} rows were left: {_MENDS.get(reason, reason)}"
    shut = work.shut + done.shut.total()
    if shut:
        yield f"✗ {shut:,} tenants were left: {_MENDS['KeyUnavailableError']}"
    if done.left:
        yield (
            f"✗ {done.left:,} rows are left: others kept them locked, or wrote them meanwhile. Run "
            "the command again; pg_stat_activity shows which transactions stay open."
        )
