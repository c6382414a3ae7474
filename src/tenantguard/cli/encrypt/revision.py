"""tenantguard encrypt expand, contract with --revision: the same as an Alembic migration."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.encrypt.changing import asking
from tenantguard.cli.encrypt.compare import compared, failures, require_expanded, write_compared
from tenantguard.cli.keys.opening import own_key, require_answer
from tenantguard.cli.keys.rows import require_encryption
from tenantguard.cli.locate import load_guard
from tenantguard.cli.outcome import FINDINGS, HOLDS, could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.cli.revision import as_python, config_option, revised
from tenantguard.encrypt.migrating import Migration, migration_of
from tenantguard.encrypt.schema import Structure, structure_of
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import Connection

    from tenantguard.guard import TenantGuard
    from tenantguard.integrations.alembic.from_migration import Change
    from tenantguard.integrations.alembic.revision import Find, Revision

__all__ = [
    "contracting",
    "expanding",
    "require_together",
    "revise",
    "revision_options",
    "structure_at",
]

_VERSION = 1


def revision_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that ask for a migration in place of the changes."""
    asked = click.option(
        "--revision",
        "as_revision",
        is_flag=True,
        help="Write an Alembic migration for the database of env.py; change nothing.",
    )
    message = click.option("-m", "--message", default=None, help="What the migration is called.")
    return asked(message(config_option(command)))


def revise(
    ctx: click.Context,
    name: str,
    find: Find,
    *,
    guard_name: str | None,
    message: str | None,
    config_file: Path,
    dry_run: bool,
    output: str,
) -> NoReturn:
    """Write the migration of *name* that *find* describes, or print it, and end the command."""
    guard = None if guard_name is None else load_guard(guard_name)
    called = message or f"{ctx.command.name} {name}"
    found = revised(config_file, called, guard, write=not dry_run, find=find)
    click.echo(_json(name, found) if output == "json" else _text(name, found))
    ctx.exit(FINDINGS if found.operations and dry_run else HOLDS)


def expanding(name: str) -> Find:
    """Return what finds the steps before values can be sealed."""

    def find(connection: Connection, guard: TenantGuard) -> Change:
        from tenantguard.integrations.alembic.from_migration import expanding  # noqa: PLC0415

        migration = migration_of(guard.catalog, name)
        return expanding(migration, structure_at(connection, migration))

    return find


def contracting(ctx: click.Context, name: str, *, keep: bool, output: str) -> Find:
    """Return what finds the steps that end a migration; it compares all values first."""

    def find(connection: Connection, guard: TenantGuard) -> Change:
        from tenantguard.integrations.alembic.from_migration import (  # noqa: PLC0415
            Change,
            contracting,
        )

        migration = migration_of(guard.catalog, name)
        there = structure_at(connection, migration)
        if migration.plain.name not in there.columns:
            return Change([], [])
        require_expanded(migration, there, trigger=True)
        _compare(ctx, connection, guard, migration, output=output)
        return contracting(migration, there, keep=keep)

    return find


def structure_at(connection: Connection, migration: Migration) -> Structure:
    """Return what the database of *connection* has of *migration*.

    Raises:
        ConfigurationError: If it does not have the table.
    """
    found = structure_of(asking(connection), migration)
    if found is None:
        raise ConfigurationError(
            f"The database does not have table {migration.entry.fullname}. Run your migrations."
        )
    return found


def require_together(ctx: click.Context, *, as_revision: bool) -> None:
    """End with 2 if options are given that do not go together."""
    if as_revision and _is_given(ctx, "admin_url"):
        could_not_look("--revision looks at the database that env.py names. Leave --admin-url out.")
    if not as_revision and any(_is_given(ctx, name) for name in ("message", "config_file")):
        could_not_look("--message and --config go with --revision. Give it, or leave them out.")


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _compare(
    ctx: click.Context,
    connection: Connection,
    guard: TenantGuard,
    migration: Migration,
    *,
    output: str,
) -> None:
    require_encryption(guard)
    provider, missed = own_key(guard)
    if provider is None:
        could_not_look(missed[0])
    require_answer(provider)
    access = access_to(guard, connection.engine)
    with progress_bar("comparing", shown=output == "text") as progress:
        found = compared(guard, access, migration, size=1000, progress=progress)
    if failures(found):
        write_compared(migration, found, output=output)
        ctx.exit(FINDINGS)


def _text(name: str, found: Revision) -> str:
    if not found.operations:
        return f"Nothing to do for {name}."
    if found.path is None:
        return as_python(found)
    return f"{found.path}: {found.operations} steps. Review it before you run it."


def _json(name: str, found: Revision) -> str:
    document = {
        "version": _VERSION,
        "column": name,
        "path": None if found.path is None else str(found.path),
        "steps": found.operations,
        "upgrade": found.upgrade if found.operations else "",
        "downgrade": found.downgrade if found.operations else "",
    }
    return json.dumps(document, indent=2)
