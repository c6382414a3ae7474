"""tenantguard tables: whose each table is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Column, Table

from tenantguard.catalog import Kind
from tenantguard.cli.locate import load_guard
from tenantguard.cli.options import format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.rls.generate import entries

if TYPE_CHECKING:
    from tenantguard.catalog import Catalog, Entry

__all__ = ["tables"]

_VERSION = 1
_HEADERS = ("table", "kind", "column", "reason")

_STYLES = {Kind.UNCLASSIFIED: "bold red", Kind.CHILD: "yellow"}

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard tables",
        "tenantguard tables --guard myapp.security:guard --format json",
    ],
)
@guard_option
@format_option
@click.pass_context
def tables(ctx: click.Context, guard_name: str | None, output: str) -> None:
    """List every table: its kind, its tenant column and the reason.

    Ends with 1 if a table is unclassified. A child belongs to the tenant of the row that it refers
    to; row-level security does not hold it (application only).
    """
    catalog = load_guard(guard_name).catalog
    catalog.check()
    found = entries(catalog)
    if output == "json":
        click.echo(json.dumps(_document(found), indent=2))
    else:
        _write(found, catalog)
    unclassified = any(entry.kind is Kind.UNCLASSIFIED for entry in found)
    ctx.exit(FINDINGS if unclassified else HOLDS)


def _document(found: list[Entry]) -> dict[str, object]:
    return {
        "version": _VERSION,
        "tables": [
            {
                "table": entry.fullname,
                "kind": entry.kind.value,
                "column": _column(entry),
                "reason": entry.reason,
            }
            for entry in found
        ],
    }


def _write(found: list[Entry], catalog: Catalog) -> None:
    # Folded: a name that a narrow terminal cannot hold is still whole.
    headers = (Column(name, overflow="fold") for name in _HEADERS)
    rows = Table(*headers, box=None, pad_edge=False)
    for entry in found:
        style = _STYLES.get(entry.kind)
        cells = (entry.fullname, entry.kind.value, _column(entry) or "-", entry.reason)
        rows.add_row(*map(_literal, cells), style=style)
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich takes 80 columns for a file or a pipe, and cuts what is longer.
        console.width = _NO_TERMINAL
    console.print(rows)
    names = [entry.fullname for entry in found if entry.kind is Kind.UNCLASSIFIED]
    if names:
        click.echo(
            f"\n{len(names)} unclassified: {', '.join(names)}.\n"
            f"Give each a column {catalog.tenant_column!r} (`tenantguard migrate sql {names[0]}` "
            "shows how),\nname its column in TenantGuard(tenant_columns=…), or declare it with a "
            "reason in shared= or untenanted=."
        )


def _literal(text: str) -> str:
    return text.replace("[", r"\[")


def _column(entry: Entry) -> str | None:
    return entry.column.name if entry.column is not None else None
