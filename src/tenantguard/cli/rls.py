"""tenantguard rls: the second lock, as SQL and in a database."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
from rich.console import Console
from rich.progress import Progress

from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import (
    admin_option,
    create_roles_option,
    format_option,
    guard_option,
)
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.cli.signing_push import add_keys, pushed_json, pushed_text, signing
from tenantguard.rls import apply as apply_steps
from tenantguard.rls import apply_roles, down_sql, roles_sql
from tenantguard.rls import sql as up_sql

if TYPE_CHECKING:
    from tenantguard.rls import Pushed
    from tenantguard.rls.step import Step

__all__ = ["rls"]

_VERSION = 1


@click.group()
def rls() -> None:
    """Row-level security, generated from the models."""


rls.add_command(signing)


@rls.command(
    cls=GuardedCommand,
    name="sql",
    examples=[
        "tenantguard rls sql --out policies.sql",
        "tenantguard rls sql --check policies.sql",
        "tenantguard rls sql --down",
    ],
)
@guard_option
@click.option("--down", is_flag=True, help="What removes it again; tables and roles stay.")
@create_roles_option
@click.option("--check", type=click.Path(path_type=Path), help="Compare with a committed file.")
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file.")
@click.pass_context
def sql(
    ctx: click.Context,
    *,
    guard_name: str | None,
    down: bool,
    create_roles: bool,
    check: Path | None,
    out: Path | None,
) -> None:
    """Print the SQL that the models ask for; the same models give the same text.

    With --check, ends with 1 and a diff if the file is not that text.
    """
    guard = load_guard(guard_name)
    if down:
        script = down_sql(guard.catalog, guard.roles)
    else:
        script = up_sql(guard.catalog, guard.roles, create_roles=create_roles)
    if check is not None:
        ctx.exit(_compare(check, script))
    if out is None:
        click.echo(script, nl=False)
        return
    try:
        out.write_text(script, encoding="utf-8")
    except OSError as error:
        could_not_look(f"{out} cannot be written ({error.strerror}). Choose another --out.")


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
        with _Bar(shown=output == "text" and not dry_run) as bar:
            steps = apply_steps(
                engine,
                guard.catalog,
                guard.roles,
                create_roles=create_roles,
                dry_run=dry_run,
                progress=bar.advance,
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


class _Bar:
    """A progress bar on a terminal, nothing elsewhere."""

    def __init__(self, *, shown: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            console=console, transient=True, disable=not (shown and console.is_terminal)
        )
        self._task = self._progress.add_task("row-level security", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, done: int, total: int, step: Step) -> None:
        self._progress.update(self._task, completed=done, total=total, description=step.table)


def _compare(path: Path, script: str) -> int:
    try:
        committed = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        could_not_look(
            f"{path} cannot be read ({type(error).__name__}). Write it with "
            f"`tenantguard rls sql --out {path}`."
        )
    if committed == script:
        return HOLDS
    lines = difflib.unified_diff(
        committed.splitlines(keepends=True),
        script.splitlines(keepends=True),
        fromfile=str(path),
        tofile="what the models ask for",
    )
    click.echo("".join(line if line.endswith("\n") else f"{line}\n" for line in lines), nl=False)
    return FINDINGS


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
