"""tenantguard rls revision: an Alembic migration with what the database is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tenantguard.cli.locate import load_guard
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look

if TYPE_CHECKING:
    from tenantguard.guard import TenantGuard
    from tenantguard.integrations.alembic.revision import Find, Revision

__all__ = ["as_python", "config_option", "revised", "revision"]

config_option = click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    default=Path("alembic.ini"),
    show_default=True,
    help="Alembic's file.",
)


@click.command(
    cls=GuardedCommand,
    examples=[
        'tenantguard rls revision -m "protect orders"',
        "tenantguard rls revision --dry-run",
        "tenantguard rls revision --sql --config migrations/alembic.ini",
    ],
)
@click.option("-m", "--message", default="tenant isolation", help="What the migration is called.")
@config_option
@click.option(
    "--guard",
    "guard_name",
    metavar="MODULE:ATTRIBUTE",
    help="Where the TenantGuard is; without it, the one that env.py configures.",
)
@click.option("--dry-run", is_flag=True, help="Print it; ends with 1 if anything is missing.")
@click.option("--sql", is_flag=True, help="The same, as the SQL that the migration would run.")
@click.pass_context
def revision(
    ctx: click.Context,
    *,
    message: str,
    config_file: Path,
    guard_name: str | None,
    dry_run: bool,
    sql: bool,
) -> None:
    """Write a migration with what the database is missing of row-level security.

    env.py says where the database is, which has to be at the newest migration. The downgrade
    restores what the database has now, and refuses to take protection away unless it is run with
    `alembic -x allow_unprotected=true`.
    """
    guard = None if guard_name is None else load_guard(guard_name)
    found = revised(config_file, message, guard, write=not (dry_run or sql))
    if not found.operations:
        click.echo("Nothing to do: the database has what the models ask for.")
        ctx.exit(HOLDS)
    if found.path is not None:
        click.echo(f"{found.path}: {found.operations} operations. Review it before you run it.")
        ctx.exit(HOLDS)
    click.echo("\n".join(f"{line};" for line in found.sql) if sql else as_python(found))
    ctx.exit(FINDINGS)


def revised(
    config_file: Path,
    message: str,
    guard: TenantGuard | None,
    *,
    write: bool,
    find: Find | None = None,
) -> Revision:
    """Return what is missing, written into a migration if it is to be; ends with 2 without Alembic.

    Raises:
        ConfigurationError: As `tenantguard.integrations.alembic.revision.revise`.
    """
    try:
        from tenantguard.integrations.alembic.revision import revise  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "alembic":
            raise
        could_not_look("Alembic is not installed here: pip install alembic.")
    return revise(config_file, message=message, guard=guard, write=write, find=find)


def as_python(found: Revision) -> str:
    """Return the migration's two functions."""
    return f"def upgrade():\n{found.upgrade}\n\n\ndef downgrade():\n{found.downgrade}"
