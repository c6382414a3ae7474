"""tenantguard prove: try to cross tenants as the application, and roll back."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress

from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, guard_option
from tenantguard.cli.outcome import GuardedCommand
from tenantguard.prove import State, planned, prove
from tenantguard.report import FORMATS, Places, Report, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
@click.option(
    "--format",
    "output",
    type=click.Choice(FORMATS),
    default="text",
    show_default=True,
    help="How the result is written.",
)
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write to FILE, and text to the terminal.",
)
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
        with _progress() as progress:
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


@contextmanager
def _progress() -> Iterator[Callable[[int, int, str], None]]:
    """Yield what shows a bar on a terminal, and nothing elsewhere."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("tables", total=None)
        yield lambda done, total, table: bar.update(
            task, completed=done, total=total, description=table
        )
