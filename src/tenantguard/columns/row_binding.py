"""Columns whose values open in their row only: how a value is fetched with its row's key.

What a SELECT or RETURNING lists is the value and, after it, the bytes of the row's primary key,
wherever the column of a table is listed: in a sub-query too, whose columns therefore have the key
already. So the key is that of the row which the value was taken from, and a result processor has
both. What has not come that way does not open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, Table, type_coerce
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import Grouping, Label, Null
from sqlalchemy.sql.selectable import (
    Alias,
    AliasedReturnsRows,
    CompoundSelect,
    ScalarSelect,
    SelectStatementGrouping,
    TableSample,
)

from tenantguard.columns.row_keys import RowKey
from tenantguard.columns.types import WHOLE, Encrypted
from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement

    from tenantguard.columns.field import Field

__all__ = ["RowValue", "listed", "refuse_text", "rowless"]

_LISTING = (Select, CompoundSelect, UpdateBase)
"""What the compiler renders a list of columns of; text, functions and VALUES have none of ours."""


class RowValue(Encrypted):
    """What is fetched of a column that is bound to its row: the value, and the row's key."""

    cache_ok = True

    def __init__(self, field: Field, key: RowKey) -> None:
        super().__init__(field)
        self.key = key

    @property
    def _has_column_expression(self) -> bool:
        return False

    def split(self, sent: bytes) -> tuple[bytes, bytes | None]:
        """Return what was *sent*: the value, and the bytes of its row's key, which came with it."""
        return self.key.split(sent)


def listed(column: ColumnElement[Any], field: Field) -> ColumnElement[Any]:
    """Return what is listed instead of *column*, which holds values of *field*.

    Raises:
        EncryptedQueryError: If the row of *column* cannot be told.
        ConfigurationError: If the primary key of its table is missing or of another type than
            those that a value can be bound to.
    """
    found = _inner(column)
    table = _table_of(found)
    if table is None:
        raise rowless(field)
    key = RowKey(table, field.name)
    sent = found._annotate({WHOLE: True})  # noqa: SLF001
    if _is_of_a_table(found):
        sent = key.sent_with(sent, found.table)
    return type_coerce(sent, RowValue(field, key))


def refuse_text(compound: CompoundSelect[Any]) -> None:
    """Refuse text beside selects of columns that are bound to their row: it lists no keys."""
    texts = [each for each in compound.selects if not isinstance(_bare(each), _LISTING)]
    for column in (column for each in texts for column in each.selected_columns):
        if isinstance(column.type, Encrypted) and column.type.field.bound:
            raise rowless(column.type.field)


def _table_of(column: Any) -> Table | None:
    """Return the table whose rows' values *column* holds; None if that cannot be told."""
    if _is_of_a_table(column):
        return _base(column.table)
    tables = {_table_of(_inner(each)) for each in _sources(column) if not isinstance(each, Null)}
    return tables.pop() if len(tables) == 1 else None


def _sources(column: Any) -> Iterable[Any]:
    """Return the listed columns that *column* of a sub-query stands for."""
    if isinstance(column, ScalarSelect):
        return column.element.selected_columns
    source = getattr(column, "table", None)
    while isinstance(source, AliasedReturnsRows):
        if isinstance(_bare(source.element), _LISTING):
            return map(_inner, column._proxies)  # noqa: SLF001
        source, column = source.element, column._proxies[0]  # noqa: SLF001
    return ()


def _is_of_a_table(column: Any) -> bool:
    base = _base(getattr(column, "table", None))
    own = None if base is None else base.c.get(column.key)
    return own is not None and own.type is column.type


def _base(source: Any) -> Table | None:
    """Return the table that *source* is, or is an alias of."""
    while isinstance(source, Alias | TableSample):
        source = source.element
    return source if isinstance(source, Table) else None


def _inner(column: Any) -> Any:
    """Return what *column* is without labels and parentheses."""
    while isinstance(column, Label | Grouping):
        column = column.element
    return column


def _bare(select: Any) -> Any:
    while isinstance(select, SelectStatementGrouping):
        select = select.element
    return select


def rowless(field: Field) -> EncryptedQueryError:
    """Return the error for a column of *field* that is fetched without its row's key."""
    return EncryptedQueryError(
        f"Column {field.name} is bound to its row, and is fetched where the row's primary key does "
        "not come with it: from text, a function or an expression. Take the mapped column, of its "
        "table or of a sub-query that lists it."
    )
