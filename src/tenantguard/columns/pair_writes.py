"""Refusing plaintext in a column that an encrypted one takes the place of, unless both are written.

The statement says which columns it writes: when it is compiled. That the encrypted one is given a
value where the other is, each execution shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table
from sqlalchemy.sql.elements import BindParameter, Null

from tenantguard.columns.expressions import means
from tenantguard.columns.row_writes import inserted, parameter_of
from tenantguard.errors import EncryptedQueryError
from tenantguard.keytable import MIGRATING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sqlalchemy import Column
    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = [
    "PairBinds",
    "inserted_pairs",
    "refuse_half",
    "refuse_half_of_alias",
    "refuse_plaintext_alone",
    "refuse_plaintext_set",
    "updated_pairs",
]


@dataclass(frozen=True, slots=True)
class PairBinds:
    """The parameters of one row that are written into a column of plaintext and its encrypted one.

    Attributes:
        plain: The parameter of the plaintext; None if that is an SQL expression.
        sealed: The parameter of the encrypted column.
        columns: The two columns, encrypted one first.
    """

    plain: str | None
    sealed: str
    columns: tuple[Column[Any], Column[Any]]

    def check(self, given: Mapping[str, Any]) -> None:
        """Refuse *given*, the values of one execution, if they are plaintext and nothing to seal.

        Raises:
            EncryptedQueryError: If so.
        """
        written = self.plain is None or given.get(self.plain) is not None
        if written and given.get(self.sealed) is None:
            raise _alone(*self.columns)


def refuse_plaintext_alone(
    table: Table, keys: Iterable[Any], row: Mapping[Any, Any] | None = None
) -> None:
    """Refuse to write a column of plaintext without the encrypted one that takes its place.

    Args:
        table: The table that is written.
        keys: The columns, or names of columns, that the statement writes.
        row: What it gives them, as far as it says so.

    Raises:
        EncryptedQueryError: If it would store plaintext alone, and forget what is sealed.
    """
    names = [*keys]
    for sealed, plain in _pairs(table):
        if any(means(key, plain) for key in names):
            given = [(row or {}).get(key) for key in names if means(key, sealed)]
            if not given or isinstance(given[0], Null):
                raise _alone(sealed, plain)


def refuse_plaintext_set(table: Table, row: Mapping[Any, Any]) -> None:
    """Refuse *row*, what ON CONFLICT sets, if it would store plaintext alone.

    Raises:
        EncryptedQueryError: If so.
    """
    refuse_plaintext_alone(table, row, row)
    for sealed, plain in _pairs(table):
        if not _is_nothing(_given(row, plain)) and _is_nothing(_given(row, sealed)):
            raise _alone(sealed, plain)


def refuse_half(compiler: SQLCompiler, table: Table, state: Any) -> None:
    """Refuse what *state*, of an INSERT or UPDATE, writes into *table*, if plaintext alone."""
    row = state._dict_parameters or {}  # noqa: SLF001
    refuse_plaintext_alone(table, [*row, *(compiler.column_keys or ())], row)


def refuse_half_of_alias(compiler: SQLCompiler, statement: Any) -> None:
    """Refuse *statement*, an UPDATE of an alias, if it writes plaintext alone."""
    table = getattr(statement.table, "element", None)
    if isinstance(table, Table):
        refuse_half(compiler, table, statement._compile_state_factory(statement, compiler))  # noqa: SLF001


def inserted_pairs(
    compiler: SQLCompiler, table: Table, state: Any, *, in_cte: bool
) -> Iterator[PairBinds]:
    """Yield the parameters of each pair of columns in each row of an INSERT."""
    for row, suffixes in inserted(state, in_cte=in_cte):
        yield from _binds(compiler, table, row, suffixes)


def updated_pairs(compiler: SQLCompiler, table: Table, state: Any) -> Iterator[PairBinds]:
    """Yield the parameters of each pair of columns in an UPDATE."""
    yield from _binds(compiler, table, state._dict_parameters or {}, ("",))  # noqa: SLF001


def _pairs(table: Any) -> Iterator[tuple[Column[Any], Column[Any]]]:
    """Yield each encrypted column of *table* with the column of plaintext that it replaces."""
    by_name = {column.name: column for column in table.columns}
    for column in table.columns:
        plain = by_name.get(column.info.get(MIGRATING))
        if plain is not None:
            yield column, plain


def _binds(
    compiler: SQLCompiler, table: Table, row: Any, suffixes: tuple[str, ...]
) -> Iterator[PairBinds]:
    for columns in _pairs(table):
        sealed, plain = (parameter_of(compiler, row, column, suffixes) for column in columns)
        if sealed is not None and (plain is not None or not _is_nothing(_given(row, columns[1]))):
            yield PairBinds(plain, sealed, columns)


def _given(row: Mapping[Any, Any], column: Column[Any]) -> Any:
    return next((value for key, value in row.items() if means(key, column)), None)


def _is_nothing(value: Any) -> bool:
    """Return whether *value*, as a statement was given it, is NULL or may be."""
    if isinstance(value, BindParameter):
        return value.value is None
    return value is None or isinstance(value, Null)


def _alone(sealed: Column[Any], plain: Column[Any]) -> EncryptedQueryError:
    return EncryptedQueryError(
        f"Column {plain.table.fullname}.{plain.name} was about to be written without "
        f"{sealed.name}, which takes its place: plaintext would be stored alone, and what is "
        "sealed be forgotten. Write the attribute that both() declares, of the mapped class and by "
        "a session; Core statements, and set_=, name both columns."
    )
