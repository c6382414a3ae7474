"""Which old keys stored values still need, as `keys retire` has to know before it disables them.

For keys that seal, the values say it themselves. Whose key a blind index is under only a comparison
with the opened value tells; a value that cannot be compared keeps the key.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.seeing import open_eyes
from tenantguard.encrypt.counting import Form, counted_tables, rows_by_key
from tenantguard.encrypt.forms import field_of
from tenantguard.encrypt.indexing import CURRENT, OTHER, Comparing, compared_indexes
from tenantguard.encrypt.rewriting import unfilled
from tenantguard.errors import EncryptionError
from tenantguard.rls.values import encrypted_tables

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tenantguard.cli.keys.changing import KeyTable
    from tenantguard.cli.keys.opening import Opened
    from tenantguard.encrypt.counting import Rows, Run

__all__ = ["DataNeeds", "IndexNeeds", "Needs"]

_SIZE = 1000
"""Rows that are read at once."""

Columns = Counter[str]
"""How many values, by column."""


class Needs(Protocol):
    """What is known of the values.

    Attributes:
        unread: How many values could not be compared, by column.
    """

    unread: Columns

    def of(self, tenant: str, old: Collection[int]) -> dict[int, Columns]:
        """Return those of the *old* keys of *tenant* that values need, and how many values."""


class DataNeeds:
    """Counts the values of all tenants, or one, by the key that has sealed them."""

    def __init__(self, own: Opened, table: KeyTable, tenant: str | None) -> None:
        self.unread = Columns()
        self._found: dict[str, dict[int, Columns]] = defaultdict(lambda: defaultdict(Columns))
        for rows in _counted(own, tenant):
            if rows.key is not None:
                column = f"{rows.table}.{rows.column}"
                self._found[table.canonical(rows.tenant)][rows.key][column] += rows.rows

    def of(self, tenant: str, old: Collection[int]) -> dict[int, Columns]:
        """Return those of the *old* keys of *tenant* that values need, and how many values."""
        return {number: used for number, used in self._found[tenant].items() if number in old}


class IndexNeeds:
    """Opens the values of a tenant that has an old key for blind indexes, and compares those."""

    def __init__(self, own: Opened, table: KeyTable, tenant: str | None) -> None:
        self.unread = Columns()
        self._access = access_to(own.guard, own.engine)
        self._jobs = [
            Comparing(entry, columns)
            for entry, found in encrypted_tables(own.guard.catalog)
            if (columns := [each for each in found if field_of(each).indexes])
        ]
        self._counted: dict[str, Columns] = defaultdict(Columns)
        self._unfilled: dict[str, Columns] = defaultdict(Columns)
        for rows in _counted(own, tenant):
            if rows.form is not Form.NULL:
                name = f"{rows.table}.{rows.column}"
                self._counted[table.canonical(rows.tenant)][name] += rows.rows
        with _seen(own) as run:
            for rows in unfilled(run, encrypted_tables(own.guard.catalog), tenant):
                name = f"{rows.table}.{rows.column}"
                self._unfilled[table.canonical(rows.tenant)][name] += rows.rows

    def of(self, tenant: str, old: Collection[int]) -> dict[int, Columns]:
        """Return the *old* keys if any value of *tenant* may need one, and how many values."""
        # A search column that was not kept up is filled from the old values.
        used, unread = Columns(self._unfilled[tenant]), Columns()
        for job in self._jobs if old else ():
            self._compare(tenant, job, used, unread)
        self.unread += unread
        # Which of them has computed an index is not looked for.
        return dict.fromkeys(old, used) if used + unread else {}

    def _compare(self, tenant: str, job: Comparing, used: Columns, unread: Columns) -> None:
        """Count the values of *job*'s columns that are not CURRENT."""
        names = {each.name: f"{job.entry.fullname}.{each.name}" for each in job.columns}
        counted = {each: self._counted[tenant][name] for each, name in names.items()}
        if not any(counted.values()):
            return
        try:
            found = compared_indexes(self._access, job, tenant, size=_SIZE)
        except EncryptionError:
            found = {each: Counter() for each in names}
        for each, name in names.items():
            used[name] += found[each][OTHER]
            # A policy of the application's own may hide rows from the role that compares.
            known = found[each][CURRENT] + found[each][OTHER]
            unread[name] += max(counted[each], found[each].total()) - known


def _counted(own: Opened, tenant: str | None) -> list[Rows]:
    with _seen(own) as run:
        return rows_by_key(run, own.guard.catalog, tenant=tenant)


@contextmanager
def _seen(own: Opened) -> Iterator[Run]:
    eyes = open_eyes(own.guard, own.engine, counted_tables(own.guard.catalog))
    with eyes.transaction() as run:
        yield run
