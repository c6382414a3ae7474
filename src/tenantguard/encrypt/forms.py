"""How a column's values are stored now: under which key, and with which header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Integer, String, Uuid

from tenantguard.columns.row_keys import RowKey
from tenantguard.crypto.format import HEADER_SIZE, LAYOUTS, MAGIC
from tenantguard.errors import KeyUnavailableError
from tenantguard.tenant_ids import affinity

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column

    from tenantguard.columns.field import Field
    from tenantguard.crypto.tenant_keys import TenantKeys

__all__ = ["Indexed", "Present", "Values", "field_of", "is_sealed_sql"]

_FROM_TEXT: dict[Any, Callable[[str], Any]] = {Uuid: UUID, Integer: int, String: str}
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
        sealed = is_sealed_sql(value)
        header = f"substring({value}, 1, {HEADER_SIZE}) = {_literal(self._header)}"
        number = f"substring({value}, {self._at + 1}, {_NUMBER_SIZE}) = {_literal(self._number)}"
        return f"{sealed} AND NOT ({header} AND {number})"


class Indexed:
    """What blind indexes the values of *column* have if the tenant of *keys* seals them now.

    Whose key an index is under is not written in a value: it has to be opened.
    """

    def __init__(self, column: Column[Any], keys: TenantKeys) -> None:
        self._field = field_of(column)
        self._keys = keys
        self._values = Values(column, keys)

    @property
    def varies(self) -> bool:
        """Whether stored values can have others: the tenant has another key for them too."""
        searching = self._keys.searching
        return bool(self._field.indexes) and searching is not None and searching.rotating

    def has(self, key: tuple[str, ...], stored: bytes) -> bool:
        """Return whether *stored*, in the row with *key*, has all of them and no others.

        Raises:
            DecryptionError: If it cannot be opened.
        """
        value = self._values.open(key, stored)
        head = self._field.header + self._field.indexed(self._keys, value)
        return stored[: len(head)] == head


class Values:
    """Seals and opens the values of *column* with the keys of one tenant.

    A value that is bound to its row needs the row's key, as texts of PostgreSQL's.

    Raises:
        ConfigurationError: If values are bound, and the table's primary key is not such that they
            can be.
    """

    def __init__(self, column: Column[Any], keys: TenantKeys) -> None:
        self._field = field_of(column)
        self._keys = keys
        self._row: RowKey | None = None
        if self._field.bound:
            self._row = RowKey(column.table, column.name)
            self._types = [_FROM_TEXT[affinity(each.type)] for each in self._row.columns]

    def seal(self, key: tuple[str, ...], value: Any) -> bytes:
        """Return *value* as it is stored in the row with *key*.

        Raises:
            EncryptedValueError: If it is not of the column's type.
        """
        return self._field.seal(self._keys, value, self._place(key))

    def open(self, key: tuple[str, ...], stored: bytes) -> Any:
        """Return the value that *stored* holds in the row with *key*.

        Raises:
            DecryptionError: If it cannot be opened.
        """
        return self._field.open(self._keys, stored, self._place(key))

    def _place(self, key: tuple[str, ...]) -> bytes | None:
        if self._row is None:
            return None
        return self._row.pack([made(part) for made, part in zip(self._types, key, strict=True)])


def field_of(column: Column[Any]) -> Field:
    """Return what seals and opens the values of *column*, an encrypted one."""
    field: Field = column.type.field  # type: ignore[attr-defined]
    return field


def is_sealed_sql(value: str) -> str:
    """Return the condition that *value*, an SQL expression, is what tenantguard has written."""
    return f"substring({value}, 1, {len(MAGIC)}) = {_literal(MAGIC)}"


def _literal(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"
