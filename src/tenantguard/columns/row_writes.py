"""Which parameters of a statement say in which row a value will be, so that it is sealed for it.

An INSERT gives a row its primary key by parameters, or the key is not known before the row is
there. An UPDATE names its row if it compares the whole primary key with parameters. This is found
when a statement is compiled, and kept with it; at each execution the key is taken from the values
that are sent together.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table
from sqlalchemy.exc import NoReferenceError
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import (
    BinaryExpression,
    BindParameter,
    BooleanClauseList,
    ColumnClause,
    Grouping,
)

from tenantguard.columns.expressions import is_encrypted, means
from tenantguard.columns.field import Unsealed
from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy.sql.compiler import SQLCompiler

    from tenantguard.columns.field import Field
    from tenantguard.columns.row_keys import RowKey
    from tenantguard.columns.types import Encrypted
    from tenantguard.crypto.tenant_keys import TenantKeys

    Placed = Iterator[tuple[str, Column[Any], tuple[str, ...]]]

__all__ = [
    "RowBinds",
    "bound_columns",
    "changed_columns",
    "inserted",
    "inserted_rows",
    "is_same_row",
    "parameter_of",
    "refuse_alias",
    "refuse_moved",
    "refuse_parameters",
    "set_columns",
    "updated_row",
]


@dataclass(frozen=True, slots=True, repr=False)
class RowBinds:
    """The parameters that hold a row's primary key.

    Attributes:
        key: The primary key.
        names: The parameters' names, and what their values become before they are sent.
    """

    key: RowKey
    names: tuple[tuple[str, Callable[[Any], Any] | None], ...]

    def of(self, given: Mapping[str, Any]) -> bytes:
        """Return the key's bytes, as *given*, the values of one execution, have it.

        Raises:
            EncryptedValueError: If a value is none that the key's column takes.
        """
        return self.key.pack(
            [sent(given[name]) if sent is not None else given[name] for name, sent in self.names]
        )

    def noting(self, field: Field) -> Callable[[Any], Unsealed | None]:
        """Return the bind processor of a value of *field* in this row."""

        def send(value: Any, keys: TenantKeys, given: Mapping[str, Any]) -> bytes:
            return field.send(value, keys, row=self.of(given))

        return lambda value: None if value is None else Unsealed(send, value)


def bound_columns(table: Any) -> list[Column[Any]]:
    """Return the columns of *table* whose values are bound to their row."""
    return [each for each in table.columns if is_encrypted(each) and each.type.field.bound]


def inserted(state: Any, *, in_cte: bool) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield each row of an INSERT, and what its parameters' names end with."""
    several = state._multi_parameters  # noqa: SLF001
    rows = several or [state._dict_parameters or {}]  # noqa: SLF001
    for number, row in enumerate(rows):
        # The names that SQLAlchemy gives, a default's of the first row being the column's own; in
        # a CTE it has none that tell the statement.
        suffixes = (f"_m{number}", "")[: 1 + (number == 0)] if several else ("",)
        yield row, (() if in_cte else suffixes)


def inserted_rows(compiler: SQLCompiler, table: Table, state: Any, *, in_cte: bool) -> Placed:
    """Yield each parameter of a bound value in an INSERT, and those of its row's primary key."""
    for row, suffixes in inserted(state, in_cte=in_cte):
        key = [parameter_of(compiler, row, column, suffixes) for column in table.primary_key]
        names = tuple(name for name in key if name is not None)
        for column in bound_columns(table):
            name = parameter_of(compiler, row, column, suffixes)
            if name is not None and len(names) == len(key):
                yield name, column, names


def updated_row(compiler: SQLCompiler, table: Table, state: Any) -> Placed:
    """Yield each parameter of a bound value in an UPDATE, and those of its row's primary key."""
    pins = dict(_pins(table, state.statement._where_criteria))  # noqa: SLF001
    key = [_rendered(compiler, pins.get(column.key)) for column in table.primary_key]
    names = tuple(name for name in key if name is not None)
    for column in bound_columns(table):
        row = state._dict_parameters or {}  # noqa: SLF001
        name = parameter_of(compiler, row, column, ("",))
        if name is not None and len(names) == len(key):
            yield name, column, names


def set_columns(compiler: SQLCompiler, table: Table, row: Any) -> list[Column[Any]]:
    """Return the columns of *table* that an UPDATE sets, by *row* or by its parameters' names."""
    keys = compiler.column_keys or ()
    return [
        column
        for column in table.columns
        if column.key in keys
        or column.onupdate is not None
        or any(means(key, column) for key in row or ())
    ]


def changed_columns(table: Table, row: Any, *, same_row: bool) -> list[Column[Any]]:
    """Return the columns of *table* that ON CONFLICT gives another value than the row has."""
    return [
        column
        for column in table.columns
        for key, value in row.items()
        if means(key, column)
        and not (same_row and column.primary_key and getattr(value, "name", None) == column.name)
    ]


def refuse_parameters(table: Table, row: Any) -> None:
    """Refuse a parameter for a bound column in ON CONFLICT: a batch of rows has one in common."""
    for column in bound_columns(table):
        if any(means(key, column) and isinstance(row[key], BindParameter) for key in row):
            cast("Encrypted", column.type).field.refuse_unplaced(row)


def refuse_moved(table: Any, changed: Iterable[Any]) -> None:
    """Refuse to change a primary key of rows with bound values, or what such a key refers to.

    Args:
        table: The table that is written.
        changed: The columns of it that get a new value.

    Raises:
        EncryptedQueryError: If one is such a key: the values would not open any more.
    """
    references = list(_references(table.metadata))
    for column in changed:
        kept = _bound_by(column, references)
        if kept is not None:
            raise EncryptedQueryError(
                f"Column {table.fullname}.{column.name} is, or is referred to by, the primary key "
                f"of rows to which the values of {kept.type.field.name} are bound; with another "
                "key they would not open. Insert a new row with the values, and delete the old."
            )


def refuse_alias(alias: Any) -> None:
    """Refuse to update *alias*, of a table that has keys to which values are bound."""
    table = getattr(alias, "element", None)
    if isinstance(table, Table):
        references = list(_references(table.metadata))
        if any(_bound_by(column, references) is not None for column in table.columns):
            raise EncryptedQueryError(
                f"An alias of {table.fullname} is updated, and values are bound to rows by its "
                "primary key; with another key they would not open. Update the table itself."
            )


def is_same_row(table: Table, elements: Iterable[Any]) -> bool:
    """Return whether ON CONFLICT, given *elements*, finds the row of the inserted primary key."""
    plain = (each for each in elements if isinstance(each, str | ColumnClause))
    names = {each if isinstance(each, str) else each.name for each in plain}
    return {column.name for column in table.primary_key} <= names


def parameter_of(
    compiler: SQLCompiler, row: Any, column: Column[Any], suffixes: Iterable[str]
) -> str | None:
    """Return the name of the parameter that gives *column* its value; None if there is none."""
    given = next((value for key, value in row.items() if means(key, column)), None)
    if isinstance(given, BindParameter):
        name = _rendered(compiler, given)
        if name is not None:
            return name
    elif hasattr(given, "_compiler_dispatch"):
        return None
    names = (column.key + suffix for suffix in suffixes)
    return next((each for each in names if _is_parameter_of(compiler, each, column)), None)


def _is_parameter_of(compiler: SQLCompiler, name: str, column: Column[Any]) -> bool:
    bind = compiler.binds.get(name)
    return bind is not None and bind.type is column.type


def _rendered(compiler: SQLCompiler, bind: BindParameter[Any] | None) -> str | None:
    """Return the name that *bind*, or a copy of it with another type, was rendered with."""
    if bind is None:
        return None
    return next((name for each, name in compiler.bind_names.items() if each.key == bind.key), None)


def _pins(table: Table, criteria: Iterable[Any]) -> Iterator[tuple[str, BindParameter[Any]]]:
    """Yield columns of the primary key that all of *criteria* compare with a parameter."""
    for clause in criteria:
        if isinstance(clause, Grouping):
            yield from _pins(table, [clause.element])
        elif isinstance(clause, BooleanClauseList) and clause.operator is operators.and_:
            yield from _pins(table, clause.clauses)
        elif isinstance(clause, BinaryExpression) and clause.operator is operators.eq:
            for one, other in ((clause.left, clause.right), (clause.right, clause.left)):
                if isinstance(other, BindParameter) and not other.expanding:
                    yield from ((each, other) for each in _keys(table, one))


def _keys(table: Table, column: Any) -> list[str]:
    """Return the key of *column* if it is of the primary key of *table*."""
    if isinstance(column, Column) and table.primary_key.contains_column(column):
        return [column.key]
    return []


def _references(metadata: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each column of *metadata* that refers to another, and that one."""
    for table in metadata.tables.values():
        for key in table.foreign_keys:
            with suppress(NoReferenceError):
                yield key.parent, key.column


def _bound_by(
    column: Any, references: list[tuple[Any, Any]], seen: frozenset[Any] = frozenset()
) -> Any:
    """Return a bound column whose row's key *column* is, or would change with it."""
    if column in seen:
        return None
    if column.primary_key and (bound := bound_columns(column.table)):
        return bound[0]
    referring = (own for own, other in references if other is column)
    found = (_bound_by(each, references, seen | {column}) for each in referring)
    return next((each for each in found if each is not None), None)
