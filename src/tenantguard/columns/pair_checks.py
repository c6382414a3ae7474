"""What a column of plaintext and an encrypted one have to be, so that one attribute is both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.columns.expressions import is_encrypted
from tenantguard.columns.normalize import EXACT
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import MIGRATING

if TYPE_CHECKING:
    from tenantguard.columns.field import Field

__all__ = ["checked_pair"]


def checked_pair(name: str, sealed: Any, plain: Any, *, alike: Any) -> Field:
    """Return the field of the first of two mapped attributes.

    Args:
        name: What is declared of them.
        sealed: The encrypted one.
        plain: The one of plaintext.
        alike: What SQL makes of plaintext before it is compared; None for nothing.

    Raises:
        ConfigurationError: If they are no pair, one of them could be filled alone, or a search of
            both would find other values in one than in the other.
    """
    columns = _column(sealed), _column(plain)
    _check_pair(name, *columns)
    field: Field = columns[0].type.field
    _check_search(name, field, alike)
    return field


def _column(attribute: Any) -> Any:
    return next(iter(getattr(attribute, "columns", ())), None)


def _check_pair(name: str, sealed: Any, plain: Any) -> None:
    fits = is_encrypted(sealed) and plain is not None and sealed.table is plain.table
    if not fits or sealed.info.get(MIGRATING) != plain.name or is_encrypted(plain):
        raise ConfigurationError(
            f"{name} = both(sealed, plain) takes an encrypted column that says migrating=, and the "
            "column of plaintext of the same table that this names, in this order: with "
            'sealed_name = encrypted_str(name="name_sealed", migrating="name") and plain_name = '
            'mapped_column("name") it is both(sealed_name, plain_name).'
        )
    if _defaults(sealed) != _defaults(plain):
        raise ConfigurationError(
            f"{name}: one of the two columns has a default= or onupdate= that the other lacks, or "
            "that the database computes, and it would be written alone. Give both the same value "
            "as default=, or set it where rows are made."
        )


def _defaults(column: Any) -> tuple[object, ...]:
    """Return what a column takes by itself; two columns that take the same have equal ones."""
    default = column.default
    if default is not None and default.is_scalar:
        default = default.arg
    return default, column.onupdate, column.server_default, column.server_onupdate


def _check_search(name: str, sealed: Field, alike: Any) -> None:
    index = next((each for each in sealed.indexes if each.name is None), None)
    if index is not None and alike is None and index.rule != (EXACT,):
        raise ConfigurationError(
            f"{name}: the search of its encrypted column takes texts as equal that differ, by "
            "normalize=. Say how plaintext is compared that is not sealed yet, such as "
            "both(…, alike=func.lower), which PostgreSQL does to both sides; alike=lambda text: "
            "text compares it exactly."
        )
