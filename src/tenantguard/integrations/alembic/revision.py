"""A migration with what a database is missing, written by Alembic itself."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.autogenerate import render_op_text
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.util import CommandError

from tenantguard.errors import ConfigurationError
from tenantguard.integrations.alembic.from_migration import Change
from tenantguard.integrations.alembic.missing import missing_operations
from tenantguard.integrations.alembic_plugin import OPTION

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alembic.operations import MigrateOperation
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection

    from tenantguard.guard import TenantGuard

    Find = Callable[[Connection, TenantGuard], Change]
    """Returns what is missing."""

__all__ = ["Revision", "revise"]


@dataclass(frozen=True, slots=True)
class Revision:
    """What a database is missing.

    Attributes:
        operations: How many operations bring it.
        upgrade: They, as Python.
        downgrade: What restores the state that is there now, as Python.
        sql: The statements of the upgrade.
        path: The migration that was written, if one was.
    """

    operations: int
    upgrade: str
    downgrade: str
    sql: tuple[str, ...]
    path: Path | None = None


class _SeenError(Exception):
    """Ends the run of `env.py`: there is nothing to write."""

    def __init__(self, found: Revision) -> None:
        self.found = found


def revise(
    config_file: Path,
    *,
    message: str = "",
    guard: TenantGuard | None = None,
    write: bool = True,
    find: Find | None = None,
) -> Revision:
    """Return what the database of `env.py` is missing; *write* it into a new migration.

    The database has to be at the newest migration. Where nothing is missing, nothing is written.

    Args:
        config_file: Alembic's, such as alembic.ini.
        message: What the migration is called.
        guard: The application's guard; without it, the one that `env.py` configures.
        write: Write the migration.
        find: What says what is missing, given the connection of `env.py` and the guard; without it,
            row-level security.

    Raises:
        ConfigurationError: If `env.py` does not call `configure`, the database is behind, Alembic
            stops, or as `tenantguard.rls.plan`.
    """
    if not config_file.is_file():
        raise ConfigurationError(f"There is no {config_file}. Name Alembic's file with --config.")
    output = StringIO()
    config = Config(
        str(config_file), stdout=output, cmd_opts=Namespace(x=None, autogenerate=False, quiet=True)
    )
    # Alembic runs env.py for it, and compares nothing itself.
    config.set_main_option("revision_environment", "true")
    writer = _Writer(guard, find or _protecting, write=write)
    try:
        made: Any = command.revision(config, message, process_revision_directives=writer)
    except _SeenError as seen:
        return seen.found
    except CommandError as error:
        raise ConfigurationError(f"Alembic stops: {error}") from None
    return replace(writer.found, path=Path(made.path))


class _Writer:
    """Fills the migration that Alembic is about to write."""

    def __init__(self, guard: TenantGuard | None, find: Find, *, write: bool) -> None:
        self._guard = guard
        self._find = find
        self._write = write
        self.found = Revision(0, "", "", ())

    def __call__(self, context: MigrationContext, revision: Any, directives: list[Any]) -> None:
        configured = context.opts.get(OPTION)
        if configured is None or context.connection is None:
            raise ConfigurationError(
                "env.py does not call tenantguard.integrations.alembic.configure(guard, "
                "connection=…), so a migration could not use our operations. Call it in place of "
                "context.configure(connection=…)."
            )
        _refuse_old(context, revision)
        change = self._find(context.connection, self._guard or configured)
        self.found = _described(change, context)
        if not (change.up and self._write):
            raise _SeenError(self.found)
        [script] = directives
        script.upgrade_ops.ops[:] = change.up
        script.downgrade_ops.ops[:] = change.down


def _protecting(connection: Connection, guard: TenantGuard) -> Change:
    """Return what the database is missing of row-level security, and what restores it."""
    up = missing_operations(connection, guard)
    return Change(up, [each.reverse() for each in up[::-1]])


def _refuse_old(context: MigrationContext, revision: Any) -> None:
    script = context.script
    if script is not None and set(script.get_revisions(revision)) != set(
        script.get_revisions("heads")
    ):
        raise ConfigurationError(
            "The database is not at the newest migration, so what it is missing would not be what "
            "the others leave. Run `alembic upgrade head` first."
        )


def _described(change: Change, context: MigrationContext) -> Revision:
    return Revision(
        len(change.up),
        _as_python(change.up, context),
        _as_python(change.down, context),
        tuple(line for each in change.up for line in each.statements()),
    )


def _as_python(operations: Sequence[MigrateOperation], context: MigrationContext) -> str:
    rendering = AutogenContext(context, autogenerate=False)
    lines = [render_op_text(rendering, each) for each in operations]
    return indent("\n".join(lines) or "pass", "    ")
