"""The compiler that refuses what ciphertext cannot answer; `writes_compiler` has what is written.

An encrypted column may stand in a list of selected columns, in RETURNING, in IS NULL, in count(),
and where its blind index is taken. Wherever else it reaches the output, the statement is refused:
the database would order, compare or group ciphertext, and answer wrongly.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.sql import operators
from sqlalchemy.sql.selectable import ScalarSelect, TextualSelect, _CompoundSelectKeyword

from tenantguard.columns.expressions import inner, is_encrypted, refusal
from tenantguard.columns.pair import refuse_pairs, selected_pair
from tenantguard.columns.row_binding import refuse_text, rowless
from tenantguard.columns.rows import refuse_equality, refuse_mixture
from tenantguard.columns.types import WHOLE, Encrypted, SearchValue
from tenantguard.columns.writes_compiler import WritesCompiler
from tenantguard.errors import ConfigurationError, EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.sql.elements import BindParameter


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


class EncryptionCompiler(WritesCompiler):
    """Mixed in before a dialect's own statement compiler by `encryption_compiler`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._selected: object = None
        self.seals = self.searches = self.opens = False
        super().__init__(*args, **kwargs)
        self.pair = selected_pair(cast("SQLCompiler", self).statement)
        self._note_uses()

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
