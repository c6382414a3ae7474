"""The group of commands."""

from __future__ import annotations

import importlib

import click

from tenantguard.cli.doctor import doctor
from tenantguard.cli.encrypt.commands import encrypt
from tenantguard.cli.keys.commands import keys
from tenantguard.cli.migrate import migrate
from tenantguard.cli.outcome import could_not_look
from tenantguard.cli.prove import prove_command
from tenantguard.cli.rls import rls
from tenantguard.cli.tables import tables

__all__ = ["main"]

_DEMO = "demo"


class _Commands(click.Group):
    """Commands; the demonstration is loaded when it is asked for, because it needs its extra."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), _DEMO])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _demo() if cmd_name == _DEMO else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        # click's own would load the demonstration for its first line.
        rows = [
            (name, command.get_short_help_str()) for name, command in sorted(self.commands.items())
        ]
        rows.insert(0, (_DEMO, "See it work on an embedded server."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tenantguard", prog_name="tenantguard")
def main() -> None:
    """Tenant isolation for SQLAlchemy and PostgreSQL.

    Every command ends with 0 if all holds, 1 on findings, 2 if it could not look.
    """


main.add_command(doctor)
main.add_command(tables)
main.add_command(rls)
main.add_command(migrate)
main.add_command(keys)
main.add_command(encrypt)
main.add_command(prove_command)


def _demo() -> click.Command:
    try:
        found = importlib.import_module("tenantguard.demo.command").demo
    except ImportError:
        could_not_look("The demonstration needs its extra: pip install 'tenantguard[demo]'.")
    command: click.Command = found
    return command
