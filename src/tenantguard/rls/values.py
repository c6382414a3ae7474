"""Which tables have encrypted columns, and whether a tenant has any value in them."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

from tenantguard.keytable import encrypted_columns
from tenantguard.rls.names import qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column

    from tenantguard.catalog import Catalog, Entry

__all__ = ["encrypted_tables", "has_values"]


def encrypted_tables(catalog: Catalog) -> Iterator[tuple[Entry, list[Column[Any]]]]:
    """Yield each table that has encrypted columns, and those."""
    for table, columns in groupby(encrypted_columns(catalog.metadata), lambda each: each.table):
        yield catalog.entry(table), list(columns)


def has_values(catalog: Catalog, tenant: str) -> str:
    """Return the condition that *tenant*, an SQL expression, has an encrypted value."""
    conditions = [
        f"EXISTS (SELECT FROM {qualified(target_of(entry))} v "
        f"WHERE v.{quote(cast('Column[Any]', entry.column).name)} = {tenant} "
        f"AND ({_any_filled(columns)}))"
        for entry, columns in encrypted_tables(catalog)
    ]
    return " OR ".join(conditions) or "false"


def _any_filled(columns: list[Column[Any]]) -> str:
    return " OR ".join(f"v.{quote(column.name)} IS NOT NULL" for column in columns)
