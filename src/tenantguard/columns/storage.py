"""What an encrypted column needs beside it in its table: ordinary objects of SQLAlchemy's schema.

A check constraint, so that the database refuses plaintext whoever writes it; and for each search a
column that holds the blind index, generated or kept by a trigger, and an index on it that begins
with the tenant. There the check demands as many blind indexes too: a search would not find a value
without its own. `create_all` makes all of them, and Alembic sees all but the trigger.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy import DDL, CheckConstraint, Column, Computed, Index, LargeBinary, Table, event
from sqlalchemy.dialects.postgresql.base import PGDialect

from tenantguard.crypto.format import FURTHER, HEADER_SIZE, INDEX_OFFSET, INDEX_SIZE, MAGIC
from tenantguard.keytable import ENCRYPTED, KEPT, SEARCHES
from tenantguard.rls.kept import derived_sql, keeper, keeper_body, keeping, kept_by_source
from tenantguard.rls.names import quote

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
        hidden = _hidden(column.name, name, index)
        table.append_column(hidden)
        if KEPT in hidden.info:
            table.append_constraint(_kept_check(table, hidden))
        _index_when_complete(table, hidden, index.search.tenant_column)
    if column.name in kept_by_source(table):
        _keep_when_made(table, column.name)


def searched_column(source: Any, column: str, search: str | None) -> Any:
    """Return the column that is compared for *search* of *column* in *source*; None if it has none.

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


def _hidden(column: str, quoted: str, index: BlindIndex) -> Column[Any]:
    info: dict[str, Any] = {SEARCHES: column}
    begin, parts = index.offset + 1, list[Any]()
    if index.search.kept_by == "trigger":
        info |= {KEPT: (begin, INDEX_SIZE)}
    else:
        parts.append(Computed(f"substring({quoted}, {begin}, {INDEX_SIZE})", persisted=True))
    # Out of statements that do not name it: neither selected nor fetched after each write.
    name = _hidden_name(column, index.name)
    return Column(name, LargeBinary, *parts, info=info, _omit_from_statements=True)


def _hidden_name(column: str, search: str | None) -> str:
    return _name(*filter(None, (column, search, "bidx")))


def _kept_check(table: Table, hidden: Column[Any]) -> CheckConstraint:
    text = f"{quote(hidden.name)} IS NOT DISTINCT FROM {derived_sql(hidden)}"
    name = _name(table.name, hidden.name, "kept")
    return CheckConstraint(text.replace(":", r"\:"), name=name, info={KEPT: hidden.name})


def _keep_when_made(table: Table, source: str) -> None:
    """Make the trigger for searches of *source* with the table, and drop its function with it."""

    def made(table: Table, connection: Any, **_kwargs: Any) -> None:
        name, body = keeper(table.name, source), keeper_body(kept_by_source(table)[source])
        for statement in keeping(_at(table, table.name), _at(table, name), name, body):
            _send(connection, statement)

    def dropped(table: Table, connection: Any, **_kwargs: Any) -> None:
        _send(connection, f"DROP FUNCTION IF EXISTS {_at(table, keeper(table.name, source))}()")

    # Copies of the table, such as those of to_metadata(), have what they need too.
    event.listen(table, "after_create", made, propagate=True)
    event.listen(table, "after_drop", dropped, propagate=True)


def _at(table: Table, name: str) -> str:
    """Return *name* in the schema of *table*, which is the search path's if it names none."""
    return quote(name) if table.schema is None else f"{quote(table.schema)}.{quote(name)}"


def _send(connection: Any, statement: str) -> None:
    if connection.dialect.name == "postgresql":
        made: Any = DDL
        connection.execute(made(statement.replace("%", "%%")))


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
