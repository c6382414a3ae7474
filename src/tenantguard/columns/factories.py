"""Declaring encrypted columns: one function a type, so that type checkers know the attribute."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from tenantguard.columns import kinds
from tenantguard.columns.options import Options, declared
from tenantguard.columns.tracked import EncryptedDict, EncryptedList

if TYPE_CHECKING:
    from datetime import date, datetime, time
    from decimal import Decimal
    from uuid import UUID

    from sqlalchemy.orm import MappedColumn

    from tenantguard.columns.search import Searches

__all__ = [
    "encrypted_bool",
    "encrypted_bytes",
    "encrypted_date",
    "encrypted_datetime",
    "encrypted_decimal",
    "encrypted_dict",
    "encrypted_enum",
    "encrypted_float",
    "encrypted_int",
    "encrypted_json",
    "encrypted_list",
    "encrypted_str",
    "encrypted_time",
    "encrypted_uuid",
]

_Member = TypeVar("_Member", bound=Enum)


def encrypted_str(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[str]:
    """Declare a column whose text is sealed with the tenant's key.

    In the database it is `bytea`: 38 bytes more than the text in UTF-8, and 16 more for each
    search. NULL stays NULL; an empty text is sealed. What is hidden and what is not:
    docs/encryption.md.

    Args:
        search: Makes `==` and IN work, through a blind index; see `Exact`. A list makes several:
            see `Last`, `Prefix` and `searched`.
        options: As for `mapped_column`, and what says how values are sealed; see `Options`. It
            cannot be a key, unique, indexed, or have a default of the server's.

    Raises:
        ConfigurationError: If an option does not fit an encrypted column.
        TypeError: If an encrypted column has no such option.
    """
    return declared(kinds.STR, search, options)


def encrypted_bytes(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[bytes]:
    """Declare a column whose bytes are sealed; options as for `encrypted_str`."""
    return declared(kinds.BYTES, search, options)


def encrypted_int(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[int]:
    """Declare a column whose integers, of any size, are sealed; options as for `encrypted_str`.

    The stored length tells the number's magnitude, in steps of 256.
    """
    return declared(kinds.INT, search, options)


def encrypted_decimal(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[Decimal]:
    """Declare a column whose finite decimals are sealed; options as for `encrypted_str`.

    They come back with the digits that they had; a search finds 1.1 and 1.10 alike. The stored
    length tells the number of digits.
    """
    return declared(kinds.DECIMAL, search, options)


def encrypted_float(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[float]:
    """Declare a column whose floats are sealed, as IEEE 754 has them; as `encrypted_str` else.

    Infinities, NaN and the sign of zero come back. A search takes 0.0 and -0.0 as equal, and each
    NaN as every other, as PostgreSQL does. An int is taken if a float is equal to it.
    """
    return declared(kinds.FLOAT, search, options)


def encrypted_date(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[date]:
    """Declare a column whose dates are sealed; options as for `encrypted_str`."""
    return declared(kinds.DATE, search, options)


def encrypted_datetime(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[datetime]:
    """Declare a column whose date and time is sealed; options as for `encrypted_str`.

    An aware datetime comes back in UTC, a naive one naive.
    """
    return declared(kinds.DATETIME, search, options)


def encrypted_time(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[time]:
    """Declare a column whose times of day are sealed; options as for `encrypted_str`.

    An aware time keeps its offset from UTC; one whose offset depends on the day is refused. A
    search takes 12:00+02:00 and 10:00+00:00 as equal, as Python does.
    """
    return declared(kinds.TIME, search, options)


def encrypted_bool(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[bool]:
    """Declare a column whose truth values are sealed; options as for `encrypted_str`.

    A search needs `Exact(few_values="…")`: the index of two values tells them by their frequency.
    """
    return declared(kinds.BOOL, search, options)


def encrypted_uuid(
    *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[UUID]:
    """Declare a column whose UUIDs are sealed; options as for `encrypted_str`."""
    return declared(kinds.UUID_, search, options)


def encrypted_enum(
    enum: type[_Member], /, *, search: Searches | None = None, **options: Unpack[Options]
) -> MappedColumn[_Member]:
    """Declare a column whose members of *enum* are sealed by name; options as for `encrypted_str`.

    A member's value may change. One that is renamed keeps its old name as another name of it:
    `OLD = NEW`. A name that *enum* does not have raises `DecryptionError` when it is read. A search
    needs `Exact(few_values="…")`: the index of few values tells them by their frequency.
    """
    return declared(kinds.member_of(enum), search, options)


def encrypted_json(**options: Unpack[Options]) -> MappedColumn[Any]:
    """Declare a column whose JSON documents are sealed as a whole; options as for `encrypted_str`.

    None is NULL. A change inside of a document is noticed when the attribute is set anew.
    """
    return declared(kinds.JSON, None, options)


def encrypted_dict(**options: Unpack[Options]) -> MappedColumn[dict[str, Any]]:
    """Declare a column whose dicts are sealed as JSON; options as for `encrypted_str`.

    Setting, adding and removing a key is noticed, by SQLAlchemy's `MutableDict`; a change deeper
    inside when the attribute is set anew.
    """
    return declared(kinds.DICT, None, options, EncryptedDict)


def encrypted_list(**options: Unpack[Options]) -> MappedColumn[list[Any]]:
    """Declare a column whose lists are sealed as JSON; options as for `encrypted_str`.

    A change of the list is noticed, by SQLAlchemy's `MutableList`; one deeper inside when the
    attribute is set anew.
    """
    return declared(kinds.LIST, None, options, EncryptedList)
