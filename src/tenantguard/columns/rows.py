"""Rows that the database compares or puts together: DISTINCT, UNION and their like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.sql.elements import Null
from sqlalchemy.sql.expression import TableClause

from tenantguard.columns.expressions import inner, is_encrypted, same_field
from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["refuse_equality", "refuse_mixture"]


def refuse_equality(columns: Iterable[Any]) -> None:
    """Refuse *columns* that are compared as rows, unless a primary key tells the rows apart."""
    selected = [inner(column) for column in columns if column is not None]
    origins = [_origin(column) for column in selected]
    for column, origin in zip(selected, origins, strict=True):
        if not is_encrypted(column):
            continue
        keys = getattr(origin and origin[-1].table, "primary_key", ())
        present = {each[-1].name for each in origins if each and _same_rows(each, origin)}
        if not keys or not {key.name for key in keys} <= present:
            raise EncryptedQueryError(
                f"Column {column.type.field.name} is encrypted, and equal values differently, so "
                "DISTINCT and UNION do not see that they are equal. Select its table's primary key "
                "too, use UNION ALL, or remove duplicates in Python."
            )


def refuse_mixture(selects: list[list[Any]]) -> None:
    """Refuse columns of *selects* that come together and do not have the same keys."""
    for together in zip(*selects, strict=False):
        first, *others = map(inner, together)
        for column in others:
            if isinstance(column, Null) and is_encrypted(first):
                continue
            if is_encrypted(column) and same_field(column.type, first):
                continue
            mixed = next(filter(is_encrypted, (first, column)), None)
            if mixed is not None:
                raise EncryptedQueryError(
                    f"Column {mixed.type.field.name} is encrypted and would be mixed with another "
                    "column by UNION or its like. Select both, or send two statements."
                )


def _origin(column: Any) -> list[Any] | None:
    """Return *column* and what it is in each sub-query, down to a table; None if unclear."""
    path = [column]
    while not isinstance(source := getattr(column, "table", None), TableClause):
        if source is None:
            return None
        if isinstance(source.element, TableClause):
            return path
        proxies = column._proxies  # noqa: SLF001
        if len(proxies) != 1:
            return None
        column = inner(proxies[0])
        path.append(column)
    return path


def _same_rows(path: list[Any], other: list[Any] | None) -> bool:
    return [each.table for each in path] == [each.table for each in other or ()]
