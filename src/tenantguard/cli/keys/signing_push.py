"""tenantguard rls signing: the signing keys in the database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand, could_not_look
from tenantguard.rls import Pushed, push_signing_keys
from tenantguard.rls.signed import SIGNING_TABLE

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenantguard.guard import TenantGuard
    from tenantguard.rls import Step

__all__ = ["add_keys", "pushed_json", "pushed_text", "signing"]

_VERSION = 1


@click.group()
def signing() -> None:
    """The signed setting: the keys with which the database verifies the tenant."""


@signing.command(
    cls=GuardedCommand,
    examples=["tenantguard rls signing push --dry-run", "tenantguard rls signing push"],
)
@guard_option
@admin_option
@click.option("--dry-run", is_flag=True, help="Say what would change; ends with 1 if anything.")
@format_option
@click.pass_context
def push(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Let the database believe the keys of the guard's file, and no others.

    Keys are named by their ids, and never printed.
    """
    guard = load_guard(guard_name)
    if guard.signing is None or not guard.catalog.signed:
        could_not_look(
            "The guard has no signed setting. Make a key with `tenantguard keys signing init FILE "
            "--environment NAME`, and pass signing=SigningFile(FILE, environment=NAME) and "
            "signed_setting=True."
        )
    keys = guard.signing.keys
    engine = admin_engine(admin_url)
    try:
        pushed = push_signing_keys(engine, guard.catalog, keys, dry_run=dry_run)
    finally:
        engine.dispose()
    if output == "json":
        document = {"version": _VERSION, "applied": not dry_run, **pushed_json(pushed)}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(pushed_text(pushed, dry_run=dry_run)))
    ctx.exit(FINDINGS if dry_run and pushed.changes else HOLDS)


def add_keys(
    guard: TenantGuard, engine: Engine, steps: list[Step], *, dry_run: bool
) -> Pushed | None:
    """Add the guard's keys to a database that has taken *steps*, or would; remove none.

    So a process that has an older file takes no key away.
    """
    if guard.signing is None or not guard.catalog.signed:
        return None
    keys = guard.signing.keys
    if dry_run and any(step.name == SIGNING_TABLE for step in steps):
        # The table may not be there yet.
        return Pushed(tuple(keys), (), ())
    return push_signing_keys(engine, guard.catalog, keys, dry_run=dry_run, only_add=True)


def pushed_json(pushed: Pushed) -> dict[str, Any]:
    """Return *pushed* as the commands' JSON has it."""
    return {"added": pushed.added, "removed": pushed.removed, "kept": pushed.kept}


def pushed_text(pushed: Pushed, *, dry_run: bool) -> list[str]:
    """Return a line for each key that changed, or one that says that none did."""
    missing, foreign = ("missing", "not in the file") if dry_run else ("added", "removed")
    lines = [f"{missing}: signing key {key}" for key in pushed.added]
    lines += [f"{foreign}: signing key {key}" for key in pushed.removed]
    return lines or ["Nothing to do: the database has the file's signing keys."]
