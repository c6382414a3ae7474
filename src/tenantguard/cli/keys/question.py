"""The question for all keysets of all tenants, and for values whose keysets are not there."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.values import encrypted_tables, has_values

if TYPE_CHECKING:
    from tenantguard.catalog import Catalog

__all__ = ["asked_tables", "key_question"]

_TIME = """'YYYY-MM-DD"T"HH24:MI:SS"Z"'"""


def asked_tables(catalog: Catalog) -> set[tuple[str, str]]:
    """Return schema and name of every table that the question reads."""
    entries = (catalog.registry, catalog.entry(catalog.key_table))
    encrypted = (entry for entry, _ in encrypted_tables(catalog))
    return {target_of(entry) for entry in (*entries, *encrypted)}


def key_question(catalog: Catalog, *, wrapped: bool) -> str:
    """Return the question that is answered from one snapshot, in text that every driver reads.

    A row is a keyset, or a tenant without any. Its columns: tenant, whether the registry has it,
    whether it has values and no keyset, purpose, state, key, time, and what is *wrapped* if asked
    for. Only tables of tenants without keysets are looked at for values.
    """
    tenant = f"r.{quote(catalog.registry_key()[1].name)}"
    content = "k.wrapped, k.check_value" if wrapped else "NULL, NULL"
    return f"""
    SELECT coalesce({tenant}::text, k.tenant_id::text), {tenant} IS NOT NULL,
        CASE WHEN k.tenant_id IS NULL THEN {has_values(catalog, tenant)} ELSE false END,
        k.purpose, k.state, k.kek_uri, coalesce(pg_catalog.to_char(
            k.created_at AT TIME ZONE 'UTC', {_TIME}), k.created_at::text), {content}
    FROM {qualified(target_of(catalog.registry))} r
    FULL JOIN {qualified(target_of(catalog.entry(catalog.key_table)))} k ON k.tenant_id = {tenant}
    ORDER BY 1, k.purpose"""
