"""The compiler that refuses what ciphertext cannot answer, and plaintext where it would be stored.

An encrypted column may stand in a list of selected columns, in RETURNING, in IS NULL, in count(),
and where its blind index is taken. Wherever else it reaches the output, the statement is refused:
the database would order, compare or group ciphertext, and answer wrongly.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Label, Null
from sqlalchemy.sql.selectable import _CompoundSelectKeyword

from tenantguard.columns.types import WHOLE, Encrypted, SearchValue
from tenantguard.errors import ConfigurationError, EncryptedQueryError
from tenantguard.scoping.statements import compiled_as, copy_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.sql.compiler import SQLCompiler

__all__ = ["EncryptionCompiler", "encryption_compiler"]

_HOOKS = (
    "_compose_select_body",
    "_label_select_column",
    "visit_column",
    "visit_compound_select",
    "visit_function",
    "visit_insert",
    "visit_label",
    "visit_update",
)
_ALL = (
    _CompoundSelectKeyword.UNION_ALL,
    _CompoundSelectKeyword.EXCEPT_ALL,
    _CompoundSelectKeyword.INTERSECT_ALL,
)


class EncryptionCompiler:
    """Mixed in before a dialect's own statement compiler by `encryption_compiler`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._selected: object = None
        self.seals = self.searches = self.opens = False
        super().__init__(*args, **kwargs)
        self._note_uses()

    def _note_uses(self) -> None:
        """Note what an execution needs keys for: once, because what is compiled is cached."""
        compiled = cast("SQLCompiler", self)
        binds: Iterable[BindParameter[Any]] = getattr(compiled, "bind_names", ())
        for bind in binds:
            self.seals = self.seals or isinstance(bind.type, Encrypted)
            self.searches = self.searches or isinstance(bind.type, SearchValue)
        self.opens = any(
            isinstance(entry.type, Encrypted)
            for entry in getattr(compiled, "_result_columns", None) or ()
        )

    # -- reads --------------------------------------------------------------------------------

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Render a column; an encrypted one only where its ciphertext may stand."""
        may_stand = column is self._selected or column._annotations.get(WHOLE)  # noqa: SLF001
        if isinstance(column.type, Encrypted) and not may_stand:
            raise _refusal(column.type)
        return cast("str", super().visit_column(column, *args, **kwargs))  # type: ignore[misc]

    def visit_label(self, label: Any, *args: Any, **kwargs: Any) -> str:
        """Render a label; not alone, where ORDER BY or GROUP BY names it."""
        alone = kwargs.get("render_label_as_label")
        if alone is not None and alone is label and isinstance(alone.type, Encrypted):
            raise _refusal(alone.type)
        return cast("str", super().visit_label(label, *args, **kwargs))  # type: ignore[misc]

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Render a function; count() may have an encrypted column."""
        arguments = list(func.clauses)
        counts = func.name.lower() == "count" and len(arguments) == 1
        with self._selecting(arguments[0] if counts else None):
            return cast("str", super().visit_function(func, *args, **kwargs))  # type: ignore[misc]

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kwargs: Any) -> str:
        with self._selecting(_inner(column)):
            return cast("str", super()._label_select_column(select, column, *args, **kwargs))  # type: ignore[misc]

    def _compose_select_body(
        self, text: str, select: Any, compile_state: Any, *args: Any, **kwargs: Any
    ) -> str:
        if select._distinct:  # noqa: SLF001
            _refuse_equality(entry[3] for entry in compile_state.columns_plus_names)
        return cast(
            "str",
            super()._compose_select_body(text, select, compile_state, *args, **kwargs),  # type: ignore[misc]
        )

    def visit_compound_select(self, compound: Any, *args: Any, **kwargs: Any) -> str:
        """Render UNION and its like, which compare rows unless they say ALL."""
        if compound.keyword not in _ALL:
            for select in compound.selects:
                _refuse_equality(select.selected_columns)
        return cast("str", super().visit_compound_select(compound, *args, **kwargs))  # type: ignore[misc]

    @contextmanager
    def _selecting(self, column: Any) -> Iterator[None]:
        outer, self._selected = self._selected, column
        try:
            yield
        finally:
            self._selected = outer

    # -- writes -------------------------------------------------------------------------------

    def visit_insert(self, statement: Any, *args: Any, **kwargs: Any) -> str:
        """Render an INSERT whose encrypted columns take values, not expressions."""
        statement = self._written(statement, kwargs)
        return cast("str", super().visit_insert(statement, *args, **kwargs))  # type: ignore[misc]

    def visit_update(self, statement: Any, *args: Any, **kwargs: Any) -> str:
        """Render an UPDATE whose encrypted columns take values, not expressions."""
        statement = self._written(statement, kwargs)
        return cast("str", super().visit_update(statement, *args, **kwargs))  # type: ignore[misc]

    def visit_on_conflict_do_update(self, on_conflict: Any, **kwargs: Any) -> str:
        """Render DO UPDATE; an encrypted column may take the row's that was to be inserted."""
        table = cast("Any", self).stack[-1]["selectable"].table
        values = on_conflict.update_values_to_set
        pairs = list(values.items()) if hasattr(values, "items") else list(values)
        pairs = [(key, _value(table, key, value)) for key, value in pairs]
        on_conflict = copy_with(on_conflict, update_values_to_set=pairs)
        return cast("str", super().visit_on_conflict_do_update(on_conflict, **kwargs))  # type: ignore[misc]

    def _written(self, statement: Any, kwargs: dict[str, Any]) -> Any:
        table = statement.table
        if not isinstance(table, Table) or not any(map(_is_encrypted, table.columns)):
            return statement
        options = {key: value for key, value in kwargs.items() if key != "visiting_cte"}
        state = statement._compile_state_factory(statement, self, **options)  # noqa: SLF001
        source = getattr(state.statement, "select", None)
        if source is not None:
            names = state.statement._select_names  # noqa: SLF001
            for name, column in zip(names, source.selected_columns, strict=True):
                _value(table, name, column)
            return compiled_as(statement, state)
        rows = state._multi_parameters or [state._dict_parameters or {}]  # noqa: SLF001
        for row in rows:
            row.update({key: _value(table, key, value) for key, value in row.items()})
        return compiled_as(statement, state)


def encryption_compiler(base: type[SQLCompiler]) -> type[SQLCompiler]:
    """Return *base* with the refusals of encrypted columns.

    Raises:
        ConfigurationError: If this version of SQLAlchemy lacks a hook.
    """
    missing = [hook for hook in _HOOKS if not callable(getattr(base, hook, None))]
    if missing:
        raise ConfigurationError(
            f"This version of SQLAlchemy has no compiler hook {missing[0]}; "
            "tenantguard supports sqlalchemy>=2.0.30,<2.2."
        )
    return type(f"Encryption{base.__name__}", (EncryptionCompiler, base), {})


def _is_encrypted(column: Any) -> bool:
    return isinstance(column.type, Encrypted)


def _value(table: Table, key: Any, value: Any) -> Any:
    """Return what the column *key* of *table* is given, if an encrypted column can take it."""
    target = _target(table, key)
    if target is None:
        return value
    if isinstance(value, BindParameter):
        if value.type._isnull or _same_field(value.type, target):  # noqa: SLF001
            return value
    elif isinstance(value, ColumnClause) and _same_field(value.type, target):
        # Another row's value of the same column and tenant, such as excluded.name.
        return value._annotate({WHOLE: True})  # noqa: SLF001
    elif isinstance(value, Null) or not hasattr(value, "_compiler_dispatch"):
        return value
    raise EncryptedQueryError(
        f"Column {cast('Encrypted', target.type).field.name} is encrypted and was given an SQL "
        "expression or a value of another type; the database cannot encrypt. Give it a value of "
        "Python, or the same column."
    )


def _target(table: Table, key: Any) -> Column[Any] | None:
    names = {key} if isinstance(key, str) else {getattr(key, "key", None), getattr(key, "name", "")}
    for column in table.columns:
        if _is_encrypted(column) and names & {column.key, column.name}:
            return column
    return None


def _same_field(type_: Any, target: Column[Any]) -> bool:
    return isinstance(type_, Encrypted) and type_.field.same_as(
        cast("Encrypted", target.type).field
    )


def _refuse_equality(columns: Iterable[Any]) -> None:
    """Refuse *columns* that are compared as rows, unless a primary key tells the rows apart."""
    selected = [_inner(column) for column in columns if column is not None]
    for column in selected:
        if not _is_encrypted(column):
            continue
        source = getattr(column, "table", None)
        keys = getattr(source, "primary_key", ())
        present = {each.name for each in selected if getattr(each, "table", None) is source}
        if not keys or not {key.name for key in keys} <= present:
            raise EncryptedQueryError(
                f"Column {column.type.field.name} is encrypted, and equal values differently, so "
                "DISTINCT and UNION do not see that they are equal. Select the primary key too, "
                "use UNION ALL, or remove duplicates in Python."
            )


def _inner(column: Any) -> Any:
    while isinstance(column, Label):
        column = column.element
    return column


def _refusal(type_: Encrypted) -> EncryptedQueryError:
    return EncryptedQueryError(
        f"Column {type_.field.name} is encrypted and stands where the database would work with its "
        "value: in ORDER BY, GROUP BY, a function, an expression or a comparison. Select it and do "
        "that in Python; to find rows, use ==, != or IN with search=Exact()."
    )
