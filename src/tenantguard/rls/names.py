"""How tables, columns, types and values are written in generated SQL."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from sqlalchemy.dialects.postgresql.base import PGDialect

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import CheckConstraint, Column, Index
    from sqlalchemy.engine import Dialect
    from sqlalchemy.schema import CreateTable

    from tenantguard.catalog import Entry

__all__ = [
    "DEFAULT_SCHEMA",
    "column_list",
    "constraint_name",
    "ddl",
    "do_block",
    "expression_sql",
    "index_name",
    "literal",
    "object_name",
    "plain_literal",
    "qualified",
    "quote",
    "target_of",
    "type_sql",
]

DEFAULT_SCHEMA = "public"
"""Where a table without a schema lives; generated SQL does not depend on the search path."""

_MAX_IDENTIFIER = 63

# A "format" paramstyle would double the per cent signs of a name.
_DIALECT: Dialect = PGDialect(paramstyle="named")  # type: ignore[no-untyped-call]
_PREPARER = _DIALECT.identifier_preparer


def quote(name: str) -> str:
    """Return *name* as a quoted identifier."""
    return str(_PREPARER.quote_identifier(name))


def qualified(target: tuple[str, str]) -> str:
    """Return schema and name as a quoted, qualified identifier."""
    schema, name = target
    return f"{quote(schema)}.{quote(name)}"


def target_of(entry: Entry) -> tuple[str, str]:
    """Return schema and name of *entry*'s table in the database."""
    return (entry.schema or DEFAULT_SCHEMA, entry.name)


def column_list(names: Iterable[str]) -> str:
    """Return *names* quoted and separated by commas."""
    return ", ".join(quote(name) for name in names)


def plain_literal(text: str) -> str:
    """Return *text* as a string literal; with a backslash, as an escape string literal."""
    if "\\" in text:
        return literal(text)
    return "'" + text.replace("'", "''") + "'"


def literal(text: str) -> str:
    """Return *text* as an escape string literal, which reads the same under every setting."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def object_name(*parts: str) -> str:
    """Return a name of at most 63 bytes that *parts* alone decide.

    The digest keeps ("a_b", "c") and ("a", "b_c") apart.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]
    words = "_".join(("tg", *parts)).encode()[: _MAX_IDENTIFIER - 9]
    return f"{words.decode(errors='ignore')}_{digest}"


def do_block(body: str) -> str:
    """Return an anonymous plpgsql block around *body*."""
    tag = "$tenantguard$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"DO {tag}\n{body}\n{tag}"


def type_sql(column: Column[Any]) -> str:
    """Return *column*'s PostgreSQL type as SQLAlchemy would create it."""
    return column.type.compile(dialect=_DIALECT)


def ddl(statement: CreateTable) -> str:
    """Return *statement* as SQLAlchemy would send it, without its tabs and trailing spaces."""
    lines = str(statement.compile(dialect=_DIALECT)).strip().expandtabs(4).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def expression_sql(expression: Any) -> str:
    """Return an expression of the models as SQLAlchemy would write it into a table's definition."""
    compiler: Any = _DIALECT.statement_compiler(_DIALECT, None)
    return str(compiler.process(expression, include_table=False, literal_binds=True))


def index_name(index: Index) -> str:
    """Return the name that *index* has in the database."""
    return _unquoted(str(_PREPARER.format_index(index)))


def constraint_name(constraint: CheckConstraint) -> str | None:
    """Return the name that *constraint* has in the database, None if PostgreSQL chooses it."""
    if constraint.name is None:
        return None
    name = _PREPARER.format_constraint(constraint)
    return None if name is None else _unquoted(str(name))


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
