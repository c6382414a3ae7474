"""Options that several commands take."""

from __future__ import annotations

import click

from tenantguard.cli.locate import ADMIN_URL

__all__ = ["admin_option", "create_roles_option", "format_option", "guard_option"]

guard_option = click.option(
    "--guard",
    "guard_name",
    metavar="MODULE:ATTRIBUTE",
    help="Where the TenantGuard is; without it, what [tool.tenantguard] of ./pyproject.toml names.",
)
admin_option = click.option(
    "--admin-url",
    metavar="URL",
    help=f"Address of the tables' owner; better given in {ADMIN_URL}, which no process list shows.",
)
create_roles_option = click.option(
    "--create-roles", is_flag=True, help="Create missing roles; passwords are never set."
)
format_option = click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the result is written.",
)
