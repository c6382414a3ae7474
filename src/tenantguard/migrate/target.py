"""The table to migrate, as the models will have it."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING

from sqlalchemy import Column, MetaData

from tenantguard.catalog import Kind
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import DEFAULT_SCHEMA

if TYPE_CHECKING:
    from sqlalchemy import Table

    from tenantguard.catalog import Catalog, Entry

__all__ = ["with_tenant_column"]


def with_tenant_column(catalog: Catalog, name: str) -> tuple[Catalog, Entry]:
    """Return a catalog in which table *name* is scoped, and the table's entry.

    The application's MetaData is not changed: where the model has no tenant column yet, a copy has.

    Raises:
        ConfigurationError: If there is no such table, or it is declared to need no tenant.
    """
    table = _table(catalog, name)
    entry = catalog.entry(table)
    if entry.kind in (Kind.UNCLASSIFIED, Kind.CHILD):
        catalog = _extended(catalog, table)
        entry = catalog.entry(catalog.metadata.tables[table.fullname])
    if entry.kind is not Kind.SCOPED:
        raise ConfigurationError(
            f"Table {entry.fullname} is {entry.kind.value} ({entry.reason}). Remove that "
            "declaration from the guard first, if its rows belong to tenants."
        )
    return catalog, entry


def _table(catalog: Catalog, name: str) -> Table:
    tables = catalog.metadata.tables
    if name in tables:
        return tables[name]
    for table in tables.values():
        if table.schema is None and name == f"{DEFAULT_SCHEMA}.{table.name}":
            return table
    raise ConfigurationError(_unknown(catalog, name))


def _extended(catalog: Catalog, table: Table) -> Catalog:
    metadata = MetaData(schema=catalog.metadata.schema)
    for each in catalog.metadata.tables.values():
        each.to_metadata(metadata)
    copy = metadata.tables[table.fullname]
    copy.append_column(Column(catalog.tenant_column, catalog.tenant_type, nullable=False))
    return replace(
        catalog,
        metadata=metadata,
        lookups=[],
        _entries={},
        _references={},
        _application_only=(0, []),
    )


def _unknown(catalog: Catalog, name: str) -> str:
    close = get_close_matches(name, catalog.metadata.tables, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else "See `tenantguard tables`."
    return f"The models have no table {name!r}. {hint} A table in a schema is named schema.table."
