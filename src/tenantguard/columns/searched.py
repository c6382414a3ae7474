"""Searching an encrypted column by one of its named blind indexes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from sqlalchemy.sql import operators

from tenantguard.columns.types import Encrypted
from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, ColumnElement
    from sqlalchemy.sql.expression import SQLColumnExpression

__all__ = ["Searched", "searched"]

_Value = TypeVar("_Value")


class Searched(Generic[_Value]):
    """An encrypted column as one of its named searches sees it: it can be compared, nothing else.

    Made by `searched()`.
    """

    __slots__ = ("_comparator", "_name")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, comparator: Any, name: str) -> None:
        self._comparator = comparator
        self._name = name

    def __repr__(self) -> str:
        return f"<Searched {self._comparator.type.field.name} {self._name}>"

    def __eq__(  # type: ignore[override]
        self, value: _Value | BindParameter[Any]
    ) -> ColumnElement[bool]:
        return self._search(operators.eq, value)

    def __ne__(  # type: ignore[override]
        self, value: _Value | BindParameter[Any]
    ) -> ColumnElement[bool]:
        return self._search(operators.ne, value)

    def __clause_element__(self) -> Any:
        # By this name SQLAlchemy knows what is no literal, in lambdas too.
        raise EncryptedQueryError(
            f"searched() of column {self._comparator.type.field.name} is compared by ==, !=, in_() "
            "and not_in() and stands for nothing else; select the column itself."
        )

    def in_(self, values: Sequence[_Value] | BindParameter[Any]) -> ColumnElement[bool]:
        """Return the condition that the column has one of *values*, as the search sees it."""
        return self._search(operators.in_op, values)

    def not_in(self, values: Sequence[_Value] | BindParameter[Any]) -> ColumnElement[bool]:
        """Return the condition that the column is not NULL and has none of *values*."""
        return self._search(operators.not_in_op, values)

    def _search(self, operator: Any, other: Any) -> ColumnElement[bool]:
        if other is None:
            raise EncryptedQueryError(
                f"Column {self._comparator.type.field.name}: None is looked for by is_(None) of "
                "the column itself."
            )
        return cast("ColumnElement[bool]", self._comparator.find(operator, other, self._name))


def searched(column: SQLColumnExpression[_Value], name: str, /) -> Searched[_Value]:
    """Return *column* as its search *name* sees it, to compare it by `==`, `!=`, `in_`, `not_in`.

    `select(Patient).where(searched(Patient.phone, "last4") == "1234")`

    Args:
        column: An encrypted column, of a model, an alias or a table.
        name: What the search is called where the column is declared: its `name=`, or `last4` for
            `Last(4)` and `prefix3` for `Prefix(3)`.

    Raises:
        EncryptedQueryError: If the column is not encrypted, or has no search of that name.
    """
    if not isinstance(name, str):
        raise EncryptedQueryError("searched() takes a search's name as text, also in a lambda.")
    element: Any = column.__clause_element__() if hasattr(column, "__clause_element__") else column
    if not isinstance(getattr(element, "type", None), Encrypted):
        raise EncryptedQueryError(
            f"searched() takes an encrypted column, and {name!r} was asked of something else."
        )
    element.type.field.search_named(name)
    return Searched(element.comparator, name)
