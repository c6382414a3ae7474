"""tenantguard migrate: give existing tables their tenant column."""

from __future__ import annotations

import click

from tenantguard.cli.locate import load_guard
from tenantguard.cli.options import create_roles_option, guard_option
from tenantguard.cli.outcome import GuardedCommand
from tenantguard.migrate import sql as migration_sql

__all__ = ["migrate"]


@click.group()
def migrate() -> None:
    """Migrations that give an existing table its tenant column."""


@migrate.command(
    cls=GuardedCommand,
    name="sql",
    examples=[
        "tenantguard migrate sql visits",
        "tenantguard migrate sql lines --from-parent orders.order_id > lines.sql",
    ],
)
@click.argument("table")
@click.option(
    "--from-parent",
    metavar="PARENT.COLUMN",
    help="Take the tenant from this table, through this column of TABLE.",
)
@create_roles_option
@guard_option
def sql(table: str, *, from_parent: str | None, create_roles: bool, guard_name: str | None) -> None:
    """Print the ordered steps for TABLE, each with the lock it takes.

    The model may have the tenant column already, or not yet. Nothing is sent to a database.
    Parents come first; `tenantguard rls apply` comes last.
    """
    guard = load_guard(guard_name)
    script = migration_sql(
        guard.catalog, guard.roles, table, from_parent=from_parent, create_roles=create_roles
    )
    click.echo(script, nl=False)
