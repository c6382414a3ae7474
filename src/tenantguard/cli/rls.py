"""tenantguard rls: the second lock, as SQL and in a database."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tenantguard.catalog import DIALECTS
from tenantguard.cli.check import check as check_command
from tenantguard.cli.diff import diff
from tenantguard.cli.explain import explain
from tenantguard.cli.keys.signing_push import add_keys, pushed_json, pushed_text, signing
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import (
    admin_option,
    create_roles_option,
    format_option,
    guard_option,
)
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.cli.revision import revision
from tenantguard.cli.rls_files import (
    compare_directory,
    compare_file,
    is_directory,
    write_directory,
    write_file,
)
from tenantguard.rls import apply as apply_steps
from tenantguard.rls import apply_roles, down_files, down_sql, files, roles_sql
from tenantguard.rls import sql as up_sql

if TYPE_CHECKING:
    from tenantguard.catalog import Dialect
    from tenantguard.rls import Pushed
    from tenantguard.rls.step import Step

__all__ = ["rls"]

_VERSION = 1


@click.group()
def rls() -> None:
    """Row-level security, generated from the models."""


rls.add_command(signing)
rls.add_command(revision)
rls.add_command(check_command)
rls.add_command(explain)
rls.add_command(diff)


@rls.command(
    cls=GuardedCommand,
    name="sql",
    examples=[
        "tenantguard rls sql --out policies.sql",
        "tenantguard rls sql --out sql/ && tenantguard rls sql --check sql/",
        "tenantguard rls sql --down",
    ],
)
@guard_option
@click.option("--down", is_flag=True, help="What removes it again; tables and roles stay.")
@create_roles_option
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    help="For which database; without it, the guard's own.",
)
@click.option(
    "--check",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Compare with a committed file or directory.",
)
@click.option(
    "--out",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="Write to a file; to a directory, one file a table and phase.",
)
@click.pass_context
def sql(
    ctx: click.Context,
    *,
    guard_name: str | None,
    down: bool,
    create_roles: bool,
    dialect: Dialect | None,
    check: Path | None,
    out: Path | None,
) -> None:
    """Print the SQL that the models ask for; the same models give the same text.

    A PATH that is a directory, or is not there and has no ending such as .sql, is a directory. With
    --check, ends with 1 and a diff if PATH does not hold that text.
    """
    guard = load_guard(guard_name)
    catalog, roles = guard.catalog, guard.roles
    if dialect is not None:
        catalog = replace(catalog, dialect=dialect)
    path = check or out
    if path is not None and is_directory(path):
        texts = (
            down_files(catalog, roles) if down else files(catalog, roles, create_roles=create_roles)
        )
        if check is not None:
            ctx.exit(compare_directory(path, texts, down=down))
        write_directory(path, texts, down=down)
        return
    script = down_sql(catalog, roles) if down else up_sql(catalog, roles, create_roles=create_roles)
    if check is not None:
        ctx.exit(compare_file(check, script))
    if out is not None:
        write_file(out, script)
        return
    click.echo(script, nl=False)


@rls.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard rls apply --dry-run",
        "tenantguard rls apply --create-roles",
        "TENANTGUARD_ADMIN_URL=postgresql+psycopg://… tenantguard rls apply --format json",
    ],
)
@guard_option
@admin_option
@create_roles_option
@click.option("--dry-run", is_flag=True, help="Say what is missing; ends with 1 if anything is.")
@format_option
@click.pass_context
def apply(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    create_roles: bool,
    dry_run: bool,
    output: str,
) -> None:
    """Bring the database to what the models ask for; a second run does nothing.

    With signed_setting=True the file's keys are added too; `tenantguard rls signing push` also
    removes.
    """
    guard = load_guard(guard_name)
    engine = admin_engine(admin_url)
    try:
        with progress_bar("row-level security", shown=output == "text" and not dry_run) as progress:
            steps = apply_steps(
                engine,
                guard.catalog,
                guard.roles,
                create_roles=create_roles,
                dry_run=dry_run,
                progress=lambda done, total, step: progress(done, total, step.table),
            )
        pushed = add_keys(guard, engine, steps, dry_run=dry_run)
    finally:
        engine.dispose()
    (_write_json if output == "json" else _write_text)(steps, pushed, dry_run=dry_run)
    missing = bool(steps) or (pushed is not None and pushed.changes)
    ctx.exit(FINDINGS if dry_run and missing else HOLDS)


@rls.command(
    cls=GuardedCommand,
    examples=["tenantguard rls roles", "tenantguard rls roles --apply"],
)
@guard_option
@admin_option
@click.option("--apply", "execute", is_flag=True, help="Create the missing ones, as a superuser.")
def roles(*, guard_name: str | None, admin_url: str | None, execute: bool) -> None:
    """Print the SQL that creates the roles; --apply creates those that are missing.

    Tables need not be classified for it. Passwords are never set.
    """
    guard = load_guard(guard_name)
    if not execute:
        click.echo(roles_sql(guard.roles), nl=False)
        return
    engine = admin_engine(admin_url)
    try:
        made = apply_roles(engine, guard.roles)
    finally:
        engine.dispose()
    for step in made:
        click.echo(f"made: {step}")
    if not made:
        click.echo("Nothing to do: the roles exist.")


def _write_json(steps: list[Step], pushed: Pushed | None, *, dry_run: bool) -> None:
    listed = [
        {"table": step.table or None, "kind": step.kind.value, "name": step.name} for step in steps
    ]
    document: dict[str, Any] = {"version": _VERSION, "applied": not dry_run, "steps": listed}
    if pushed is not None:
        document["signing_keys"] = pushed_json(pushed)
    click.echo(json.dumps(document, indent=2))


def _write_text(steps: list[Step], pushed: Pushed | None, *, dry_run: bool) -> None:
    if pushed is not None and pushed.changes:
        click.echo("\n".join(pushed_text(pushed, dry_run=dry_run)))
    for step in steps:
        click.echo(f"{'missing' if dry_run else 'made'}: {step}")
    if not steps:
        click.echo("Nothing to do: the database has what the models ask for.")
    elif dry_run:
        click.echo(f"{len(steps)} steps missing. Run the command without --dry-run to make them.")
    else:
        click.echo(f"{len(steps)} steps made.")
