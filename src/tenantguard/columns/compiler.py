"""The compiler that refuses what ciphertext cannot answer, and plaintext where it would be stored.

An encrypted column may stand in a list of selected columns, in RETURNING, in IS NULL, in count(),
and where its blind index is taken. Wherever else it reaches the output, the statement is refused:
the database would order, compare or group ciphertext, and answer wrongly.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Table
from sqlalchemy.sql import operators
from sqlalchemy.sql.selectable import ScalarSelect, TextualSelect, _CompoundSelectKeyword

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
from tenantguard.columns.expressions import inner, is_encrypted, refusal
from tenantguard.columns.pair import refuse_pairs, selected_pair
from tenantguard.columns.pair_writes import (
    inserted_pairs,
    refuse_half,
    refuse_half_of_alias,
    refuse_plaintext_alone,
    updated_pairs,
)
from tenantguard.columns.row_binding import refuse_text, rowless
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
from tenantguard.columns.rows import refuse_equality, refuse_mixture
from tenantguard.columns.types import WHOLE, Encrypted, SearchValue
from tenantguard.columns.written import (
    check_selected,
    is_search_column,
    refuse_target,
    refuse_unknown,
    values_of,
)
from tenantguard.errors import ConfigurationError, EncryptedQueryError
from tenantguard.scoping.statements import compiled_as, copy_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import BindParameter

    from tenantguard.columns.pair_writes import PairBinds

__all__ = ["EncryptionCompiler", "encryption_compiler"]

_HOOKS = (
    "_compose_select_body",
    "_label_select_column",
    "visit_column",
    "visit_compound_select",
    "visit_function",
    "visit_grouping",
    "visit_insert",
    "visit_label",
    "visit_table_valued_column",
    "visit_unary",
    "visit_update",
)


class EncryptionCompiler:
    """Mixed in before a dialect's own statement compiler by `encryption_compiler`."""

    stack: list[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._selected: object = None
        self.seals = self.searches = self.opens = False
        self._rows: dict[str, tuple[Any, tuple[str, ...]]] = {}
        self._parts: dict[str, tuple[Any, tuple[str | None, ...]]] = {}
        self.pairs: list[PairBinds] = []
        super().__init__(*args, **kwargs)
        self.pair = selected_pair(cast("SQLCompiler", self).statement)
        self._note_uses()
        self._note_rows()

    def _note_uses(self) -> None:
        """Note what an execution needs keys for: once, because what is compiled is cached."""
        compiled = cast("SQLCompiler", self)
        binds: dict[BindParameter[Any], str] = getattr(compiled, "bind_names", {})
        types: dict[str, Any] = {}
        for bind, name in binds.items():
            self.seals = self.seals or isinstance(bind.type, Encrypted)
            self.searches = self.searches or isinstance(bind.type, SearchValue)
            _refuse_two_uses(types.setdefault(name, bind.type), bind.type)
        self.opens = any(
            isinstance(entry.type, Encrypted)
            for entry in getattr(compiled, "_result_columns", None) or ()
        )

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

    # -- reads --------------------------------------------------------------------------------

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Render a column; an encrypted one only where its ciphertext may stand."""
        if isinstance(column.type, Encrypted) and not self._may_stand(column):
            # The columns of SQL text tell what is fetched, and are not sent.
            of_text = not self.stack or isinstance(self.stack[-1]["selectable"], TextualSelect)
            if not of_text or kwargs.get("add_to_result_map") is None:
                raise refusal(column.type)
            if column.type.field.bound:
                raise rowless(column.type.field)
        return cast("str", super().visit_column(column, *args, **kwargs))  # type: ignore[misc]

    def visit_table_valued_column(self, column: Any, **kwargs: Any) -> str:
        """Render a whole row as one value, as `table_valued()` makes it."""
        for part in filter(is_encrypted, column.scalar_alias.c):
            raise refusal(part.type)
        return cast("str", super().visit_table_valued_column(column, **kwargs))  # type: ignore[misc]

    def visit_grouping(self, grouping: Any, *args: Any, **kwargs: Any) -> str:
        """Render parentheses; a sub-query that gives a value only where a column may stand."""
        if isinstance(grouping, ScalarSelect):
            refuse_pairs([grouping.element])
        if isinstance(grouping, ScalarSelect) and not self._may_stand(grouping):
            for column in grouping.element.selected_columns:
                if isinstance(column.type, Encrypted):
                    raise refusal(column.type)
        return cast("str", super().visit_grouping(grouping, *args, **kwargs))  # type: ignore[misc]

    def visit_unary(self, unary: Any, *args: Any, **kwargs: Any) -> str:
        """Render an operator with one operand; EXISTS does not look at what is selected."""
        exists = unary.operator is operators.exists
        with self._selecting(unary.element if exists else self._selected):
            return cast("str", super().visit_unary(unary, *args, **kwargs))  # type: ignore[misc]

    def visit_label(self, label: Any, *args: Any, **kwargs: Any) -> str:
        """Render a label; not alone, where ORDER BY or GROUP BY names it."""
        alone = kwargs.get("render_label_as_label")
        if alone is not None and alone is label and isinstance(alone.type, Encrypted):
            raise refusal(alone.type)
        return cast("str", super().visit_label(label, *args, **kwargs))  # type: ignore[misc]

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Render a function; count() may have an encrypted column."""
        arguments = list(func.clauses)
        counts = func.name.lower() == "count" and len(arguments) == 1
        with self._selecting(arguments[0] if counts else None):
            return cast("str", super().visit_function(func, *args, **kwargs))  # type: ignore[misc]

    def _label_select_column(self, select: Any, column: Any, *args: Any, **kwargs: Any) -> str:
        if is_encrypted(column) and column.type.field.bound:
            # In a sub-query too: its column has to have the row's key already.
            kwargs["need_column_expressions"] = True
        with self._selecting(inner(column)):
            return cast("str", super()._label_select_column(select, column, *args, **kwargs))  # type: ignore[misc]

    def _compose_select_body(
        self, text: str, select: Any, compile_state: Any, *args: Any, **kwargs: Any
    ) -> str:
        if select._distinct and not select._distinct_on:  # noqa: SLF001
            refuse_equality(entry[3] for entry in compile_state.columns_plus_names)
        return cast(
            "str",
            super()._compose_select_body(text, select, compile_state, *args, **kwargs),  # type: ignore[misc]
        )

    def visit_compound_select(self, compound: Any, *args: Any, **kwargs: Any) -> str:
        """Render UNION and its like, which compare rows; UNION ALL does not."""
        refuse_text(compound)
        refuse_pairs(compound.selects)
        refuse_mixture([list(each._all_selected_columns) for each in compound.selects])  # noqa: SLF001
        if compound.keyword is not _CompoundSelectKeyword.UNION_ALL:
            for select in compound.selects:
                refuse_equality(select.selected_columns)
        return cast("str", super().visit_compound_select(compound, *args, **kwargs))  # type: ignore[misc]

    def _may_stand(self, expression: Any) -> bool:
        whole = expression._annotations.get(WHOLE)  # noqa: SLF001
        return whole or expression is self._selected

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
        rendered = cast("str", super().visit_insert(statement, *args, **kwargs))  # type: ignore[misc]
        table = statement.table
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
        table = statement.table
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
        refuse_plaintext_alone(table, dict(pairs), dict(pairs))
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
        table = statement.table
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


def _refuse_two_uses(first: Any, second: Any) -> None:
    """Refuse one parameter for two columns: SQLAlchemy has one processor for it."""
    for one, other in ((first, second), (second, first)):
        if isinstance(one, Encrypted | SearchValue) and not one.same_as(other):
            raise EncryptedQueryError(
                f"One parameter is used for column {one.field.name}, which is encrypted, and for "
                "something else; it can be sealed for one of them only. Give each its own "
                "parameter."
            )
