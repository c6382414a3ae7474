"""tenantguard keys rewrap: all keysets under the current key-encryption key."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tenantguard.binding.literal import sql_literal
from tenantguard.cli.keys.changing import Changed, KeyTable
from tenantguard.cli.keys.judging import foreign_finding, unopened_finding
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.report import VERSION, listed_findings, write_findings
from tenantguard.cli.keys.writing import LIVE, Change
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.crypto.keyring import provider_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.cli.keys.opening import Opened
    from tenantguard.cli.keys.writing import KeyRow
    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.findings import Finding

__all__ = ["rewrap"]


@dataclass(frozen=True, slots=True)
class _Rewrapped:
    """What there was, what was done, and how many keysets each key wraps now."""

    uri: str
    dry_run: bool
    waiting: int
    changed: Changed
    now: dict[str, int]
    findings: list[Finding]

    @property
    def left(self) -> int:
        """How many are still wrapped by another key."""
        return sum(number for uri, number in self.now.items() if uri != self.uri)


@click.command(
    cls=GuardedCommand,
    examples=["tenantguard keys rewrap --dry-run", "tenantguard keys rewrap --format json"],
)
@guard_option
@admin_option
@click.option("--dry-run", is_flag=True, help="Count the keysets that wait, and change nothing.")
@format_option
@click.pass_context
def rewrap(
    ctx: click.Context, *, guard_name: str | None, admin_url: str | None, dry_run: bool, output: str
) -> None:
    """Wrap all keysets by the current key of keys=Keyring(current, previous).

    No value changes, and the application goes on. Interrupted at any moment, the command is run
    again and does what is left. The address must be a superuser's, or a login's that is granted the
    maintenance role. Ends with 1 if keysets are left that it could not wrap.
    """
    with opened(guard_name, admin_url) as own:
        result = _rewrapped(own, dry_run=dry_run, shown=output == "text")
    _write(result, output)
    ctx.exit(FINDINGS if result.findings else HOLDS)


def _rewrapped(own: Opened, *, dry_run: bool, shown: bool) -> _Rewrapped:
    table, uri = KeyTable(own), own.provider.uri
    before = _by_key(table)
    waiting = sum(n for each, n in before.items() if each != uri and _is_known(own, each))
    changed = Changed()
    if waiting and not dry_run:
        with progress_bar("wrapping keysets", shown=shown) as progress:
            changed = table.change(
                f"k.kek_uri IN ({', '.join(_previous(own))})",
                lambda row: _change(table, own.provider, row),
                progress=lambda done: progress(done, waiting, "wrapping keysets"),
            )
    now = before if dry_run else _by_key(table)
    found = list(_findings(own, now, changed))
    return _Rewrapped(uri, dry_run, waiting, changed, now, found)


def _is_known(own: Opened, uri: str) -> bool:
    return provider_of(own.provider, uri) is not None


def _previous(own: Opened) -> Iterator[str]:
    keys = getattr(own.provider, "by_uri", ())
    return (sql_literal(uri) for uri in keys if uri != own.provider.uri)


def _by_key(table: KeyTable) -> dict[str, int]:
    rows = table.ask(
        f"SELECT k.kek_uri, count(*) FROM {table.name} k WHERE {LIVE} GROUP BY 1 ORDER BY 1"
    )
    return {uri: number for uri, number in rows}  # noqa: C416  (rows are not pairs to mypy)


def _change(table: KeyTable, keys: KeyProvider, row: KeyRow) -> Change | None:
    from tenantguard.crypto.keysets import rewrap as rewrapped  # noqa: PLC0415  (loads Tink)

    old = provider_of(keys, row.kek_uri)
    if old is None:
        return None
    content = (row.purpose, row.wrapped, row.check, table.context(row))
    return Change(row, keys.uri, *rewrapped(*content, old=old.kek, new=keys.kek))


def _findings(own: Opened, now: dict[str, int], changed: Changed) -> Iterator[Finding]:
    for uri, number in now.items():
        if not _is_known(own, uri):
            yield foreign_finding(own.guard, uri, number, own.provider.uri)
    if changed.unopened:
        yield unopened_finding(own.guard, changed.unopened)


def _write(result: _Rewrapped, output: str) -> None:
    if output == "json":
        document = {
            "version": VERSION,
            "dry_run": result.dry_run,
            "kek_uri": result.uri,
            "waiting": result.waiting,
            "rewrapped": result.changed.done,
            "overtaken": result.changed.overtaken,
            "unopened": result.changed.unopened,
            "keysets": [{"kek_uri": uri, "keysets": n} for uri, n in result.now.items()],
            "findings": listed_findings(result.findings),
        }
        click.echo(json.dumps(document, indent=2))
        return
    write_findings(result.findings)
    click.echo(_sum(result))


def _sum(result: _Rewrapped) -> str:
    if result.dry_run and result.waiting:
        return (
            f"{result.waiting:,} keysets are wrapped by a previous key. Run the command without "
            "--dry-run to wrap them by the current one."
        )
    said = f"wrapped: {result.changed.done:,} of {result.waiting:,} keysets."
    if not result.waiting:
        said = "Nothing to do: no keyset is wrapped by a previous key of the guard's."
    if result.left:
        return (
            f"{said}\n{result.left:,} keysets are still wrapped by another key than {result.uri}. "
            "If an older process of the application has added them, deploy the current key "
            "everywhere, then run the command again."
        )
    return (
        f"{said}\nAll keysets are wrapped by {result.uri}. Take the previous key out of keys= once "
        "every process runs with the current one. Keep its file until the last backup of the "
        "database that needs it is gone, then destroy it."
    )
