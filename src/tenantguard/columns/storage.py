"""What an encrypted column needs beside it in its table: ordinary objects of SQLAlchemy's schema.

A check constraint, so that the database refuses plaintext whoever writes it; and for each search a
generated column that holds the blind index, and an index on it that begins with the tenant. There
the check demands as many blind indexes too: a search would not find a value without its own.
`create_all` and Alembic see all of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import CheckConstraint, Column, Computed, Index, LargeBinary, Table, event
from sqlalchemy.dialects.postgresql.base import PGDialect

from tenantguard.crypto.format import FURTHER, HEADER_SIZE, INDEX_OFFSET, INDEX_SIZE, MAGIC
from tenantguard.keytable import ENCRYPTED, SEARCHES

if TYPE_CHECKING:
    from tenantguard.columns.blind_index import BlindIndex

__all__ = ["attach_storage", "searched_column"]

_MAX_IDENTIFIER = 63
_PREPARER = PGDialect(paramstyle="named").identifier_preparer  # type: ignore[no-untyped-call]


def attach_storage(column: Column[Any], table: Table, indexes: tuple[BlindIndex, ...]) -> None:
    """Put what *column* with its blind *indexes* needs into *table*."""
    # In SQLAlchemy's texts a colon begins a parameter.
    name = _PREPARER.quote(column.name).replace(":", r"\:")
    form = f"substring({name}, 1, {len(MAGIC)}) = '\\x{MAGIC.hex()}'::bytea"
    table.append_constraint(
        CheckConstraint(
            f"{form} AND {_with_indexes(name, len(indexes))}" if indexes else form,
            # Of the same name with and without search, so that either takes the other's place.
            name=_name(table.name, column.name, "sealed"),
            info={ENCRYPTED: column.name},
        )
    )
    for index in indexes:
        # Out of statements that do not name it: neither selected nor fetched after each write.
        hidden: Column[Any] = Column(
            _hidden_name(column.name, index.name),
            LargeBinary,
            Computed(f"substring({name}, {index.offset + 1}, {INDEX_SIZE})", persisted=True),
            info={SEARCHES: column.name},
            _omit_from_statements=True,
        )
        table.append_column(hidden)
        _index_when_complete(table, hidden, index.search.tenant_column)


def searched_column(source: Any, column: str, search: str | None) -> Any:
    """Return the generated column for *search* of *column* in *source*; None if it has none.

    A table has it and an alias of one; a sub-query does not.
    """
    table = getattr(source, "element", source)
    if not isinstance(table, Table):
        return None
    found = table.c.get(_hidden_name(column, search))
    if found is None or found.info.get(SEARCHES) != column:
        return None
    return source.c[found.key]


def _with_indexes(name: str, number: int) -> str:
    # The flags are the header's last byte; their lowest bit, which get_bit counts first, says that
    # there is an index, the upper four how many more. Of a shorter value both would raise.
    shortest, flags = INDEX_OFFSET + INDEX_SIZE * number, HEADER_SIZE - 1
    first = f"length({name}) >= {shortest} AND get_bit({name}, {8 * flags}) = 1"
    if number == 1:
        return first
    return f"{first} AND get_byte({name}, {flags}) >= {FURTHER * (number - 1)}"


def _hidden_name(column: str, search: str | None) -> str:
    return _name(*filter(None, (column, search, "bidx")))


def _index_when_complete(table: Table, hidden: Column[Any], tenant: str) -> None:
    def add(table: Table, _metadata: Any = None) -> None:
        leading = next((each for each in table.columns if each.name == tenant), None)
        if leading is not None:
            Index(_name("ix", table.name, hidden.name), leading, hidden)

    if any(each.name == tenant for each in table.columns):
        add(table)
    else:
        # The columns of a table that is being made come one after the other.
        event.listen(table, "after_parent_attach", add)


def _name(*parts: str) -> str:
    name = "_".join(parts)
    if len(name.encode()) <= _MAX_IDENTIFIER:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: _MAX_IDENTIFIER - 9].decode(errors='ignore')}_{digest}"
