"""The table that holds the tenants' wrapped keys, and the marks of encrypted columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.types import TypeEngine

__all__ = [
    "ENCRYPTED",
    "KEY_TABLE",
    "PURPOSES",
    "SEARCHES",
    "STATES",
    "encrypted_columns",
    "key_table",
]

KEY_TABLE = "tenantguard_keys"
"""Stands in the schema of the registry."""

PURPOSES = ("data", "index")
"""What a tenant's keysets are for: values, and the blind indexes that search them."""

STATES = ("active", "decrypt-only", "destroyed")
"""A destroyed keyset leaves its row, so that it is never silently made again."""

ENCRYPTED = "tenantguard.encrypted"
"""Key in `Column.info` of an encrypted column: its label, table and column."""

SEARCHES = "tenantguard.searches"
"""Key in `Column.info` of the generated column that is searched: the encrypted column's name."""


def key_table(tenant_type: TypeEngine[Any], schema: str | None) -> Table:
    """Return the table of keys, in a MetaData of its own.

    The application's role reads and inserts its tenant's rows. Each row is one keyset, wrapped by
    the key-encryption key that *kek_uri* names.
    """
    return Table(
        KEY_TABLE,
        MetaData(),
        Column("tenant_id", tenant_type, primary_key=True, autoincrement=False),
        Column("purpose", Text, primary_key=True),
        Column("generation", Integer, nullable=False, server_default=text("1")),
        Column("kek_uri", Text, nullable=False),
        Column("wrapped", LargeBinary),
        Column("check_value", LargeBinary),
        Column("state", Text, nullable=False, server_default=text("'active'")),
        Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("rotated_at", DateTime(timezone=True)),
        Column("shredded_at", DateTime(timezone=True)),
        CheckConstraint(f"purpose IN {PURPOSES}", name=f"{KEY_TABLE}_purpose"),
        CheckConstraint(f"state IN {STATES}", name=f"{KEY_TABLE}_state"),
        CheckConstraint("(state = 'destroyed') = (wrapped IS NULL)", name=f"{KEY_TABLE}_destroyed"),
        schema=schema,
    )


def encrypted_columns(metadata: MetaData) -> Iterator[Column[Any]]:
    """Yield the encrypted columns of *metadata*, ordered by table."""
    for _, table in sorted(metadata.tables.items()):
        yield from (column for column in table.columns if ENCRYPTED in column.info)
