"""Unique keys of blind indexes, which do not hold while a tenant has two keys for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import UniqueConstraint

from tenantguard.errors import ConfigurationError
from tenantguard.keytable import SEARCHES
from tenantguard.rls.values import encrypted_tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Table

    from tenantguard.catalog import Catalog

__all__ = ["require_no_unique_index"]


def require_no_unique_index(catalog: Catalog) -> None:
    """Raise a `ConfigurationError` if a blind index of the models has to be unique."""
    found = sorted(
        {
            f"{table.fullname}.{column.name}"
            for entry, _ in encrypted_tables(catalog)
            if (table := entry.table) is not None
            for column in _unique(table)
            if SEARCHES in column.info
        }
    )
    if found:
        raise ConfigurationError(
            f"Blind indexes have to be unique in the models: {', '.join(found)}. From the moment "
            "that a new key computes them until all values are sealed anew, a value that is there "
            "under the old key can be written a second time, and ON CONFLICT does not meet it. "
            "Stop what writes these columns, or be ready to find duplicates, and give "
            "--allow-duplicates."
        )


def _unique(table: Table) -> Iterator[Column[Any]]:
    for index in table.indexes:
        if index.unique:
            yield from index.columns
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            yield from constraint.columns
