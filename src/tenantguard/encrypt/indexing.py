"""Whose key the blind indexes of stored values are under: each value is opened. Nothing is written.

A tenant's rows of a table are read in one snapshot: a value that is copied from row to row
meanwhile cannot slip past.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.batches import Batch, Cell, Work, name_sql
from tenantguard.encrypt.forms import Indexed
from tenantguard.errors import EncryptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Column

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.entering import Access

    Judge = Callable[[tuple[str, ...], bytes | None], str]

__all__ = ["CURRENT", "OTHER", "Comparing", "compared_indexes"]

CURRENT = "current"
OTHER = "other"
_EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Comparing:
    """Reads the values of *columns*, searchable ones of one table."""

    entry: Entry
    columns: Sequence[Column[Any]]

    @property
    def cells(self) -> list[Cell]:
        """The stored values."""
        return [Cell(name_sql(column.name)) for column in self.columns]

    @property
    def written(self) -> list[tuple[str, str]]:
        """Nothing."""
        return []

    def with_keys(self, keys: TenantKeys) -> Work:
        """Return what says of each value whether its indexes are those of now."""
        judges = [_judge(Indexed(column, keys)) for column in self.columns]

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[str]]:
            return 0, [judge(key, stored) for judge, stored in zip(judges, cells, strict=True)]

        return Work(" OR ".join(f"{cell.sql} IS NOT NULL" for cell in self.cells), made)


def compared_indexes(
    access: Access, job: Comparing, tenant: str, *, size: int
) -> dict[str, Counter[str]]:
    """Return how many values of *tenant* are CURRENT, OTHER, or do not open and why, by column.

    Raises:
        EncryptionError: If the tenant's keys cannot be had.
    """
    work = job.with_keys(access.keys_of(job.entry, tenant))
    found = {column.name: Counter[str]() for column in job.columns}
    for judged in _judged(access, Batch(job, size=size), work, tenant):
        for column, what in zip(job.columns, judged, strict=True):
            found[column.name][what] += 1
    for counts in found.values():
        del counts[_EMPTY]
    return found


def _judged(access: Access, batch: Batch, work: Work, tenant: str) -> Iterator[Sequence[str]]:
    engine = access.engine.execution_options(isolation_level="REPEATABLE READ")
    after = None
    with replace(access, engine=engine).transaction(tenant) as run:
        while True:
            rows = batch.read(run, tenant, work.wanted, after, locked=False)
            for row in rows:
                yield work.made(row.key, row.cells)[1]
            if len(rows) < batch.size:
                return
            after = rows[-1].key


def _judge(indexed: Indexed) -> Judge:
    def judge(key: tuple[str, ...], stored: bytes | None) -> str:
        if stored is None:
            return _EMPTY
        try:
            return CURRENT if indexed.has(key, stored) else OTHER
        except EncryptionError as error:
            return type(error).__name__

    return judge
