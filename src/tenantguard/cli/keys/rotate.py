"""tenantguard keys rotate: a new key for the tenants' values or blind indexes, in two steps.

Processes keep a tenant's keys for some minutes, so a key that seals at once would be unknown to the
others. It is added first, and seals once every process has it. With one for blind indexes a search
asks for both keys' from the moment that it is added, and nothing is stored under it until then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from time import sleep
from typing import TYPE_CHECKING

import click

from tenantguard.binding.literal import sql_literal
from tenantguard.cli.keys.changing import Changed, KeyTable
from tenantguard.cli.keys.judging import unopened_finding
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.report import VERSION, listed_findings, write_findings
from tenantguard.cli.keys.rows import key_target
from tenantguard.cli.keys.uniqueness import require_no_unique_index
from tenantguard.cli.keys.writing import Change
from tenantguard.cli.options import admin_option, format_option, guard_option, purpose_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.errors import KeyUnavailableError
from tenantguard.findings import Finding
from tenantguard.keystore import KNOWN_EVERYWHERE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantguard.cli.keys.opening import Opened
    from tenantguard.cli.keys.writing import KeyRow
    from tenantguard.crypto.rotation import Row, Stored

__all__ = ["rotate"]

_FULL = "index-key-not-retired"
_ROTATED = ", rotated_at = pg_catalog.clock_timestamp()"
_KNOWN = f"k.rotated_at < pg_catalog.clock_timestamp() - interval '{KNOWN_EVERYWHERE:.0f} seconds'"
"""Every process has what was changed that long ago."""
_STEP = 1.0
"""How often the progress bar moves while waiting, in seconds."""


@dataclass(slots=True)
class _Pending:
    """Tenants whose newest key does not seal yet.

    Attributes:
        tenants: How many.
        since: When the first of the keys was added, as PostgreSQL reads it.
        newest: How many seconds ago the last was.
    """

    tenants: int = 0
    since: str | None = None
    newest: float = KNOWN_EVERYWHERE

    def note(self, added: str, age: float) -> None:
        self.tenants += 1
        self.since, self.newest = min(self.since or added, added), min(self.newest, age)

    @property
    def seconds(self) -> float:
        """How long until every process has the last of the keys."""
        return max(KNOWN_EVERYWHERE - self.newest, 0.0)


@dataclass(slots=True)
class _Rotated:
    tenants: int
    waiting: int = 0
    added: Changed = field(default_factory=Changed)
    primary: Changed = field(default_factory=Changed)
    full: int = 0
    pending: _Pending = field(default_factory=_Pending)

    @property
    def unopened(self) -> int:
        return self.added.unopened + self.primary.unopened


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys rotate --all --dry-run",
        "tenantguard keys rotate --all",
        "tenantguard keys rotate --tenant 7 --no-wait --format json",
        "tenantguard keys rotate --purpose index --all",
    ],
)
@guard_option
@admin_option
@click.option("--tenant", metavar="ID", help="The tenant whose key is rotated.")
@click.option("--all", "every", is_flag=True, help="Rotate every tenant's key.")
@purpose_option
@click.option(
    "--allow-duplicates",
    is_flag=True,
    help="Rotate although unique keys of blind indexes do not hold meanwhile.",
)
@click.option("--no-wait", is_flag=True, help="Do what can be done now; run again for the rest.")
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@format_option
@click.pass_context
def rotate(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    tenant: str | None,
    every: bool,
    purpose: str,
    allow_duplicates: bool,
    no_wait: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Give tenants a new key that seals their values from now on; older ones go on opening.

    It is added, and seals once every process of the application has it, six minutes later. The
    application goes on. A rotation that was interrupted is continued, no third key added. The
    address must be a superuser's, or a login's that is granted the maintenance role.

    With --purpose index it is the key of their blind indexes; searches find what is stored under
    either. Before the next one, `tenantguard encrypt rewrite` and `keys retire` end the old key.
    """
    if every is (tenant is not None):
        could_not_look("Give either --tenant ID or --all.")
    with opened(guard_name, admin_url) as own:
        if purpose == "index" and not allow_duplicates:
            require_no_unique_index(own.guard.catalog, KeyTable(own).ask)
        rotation = _Rotation(own, tenant, purpose, shown=output == "text")
        result = rotation.look() if dry_run else rotation.run(wait=not no_wait)
        findings = list(_findings(own, result))
    document = {**_facts(result, purpose, dry_run=dry_run), "findings": listed_findings(findings)}
    if output == "json":
        click.echo(json.dumps(document, indent=2))
    else:
        write_findings(findings)
        click.echo(_text(result, purpose, dry_run=dry_run))
    ctx.exit(FINDINGS if findings else HOLDS)


class _Rotation:
    """Rotates the active keysets of one tenant, or of all."""

    def __init__(self, own: Opened, tenant: str | None, purpose: str, *, shown: bool) -> None:
        self._table = KeyTable(own)
        own_rows = self._table.of_tenant(tenant)
        self._rows = f"k.purpose = '{purpose}' AND k.state = 'active' AND {own_rows}"
        self._shown = shown

    def look(self) -> _Rotated:
        """Return what there is to do."""
        result = _Rotated(self._table.count(self._rows), pending=self._pending())
        result.waiting = self._table.count(self._due(result.pending))
        return result

    def run(self, *, wait: bool) -> _Rotated:
        """Add keys where this rotation has added none yet; make primary what all processes have."""
        from tenantguard.crypto import rotation  # noqa: PLC0415  (loads Tink)

        result = self.look()

        def add(stored: Stored) -> Row | None:
            result.full += rotation.is_full(stored)
            return rotation.add_key(stored)

        if result.waiting:
            due = self._due(result.pending)
            result.added = self._change(due, add, "adding keys", result.waiting)
        result.pending = self._pending()
        while result.pending.tenants:
            if wait:
                self._wait(result.pending.seconds)
            known = f"{self._rows} AND {_KNOWN}"
            made = self._change(known, rotation.promote_key, "sealing", result.pending.tenants)
            result.primary.done += made.done
            result.primary.unopened = made.unopened
            result.pending = self._pending()
            if not wait:
                break
        return result

    def _due(self, pending: _Pending) -> str:
        """Return the condition that a row has got no key since the first that is pending."""
        if pending.since is None:
            return self._rows
        return (
            f"{self._rows} AND coalesce(k.rotated_at, k.created_at) "
            f"< {sql_literal(pending.since)}::timestamptz"
        )

    def _pending(self) -> _Pending:
        from tenantguard.crypto.rotation import keys_of  # noqa: PLC0415  (loads Tink)

        found = _Pending()
        for row in self._table.rows(f"{self._rows} AND k.rotated_at IS NOT NULL"):
            try:
                waits = not keys_of(self._table.stored(row))[-1].seals
            except KeyUnavailableError:
                self._table.require_answer(row.kek_uri)
                continue
            if waits and row.rotated is not None:
                found.note(row.rotated, row.age)
        return found

    def _change(
        self, condition: str, act: Callable[[Stored], Row | None], what: str, total: int
    ) -> Changed:
        def make(row: KeyRow) -> Change | None:
            made = act(self._table.stored(row))
            return Change(row, row.kek_uri, *made) if made else None

        with progress_bar(what, shown=self._shown) as progress:
            return self._table.change(
                condition, make, also=_ROTATED, progress=lambda done: progress(done, total, what)
            )

    def _wait(self, seconds: float) -> None:
        what = "waiting until every process has the keys"
        with progress_bar(what, shown=self._shown) as progress:
            waited = 0.0
            while waited < seconds:
                progress(int(waited), int(seconds), what)
                sleep(min(_STEP, seconds - waited))
                waited += _STEP


def _findings(own: Opened, result: _Rotated) -> Iterator[Finding]:
    if result.full:
        yield Finding(
            _FULL,
            ".".join(key_target(own.guard)),
            f"{result.full:,} tenants have an old key for blind indexes beside the newest, and got "
            "no third: a search asks for two.",
            "Run `tenantguard encrypt rewrite` and `tenantguard keys retire --purpose index`; then "
            "run the command again.",
        )
    if result.unopened:
        yield unopened_finding(own.guard, result.unopened)


def _facts(result: _Rotated, purpose: str, *, dry_run: bool) -> dict[str, object]:
    return {
        "version": VERSION,
        "purpose": purpose,
        "dry_run": dry_run,
        "tenants": result.tenants,
        "without_new_key": result.waiting,
        "added": result.added.done,
        "primary": result.primary.done,
        "pending": result.pending.tenants,
        "seconds_to_wait": round(result.pending.seconds) if result.pending.tenants else None,
        "overtaken": result.added.overtaken,
        "unopened": result.unopened,
    }


def _text(result: _Rotated, purpose: str, *, dry_run: bool) -> str:
    if not result.tenants:
        return "Nothing to do: no tenant that was asked for has a key that seals."
    if dry_run:
        return (
            f"{result.waiting:,} of {result.tenants:,} tenants would get a new key; those of "
            f"{result.pending.tenants:,} wait to seal."
        )
    use = "seal" if purpose == "data" else "compute indexes"
    said = f"added: {result.added.done:,} keys. They {use} now: {result.primary.done:,}."
    if result.pending.tenants:
        return (
            f"{said}\n{result.pending.tenants:,} keys wait until every process has them. Run the "
            f"command again in {result.pending.seconds:.0f} seconds."
        )
    if purpose == "index":
        return (
            f"{said}\nWhat is stored is found under the older keys too. `tenantguard encrypt "
            "rewrite` gives it new indexes; then `tenantguard keys retire --purpose index` "
            "disables them."
        )
    return (
        f"{said}\nWhat is stored opens with the older keys. `tenantguard encrypt rewrite` seals it "
        "anew; then `tenantguard keys retire` disables them."
    )
