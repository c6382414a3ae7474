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

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.types import TypeEngine

__all__ = [
    "ENCRYPTED",
    "KEPT",
    "KEY_TABLE",
    "MIGRATING",
    "PURPOSES",
    "SEARCHES",
    "STATES",
    "check_encrypted",
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
"""Key in `Column.info` of the column that is searched: the encrypted column's name."""

KEPT = "tenantguard.kept"
"""Key in `Column.info` of a search column that a trigger keeps, not generated: the first byte that
it holds of the encrypted column, and how many. In `info` of its check: the search column's name."""

MIGRATING = "tenantguard.migrating"
"""Key in `Column.info` of an encrypted column: the column whose plaintext comes into it."""


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


def check_encrypted(metadata: MetaData) -> None:
    """Raise a `ConfigurationError` if encrypted columns could be swapped, or a key would not hold.

    Keys and indexes of an encrypted column never hold: its equal values are stored unequal.
    """
    labels: dict[tuple[str, str], Column[Any]] = {}
    for column in encrypted_columns(metadata):
        other = labels.setdefault(column.info[ENCRYPTED], column)
        if other is not column:
            raise ConfigurationError(
                f"Columns {other} and {column} have the same label; their values could be swapped. "
                "Give each a label= of its own."
            )
        if any(each is column for key in _keys(column.table) for each in key):
            raise ConfigurationError(
                f"Column {column} is encrypted, each value differently, and a key or an index of "
                "the table has it, which would never hold. Use the generated column of a "
                f"searchable one, {column.name}_bidx, with the tenant before it."
            )


def _keys(table: Any) -> Iterator[Iterable[Column[Any]]]:
    """Yield the columns of every key and index of *table*."""
    for key in (*table.constraints, *table.indexes):
        if not isinstance(key, CheckConstraint):
            yield getattr(key, "columns", ())
