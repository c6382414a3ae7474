"""Unique keys of blind indexes, which do not hold while a tenant has two keys for them."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint

from tenantguard.errors import ConfigurationError
from tenantguard.keytable import SEARCHES
from tenantguard.rls.names import plain_literal, qualified, target_of
from tenantguard.rls.values import encrypted_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Column, Table

    from tenantguard.catalog import Catalog, Entry

__all__ = ["require_no_unique_index"]


def require_no_unique_index(catalog: Catalog, ask: Callable[[str], Sequence[Any]]) -> None:
    """Raise a `ConfigurationError` if a blind index has to be unique.

    Args:
        catalog: The application's tables.
        ask: Runs a question in the database, whose migrations may know more than the models.
    """
    found: set[str] = set()
    for entry, _ in encrypted_tables(catalog):
        if entry.table is None:
            continue
        searched = {column.name for column in entry.table.columns if SEARCHES in column.info}
        declared = {column.name for column in _unique(entry.table)}
        unique = searched & (declared | {name for [name] in ask(_unique_sql(entry))})
        found |= {f"{entry.fullname}.{name}" for name in unique}
    if found:
        raise ConfigurationError(
            f"Blind indexes have to be unique: {', '.join(sorted(found))}. From the moment "
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
        if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint):
            yield from constraint.columns


def _unique_sql(entry: Entry) -> str:
    """Return the question which columns stand in unique indexes of the table and its children.

    An index of an expression depends on the columns that the expression names.
    """
    table = plain_literal(qualified(target_of(entry)))
    return (
        "WITH RECURSIVE parts(oid) AS ("
        f"SELECT pg_catalog.to_regclass({table})::oid "
        "UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent"
        ") SELECT DISTINCT a.attname::text FROM parts p "
        "JOIN pg_catalog.pg_index i ON i.indrelid = p.oid AND (i.indisunique OR i.indisexclusion) "
        "JOIN pg_catalog.pg_attribute a ON a.attrelid = p.oid "
        "WHERE a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) "
        "OR i.indexprs IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.pg_depend d "
        "WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = i.indexrelid "
        "AND d.refobjid = p.oid AND d.refobjsubid = a.attnum)"
    )
