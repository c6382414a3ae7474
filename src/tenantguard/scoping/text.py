"""Text inside statements, which the first lock cannot read.

SQLAlchemy takes text in more places than `text()`: literal columns, operators, prefixes, hints,
types, the field of EXTRACT, and functions that run a text as SQL. A statement that has any is left
to the second lock; see `execution`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.sql.elements import ColumnClause, TextClause

__all__ = ["TextWatch"]

# A name, a dotted name or a plain literal, optionally with a direction: text that can only name
# what the statement already reads.
_HARMLESS_TEXT = re.compile(
    r"""\s*(\*|\d+(\.\d+)?|'[^'\\]*'|"?[a-z_]\w*"?(\."?[a-z_]\w*"?){0,2})
        (\s+(asc|desc))?(\s+nulls\s+(first|last))?\s*""",
    re.IGNORECASE | re.VERBOSE,
)

# An operator of symbols that neither opens nor closes a comment.
_SYMBOL = re.compile(r"(?!.*(--|/\*|\*/))[-+*/<>=~!@#%^&|`?]+")

# A type's name, with its schema, arguments and array brackets.
_TYPE = re.compile(
    r"""(\w+|"[^"]*")([ .](\w+|"[^"]*"))*(\s*\(\s*\w+(\s*,\s*\w+)*\s*\))?([ ]\w+)*(\[\])*"""
    r"""([ ]COLLATE[ ]"[^"]*")?""",
    re.VERBOSE,
)

# Functions of PostgreSQL and its extensions that run a text as SQL, or change a setting; a call is
# as opaque as the text itself.
_TEXT_FUNCTIONS = re.compile(
    r"set_config|ts_stat|ts_rewrite|connectby|xpath_table|pgstattuple|crosstab\w*|dblink\w*|"
    r"(cursor|database|query|schema|table)_to_xml\w*",
    re.IGNORECASE,
)


class TextWatch(SQLCompiler):
    """Notes in `has_text` whether the statement contains text that may read anything."""

    has_text = False

    def visit_textclause(self, textclause: TextClause, *args: Any, **kwargs: Any) -> str:
        """Render a text, and note one that may read more than the statement says."""
        if not self.stack or kwargs.get("asfrom"):
            self.has_text = True
        self._note_text(textclause.text)
        return cast("str", super().visit_textclause(textclause, *args, **kwargs))

    def visit_tstring(self, tstring: Any, *args: Any, **kwargs: Any) -> str:
        """Render a template string, and note it (SQLAlchemy 2.1 and later)."""
        self.has_text = True
        return cast("str", super().visit_tstring(tstring, *args, **kwargs))

    def visit_column(self, column: ColumnClause[Any], *args: Any, **kwargs: Any) -> str:
        """Render a column, and note a literal one, which is text."""
        if column.is_literal:
            self._note_text(column.name)
        return super().visit_column(column, *args, **kwargs)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Render an operator given as text, and note one that is more than a symbol."""
        self._note_operator(operator)
        return cast("str", super().visit_custom_op_binary(element, operator, **kwargs))

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Render a prefix operator, and note one that is more than a symbol."""
        self._note_operator(operator)
        return cast("str", super().visit_custom_op_unary_operator(element, operator, **kwargs))

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Render a postfix operator, and note one that is more than a symbol."""
        self._note_operator(operator)
        return cast("str", super().visit_custom_op_unary_modifier(element, operator, **kwargs))

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Render a function call, and note one that runs text as SQL."""
        if _TEXT_FUNCTIONS.fullmatch(func.name):
            self.has_text = True
        return super().visit_function(func, *args, **kwargs)

    def visit_extract(self, extract: Any, **kwargs: Any) -> str:
        """Render EXTRACT, whose field is text."""
        self._note_text(extract.field)
        return cast("str", super().visit_extract(extract, **kwargs))

    def visit_typeclause(self, typeclause: Any, **kwargs: Any) -> str:
        """Render the type of a cast, and note one that is more than a type."""
        rendered = cast("str", super().visit_typeclause(typeclause, **kwargs))
        self._note_type(rendered)
        return rendered

    def render_bind_cast(self, type_: Any, dbapi_type: Any, sqltext: str) -> str:
        """Render a parameter's type, and note one that is more than a type."""
        rendered = cast("str", super().render_bind_cast(type_, dbapi_type, sqltext))
        self._note_type(rendered.removeprefix(sqltext).removeprefix("::"))
        return rendered

    def visit_table_valued_alias(self, element: Any, **kwargs: Any) -> str:
        """Render a function as a table, and note a column type that is more than a type."""
        if element._render_derived_w_types:  # noqa: SLF001
            for column in element.c:
                self._note_type(self.dialect.type_compiler_instance.process(column.type))
        return cast("str", super().visit_table_valued_alias(element, **kwargs))

    def get_statement_hint_text(self, hint_texts: Sequence[str]) -> str:
        """Render statement hints, and note them: they are text at the statement's end."""
        self.has_text = True
        return cast("str", super().get_statement_hint_text(hint_texts))

    def _generate_prefixes(self, stmt: Any, prefixes: Any, **kwargs: Any) -> str:
        if prefixes:
            self.has_text = True
        return cast("str", super()._generate_prefixes(stmt, prefixes, **kwargs))

    def _note_type(self, rendered: str) -> None:
        if not _TYPE.fullmatch(rendered):
            self.has_text = True

    def _note_operator(self, operator: Any) -> None:
        if not _SYMBOL.fullmatch(operator.opstring):
            self.has_text = True

    def _note_text(self, text: str) -> None:
        if not _HARMLESS_TEXT.fullmatch(text):
            self.has_text = True
