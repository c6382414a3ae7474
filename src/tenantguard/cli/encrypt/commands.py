"""tenantguard encrypt: the values of encrypted columns in tables that have rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tenantguard.cli.encrypt.backfill import backfill, verify
from tenantguard.cli.encrypt.leaks import leaks
from tenantguard.cli.encrypt.migrate import contract_command, expand_command, plan_command
from tenantguard.cli.encrypt.report import write_status
from tenantguard.cli.encrypt.rewrite import rewrite
from tenantguard.cli.encrypt.standing import Standing, findings, stand, standings
from tenantguard.cli.keys.rows import read_tenants, require_encryption
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.cli.seeing import seen_whole
from tenantguard.encrypt.counting import counted_tables, rows_by_key

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenantguard.cli.encrypt.standing import Stood
    from tenantguard.guard import TenantGuard

__all__ = ["encrypt"]


@click.group()
def encrypt() -> None:
    """Values of encrypted columns: by key, sealed anew, and sealed for the first time."""


for _each in (rewrite, leaks, plan_command, expand_command, backfill, verify, contract_command):
    encrypt.add_command(_each)


@encrypt.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard encrypt status",
        "tenantguard encrypt status --tenants",
        "tenantguard encrypt status --format json",
    ],
)
@guard_option
@admin_option
@click.option(
    "--tenants", "named", is_flag=True, help="Count by tenant; nothing else prints their ids."
)
@format_option
@click.pass_context
def status(
    ctx: click.Context, *, guard_name: str | None, admin_url: str | None, named: bool, output: str
) -> None:
    """Count the values of each encrypted column by the key that sealed them.

    The address must see all rows: a superuser's, or a login's that is granted the maintenance or
    the backup role. Every row is read, no value is opened. Ends with 1 if values cannot be read,
    with 2 if a keyset could not be opened.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    engine = admin_engine(admin_url)
    try:
        stood = look(guard, engine)
    finally:
        engine.dispose()
    found = list(findings(stood))
    write_status(stood, found, output=output, named=named)
    if any(each.standing is Standing.UNOPENED for each in stood):
        could_not_look(
            "Keysets of some tenants could not be opened, so the rank of their keys is not known. "
            "`tenantguard keys list --verify` says why."
        )
    ctx.exit(FINDINGS if found else HOLDS)


def look(guard: TenantGuard, engine: Engine) -> list[Stood]:
    """Return the rows of every encrypted column, with the standing of what they hold."""
    guard._open_keystore()  # noqa: SLF001  (the commands are the guard's own)
    with seen_whole(guard, engine, counted_tables(guard.catalog)) as run:
        counted = rows_by_key(run, guard.catalog)
    # Keysets after the values: a key is made before what it seals.
    tenants = read_tenants(guard, engine, wrapped=True)
    return stand(counted, standings(guard, tenants))
