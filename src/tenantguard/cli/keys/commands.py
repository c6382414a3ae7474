"""tenantguard keys: the key-encryption key, and the keysets of the tenants."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tenantguard.cli.keys.check import check
from tenantguard.cli.keys.destroy import destroy
from tenantguard.cli.keys.judging import FOREIGN, findings, judge, verify
from tenantguard.cli.keys.making import Made, make_keys, writing_role
from tenantguard.cli.keys.opening import own_key, require_answer, tracked
from tenantguard.cli.keys.report import VERSION, Seen, write_list, write_made
from tenantguard.cli.keys.retire import retire
from tenantguard.cli.keys.rewrap import rewrap
from tenantguard.cli.keys.rotate import rotate
from tenantguard.cli.keys.rows import read_tenants, require_encryption
from tenantguard.cli.keys.signing import signing
from tenantguard.cli.keys.transfer import export, import_
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import (
    FINDINGS,
    HOLDS,
    GuardedCommand,
    could_not_look,
)
from tenantguard.crypto.keyfile import make_key_file

__all__ = ["keys"]

_tenants_option = click.option(
    "--tenants", "named", is_flag=True, help="Name the tenants; nothing else prints their ids."
)


@click.group()
def keys() -> None:
    """Keys of encrypted columns: the key-encryption key, and the tenants' keysets."""


keys.add_command(signing)
keys.add_command(rewrap)
keys.add_command(rotate)
keys.add_command(retire)
keys.add_command(destroy)
keys.add_command(check)
keys.add_command(export)
keys.add_command(import_)


@keys.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys init /etc/myapp/tenantguard.json --environment production",
        "tenantguard keys init dev-key.json --environment development --format json",
    ],
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--environment",
    metavar="NAME",
    required=True,
    help="Where the application runs, such as production; elsewhere the key is refused.",
)
@format_option
def init(file: Path, *, environment: str, output: str) -> None:
    """Make a key-encryption key in FILE, which must not exist; only its owner may read it.

    The key is never printed. Each environment has one of its own.
    """
    uri = make_key_file(file, environment=environment)
    if output == "json":
        made = {"version": VERSION, "file": str(file), "environment": environment, "kek_uri": uri}
        click.echo(json.dumps(made, indent=2))
        return
    where = json.dumps(str(file.absolute()))
    click.echo(
        f"Made {file}, the key {uri}. Only the file's owner can read it.\n\n"
        "Whoever loses it loses every encrypted field of every tenant, for good: nobody can make "
        "it again.\n"
        "- Back it up now, apart from the backups of the database: both together are plaintext.\n"
        "- Never commit it, and never put it into an image.\n\n"
        "Next, give it to the guard:\n"
        f'    TenantGuard(…, keys=KeyFile({where}, environment="{environment}"))\n'
        "then make the tenants' keysets with `tenantguard keys create`, or let each tenant's first "
        "encrypted value make them."
    )


@keys.command(
    cls=GuardedCommand,
    name="list",
    examples=[
        "tenantguard keys list",
        "tenantguard keys list --verify --format json",
        "tenantguard keys list --verify --tenants",
    ],
)
@guard_option
@admin_option
@_tenants_option
@click.option("--verify", "opening", is_flag=True, help="Open every keyset with the guard's key.")
@format_option
@click.pass_context
def list_(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    named: bool,
    opening: bool,
    output: str,
) -> None:
    """Count the tenants' keysets, and compare them with the guard's keys=.

    The address must see all rows: a superuser's, or a login's that is granted the maintenance or
    the backup role. Ends with 1 on findings, with 2 if something could not be looked at.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    engine = admin_engine(admin_url)
    try:
        tenants = read_tenants(guard, engine, wrapped=opening)
    finally:
        engine.dispose()
    provider, missed = own_key(guard)
    uri = provider.uri if provider else None
    judge(tenants, provider)
    if provider and opening:
        require_answer(provider)
        for tenant in tracked(tenants, "opening keysets", shown=output == "text"):
            verify(guard, tenant, provider)
    found = list(findings(guard, tenants, provider))
    seen = Seen(tenants, found, uri, verified=bool(provider and opening))
    write_list(seen, missed, output=output, named=named)
    for reason in missed:
        could_not_look(f"The keysets were not compared with a key. {reason}")
    ctx.exit(FINDINGS if found else HOLDS)


@keys.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys create --dry-run",
        "tenantguard keys create",
        "tenantguard keys create --tenants --format json",
    ],
)
@guard_option
@admin_option
@click.option("--dry-run", is_flag=True, help="Count the tenants without keys, and change nothing.")
@_tenants_option
@format_option
@click.pass_context
def create(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    dry_run: bool,
    named: bool,
    output: str,
) -> None:
    """Make the keysets of all tenants that have none; a second run makes nothing.

    The address must be a superuser's, or a login's that is granted the maintenance role. Nothing is
    made while keysets are there that another key has wrapped, and never one for a tenant that has
    lost a keyset. Ends with 1 on findings, or if some could not be made.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    engine = admin_engine(admin_url)
    provider, missed = own_key(guard)
    if provider is None:
        could_not_look(missed[0])
    try:
        tenants = read_tenants(guard, engine)
        judge(tenants, provider)
        found = list(findings(guard, tenants, provider))
        waiting = [tenant.id for tenant in tenants if tenant.waiting]
        result = Made()
        wrong_key = any(each.code == FOREIGN for each in found)
        if waiting and not (dry_run or wrong_key):
            role = writing_role(guard, engine)
            shown = tracked(waiting, "making keysets", shown=output == "text")
            result = make_keys(guard, engine, role, shown)
    finally:
        engine.dispose()
    write_made(result, tenants, found, output=output, dry_run=dry_run, named=named)
    if result.stopped:
        could_not_look(f"{result.stopped} Run the command again; what was made stays.")
    ctx.exit(FINDINGS if found or result.failed else HOLDS)
