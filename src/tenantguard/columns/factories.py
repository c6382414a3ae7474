"""Declaring encrypted columns: one function a type, so that type checkers know the attribute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from sqlalchemy.orm import MappedColumn, mapped_column
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.elements import ClauseElement

from tenantguard.columns import kinds
from tenantguard.columns.field import Exact, Field
from tenantguard.columns.types import Encrypted
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime
    from decimal import Decimal
    from uuid import UUID

    from tenantguard.columns.kinds import Kind

__all__ = [
    "encrypted_bool",
    "encrypted_bytes",
    "encrypted_date",
    "encrypted_datetime",
    "encrypted_decimal",
    "encrypted_int",
    "encrypted_json",
    "encrypted_str",
    "encrypted_uuid",
]


_KEYS = frozenset({"index", "primary_key", "unique"})
"""Refused too, in words that name the column, when it is in its table."""


class ColumnOptions(TypedDict, total=False):
    """What `mapped_column` takes too and an encrypted column can have."""

    name: str
    nullable: bool
    default: Any
    default_factory: Callable[[], Any]
    insert_default: Any
    init: bool
    repr: bool
    compare: bool
    kw_only: bool
    deferred: bool
    deferred_group: str
    deferred_raiseload: bool
    active_history: bool
    sort_order: int
    comment: str
    doc: str
    info: dict[Any, Any]


def encrypted_str(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[str]:
    """Declare a column whose text is sealed with the tenant's key.

    In the database it is `bytea`: 38 bytes more than the text in UTF-8, 54 with *search*. NULL
    stays NULL; an empty text is sealed. What is hidden and what is not: docs/encryption.md.

    Args:
        search: Makes `==` and IN work, through a blind index; see `Exact`.
        label: The table and column, `patients.name`, that values are sealed for, if they are not to
            be today's names. A column that is renamed needs its old names here.
        options: As for `mapped_column`. It cannot be a key, unique, indexed, or have a default of
            the server's.

    Raises:
        ConfigurationError: If an option does not fit an encrypted column.
        TypeError: If an encrypted column has no such option.
    """
    return _column(kinds.STR, search, label, options)


def encrypted_bytes(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[bytes]:
    """Declare a column whose bytes are sealed; options as for `encrypted_str`."""
    return _column(kinds.BYTES, search, label, options)


def encrypted_int(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[int]:
    """Declare a column whose integers, of any size, are sealed; options as for `encrypted_str`.

    The stored length tells the number's magnitude, in steps of 256.
    """
    return _column(kinds.INT, search, label, options)


def encrypted_decimal(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[Decimal]:
    """Declare a column whose finite decimals are sealed; options as for `encrypted_str`.

    They come back with the digits that they had; a search finds 1.1 and 1.10 alike. The stored
    length tells the number of digits.
    """
    return _column(kinds.DECIMAL, search, label, options)


def encrypted_date(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[date]:
    """Declare a column whose dates are sealed; options as for `encrypted_str`."""
    return _column(kinds.DATE, search, label, options)


def encrypted_datetime(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[datetime]:
    """Declare a column whose date and time is sealed; options as for `encrypted_str`.

    An aware datetime comes back in UTC, a naive one naive.
    """
    return _column(kinds.DATETIME, search, label, options)


def encrypted_bool(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[bool]:
    """Declare a column whose truth values are sealed; options as for `encrypted_str`.

    A search needs `Exact(few_values="…")`: the index of two values tells them by their frequency.
    """
    return _column(kinds.BOOL, search, label, options)


def encrypted_uuid(
    *, search: Exact | None = None, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[UUID]:
    """Declare a column whose UUIDs are sealed; options as for `encrypted_str`."""
    return _column(kinds.UUID_, search, label, options)


def encrypted_json(
    *, label: str | None = None, **options: Unpack[ColumnOptions]
) -> MappedColumn[Any]:
    """Declare a column whose JSON documents are sealed as a whole; options as for `encrypted_str`.

    None is NULL. A change inside of a document is noticed when the attribute is set anew.
    """
    return _column(kinds.JSON, None, label, options)


def _column(
    kind: Kind, search: Exact | None, label: str | None, options: ColumnOptions
) -> MappedColumn[Any]:
    # At run time `**options` takes any name, and a default of the server's would be plaintext.
    unknown = min(options.keys() - ColumnOptions.__annotations__.keys() - _KEYS, default=None)
    if unknown is not None:
        raise TypeError(
            f"An encrypted column takes no {unknown}=. It can have "
            f"{', '.join(sorted(ColumnOptions.__annotations__))}."
        )
    for default in (options.get("default"), options.get("insert_default")):
        if isinstance(default, ClauseElement | SchemaItem):
            raise ConfigurationError(
                "An encrypted column's default is a value or a function of Python: what the "
                "database computes is not encrypted."
            )
    arguments: dict[str, Any] = dict(options)
    if "info" in arguments:
        # A copy: its labels stand there, and other columns may be given the same one.
        arguments["info"] = dict(arguments["info"])
    name = arguments.pop("name", None)
    type_ = Encrypted(Field(kind, search=search, label=label))
    return mapped_column(*([name] if name else []), type_, **arguments)
