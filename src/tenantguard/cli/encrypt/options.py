"""Options and arguments that the commands for values take."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from tenantguard.cli.keys.rows import NO_SUCH_TENANT
from tenantguard.errors import ConfigurationError, UnknownTenantError
from tenantguard.rls.values import encrypted_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sqlalchemy import Column

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.cli.keys.rows import Tenant

    Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

__all__ = [
    "MOST_WORKERS",
    "chosen_columns",
    "chosen_tenant",
    "pace_options",
    "require_known",
    "tenant_option",
]

MOST_WORKERS = 8

tenant_option = click.option("--tenant", metavar="ID", help="Only this tenant's rows.")


def pace_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how fast to go."""
    options: tuple[Decorator, ...] = (
        click.option(
            "--batch",
            type=click.IntRange(1, 10_000),
            default=1000,
            show_default=True,
            help="Rows a transaction; so long they are locked.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, MOST_WORKERS),
            default=1,
            show_default=True,
            help="How many connections work at once.",
        ),
        click.option(
            "--pause",
            metavar="SECONDS",
            type=click.FloatRange(0, 3600),
            default=0.0,
            help="Wait so long after each batch.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def chosen_columns(catalog: Catalog, names: Iterable[str]) -> list[tuple[Entry, list[Column[Any]]]]:
    """Return the encrypted columns *names*, TABLE.COLUMN each, by table; all without names.

    Raises:
        ConfigurationError: If there is no such encrypted column.
    """
    wanted = set(names)
    tables = list(encrypted_tables(catalog))
    known = [_name(entry, column) for entry, columns in tables for column in columns]
    for name in sorted(wanted - set(known)):
        close = get_close_matches(name, known, n=1)
        hint = f"Did you mean {close[0]}?" if close else "`tenantguard encrypt status` lists them."
        raise ConfigurationError(f"The models have no encrypted column {name!r}. {hint}")
    chosen = (
        (entry, [each for each in columns if not wanted or _name(entry, each) in wanted])
        for entry, columns in tables
    )
    return [(entry, columns) for entry, columns in chosen if columns]


def chosen_tenant(catalog: Catalog, given: str | None) -> str | None:
    """Return the canonical text of the tenant's id that was *given*; None without one.

    Raises:
        ConfigurationError: If it is not of the registry's type.
    """
    if given is None:
        return None
    try:
        return catalog.text(catalog.canonical(given))
    except UnknownTenantError:
        pass
    raise ConfigurationError(
        "--tenant does not have the type of the registry's primary key. Give the id as the "
        "registry has it."
    )


def require_known(tenants: Iterable[Tenant], tenant: str | None) -> None:
    """Require that *tenant*, if one was asked for, is among *tenants*.

    Raises:
        ConfigurationError: If it is not.
    """
    if tenant is not None and all(each.id != tenant for each in tenants):
        raise ConfigurationError(NO_SUCH_TENANT)


def _name(entry: Entry, column: Column[Any]) -> str:
    return f"{entry.fullname}.{column.name}"
