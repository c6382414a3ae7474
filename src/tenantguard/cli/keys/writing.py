"""The statement that puts keysets in the place of others, unless those have changed meanwhile."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.binding.literal import sql_literal
from tenantguard.rls.names import qualified, target_of
from tenantguard.rls.policies import bound_tenant

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.catalog import Catalog

__all__ = ["LIVE", "Change", "KeyRow", "bytes_literal", "update_sql"]

LIVE = "k.state <> 'destroyed'"
"""The condition that a row still has its keyset."""


@dataclass(frozen=True, slots=True, repr=False)
class KeyRow:
    """A keyset as it is stored.

    Attributes:
        rotated: When its keys were last changed, as PostgreSQL reads it; None if they never were.
        age: How many seconds ago they were changed or made.
    """

    tenant: str
    purpose: str
    generation: int
    kek_uri: str
    wrapped: bytes
    check: bytes
    rotated: str | None
    age: float


@dataclass(frozen=True, slots=True, repr=False)
class Change:
    """What takes the place of *row*'s keyset."""

    row: KeyRow
    kek_uri: str
    wrapped: bytes
    check: bytes


def update_sql(catalog: Catalog, changes: Iterable[Change], also: str) -> str:
    """Return the statement that makes *changes*, each if its row is as it was read.

    *also* is SQL that sets further columns.
    """
    table = qualified(target_of(catalog.entry(catalog.key_table)))
    rows = ", ".join(f"({', '.join(_values(catalog, change))})" for change in changes)
    return (
        f"UPDATE {table} k SET kek_uri = v.kek_uri, wrapped = v.wrapped, "
        f"check_value = v.check_value, generation = k.generation + 1{also} "
        f"FROM (VALUES {rows}) v (tenant, purpose, seen, old, kek_uri, wrapped, check_value) "
        "WHERE k.tenant_id = v.tenant AND k.purpose = v.purpose "
        f"AND k.generation = v.seen AND k.wrapped = v.old AND {LIVE}"
    )


def bytes_literal(value: bytes) -> str:
    """Return *value* as SQL that means the same on every connection."""
    return f"pg_catalog.decode('{value.hex()}', 'hex')"


def _values(catalog: Catalog, change: Change) -> Iterator[str]:
    row = change.row
    yield bound_tenant(catalog.key_table.c.tenant_id, sql_literal(row.tenant))
    yield sql_literal(row.purpose)
    yield str(row.generation)
    yield bytes_literal(row.wrapped)
    yield sql_literal(change.kek_uri)
    yield bytes_literal(change.wrapped)
    yield bytes_literal(change.check)
