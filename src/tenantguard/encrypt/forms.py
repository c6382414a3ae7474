"""How a column's values are stored now: under which key, and with which header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.crypto.format import HEADER_SIZE, LAYOUTS, MAGIC
from tenantguard.errors import KeyUnavailableError

if TYPE_CHECKING:
    from sqlalchemy import Column

    from tenantguard.columns.field import Field
    from tenantguard.crypto.tenant_keys import TenantKeys

__all__ = ["Present", "field_of"]

_NUMBER_SIZE = 4
_TINK_SIZE = 1


class Present:
    """What a value of *column* begins with if the tenant of *keys* seals it now.

    Raises:
        KeyUnavailableError: If the tenant has no key that may seal.
    """

    def __init__(self, column: Column[Any], keys: TenantKeys) -> None:
        if keys.data is None or not keys.writable:
            raise KeyUnavailableError("The tenant has no key that may seal.")
        self._header = field_of(column).header
        self._number = keys.data.numbers[0].to_bytes(_NUMBER_SIZE, "big")
        self._at = LAYOUTS[self._header].end + _TINK_SIZE

    def has(self, stored: bytes) -> bool:
        """Return whether *stored* is so."""
        return (
            stored[:HEADER_SIZE] == self._header
            and stored[self._at : self._at + _NUMBER_SIZE] == self._number
        )

    def lacking(self, value: str) -> str:
        """Return the condition that *value*, an SQL expression, is sealed and not so."""
        sealed = f"substring({value}, 1, {len(MAGIC)}) = {_literal(MAGIC)}"
        header = f"substring({value}, 1, {HEADER_SIZE}) = {_literal(self._header)}"
        number = f"substring({value}, {self._at + 1}, {_NUMBER_SIZE}) = {_literal(self._number)}"
        return f"{sealed} AND NOT ({header} AND {number})"


def field_of(column: Column[Any]) -> Field:
    """Return what seals and opens the values of *column*, an encrypted one."""
    field: Field = column.type.field  # type: ignore[attr-defined]
    return field


def _literal(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"
