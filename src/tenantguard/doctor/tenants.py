"""Rows without a tenant, or with one that the registry does not have."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.doctor.eyes import Eyes
from tenantguard.doctor.tally import Count, tally
from tenantguard.findings import Finding
from tenantguard.rls.generate import entries
from tenantguard.rls.names import qualified, quote, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.doctor.subject import Look, Subject

__all__ = ["look_at_tenants"]


def look_at_tenants(subject: Subject) -> Look:
    """Count rows whose tenant is NULL or unknown; one scan of each scoped table."""
    catalog = subject.catalog
    scoped = [entry for entry in entries(catalog) if entry.kind is Kind.SCOPED]
    eyes = Eyes(subject, map(target_of, [catalog.registry, *scoped]))
    counts = [
        Count(
            ".".join(target_of(entry)),
            frozenset({target_of(entry), target_of(catalog.registry)}),
            _question(entry, catalog),
            partial(_found, entry, catalog),
        )
        for entry in scoped
    ]
    return tally(subject, eyes, counts, unit="tables", holds="each of a tenant in the registry")


def _question(entry: Entry, catalog: Catalog) -> str:
    _, key = catalog.registry_key()
    column = quote(entry.column.name) if entry.column is not None else ""
    return f"""
    SELECT json_build_array(coalesce(sum(g.n), 0),
        coalesce(sum(g.n) FILTER (WHERE g.t IS NULL), 0),
        coalesce(sum(g.n) FILTER (WHERE g.t IS NOT NULL AND r.{quote(key.name)} IS NULL), 0))::text
    FROM (SELECT {column} AS t, count(*) AS n FROM {qualified(target_of(entry))} GROUP BY 1) g
    LEFT JOIN {qualified(target_of(catalog.registry))} r ON r.{quote(key.name)} = g.t"""


def _found(entry: Entry, catalog: Catalog, empty: int, unknown: int) -> Iterator[Finding]:
    name = ".".join(target_of(entry))
    column = quote(entry.column.name) if entry.column is not None else ""
    table = qualified(target_of(entry))
    if empty:
        yield Finding(
            "row-without-tenant",
            name,
            f"{empty:,} rows of {name} have no tenant. NULL never means all tenants.",
            f"`tenantguard migrate sql {entry.fullname}` prints the steps that fill them. Find "
            f"them with: SELECT * FROM {table} WHERE {column} IS NULL",
        )
    if unknown:
        key = quote(catalog.registry_key()[1].name)
        parent = qualified(target_of(catalog.registry))
        yield Finding(
            "row-of-unknown-tenant",
            name,
            f"{unknown:,} rows of {name} belong to tenants that the registry does not have.",
            f"Find them with: SELECT * FROM {table} c WHERE NOT EXISTS (SELECT FROM {parent} p "
            f"WHERE p.{key} = c.{column}). `tenantguard rls apply` then adds the foreign key.",
        )
