"""Sealing anew what is not sealed as it would be now: after a rotation, or with more indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.batches import Cell, name_sql
from tenantguard.encrypt.counting import Form
from tenantguard.encrypt.forms import Present, field_of, header_now

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.counting import Rows

__all__ = ["Rewriting", "waiting"]


@dataclass(frozen=True, slots=True)
class Rewriting:
    """Seals anew the values of *columns*, encrypted ones of one table."""

    entry: Entry
    columns: Sequence[Column[Any]]

    @property
    def cells(self) -> list[Cell]:
        """The stored values; a row is written only if none of them has changed."""
        return [Cell(name_sql(column.name), "bytea") for column in self.columns]

    @property
    def written(self) -> list[tuple[str, str]]:
        """The same columns."""
        return [(column.name, "bytea") for column in self.columns]

    def wanted(self, keys: TenantKeys) -> str:
        """Return the condition that a value is not sealed as it would be now."""
        return " OR ".join(
            f"({Present(column, keys).lacking(name_sql(column.name))})" for column in self.columns
        )

    def made(
        self, keys: TenantKeys, key: tuple[str, ...], cells: Sequence[Any]
    ) -> tuple[int, list[Any]]:
        """Return how many of a row's values are sealed anew, and all of them.

        Raises:
            DecryptionError: If one cannot be opened.
        """
        del key
        written = [
            _anew(column, keys, stored) for column, stored in zip(self.columns, cells, strict=True)
        ]
        changed = sum(new is not old for new, old in zip(written, cells, strict=True))
        return changed, written


def waiting(
    counted: Iterable[Rows], columns: Iterable[Column[Any]], primary: Mapping[str, int]
) -> Iterator[Rows]:
    """Yield those of *counted* that are not sealed as they would be now.

    Args:
        counted: Rows of *columns*.
        columns: Encrypted columns.
        primary: The numbers of the keys that seal, by tenant; other tenants are left out.
    """
    headers = {(each.table.fullname, each.name): header_now(field_of(each)) for each in columns}
    for rows in counted:
        if rows.form is Form.SEALED and rows.tenant in primary:
            now = primary[rows.tenant], headers[rows.table, rows.column]
            if (rows.key, rows.header) != now:
                yield rows


def _anew(column: Column[Any], keys: TenantKeys, stored: bytes | None) -> bytes | None:
    if stored is None or Present(column, keys).has(stored):
        return stored
    field = field_of(column)
    return field.seal(keys, field.open(keys, stored))
