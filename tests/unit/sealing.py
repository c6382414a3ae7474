"""Two tenants' keys, and fields that are not in a table, for tests without a database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import settings

from tenantguard.columns.field import Field
from tenantguard.columns.search import Exact
from tenantguard.crypto.keysets import (
    new_data_keyset,
    new_index_keyset,
    new_kek,
    open_data_keyset,
    open_index_keyset,
    read_kek,
)
from tenantguard.crypto.tenant_keys import TenantKeys

if TYPE_CHECKING:
    from tenantguard.columns.kinds import Kind
    from tenantguard.columns.search import Searches

KEK = read_kek(new_kek())

repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=200)
"""The same examples in every run."""


def new_keys(tenant: str) -> TenantKeys:
    data = open_data_keyset(*new_data_keyset(KEK, b"data"), KEK, b"data")
    searching = open_index_keyset(*new_index_keyset(KEK, b"index"), KEK, b"index")
    return TenantKeys(tenant.encode(), data=data, searching=searching)


def field_of(kind: Kind, search: Searches | None = None, column: str = "name") -> Field:
    field = Field(kind, search=search, label=None)
    field.attach("patients", column)
    return field


def padded_field(kind: Kind, padding: Any, search: Searches | None = None) -> Field:
    field = Field(kind, search=search, padding=padding)
    field.attach("patients", "name")
    return field


def exact(kind: Kind) -> Exact | None:
    """Return how a column of *kind* is searched, if it can be."""
    return None if kind.equal is None else Exact(few_values="these are tests")
