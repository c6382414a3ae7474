"""tenantguard encrypt leaks: what the database tells of encrypted values without any key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tenantguard.cli.encrypt.leak_findings import Report, findings
from tenantguard.cli.encrypt.leak_report import write_leaks
from tenantguard.cli.encrypt.options import chosen_columns
from tenantguard.cli.keys.rows import require_encryption
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.cli.seeing import seen_whole
from tenantguard.encrypt.leaks import counted, indexes_of, lengths
from tenantguard.encrypt.statistics import statistics
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.rls.state import Run

    Tables = list[tuple[Entry, list[Column[Any]]]]

__all__ = ["leaks"]


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard encrypt leaks",
        "tenantguard encrypt leaks patients.name --exact",
        "tenantguard encrypt leaks --exact --tenants",
        "tenantguard encrypt leaks --exact --format json",
    ],
)
@click.argument("names", metavar="[TABLE.COLUMN]...", nargs=-1)
@guard_option
@admin_option
@click.option("--exact", is_flag=True, help="Count all rows, each tenant's apart.")
@click.option(
    "--tenants", "named", is_flag=True, help="Count by tenant; nothing else prints their ids."
)
@format_option
@click.pass_context
def leaks(
    ctx: click.Context,
    names: tuple[str, ...],
    *,
    guard_name: str | None,
    admin_url: str | None,
    exact: bool,
    named: bool,
    output: str,
) -> None:
    """Tell what blind indexes and lengths say of values to somebody who has no key.

    Without --exact it asks PostgreSQL's statistics, which are of all tenants' rows together: they
    can show that frequencies tell values, and cannot rule it out. No value is read. The address
    must see all rows: a superuser's, or a login's that is granted the backup role. Ends with 1 if
    frequencies tell the values of a column that does not say why, with 2 if statistics are missing
    or old.
    """
    if named and not exact:
        raise ConfigurationError("Statistics know no tenants. Give --exact with --tenants.")
    guard = load_guard(guard_name)
    require_encryption(guard)
    tables = chosen_columns(guard.catalog, names)
    engine = admin_engine(admin_url)
    try:
        with (
            seen_whole(guard, engine, {target_of(entry) for entry, _ in tables}) as run,
            progress_bar("counting", shown=output == "text") as progress,
        ):
            report = _counted(run, tables, progress) if exact else _estimated(run, tables)
    finally:
        engine.dispose()
    write_leaks(report, output=output, named=named)
    if report.unknown:
        could_not_look(
            f"Of {len(report.unknown):,} columns nothing is known: their statistics are missing or "
            "old. Run ANALYZE on their tables, or give --exact."
        )
    ctx.exit(FINDINGS if findings(report) else HOLDS)


def _counted(run: Run, tables: Tables, progress: Callable[[int, int, str], None]) -> Report:
    report = Report(exact=True)
    listed = [(entry, column) for entry, columns in tables for column in columns]
    for number, (entry, column) in enumerate(listed):
        progress(number, len(listed), f"{entry.fullname}.{column.name}")
        report.leaks += [counted(run, entry, index) for index in indexes_of(column)]
        report.lengths.append(lengths(run, entry, column))
    return report


def _estimated(run: Run, tables: Tables) -> Report:
    report = Report(exact=False)
    for entry, columns in tables:
        known = statistics(run, entry, columns)
        for column in columns:
            indexes = list(indexes_of(column))
            reason = known.lacking([column.name, *(each.generated.name for each in indexes)])
            if reason is not None:
                report.unknown.append((column, reason))
                continue
            report.leaks += [known.leak(index) for index in indexes]
            report.lengths.append(known.lengths(column))
    return report
