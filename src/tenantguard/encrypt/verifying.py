"""Comparing each plaintext with its sealed value, opened. Nothing is written."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.encrypt.batches import Batch, Cell, Work, name_sql
from tenantguard.encrypt.forms import Values
from tenantguard.errors import EncryptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tenantguard.catalog import Entry
    from tenantguard.crypto.tenant_keys import TenantKeys
    from tenantguard.encrypt.entering import Access
    from tenantguard.encrypt.migrating import Migration

__all__ = ["DIFFERENT", "EMPTY", "HIDDEN", "MISSING", "SAME", "SEALED_ALONE", "verify"]

SAME = "same"
MISSING = "plaintext-not-sealed"
DIFFERENT = "different"
SEALED_ALONE = "sealed-without-plaintext"
HIDDEN = "not-seen"
EMPTY = "without-any-value"


@dataclass(frozen=True, slots=True)
class _Comparing:
    """Reads both columns."""

    migration: Migration

    @property
    def entry(self) -> Entry:
        return self.migration.entry

    @property
    def cells(self) -> list[Cell]:
        plain, sealed = self.migration.plain, self.migration.sealed
        return [Cell(name_sql(plain.name), value=plain.type), Cell(name_sql(sealed.name))]

    @property
    def written(self) -> list[tuple[str, str]]:
        return []

    def with_keys(self, keys: TenantKeys) -> Work:
        values = Values(self.migration.sealed, keys)

        def made(key: tuple[str, ...], cells: Sequence[Any]) -> tuple[int, list[Any]]:
            return 0, [_judged(values, key, *cells)]

        return Work(" OR ".join(f"{cell.sql} IS NOT NULL" for cell in self.cells), made)


def verify(
    access: Access,
    migration: Migration,
    tenants: Iterable[tuple[str, int]],
    *,
    size: int,
    progress: Callable[[int, int, str], None],
) -> Counter[str]:
    """Return how many rows have which relation between plaintext and sealed value.

    Args:
        access: How a tenant's rows are reached.
        migration: The two columns.
        tenants: The tenants, and how many rows each has.
        size: Rows a batch.
        progress: Told how many rows were compared, of how many.
    """
    job, listed = _Comparing(migration), list(tenants)
    total, found = sum(rows for _, rows in listed), Counter[str]()
    for tenant, rows in listed:
        try:
            made = job.with_keys(access.keys_of(job.entry, tenant))
        except EncryptionError as error:
            found[type(error).__name__] += rows
            continue
        seen = 0
        for judged in _of_tenant(access, Batch(job, size=size), made, tenant):
            found.update(judged)
            seen += len(judged)
            progress(found.total(), total, job.entry.fullname)
        found[HIDDEN] += _hidden(rows, seen)
    return +found


def _hidden(rows: int, seen: int) -> int:
    """Return how many rows were counted by who sees all, and hidden from who compares."""
    return max(0, rows - seen)


def _of_tenant(access: Access, batch: Batch, work: Work, tenant: str) -> Iterator[list[str]]:
    after = None
    while True:
        with access.transaction(tenant) as run:
            rows = batch.read(run, tenant, work.wanted, after, locked=False)
        yield [work.made(row.key, row.cells)[1][0] for row in rows]
        if len(rows) < batch.size:
            return
        after = rows[-1].key


def _judged(values: Values, key: tuple[str, ...], plain: Any, sealed: bytes | None) -> str:
    if sealed is None:
        return MISSING
    try:
        opened = values.open(key, sealed)
    except EncryptionError as error:
        return type(error).__name__
    if plain is None:
        return SEALED_ALONE
    return SAME if opened == plain else DIFFERENT
