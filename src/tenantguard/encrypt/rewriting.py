"""Sealing anew what is not sealed as it would be now: after a rotation, or with more indexes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.batches import Cell, Work, name_sql
from tenantguard.encrypt.counting import Form
from tenantguard.encrypt.forms import Present, Values, field_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.counting import Rows

    Anew = Callable[[tuple[str, ...], bytes | None], bytes | None]

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

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what seals anew the values that are not sealed as they would be now."""
        anew = [_anew(column, keys) for column in self.columns]
        lacking = (
            f"({Present(column, keys).lacking(name_sql(column.name))})" for column in self.columns
        )

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[Any]]:
            written = [make(key, stored) for make, stored in zip(anew, cells, strict=True)]
            return sum(new is not old for new, old in zip(written, cells, strict=True)), written

        return Work(" OR ".join(lacking), made)


def waiting(
    counted: Iterable[Rows], columns: Iterable[Column[Any]], primary: Mapping[str, int]
) -> Iterator[Rows]:
    """Yield those of *counted* that are not sealed as they would be now.

    Args:
        counted: Rows of *columns*.
        columns: Encrypted columns.
        primary: The numbers of the keys that seal, by tenant; other tenants are left out.
    """
    headers = {(each.table.fullname, each.name): field_of(each).header for each in columns}
    for rows in counted:
        if rows.form is Form.SEALED and rows.tenant in primary:
            now = primary[rows.tenant], headers[rows.table, rows.column]
            if (rows.key, rows.header) != now:
                yield rows


def _anew(column: Column[Any], keys: TenantKeys) -> Anew:
    values, present = Values(column, keys), Present(column, keys)

    def anew(key: tuple[str, ...], stored: bytes | None) -> bytes | None:
        if stored is None or present.has(stored):
            return stored
        return values.seal(key, values.open(key, stored))

    return anew
