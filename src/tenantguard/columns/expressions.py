"""What the compiler asks of an expression, and how it refuses one."""

from __future__ import annotations

from typing import Any

from sqlalchemy.sql.elements import Label

from tenantguard.columns.types import Encrypted
from tenantguard.errors import EncryptedQueryError

__all__ = ["inner", "is_encrypted", "means", "refusal", "same_field"]


def is_encrypted(column: Any) -> bool:
    """Return whether *column*'s values are sealed."""
    return isinstance(getattr(column, "type", None), Encrypted)


def same_field(type_: Any, target: Any) -> bool:
    """Return whether a value of *type_* opens in the column *target*."""
    return (
        isinstance(type_, Encrypted)
        and isinstance(target.type, Encrypted)
        and type_.field.same_as(target.type.field)
    )


def means(key: Any, column: Any) -> bool:
    """Return whether *key* of a dictionary of values means *column*.

    SQLAlchemy takes a text for a column's key, or else for its name in the database.
    """
    name = key if isinstance(key, str) else getattr(key, "key", None)
    return name in (column.key, column.name) or getattr(key, "name", None) == column.name


def inner(column: Any) -> Any:
    """Return what *column* is without its labels."""
    while isinstance(column, Label):
        column = column.element
    return column


def refusal(type_: Encrypted) -> EncryptedQueryError:
    """Return the error for a column of *type_* that stands where ciphertext may not."""
    return EncryptedQueryError(
        f"Column {type_.field.name} is encrypted and stands where the database would work with its "
        "value: in ORDER BY, GROUP BY, a function, an expression or a comparison. Select it and do "
        "that in Python; to find rows, use ==, != or IN with search=Exact()."
    )
