"""What the commands for keys print: counts and findings, and tenants where they were asked for."""

from __future__ import annotations

import json
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tenantguard.cli.keys.judging import FOREIGN, LOST
from tenantguard.cli.terminal import printable
from tenantguard.keytable import PURPOSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tenantguard.cli.keys.making import Made
    from tenantguard.cli.keys.rows import Tenant
    from tenantguard.findings import Finding

__all__ = ["VERSION", "Seen", "listed_findings", "write_findings", "write_list", "write_made"]

VERSION = 1

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""


class Seen:
    """What `keys list` saw.

    Args:
        tenants: The registry's, and those that have keysets.
        findings: What is wrong with them.
        uri: The guard's own key; None if it cannot be read.
        verified: Whether the keysets were opened.
    """

    def __init__(
        self,
        tenants: Sequence[Tenant],
        findings: Sequence[Finding],
        uri: str | None,
        *,
        verified: bool,
    ) -> None:
        self.tenants = tenants
        self.findings = findings
        self.uri = uri
        self.verified = verified
        self.registered = sum(tenant.registered for tenant in tenants)
        self.without = _without(tenants)
        self.waiting = sum(
            keyset.kek_uri != uri and keyset.state != "destroyed"
            for tenant in tenants
            for keyset in tenant.keysets
        )

    @property
    def hint(self) -> str | None:
        """Who makes the keysets that can be made, if any can."""
        waiting = sum(tenant.waiting for tenant in self.tenants)
        if not waiting:
            return None
        theirs = "theirs" if waiting == self.without else f"those of {waiting:,}, without values"
        return f"`tenantguard keys create` makes {theirs}; else their first encrypted value does."

    @property
    def verdict(self) -> str:
        """What the rows are worth, in one sentence."""
        if self.findings:
            return f"Findings: {len(self.findings)}."
        if self.uri is None:
            return "Not compared with a key."
        opened = ", and it opens them" if self.verified else "; --verify opens them with it"
        if self.waiting:
            return (
                f"{self.waiting:,} keysets are wrapped by a previous key of the guard's{opened}. "
                "`tenantguard keys rewrap` wraps them by the current one."
            )
        return f"All keysets are wrapped by the guard's key{opened}."


def write_list(seen: Seen, missed: list[str], *, output: str, named: bool) -> None:
    """Write what `keys list` saw; with *named*, one entry a tenant."""
    if output == "json":
        document = {
            "version": VERSION,
            "kek_uri": seen.uri,
            "tenants": seen.registered,
            "without_keys": seen.without,
            "verified": seen.verified,
            "keys": [dict(zip(_GROUPED, group, strict=True)) for group in _groups(seen.tenants)],
            "listed": [_entry(tenant) for tenant in seen.tenants] if named else None,
            "findings": listed_findings(seen.findings),
            "not_looked_at": missed,
        }
        click.echo(json.dumps(document, indent=2))
        return
    headers, rows = _by_tenant(seen.tenants) if named else _by_group(seen.tenants)
    _write_table(headers, rows)
    click.echo(f"{seen.registered:,} tenants in the registry, {seen.without:,} without keys.")
    if seen.hint:
        click.echo(seen.hint)
    write_findings(seen.findings)
    click.echo(seen.verdict)


def write_made(
    made: Made,
    tenants: Sequence[Tenant],
    findings: Sequence[Finding],
    *,
    output: str,
    dry_run: bool,
    named: bool,
) -> None:
    """Write what `keys create` made of what *tenants* had; ids only if *named*."""
    if output == "json":
        document = {
            "version": VERSION,
            "dry_run": dry_run,
            "without_keys": _without(tenants),
            "made": made.made,
            "failed": [
                {"reason": reason, "tenants": len(ids), "listed": ids if named else None}
                for reason, ids in made.failed.items()
            ],
            "findings": listed_findings(findings),
        }
        click.echo(json.dumps(document, indent=2))
        return
    write_findings(findings)
    for reason, ids in made.failed.items():
        click.echo(f"failed: {len(ids):,} tenants: {reason}")
        for tenant in ids if named else ():
            click.echo(f"  {printable(tenant)}")
    click.echo(_sum(made, tenants, {finding.code for finding in findings}, dry_run=dry_run))


def _sum(made: Made, tenants: Sequence[Tenant], codes: set[str], *, dry_run: bool) -> str:
    waiting = sum(tenant.waiting for tenant in tenants)
    other = "other " if LOST in codes else ""
    if FOREIGN in codes:
        return f"Nothing was made: {waiting:,} {other}tenants without keys wait for the right key."
    if not waiting:
        return f"Nothing to do: no {other}tenant is without keys."
    if dry_run:
        return (
            f"{waiting:,} {other}tenants without keys. Run the command without --dry-run to make "
            "them."
        )
    return f"made: keys of {made.made:,} of {waiting:,} {other}tenants."


def _without(tenants: Iterable[Tenant]) -> int:
    return sum(not tenant.keysets for tenant in tenants)


_GROUPED = ("purpose", "state", "kek_uri", "tenants", "oldest", "newest")


def _groups(tenants: Iterable[Tenant]) -> list[tuple[Any, ...]]:
    """Return how many tenants have keysets of the same purpose, state and key, and since when."""
    rows = sorted(
        (keyset.purpose, keyset.state, keyset.kek_uri, keyset.created_at)
        for tenant in tenants
        for keyset in tenant.keysets
    )
    found = []
    for kind, same in groupby(rows, key=lambda row: row[:3]):
        times = [row[3] for row in same]
        found.append((*kind, len(times), times[0], times[-1]))
    return found


def _entry(tenant: Tenant) -> dict[str, Any]:
    keysets = [
        {
            "purpose": keyset.purpose,
            "state": keyset.state,
            "kek_uri": keyset.kek_uri,
            "created": keyset.created_at,
        }
        for keyset in tenant.keysets
    ]
    return {"tenant": tenant.id, "keys": keysets, "findings": sorted(tenant.faults)}


def _by_group(tenants: Iterable[Tenant]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headers = ("purpose", "state", "key-encryption key", "tenants", "oldest", "newest")
    return headers, [
        (purpose, state, uri, f"{number:,}", oldest, newest)
        for purpose, state, uri, number, oldest, newest in _groups(tenants)
    ]


def _by_tenant(tenants: Iterable[Tenant]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    headers = ("tenant", *PURPOSES, "key-encryption key", "created", "findings")
    rows = []
    for tenant in tenants:
        states = {keyset.purpose: keyset.state for keyset in tenant.keysets}
        uris = sorted({keyset.kek_uri for keyset in tenant.keysets})
        created = min((keyset.created_at for keyset in tenant.keysets), default="-")
        rows.append(
            (
                tenant.id,
                *(states.get(purpose, "-") for purpose in PURPOSES),
                " ".join(uris) or "-",
                created,
                " ".join(sorted(tenant.faults)),
            )
        )
    return headers, rows


def _write_table(headers: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    columns = (Column(name, overflow="fold") for name in headers)
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich takes 80 columns for a file or a pipe, and cuts what is longer.
        console.width = _NO_TERMINAL
    console.print(table)


def write_findings(findings: Iterable[Finding]) -> None:
    """Write *findings*, each with what mends it."""
    console = Console(highlight=False, soft_wrap=True)
    for finding in findings:
        console.print(
            Text.assemble(
                ("✗ ", "bold red"),
                (f"{finding.severity.value} {finding.code}", "bold"),
                f": {finding.message}\n  mend: {finding.mend}",
            )
        )


def listed_findings(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return *findings* as JSON has them."""
    return [
        {
            "code": finding.code,
            "severity": finding.severity.value,
            "object": finding.object,
            "message": finding.message,
            "mend": finding.mend,
        }
        for finding in findings
    ]
