"""Comparing plaintext with what is sealed, for `verify` and before `contract`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import click

from tenantguard.cli.seeing import seen_whole
from tenantguard.encrypt.verifying import (
    DIFFERENT,
    EMPTY,
    HIDDEN,
    MISSING,
    SAME,
    SEALED_ALONE,
    verify,
)
from tenantguard.errors import ConfigurationError, TenantShreddedError
from tenantguard.rls.names import quote, target_of

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable
    from typing import Any

    from sqlalchemy import Column, Engine

    from tenantguard.encrypt.entering import Access
    from tenantguard.encrypt.migrating import Migration
    from tenantguard.encrypt.schema import Structure
    from tenantguard.guard import TenantGuard

__all__ = ["compared", "failures", "require_expanded", "rows_of_tenants", "write_compared"]

_VERSION = 1
_SAID = {
    SAME: "rows: the sealed value is the plaintext.",
    SEALED_ALONE: "rows have a sealed value and no plaintext.",
    MISSING: "rows have plaintext and nothing sealed. Run `tenantguard encrypt backfill`.",
    DIFFERENT: "rows have another value sealed than their plaintext: something writes unequal "
    "values into the two. Mend it, then write the right value of each of these rows through it.",
    HIDDEN: "rows were counted and not seen by the role that compares. Look for policies of your "
    "own on the table; if rows were deleted meanwhile, run the command again.",
    EMPTY: "rows have no value in either column, and the model demands one. Write it, or declare "
    "the encrypted column as one that may be NULL.",
    TenantShreddedError.__name__: "rows are of tenants whose keys were destroyed, and with them "
    "what is sealed. Delete these rows, or make both columns NULL there.",
}
_FINE = {SAME, SEALED_ALONE}


def compared(
    guard: TenantGuard,
    access: Access,
    migration: Migration,
    *,
    size: int,
    progress: Callable[[int, int, str], None],
) -> Counter[str]:
    """Return how many rows have which relation between plaintext and sealed value.

    Rows with neither count where the model demands a value.
    """
    condition = f"{quote(migration.plain.name)} IS NOT NULL OR "
    condition += f"{quote(migration.sealed.name)} IS NOT NULL"
    tenants = rows_of_tenants(guard, access.engine, migration, condition)
    found = verify(access, migration, tenants, size=size, progress=progress)
    if not migration.sealed.nullable:
        empty = rows_of_tenants(guard, access.engine, migration, f"NOT ({condition})")
        found[EMPTY] = sum(rows for _, rows in empty)
    return +found


def failures(found: Counter[str]) -> int:
    """Return how many rows do not hold what they should."""
    return sum(number for what, number in found.items() if what not in _FINE)


def rows_of_tenants(
    guard: TenantGuard, engine: Engine, migration: Migration, condition: str
) -> list[tuple[str, int]]:
    """Return each tenant that has rows with *condition*, and how many."""
    tenant = quote(cast("Column[Any]", migration.entry.column).name)
    with seen_whole(guard, engine, {target_of(migration.entry)}) as run:
        rows = run(
            f"SELECT {tenant}::text, count(*) FROM {migration.table} WHERE {condition} "  # noqa: S608
            "GROUP BY 1 ORDER BY 1"
        )
    return [(name, number) for name, number in rows]


def require_expanded(migration: Migration, there: Structure, *, trigger: bool) -> None:
    """Raise a `ConfigurationError` unless both columns are there, and the *trigger* if need be.

    Without it an older application's change of the plaintext would leave the old value sealed.
    """
    if not {migration.plain.name, migration.sealed.name} <= there.columns.keys():
        raise ConfigurationError(
            f"Table {migration.entry.fullname} does not have both columns of {migration.name}. Run "
            f"`tenantguard encrypt expand {migration.name}` first; after `contract` there is "
            "nothing left to do."
        )
    if trigger and not there.trigger:
        raise ConfigurationError(
            f"Table {migration.entry.fullname} lacks the trigger that forgets a sealed value when "
            "an older application changes the plaintext. Run `tenantguard encrypt expand "
            f"{migration.name}` first."
        )


def write_compared(migration: Migration, found: Counter[str], *, output: str) -> None:
    """Write the counts by relation."""
    if output == "json":
        document = {
            "version": _VERSION,
            "column": migration.name,
            "holds": not failures(found),
            "rows": dict(sorted(found.items())),
        }
        click.echo(json.dumps(document, indent=2))
        return
    for what, number in sorted(found.items()):
        mark = "✓" if what in _FINE else "✗"
        said = _SAID.get(what, f"rows have a sealed value that does not open ({what}).")
        click.echo(f"{mark} {number:,} {said}")
    if not found:
        click.echo(f"✓ {migration.name} has no values.")
