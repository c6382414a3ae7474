"""tenantguard prove: try to cross tenants as the application, and roll back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, guard_option, out_option, report_option
from tenantguard.cli.outcome import GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.prove import State, planned, prove
from tenantguard.report import FORMATS, Places, Report, write

if TYPE_CHECKING:
    from pathlib import Path

    from tenantguard.guard import TenantGuard
    from tenantguard.prove import Proof, Samples, TableProof

__all__ = ["prove_command"]


@click.command(
    cls=GuardedCommand,
    name="prove",
    examples=[
        "tenantguard prove --dry-run",
        "tenantguard prove",
        "tenantguard prove --table orders --samples existing",
        "tenantguard prove --format junit --out prove.xml",
    ],
)
@guard_option
@admin_option
@click.option("--table", "tables", metavar="NAME", multiple=True, help="Prove only this table.")
@click.option(
    "--samples",
    type=click.Choice(["invent", "existing"]),
    default="invent",
    show_default=True,
    help="Invent two tenants with a row each, or take rows of two tenants that are there.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be tried; nothing is sent.")
@report_option(FORMATS)
@out_option
@click.pass_context
def prove_command(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    tables: tuple[str, ...],
    samples: Samples,
    dry_run: bool,
    output: str,
    out: Path | None,
) -> None:
    """Try to reach another tenant's rows as the application, in every table; nothing is kept.

    Each table stays locked while it is tried: use a database that nobody waits for. Ends with 1 if
    a row was reached, with 2 if a table is not proven.
    """
    guard = load_guard(guard_name)
    if dry_run:
        for line in planned(guard.catalog, tables):
            click.echo(line)
        return
    proof = _proof(guard, admin_url, tables, samples)
    if output == "text" or out is not None:
        for each in proof.tables:
            click.echo(_line(each))
    report = Report("prove", proof.result, unit="table", place=Places(guard.catalog, guard))
    write(report, output, to=out)
    ctx.exit(report.exit_code)


def _proof(
    guard: TenantGuard, admin_url: str | None, tables: tuple[str, ...], samples: Samples
) -> Proof:
    key = guard.signing_keys().primary if guard.catalog.signed else None
    engine = admin_engine(admin_url)
    try:
        with progress_bar("tables") as progress:
            return prove(
                engine,
                guard.catalog,
                guard.roles,
                tables=tables,
                samples=samples,
                signing_key=key,
                progress=progress,
            )
    finally:
        engine.dispose()


def _line(table: TableProof) -> str:
    if table.state is State.APPLICATION_ONLY:
        return f"{table.table}: application only, {table.reasons[0]}"
    left_out = f"; not tried: {', '.join(table.left_out)}" if table.left_out else ""
    return f"{table.table}: {table.state.value}, {len(table.held)} probes held{left_out}"
