"""The compiler's part for what is written: values, found in their row, and never expressions.

Encrypted columns take values of Python; the database cannot seal. Of each value that is bound to
its row, that is made of others, or that is written twice, the compiler notes with which parameters
it comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table

from tenantguard.columns.compound_writes import (
    Parts,
    follow_excluded,
    follow_inserted,
    follow_updated,
    inserted_parts,
    refuse_aliased,
    refuse_selected,
    updated_parts,
)
from tenantguard.columns.expressions import inner, is_encrypted
from tenantguard.columns.pair_writes import (
    inserted_pairs,
    refuse_half,
    refuse_half_of_alias,
    refuse_plaintext_alone,
    refuse_plaintext_set,
    updated_pairs,
)
from tenantguard.columns.row_keys import RowKey
from tenantguard.columns.row_writes import (
    RowBinds,
    bound_columns,
    changed_columns,
    inserted_rows,
    is_same_row,
    refuse_alias,
    refuse_moved,
    refuse_parameters,
    set_columns,
    updated_row,
)
from tenantguard.columns.written import (
    check_selected,
    is_search_column,
    refuse_target,
    refuse_unknown,
    values_of,
    written_table,
)
from tenantguard.errors import EncryptedQueryError
from tenantguard.scoping.statements import compiled_as, copy_with

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.sql.compiler import SQLCompiler

    from tenantguard.columns.pair_writes import PairBinds

__all__ = ["WritesCompiler"]


class WritesCompiler:
    """Mixed in before a dialect's own statement compiler, as part of `EncryptionCompiler`.

    Attributes:
        pairs: What is written of a column of plaintext and of the encrypted one beside it.
    """

    stack: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._rows: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._parts: dict[str, tuple[Any, tuple[str | None, ...]]] = {}
        self.pairs: list[PairBinds] = []
        super().__init__(*args, **kwargs)
        self._note_rows()

    def _note_rows(self) -> None:
        """Let each value be sealed for the row, and of the parts, that were found for it."""
        if not self._rows and not self._parts:
            return
        compiled = cast("SQLCompiler", self)
        processors: dict[str, Any] = compiled._bind_processors  # type: ignore[assignment]  # noqa: SLF001
        rows: dict[str, RowBinds] = {}
        for name, (column, keys) in self._rows.items():
            key = RowKey(column.table, column.name)
            row = RowBinds(key, tuple((each, processors.get(each)) for each in keys))
            rows[name] = row
            processors[name] = row.noting(column.type.field)
        for name, (column, parts) in self._parts.items():
            processors[name] = Parts(column.type, parts, rows.get(name)).noting()

    def visit_insert(self, statement: Any, *args: Any, **kwargs: Any) -> str:
        """Render an INSERT whose encrypted columns take values, not expressions."""
        statement = self._written(statement, kwargs)
        rendered = cast("str", super().visit_insert(statement, *args, **kwargs))  # type: ignore[misc]
        table = written_table(statement)
        if isinstance(table, Table) and any(map(is_encrypted, table.columns)):
            in_cte, state = "visiting_cte" in kwargs, statement._compile_state_factory()  # noqa: SLF001
            if getattr(state.statement, "select", None) is None:
                self._note_parts(inserted_parts(cast("Any", self), table, state, in_cte=in_cte))
            if bound_columns(table):
                self._note_places(inserted_rows(cast("Any", self), table, state, in_cte=in_cte))
            self.pairs += inserted_pairs(cast("Any", self), table, state, in_cte=in_cte)
        return rendered

    def visit_update(self, statement: Any, *args: Any, **kwargs: Any) -> str:
        """Render an UPDATE whose encrypted columns take values, not expressions."""
        statement = self._written(statement, kwargs)
        rendered = cast("str", super().visit_update(statement, *args, **kwargs))  # type: ignore[misc]
        table = written_table(statement)
        if isinstance(table, Table) and any(map(is_encrypted, table.columns)):
            in_cte, state = "visiting_cte" in kwargs, statement._compile_state_factory()  # noqa: SLF001
            self._note_parts(updated_parts(cast("Any", self), table, state, in_cte=in_cte))
            if bound_columns(table):
                self._note_places(updated_row(cast("Any", self), table, state))
            self.pairs += updated_pairs(cast("Any", self), table, state)
        return rendered

    def _note_parts(self, found: Iterable[tuple[str, Any, tuple[str | None, ...]]]) -> None:
        """Note of which parameters the compounds that were *found* are made."""
        self._parts.update((name, (column, parts)) for name, column, parts in found)

    def _note_places(self, found: Iterable[tuple[str, Any, tuple[str, ...]]]) -> None:
        """Note in which row the parameters that were *found* are."""
        for name, column, keys in found:
            if self._rows.setdefault(name, (column, keys)) != (column, keys):
                raise EncryptedQueryError(
                    f"One parameter is used for column {column.type.field.name} in several rows, "
                    "and its values are bound to their row. Give each row its own parameter."
                )

    def visit_on_conflict_do_update(self, on_conflict: Any, **kwargs: Any) -> str:
        """Render DO UPDATE; an encrypted column may take the row's that was to be inserted."""
        table = cast("Any", self).stack[-1]["selectable"].table
        values = on_conflict.update_values_to_set
        pairs = list(values.items()) if hasattr(values, "items") else list(values)
        # set_=insert.excluded names the generated columns too, which follow by themselves.
        pairs = [(key, value) for key, value in pairs if not is_search_column(value)]
        pairs = follow_excluded(table, pairs)
        refuse_unknown(table, dict(pairs))
        same_row = is_same_row(table, on_conflict.inferred_target_elements or ())
        refuse_parameters(table, dict(pairs))
        refuse_plaintext_set(table, dict(pairs))
        refuse_moved(table, changed_columns(table, dict(pairs), same_row=same_row))
        pairs = list(values_of(table, dict(pairs), same_row=same_row).items())
        on_conflict = copy_with(on_conflict, update_values_to_set=pairs)
        return cast("str", super().visit_on_conflict_do_update(on_conflict, **kwargs))  # type: ignore[misc]

    def _on_conflict_target(self, clause: Any, **kwargs: Any) -> str:
        # PostgreSQL's dialect has it; strings do not pass visit_column.
        table = cast("Any", self).stack[-1]["selectable"].table
        refuse_target(table, clause.inferred_target_elements or ())
        return cast("str", super()._on_conflict_target(clause, **kwargs))  # type: ignore[misc]

    def _written(self, statement: Any, kwargs: dict[str, Any]) -> Any:
        table = written_table(statement)
        if not isinstance(table, Table):
            if statement.is_update:
                refuse_alias(table)
                refuse_aliased(table)
                refuse_half_of_alias(cast("Any", self), statement)
            return statement
        takes_values = getattr(statement, "select", None) is None and not statement.is_update
        if takes_values and not any(map(is_encrypted, table.c)):
            return statement
        options = {key: value for key, value in kwargs.items() if key != "visiting_cte"}
        state = statement._compile_state_factory(statement, self, **options)  # noqa: SLF001
        source = getattr(state.statement, "select", None)
        if source is not None:
            names = state.statement._select_names  # noqa: SLF001
            for name, column in zip(names, source.selected_columns, strict=True):
                check_selected(table, name, inner(column))
            refuse_selected(table)
            refuse_plaintext_alone(table, names)
            return compiled_as(statement, state)
        refuse_half(cast("Any", self), table, state)
        if statement.is_update:
            refuse_moved(table, set_columns(cast("Any", self), table, state._dict_parameters))  # noqa: SLF001
            follow_updated(cast("Any", self), table, state)
        else:
            follow_inserted(cast("Any", self), table, state)
        if state._multi_parameters:  # noqa: SLF001
            state._multi_parameters = [values_of(table, row) for row in state._multi_parameters]  # noqa: SLF001
            state._dict_parameters = state._multi_parameters[0]  # noqa: SLF001
        elif state._dict_parameters:  # noqa: SLF001
            state._dict_parameters = values_of(table, state._dict_parameters)  # noqa: SLF001
            if getattr(state, "_ordered_values", None) is not None:
                state._ordered_values = list(state._dict_parameters.items())  # noqa: SLF001
        return compiled_as(statement, state)
