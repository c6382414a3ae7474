"""tenantguard keys retire: keys that no stored value needs any more open nothing any more."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING

import click

from tenantguard.cli.keys.changing import Changed, KeyTable
from tenantguard.cli.keys.judging import unopened_finding
from tenantguard.cli.keys.needing import DataNeeds, IndexNeeds
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.report import VERSION, listed_findings, write_findings
from tenantguard.cli.keys.rows import key_target
from tenantguard.cli.keys.writing import Change
from tenantguard.cli.options import admin_option, format_option, guard_option, purpose_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.findings import Finding
from tenantguard.keystore import KNOWN_EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.cli.keys.needing import Needs
    from tenantguard.cli.keys.opening import Opened
    from tenantguard.cli.keys.writing import KeyRow

__all__ = ["retire"]

IN_USE = "key-in-use"
NOT_COMPARED = "index-not-compared"

_OLDEST = """
    SELECT pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'),
        pg_catalog.to_char(pg_catalog.statement_timestamp()
            AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00'),
        pg_catalog.to_char(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_prepared_xacts p
                WHERE p.database = pg_catalog.current_database()) THEN 'epoch'
            ELSE least(pg_catalog.clock_timestamp(), min(a.xact_start)) END
            AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')
    FROM pg_catalog.pg_stat_activity a
    WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
        AND a.backend_type <> 'autovacuum worker'"""
"""Whether all sessions are seen, the time, and since when a transaction is open or prepared."""

_PATIENCE = 5.0
"""Seconds for which transactions that were open before are waited for."""
_STEP = 0.1


@dataclass(slots=True)
class _Retired:
    """What became of the keys that do not seal any more.

    Attributes:
        undone: Whether keys were to be enabled again.
        changed: What became of the keysets.
        keys: How many keys were, or would be, disabled.
        used: How many values need keys that were to be disabled, by column.
        unread: How many values could not be compared, likewise; they keep their keys.
        waiting: How many tenants' keys have changed too lately, or while a transaction was open.
    """

    undone: bool
    changed: Changed = field(default_factory=Changed)
    keys: int = 0
    in_use: int = 0
    used: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    waiting: int = 0


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys retire --all --dry-run",
        "tenantguard keys retire --all",
        "tenantguard keys retire --tenant 7 --undo",
        "tenantguard keys retire --purpose index --all",
    ],
)
@guard_option
@admin_option
@click.option("--tenant", metavar="ID", help="The tenant whose old keys are disabled.")
@click.option("--all", "every", is_flag=True, help="Disable every tenant's old keys.")
@purpose_option
@click.option("--undo", is_flag=True, help="Enable again what was disabled.")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@format_option
@click.pass_context
def retire(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    tenant: str | None,
    every: bool,
    purpose: str,
    undo: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Disable old keys of tenants that no stored value needs.

    A key that a value needs stays, and is a finding: `tenantguard encrypt rewrite` seals the values
    anew. A disabled key stays in its keyset, so that --undo can enable it. The address must be a
    superuser's, or of a login that is granted the maintenance role and pg_read_all_stats. Ends with
    1 if old keys are still needed.

    With --purpose index, the values of tenants that have an old key for blind indexes are opened
    and compared, one snapshot a table; the login needs the application's role too.
    """
    if every is (tenant is not None):
        could_not_look("Give either --tenant ID or --all.")
    with opened(guard_name, admin_url) as own:
        retirement = _Retirement(own, tenant, purpose, dry_run=dry_run, shown=output == "text")
        result = retirement.undo() if undo else retirement.run()
        findings = list(_findings(own, result))
    if output == "json":
        click.echo(json.dumps(_document(result, purpose, findings, dry_run=dry_run), indent=2))
    else:
        write_findings(findings)
        click.echo(_text(result, dry_run=dry_run))
    ctx.exit(FINDINGS if findings else HOLDS)


class _Retirement:
    """Disables or enables keys of one tenant's keyset for *purpose*, or of all."""

    def __init__(
        self, own: Opened, tenant: str | None, purpose: str, *, dry_run: bool, shown: bool
    ) -> None:
        self._own = own
        self._table = KeyTable(own)
        of = self._table.of_tenant(tenant)
        self._tenant = None if tenant is None else self._table.canonical(tenant)
        self._rows = f"k.purpose = '{purpose}' AND k.rotated_at IS NOT NULL AND {of}"
        self._needs: type[DataNeeds | IndexNeeds]
        self._needs = DataNeeds if purpose == "data" else IndexNeeds
        self._dry_run = dry_run
        self._shown = shown

    def undo(self) -> _Retired:
        """Enable all keys."""
        from tenantguard.crypto.rotation import enable_keys  # noqa: PLC0415  (loads Tink)

        result = _Retired(undone=True)

        def make(row: KeyRow) -> Change | None:
            made = enable_keys(self._table.stored(row))
            result.keys += made is not None
            return Change(row, row.kek_uri, *made) if made and not self._dry_run else None

        result.changed = self._table.change(self._rows, make)
        return result

    def run(self) -> _Retired:
        """Disable the keys that are not primary and that no value needs."""
        from tenantguard.crypto.rotation import disable_keys, keys_of  # noqa: PLC0415

        result = _Retired(undone=False)
        settled = self._settled()
        result.waiting = self._table.count(f"{self._rows} AND NOT ({settled})")
        # After the fence: what open transactions had sealed with an old key is seen by now.
        needs: Needs = self._needs(self._own, self._table, self._tenant)
        total = self._table.count(f"{self._rows} AND {settled}")

        def make(row: KeyRow) -> Change | None:
            stored = self._table.stored(row)
            *others, _ = keys_of(stored)
            old = {key.number for key in others if key.opens and not key.seals}
            used = needs.of(self._table.canonical(row.tenant), old)
            for number in used:
                result.in_use += 1
                result.used.update(used[number])
            unused = old - used.keys()
            result.keys += len(unused)
            made = None if self._dry_run else disable_keys(stored, unused)
            return Change(row, row.kek_uri, *made) if made else None

        with progress_bar("disabling keys", shown=self._shown) as progress:
            result.changed = self._table.change(
                f"{self._rows} AND {settled}",
                make,
                progress=lambda done: progress(done, total, "disabling keys"),
            )
        result.unread = +needs.unread
        return result

    def _settled(self) -> str:
        """Return the condition that nobody can still be sealing with a key that does not seal.

        Processes do for as long as they keep keys, and what an open transaction has written is not
        counted: it may have copied what has been sealed anew since. So none is open that began
        before this.
        """
        begun, oldest = self._oldest()
        until = monotonic() + _PATIENCE
        while oldest < begun and monotonic() < until:
            sleep(_STEP)
            oldest = self._oldest()[1]
        if oldest < begun:
            return "false"
        return f"k.rotated_at < '{begun}'::timestamptz - interval '{KNOWN_EVERYWHERE:.0f} seconds'"

    def _oldest(self) -> tuple[str, str]:
        """Return the time, and since when a transaction is open: if none is, a later time."""
        # A connection of its own each time: within a transaction the answer stays the same.
        with self._own.engine.connect() as connection:
            [(seen, now, oldest)] = connection.exec_driver_sql(_OLDEST).fetchall()
        if not seen:
            could_not_look(
                "The role of the admin address does not see since when other sessions' "
                "transactions are open, so values could be missed. Grant it pg_read_all_stats, or "
                "give a superuser's address."
            )
        return now, oldest


def _findings(own: Opened, result: _Retired) -> Iterator[Finding]:
    if result.in_use:
        columns = _listed(+result.used)
        yield Finding(
            IN_USE,
            ".".join(key_target(own.guard)),
            f"{result.in_use:,} old keys are still needed by stored values, and stay: {columns}.",
            "`tenantguard encrypt rewrite` seals the values with the newest key; then run the "
            "command again.",
        )
    if result.unread:
        yield Finding(
            NOT_COMPARED,
            ".".join(key_target(own.guard)),
            "Values could not be opened, so whose key their blind indexes are under is not known: "
            f"{_listed(result.unread)}.",
            "`tenantguard encrypt rewrite --indexes` says why. Look also for policies of your own "
            "that hide rows from the application's role.",
        )
    if result.changed.unopened:
        yield unopened_finding(own.guard, result.changed.unopened)


def _listed(columns: Counter[str]) -> str:
    return ", ".join(f"{name} ({number:,})" for name, number in sorted(columns.items()))


def _document(
    result: _Retired, purpose: str, findings: list[Finding], *, dry_run: bool
) -> dict[str, object]:
    return {
        "version": VERSION,
        "purpose": purpose,
        "dry_run": dry_run,
        "undo": result.undone,
        "keys": result.keys,
        "keysets_changed": result.changed.done,
        "overtaken": result.changed.overtaken,
        "unopened": result.changed.unopened,
        "in_use": result.in_use,
        "waiting": result.waiting,
        "findings": listed_findings(findings),
    }


def _text(result: _Retired, *, dry_run: bool) -> str:
    if result.undone:
        done = "would be enabled" if dry_run else "are enabled"
        return f"All keys of {result.keys:,} tenants' keysets {done} again."
    said = f"{result.keys:,} old keys {'would be' if dry_run else 'were'} disabled."
    if result.changed.overtaken:
        said += f" {result.changed.overtaken:,} keysets were changed meanwhile: run it again."
    if result.waiting:
        said += (
            f"\n{result.waiting:,} tenants' keys have changed less than "
            f"{KNOWN_EVERYWHERE:.0f} seconds ago, or a transaction is open or prepared that began "
            "before this command. Run it again when that has ended."
        )
    return said
