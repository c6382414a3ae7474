"""What a statement writes into encrypted columns: values, and never what the database computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Null

from tenantguard.columns.expressions import is_encrypted, means, refusal, same_field
from tenantguard.columns.types import WHOLE, Encrypted
from tenantguard.errors import EncryptedQueryError
from tenantguard.keytable import SEARCHES

if TYPE_CHECKING:
    from sqlalchemy import Table

__all__ = [
    "check_selected",
    "is_search_column",
    "refuse_target",
    "refuse_unknown",
    "values_of",
    "written_table",
]


def values_of(table: Table, row: Any, *, same_row: bool = False) -> dict[Any, Any]:
    """Return *row*, the values for columns of *table*, if encrypted ones can take theirs.

    Args:
        table: The table that is written.
        row: What its columns are given.
        same_row: Whether a column that is given is another's of the same primary key.

    Raises:
        EncryptedQueryError: If not.
    """
    return {key: _value(table, key, value, same_row=same_row) for key, value in row.items()}


def refuse_unknown(table: Table, row: Any) -> None:
    """Refuse names in *row* that are no column of *table*: their values would be sent as they are.

    SQLAlchemy warns of them only, in ON CONFLICT. So it does of an encrypted column's name in the
    database, if its key is another.
    """
    if not any(map(is_encrypted, table.columns)):
        return
    known = {column.key for column in table.columns}
    known |= {column.name for column in table.columns if not is_encrypted(column)}
    for key in row:
        if isinstance(key, str) and key not in known:
            raise EncryptedQueryError(
                f"set_= names {key!r}, which is no column of {table.fullname!r}; it takes the keys "
                "of columns, not names of attributes. Give it the column itself."
            )


def check_selected(table: Table, key: Any, column: Any) -> None:
    """Refuse what INSERT … SELECT would put into *key* of *table*, unless it belongs there."""
    target = _target(table, key)
    if target is None:
        if is_encrypted(column):
            raise refusal(column.type)
    elif not isinstance(column, Null):
        if not same_field(column.type, target):
            raise _expression_given(target)
        if cast("Encrypted", target.type).field.bound:
            raise _of_another_row(target)


def refuse_target(table: Table, elements: Any) -> None:
    """Refuse an encrypted column among *elements*, by which ON CONFLICT finds a row."""
    for element in elements:
        target = _target(table, element)
        if target is not None:
            raise EncryptedQueryError(
                f"ON CONFLICT finds a row by column {target}, which is encrypted. Declare it with "
                f"search=Exact(), make its {target.name}_bidx unique with the tenant, and name "
                f"that: index_elements=['tenant_id', '{target.name}_bidx']."
            )


def written_table(statement: Any) -> Any:
    """Return the table that *statement* writes.

    Bulk writes of a class with joined tables compile the same statement for each of its tables.
    """
    of_bulk = statement._annotations.get(f"_emit_{statement.__visit_name__}_table")  # noqa: SLF001
    return statement.table if of_bulk is None else of_bulk


def is_search_column(value: Any) -> bool:
    """Return whether *value* is a generated column of ours."""
    return isinstance(value, Column) and any(SEARCHES in base.info for base in value.base_columns)


def _value(table: Table, key: Any, value: Any, *, same_row: bool) -> Any:
    """Return what the column *key* of *table* is given, if an encrypted column can take it."""
    target = _target(table, key)
    if target is None:
        return value
    if hasattr(value, "__clause_element__"):
        value = value.__clause_element__()
    if isinstance(value, BindParameter):
        if value.type._isnull or same_field(value.type, target):  # noqa: SLF001
            return value
    elif isinstance(value, ColumnClause) and same_field(value.type, target):
        if not same_row and cast("Encrypted", target.type).field.bound:
            raise _of_another_row(target)
        # Another row's value of the same column and tenant, such as excluded.name.
        return value._annotate({WHOLE: True})  # noqa: SLF001
    elif isinstance(value, Null) or not hasattr(value, "_compiler_dispatch"):
        return value
    raise _expression_given(target)


def _target(table: Table, key: Any) -> Column[Any] | None:
    sealed = filter(is_encrypted, table.columns)
    return next((column for column in sealed if means(key, column)), None)


def _expression_given(target: Column[Any]) -> EncryptedQueryError:
    return EncryptedQueryError(
        f"Column {cast('Encrypted', target.type).field.name} is encrypted and was given an SQL "
        "expression or a value of another type; the database cannot encrypt. Give it a value of "
        "Python, or the same column."
    )


def _of_another_row(target: Column[Any]) -> EncryptedQueryError:
    return EncryptedQueryError(
        f"Column {cast('Encrypted', target.type).field.name} is bound to its row and was given a "
        "value of another row, which would not open. Load that value and give it; in ON CONFLICT "
        "name the primary key as index_elements, then excluded is the same row."
    )
