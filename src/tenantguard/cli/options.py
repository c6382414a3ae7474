"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.locate import ADMIN_URL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "admin_option",
    "create_roles_option",
    "format_option",
    "guard_option",
    "out_option",
    "purpose_option",
    "report_option",
]

guard_option = click.option(
    "--guard",
    "guard_name",
    metavar="MODULE:ATTRIBUTE",
    help="Where the TenantGuard is; without it, what [tool.tenantguard] of ./pyproject.toml names.",
)
admin_option = click.option(
    "--admin-url",
    metavar="URL",
    help="Address of the tables' owner, or of the role that the text above asks for; better given "
    f"in {ADMIN_URL}, which no process list shows.",
)
create_roles_option = click.option(
    "--create-roles", is_flag=True, help="Create missing roles; passwords are never set."
)
purpose_option = click.option(
    "--purpose",
    type=click.Choice(["data", "index"]),
    default="data",
    show_default=True,
    help="Keys that seal values, or those that compute their blind indexes.",
)
out_option = click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write to FILE, and text to the terminal.",
)


def report_option(formats: Sequence[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option that chooses one of *formats*, text unless it is given."""
    return click.option(
        "--format",
        "output",
        type=click.Choice(formats),
        default="text",
        show_default=True,
        help="How the result is written.",
    )


format_option = report_option(["text", "json"])
