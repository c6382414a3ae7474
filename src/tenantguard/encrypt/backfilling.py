"""Sealing plaintext that is there, and putting it back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import JSON, Enum, TypeDecorator
from sqlalchemy.dialects import postgresql

from tenantguard.encrypt.batches import Cell, Work, name_sql
from tenantguard.encrypt.forms import Values
from tenantguard.rls.names import type_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.migrating import Migration

__all__ = ["Backfilling", "Restoring", "writer"]


@dataclass(frozen=True, slots=True)
class Backfilling:
    """Seals the plaintext of rows that have nothing sealed."""

    migration: Migration

    @property
    def entry(self) -> Entry:
        """The table."""
        return self.migration.entry

    @property
    def cells(self) -> list[Cell]:
        """The plaintext, and that nothing is sealed when the row is written.

        The row is locked in between, so the plaintext need not be sent back to be compared.
        """
        plain, sealed = _names(self.migration)
        return [Cell(plain, value=self.migration.plain.type), Cell(sealed, "bytea")]

    @property
    def written(self) -> list[tuple[str, str]]:
        """The encrypted column."""
        return [(self.migration.sealed.name, "bytea")]

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what seals plaintext that has nothing sealed beside it."""
        plain, sealed = _names(self.migration)
        values = Values(self.migration.sealed, keys)

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[Any]]:
            return 1, [values.seal(key, cells[0])]

        return Work(f"{plain} IS NOT NULL AND {sealed} IS NULL", made)


@dataclass(frozen=True, slots=True)
class Restoring:
    """Puts back the plaintext of rows that have none; what is sealed stays.

    *text* returns a value as PostgreSQL reads it, given it as the application has it.
    """

    migration: Migration
    text: Callable[[Any], str]

    @property
    def entry(self) -> Entry:
        """The table."""
        return self.migration.entry

    @property
    def cells(self) -> list[Cell]:
        """The sealed value, and that there is no plaintext."""
        plain, sealed = _names(self.migration)
        return [Cell(sealed, "bytea"), Cell(f"CAST({plain} AS text)", "text")]

    @property
    def written(self) -> list[tuple[str, str]]:
        """The column of plaintext."""
        return [(self.migration.plain.name, type_sql(self.migration.plain))]

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what opens values that have no plaintext beside them."""
        plain, sealed = _names(self.migration)
        values, text = Values(self.migration.sealed, keys), self.text

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[Any]]:
            return 1, [text(values.open(key, cells[0]))]

        return Work(f"{plain} IS NULL AND {sealed} IS NOT NULL", made)


def writer(column: Column[Any]) -> Callable[[Any], str]:
    """Return a function from the application's value of *column* to the text that is written."""
    if isinstance(column.type, JSON):
        # A text is a document as well, with its quotes.
        return json.dumps
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    # Of other types the processors make what a driver sends, which need not be text.
    converted = isinstance(column.type, Enum | TypeDecorator)
    process = column.type.dialect_impl(dialect).bind_processor(dialect) if converted else None

    def write(value: Any) -> str:
        return _text(value if process is None else process(value))

    return write


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return f"\\x{value.hex()}"
    if isinstance(value, dict | list):
        return json.dumps(value)
    return str(value)


def _names(migration: Migration) -> tuple[str, str]:
    return name_sql(migration.plain.name), name_sql(migration.sealed.name)
