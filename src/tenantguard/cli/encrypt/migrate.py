"""tenantguard encrypt plan, expand, contract: the table around a migration of plaintext."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.encrypt.changing import send
from tenantguard.cli.encrypt.compare import (
    compared,
    failures,
    require_expanded,
    write_compared,
)
from tenantguard.cli.encrypt.plan import facts, write_plan
from tenantguard.cli.encrypt.revision import (
    contracting,
    expanding,
    require_together,
    revise,
    revision_options,
    structure_at,
)
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.encrypt.migrating import Migration, migration_of
from tenantguard.encrypt.schema import Statements, Structure, contract, expand, left_by_contract

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Engine

__all__ = ["contract_command", "expand_command", "plan_command", "structure"]

_VERSION = 1
_name = click.argument("name", metavar="TABLE.COLUMN")


@click.command(cls=GuardedCommand, name="plan", examples=["tenantguard encrypt plan patients.name"])
@_name
@guard_option
@admin_option
@format_option
def plan_command(name: str, *, guard_name: str | None, admin_url: str | None, output: str) -> None:
    """Say what encrypting a column of plaintext will do: rows, sizes, locks, and what keeps it.

    Nothing is changed. TABLE.COLUMN is the plain column, or the encrypted one that is declared with
    migrating=. The address must see all rows.
    """
    with opened(guard_name, admin_url) as at:
        migration = migration_of(at.guard.catalog, name)
        there = structure(at.engine, migration)
        missing = list(expand(migration, there))
        write_plan(migration, facts(at.guard, at.engine, migration, there), missing, output=output)


@click.command(
    cls=GuardedCommand,
    name="expand",
    examples=[
        "tenantguard encrypt expand patients.name --dry-run",
        "tenantguard encrypt expand patients.name",
        'tenantguard encrypt expand patients.name --revision -m "seal names"',
    ],
)
@_name
@guard_option
@admin_option
@revision_options
@click.option("--dry-run", is_flag=True, help="Print it; ends with 1 if anything is missing.")
@format_option
@click.pass_context
def expand_command(
    ctx: click.Context,
    /,
    name: str,
    *,
    guard_name: str | None,
    admin_url: str | None,
    as_revision: bool,
    dry_run: bool,
    output: str,
    **written: Any,
) -> None:
    """Add the encrypted column, its index and check, and the trigger for older applications.

    The address is the tables' owner's or a superuser's. A second run does nothing.
    """
    require_together(ctx, as_revision=as_revision)
    if as_revision:
        asked = {"guard_name": guard_name, "dry_run": dry_run, "output": output, **written}
        revise(ctx, name, expanding(name), **asked)
    with opened(guard_name, admin_url) as at:
        migration = migration_of(at.guard.catalog, name)
        missing = list(expand(migration, structure(at.engine, migration)))
        _change(at.engine, migration, missing, output=output, dry_run=dry_run)
    ctx.exit(FINDINGS if dry_run and missing else HOLDS)


@click.command(
    cls=GuardedCommand,
    name="contract",
    examples=[
        "tenantguard encrypt contract patients.name --dry-run",
        "tenantguard encrypt contract patients.name --keep",
        'tenantguard encrypt contract patients.name --revision -m "drop plaintext"',
    ],
)
@_name
@guard_option
@admin_option
@click.option("--keep", is_flag=True, help="Rename the column of plaintext instead of dropping it.")
@revision_options
@click.option("--dry-run", is_flag=True, help="Compare, and print it.")
@format_option
@click.pass_context
def contract_command(
    ctx: click.Context,
    /,
    name: str,
    *,
    guard_name: str | None,
    admin_url: str | None,
    keep: bool,
    as_revision: bool,
    dry_run: bool,
    output: str,
    **written: Any,
) -> None:
    """Drop the column of plaintext, once every value was compared with what is sealed.

    The comparison is part of it; if it does not hold, nothing is changed and it ends with 1; a
    check that an interrupted run has left is dropped, so that applications go on writing. The
    address is a superuser's, or the owner's if it is granted the application's and the maintenance
    role. No application may need the plain column any more.
    """
    require_together(ctx, as_revision=as_revision)
    if as_revision:
        asked = {"guard_name": guard_name, "dry_run": dry_run, "output": output, **written}
        revise(ctx, name, contracting(ctx, name, keep=keep, output=output), **asked)
    with opened(guard_name, admin_url) as at:
        migration = migration_of(at.guard.catalog, name)
        there = structure(at.engine, migration)
        if migration.plain.name not in there.columns:
            _change(at.engine, migration, (), output=output, dry_run=dry_run)
            ctx.exit(HOLDS)
        require_expanded(migration, there, trigger=True)
        access = access_to(at.guard, at.engine)
        with progress_bar("comparing", shown=output == "text") as progress:
            found = compared(at.guard, access, migration, size=1000, progress=progress)
        if failures(found):
            if not dry_run:
                send(at.engine, left_by_contract(migration, there), progress=lambda *_: None)
            write_compared(migration, found, output=output)
            ctx.exit(FINDINGS)
        wanted = contract(migration, there, keep=keep)
        _change(at.engine, migration, wanted, output=output, dry_run=dry_run)


def structure(engine: Engine, migration: Migration) -> Structure:
    """Return what the database has of *migration*.

    Raises:
        ConfigurationError: If it does not have the table.
    """
    with engine.connect() as connection:
        return structure_at(connection, migration)


def _change(
    engine: Engine,
    migration: Migration,
    statements: Iterable[Statements],
    *,
    output: str,
    dry_run: bool,
) -> None:
    listed = list(statements)
    if not dry_run:
        with progress_bar(migration.name, shown=output == "text") as progress:
            send(engine, listed, progress=progress)
    if output == "json":
        click.echo(json.dumps(_document(migration, listed, applied=not dry_run), indent=2))
        return
    for each in listed:
        if dry_run:
            click.echo(f"-- {each.what}; {each.lock}, {each.duration}")
            click.echo("".join(f"{statement};\n" for statement in each.sql))
        else:
            click.echo(f"done: {each.what}")
    if not listed:
        click.echo(f"Nothing to do for {migration.name}.")


def _document(migration: Migration, listed: list[Statements], *, applied: bool) -> dict[str, Any]:
    steps = [
        {"what": each.what, "lock": each.lock, "duration": each.duration, "sql": list(each.sql)}
        for each in listed
    ]
    return {"version": _VERSION, "column": migration.name, "applied": applied, "steps": steps}
