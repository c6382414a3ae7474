"""What proving would do, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind
from tenantguard.prove.probes import PROBES
from tenantguard.prove.prove import wanted
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.catalog import Catalog, Entry

__all__ = ["planned"]


def planned(catalog: Catalog, tables: Iterable[str] = ()) -> Iterator[str]:
    """Yield a line for each table: what would be done with it, in a transaction of its own.

    Raises:
        ConfigurationError: If there is no table of a name in *tables*.
    """
    catalog.check()
    names = [each.name for each in PROBES if each.name != "forged" or catalog.signed]
    yield f"Each table: two tenants with a row each, then {', '.join(names)}, truncate."
    yield "The same without its policies, as the negative control. All of it is rolled back."
    for entry in wanted(catalog, tuple(tables)):
        yield f"{'.'.join(target_of(entry))}: {_what(entry, catalog)}"


def _what(entry: Entry, catalog: Catalog) -> str:
    if entry.kind is Kind.CHILD:
        return f"not tried, {entry.reason}"
    if entry.column is None:
        return "cannot be tried, it is unclassified"
    parents = {
        key.referred_table.fullname
        for key in ([] if entry.table is None else entry.table.foreign_key_constraints)
        if catalog.entry(key.referred_table).owned
    }
    rows = ", ".join(sorted({*parents, entry.fullname}))
    return f"would lock it and try; rows are made in {rows}"
