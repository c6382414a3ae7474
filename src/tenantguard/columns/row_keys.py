"""The primary key of a row, as the bytes that the row's values are bound to. The bytes are final.

PostgreSQL makes them where a value is read, Python where it is written; both make the same. A UUID
is its 16 bytes, an integer 8 bytes (big-endian, two's complement), a text its UTF-8 and then that
one's length in 4 bytes. A key of several columns is their bytes, one after the other; they can be
read from the end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from sqlalchemy import func, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import CompileError

from tenantguard.errors import ConfigurationError, EncryptedValueError, NotEncryptedError
from tenantguard.keytable import encrypted_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Column, ColumnElement, FromClause, MetaData, Table

    from tenantguard.columns.field import Field

__all__ = ["RowKey", "check_row_keys"]

_POSTGRESQL = postgresql.dialect()  # type: ignore[no-untyped-call]
# With a collation of its own, equal texts can have other bytes.
_TEXT = re.compile(r"TEXT|VARCHAR(?:\((\d+)\))?")
_LENGTH = 4
_UTF8: ColumnElement[Any] = literal_column("'UTF8'")
_UNFIT = (TypeError, ValueError, OverflowError)
# By their names in pg_catalog: a search_path can put other functions before PostgreSQL's.
_POSTGRESQLS = func.pg_catalog


class _Part(NamedTuple):
    """How one column of a primary key becomes bytes.

    Attributes:
        size: Their number; None if it differs.
        pack: Returns them for a value as it is sent; raises ValueError or TypeError for another.
        send: Returns the expression by which PostgreSQL makes them.
    """

    size: int | None
    pack: Callable[[Any], bytes]
    send: Callable[[ColumnElement[Any]], ColumnElement[Any]]


class RowKey:
    """The primary key of a table.

    Args:
        table: A table that has encrypted columns with bind="row".
        column: One of them, for messages.

    Raises:
        ConfigurationError: If the table has no primary key, or one of another type than UUID,
            integer and text.
    """

    __slots__ = ("_fixed", "_parts", "columns", "name")

    def __init__(self, table: Table, column: str) -> None:
        self.name = f"{table.fullname}.{column}"
        self.columns: tuple[Column[Any], ...] = tuple(table.primary_key)
        if not self.columns:
            raise ConfigurationError(
                f"Column {self.name} is bound to its row, and table {table.fullname} has no "
                "primary key that says which row that is. Give it one."
            )
        self._parts = [_part(each, self.name) for each in self.columns]
        sizes = [each.size for each in self._parts]
        self._fixed = None if None in sizes else sum(filter(None, sizes))

    def __repr__(self) -> str:
        return f"<RowKey of {self.name}>"

    def pack(self, values: Sequence[Any]) -> bytes:
        """Return the bytes of *values*, one for each column, as they are sent to the database.

        Raises:
            EncryptedValueError: If one is not of its column's type.
        """
        try:
            packed = [part.pack(value) for part, value in zip(self._parts, values, strict=True)]
            return b"".join(packed)
        except _UNFIT:
            pass
        # Outside of the block: the cause would show the key.
        raise EncryptedValueError(
            f"Column {self.name} is bound to its row, and the primary key is given as something "
            "else than its columns take: a UUID, an int, or a text that is not too long for its "
            "column. Give the key as its columns have it."
        )

    def sent_with(self, stored: ColumnElement[Any], source: FromClause) -> ColumnElement[Any]:
        """Return the expression for *stored* and the key's bytes in *source* after it."""
        for part, column in zip(self._parts, self.columns, strict=True):
            stored = _POSTGRESQLS.byteacat(stored, part.send(source.c[column.key]))
        return stored

    def split(self, sent: bytes) -> tuple[bytes, bytes]:
        """Return what `sent_with` has sent: the stored value, and the key's bytes.

        Raises:
            NotEncryptedError: If it is too short to be both.
        """
        end = len(sent) - self._fixed if self._fixed is not None else self._begin(sent)
        if end < 0:
            raise NotEncryptedError(
                f"Column {self.name} holds something that is too short for a sealed value. It was "
                "written past the column's type; look for rows that were edited by hand."
            )
        return sent[:end], sent[end:]

    def _begin(self, sent: bytes) -> int:
        """Return where the key's bytes begin; less than 0 if they do not."""
        end = len(sent)
        for part in reversed(self._parts):
            if part.size is not None:
                end -= part.size
            elif end >= _LENGTH:
                end -= _LENGTH + int.from_bytes(sent[end - _LENGTH : end], "big")
            else:
                return -1
        return end


def check_row_keys(metadata: MetaData) -> None:
    """Look at the tables of all columns that are bound to their row.

    Raises:
        ConfigurationError: As `RowKey` does.
    """
    for column in encrypted_columns(metadata):
        field: Field = column.type.field  # type: ignore[attr-defined]
        if field.bound:
            RowKey(column.table, column.name)


def _part(column: Column[Any], name: str) -> _Part:
    if not column.type._has_bind_expression:  # noqa: SLF001
        stored = _stored_as(column)
        if stored == "UUID":
            return _Part(16, _pack_uuid, _POSTGRESQLS.uuid_send)
        if stored in ("SMALLINT", "INTEGER", "BIGINT"):
            return _Part(8, _pack_int, _POSTGRESQLS.int8send)
        if text := _TEXT.fullmatch(stored):
            return _Part(None, _packing_text(int(text[1]) if text[1] else None), _send_text)
    raise ConfigurationError(
        f"Column {name} is bound to its row, and column {column.name} of the primary key is none "
        "whose bytes PostgreSQL and Python agree on: a UUID, an integer, or a text without a "
        "collation of its own (not char(n), citext or an enum). Use such a key, or leave "
        "bind='row' out."
    )


def _stored_as(column: Column[Any]) -> str:
    """Return the type that the column has in the database, whatever it is in Python."""
    try:
        return _POSTGRESQL.type_compiler_instance.process(column.type)
    except CompileError:
        return ""


def _pack_uuid(value: Any) -> bytes:
    if isinstance(value, str):
        value = UUID(value)
    if not isinstance(value, UUID):
        raise TypeError
    return value.bytes


def _pack_int(value: Any) -> bytes:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    return value.to_bytes(8, "big", signed=True)


def _packing_text(length: int | None) -> Callable[[Any], bytes]:
    def pack(value: Any) -> bytes:
        # Of a text that is too long by blanks only, varchar(n) stores less, without an error.
        if not isinstance(value, str) or (length is not None and len(value) > length):
            raise TypeError
        encoded = value.encode()
        return encoded + len(encoded).to_bytes(_LENGTH, "big")

    return pack


def _send_text(column: ColumnElement[Any]) -> ColumnElement[Any]:
    encoded = _POSTGRESQLS.convert_to(column, _UTF8)
    length = _POSTGRESQLS.int4send(_POSTGRESQLS.octet_length(encoded))
    return _POSTGRESQLS.byteacat(encoded, length)
