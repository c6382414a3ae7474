"""tenantguard encrypt rewrite: sealing anew under the keys and in the form of now."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.encrypt.done import Work, write_done
from tenantguard.cli.encrypt.options import (
    chosen_columns,
    chosen_tenant,
    pace_options,
    require_known,
    tenant_option,
)
from tenantguard.cli.encrypt.standing import Standing, standings, with_other_index_keys
from tenantguard.cli.keys.rows import read_tenants, require_encryption
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.cli.seeing import seen_whole
from tenantguard.encrypt.counting import rows_by_key
from tenantguard.encrypt.passes import Unit
from tenantguard.encrypt.rewriting import Rewriting, searchable, unfilled, waiting
from tenantguard.encrypt.working import Done, Pace, work
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Column, Engine

    from tenantguard.catalog import Entry
    from tenantguard.encrypt.counting import Rows
    from tenantguard.guard import TenantGuard

__all__ = ["rewrite"]


@dataclass(frozen=True, slots=True, repr=False)
class _Found:
    """What there is to do.

    Attributes:
        units: By tenant and table.
        columns: How many values, by column.
        compared: How many of them have to be opened to see whether there is anything to do.
        shut: How many tenants have values and a keyset that the guard's keys do not open.
    """

    units: list[Unit]
    columns: Counter[str]
    compared: int
    shut: int


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard encrypt rewrite --dry-run",
        "tenantguard encrypt rewrite --workers 4",
        "tenantguard encrypt rewrite patients.name --batch 500 --pause 0.1",
    ],
)
@click.argument("names", metavar="[TABLE.COLUMN]...", nargs=-1)
@guard_option
@admin_option
@tenant_option
@pace_options
@click.option(
    "--indexes", is_flag=True, help="Compare all blind indexes, after another normalize= too."
)
@click.option("--dry-run", is_flag=True, help="Count the values, and change nothing.")
@format_option
@click.pass_context
def rewrite(
    ctx: click.Context,
    names: tuple[str, ...],
    *,
    guard_name: str | None,
    admin_url: str | None,
    tenant: str | None,
    batch: int,
    workers: int,
    pause: float,
    indexes: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Seal anew what is not under its tenant's primary keys, or lacks what its column declares now.

    Whose key a blind index is under is not seen from outside: of tenants that have two keys for
    them, each searchable value is opened and compared.

    The application goes on: a row that it changes or locks is its own, and what it locks is tried
    again. It can be ended at any time; the next run does the rest. The address is a superuser's, or
    a login's that is granted the application's and the maintenance role. Ends with 1 if values
    were left.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    engine = admin_engine(admin_url)
    started, done = time.monotonic(), Done()
    try:
        access = access_to(guard, engine)
        tables = chosen_columns(guard.catalog, names)
        found = _find(guard, engine, tables, tenant, indexes=indexes)
        if not dry_run:
            with progress_bar("sealing anew", shown=output == "text") as progress:
                pace = Pace(batch, workers, pause)
                done = work(access, found.units, pace=pace, progress=progress)
    finally:
        engine.dispose()
    summary = Work(
        "sealed anew", found.columns, found.compared, found.shut, time.monotonic() - started
    )
    write_done(summary, done, output=output, dry_run=dry_run)
    ctx.exit(HOLDS if done.complete and not found.shut else FINDINGS)


def _find(
    guard: TenantGuard,
    engine: Engine,
    tables: list[tuple[Entry, list[Column[Any]]]],
    tenant: str | None,
    *,
    indexes: bool,
) -> _Found:
    columns = [column for _, found in tables for column in found]
    only = chosen_tenant(guard.catalog, tenant)
    with seen_whole(guard, engine, {target_of(entry) for entry, _ in tables}) as run:
        counted = rows_by_key(run, guard.catalog, columns=columns, tenant=only)
        bare = list(unfilled(run, tables, only))
    # Keysets after the values: a key is made before what it seals.
    tenants = read_tenants(guard, engine, wrapped=True)
    require_known(tenants, only)
    numbers = standings(guard, tenants)
    primary = {name: each[0] for name, each in numbers.items() if isinstance(each, tuple) and each}
    varying = set(primary) if indexes else primary.keys() & with_other_index_keys(guard, tenants)
    compared = [each for each in searchable(counted, columns) if each.tenant in varying]
    stale = [each for each in waiting(counted, columns, primary) if each not in compared]
    # Those of another key are among the stale already.
    filled = {name: (None, primary[name]) for name in primary.keys() - varying}
    stale += (each for each in bare if each.key in filled.get(each.tenant, ()))
    by_column = Counter[str]()
    for rows in (*stale, *compared):
        by_column[f"{rows.table}.{rows.column}"] += rows.rows
    sealed = {rows.tenant for rows in counted if rows.key is not None}
    shut = sum(numbers.get(each) is Standing.UNOPENED for each in sealed)
    units = _units(tables, stale, compared)
    return _Found(units, by_column, sum(each.rows for each in compared), shut)


def _units(
    tables: Iterable[tuple[Entry, list[Column[Any]]]], stale: list[Rows], compared: list[Rows]
) -> list[Unit]:
    units = []
    for entry, columns in tables:
        opened = {each.tenant for each in compared if each.table == entry.fullname}
        tenants = Counter[str]()
        for rows in (*stale, *compared):
            if rows.table == entry.fullname:
                tenants[rows.tenant] += rows.rows
        units += [
            Unit(Rewriting(entry, columns, name in opened), name, values, name in opened)
            for name, values in tenants.items()
        ]
    return units
