"""tenantguard encrypt backfill, verify: sealing the plaintext that is there, and comparing it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import click

from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.encrypt.compare import (
    compared,
    failures,
    require_expanded,
    rows_of_tenants,
    write_compared,
)
from tenantguard.cli.encrypt.done import Work, write_done
from tenantguard.cli.encrypt.migrate import structure
from tenantguard.cli.encrypt.options import (
    chosen_tenant,
    pace_options,
    require_known,
    tenant_option,
)
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.rows import read_tenants
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.encrypt.backfilling import Backfilling, Restoring, writer
from tenantguard.encrypt.migrating import migration_of
from tenantguard.encrypt.passes import Unit
from tenantguard.encrypt.working import Done, Pace, work
from tenantguard.rls.names import quote

if TYPE_CHECKING:
    from tenantguard.encrypt.batches import Job
    from tenantguard.encrypt.migrating import Migration

__all__ = ["backfill", "verify"]

_name = click.argument("name", metavar="TABLE.COLUMN")


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard encrypt backfill patients.name --dry-run",
        "tenantguard encrypt backfill patients.name --workers 4 --pause 0.1",
        "tenantguard encrypt backfill patients.name --decrypt",
    ],
)
@_name
@guard_option
@admin_option
@tenant_option
@pace_options
@click.option("--decrypt", is_flag=True, help="Put plaintext back where there is none.")
@click.option("--dry-run", is_flag=True, help="Count the rows, and change nothing.")
@format_option
@click.pass_context
def backfill(
    ctx: click.Context,
    name: str,
    *,
    guard_name: str | None,
    admin_url: str | None,
    tenant: str | None,
    batch: int,
    workers: int,
    pause: float,
    decrypt: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Seal the plaintext of rows that have nothing sealed; the application goes on.

    It can be ended at any time; the next run does the rest. The address is a superuser's, or a
    login's that is granted the application's and the maintenance role. Ends with 1 if rows were
    left.
    """
    started, done = time.monotonic(), Done()
    with opened(guard_name, admin_url) as at:
        migration = migration_of(at.guard.catalog, name)
        require_expanded(migration, structure(at.engine, migration), trigger=not decrypt)
        tenants = rows_of_tenants(
            at.guard, at.engine, migration, _condition(migration, decrypt=decrypt)
        )
        only = chosen_tenant(at.guard.catalog, tenant)
        if only is not None:
            require_known(read_tenants(at.guard, at.engine), only)
            tenants = [each for each in tenants if each[0] == only]
        job = _job(migration, decrypt=decrypt)
        units = [Unit(job, name, rows) for name, rows in tenants]
        if not dry_run:
            access = access_to(at.guard, at.engine)
            with progress_bar(migration.name, shown=output == "text") as progress:
                pace = Pace(batch, workers, pause)
                done = work(access, units, pace=pace, progress=progress, create=not decrypt)
    waiting = Counter({migration.name: sum(unit.values for unit in units)})
    verb = "decrypted" if decrypt else "sealed"
    summary = Work(verb, +waiting, 0, 0, time.monotonic() - started)
    write_done(summary, done, output=output, dry_run=dry_run)
    ctx.exit(HOLDS if done.complete else FINDINGS)


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard encrypt verify patients.name",
        "tenantguard encrypt verify patients.name --format json",
    ],
)
@_name
@guard_option
@admin_option
@format_option
@click.pass_context
def verify(
    ctx: click.Context, name: str, *, guard_name: str | None, admin_url: str | None, output: str
) -> None:
    """Open every sealed value and compare it with the plaintext beside it.

    Nothing is written. The address is as for `backfill`. Ends with 1 if a row does not hold what it
    should.
    """
    with opened(guard_name, admin_url) as at:
        migration = migration_of(at.guard.catalog, name)
        require_expanded(migration, structure(at.engine, migration), trigger=False)
        access = access_to(at.guard, at.engine)
        with progress_bar("comparing", shown=output == "text") as progress:
            found = compared(at.guard, access, migration, size=1000, progress=progress)
    write_compared(migration, found, output=output)
    ctx.exit(FINDINGS if failures(found) else HOLDS)


def _condition(migration: Migration, *, decrypt: bool) -> str:
    plain, sealed = quote(migration.plain.name), quote(migration.sealed.name)
    there, missing = (sealed, plain) if decrypt else (plain, sealed)
    return f"{there} IS NOT NULL AND {missing} IS NULL"


def _job(migration: Migration, *, decrypt: bool) -> Job:
    if decrypt:
        return Restoring(migration, writer(migration.plain))
    return Backfilling(migration)
