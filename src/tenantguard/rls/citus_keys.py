"""Which keys of the models Citus could not hold: it checks a key on one node only.

Every primary, unique and foreign key of a tenant's table has to contain the tenant, then all that
the key compares is on the tenant's node.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import UniqueConstraint
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from tenantguard.catalog import Kind as TableKind
from tenantguard.catalog import parent_keys
from tenantguard.rls.views import is_view

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ForeignKeyConstraint, Table

    from tenantguard.catalog import Catalog, Entry

__all__ = ["key_faults"]

_SETS = ("SET NULL", "SET DEFAULT")


def key_faults(entry: Entry, catalog: Catalog) -> Iterator[str]:
    """Yield what keeps Citus from holding *entry*'s table, each a sentence with its mend."""
    table = entry.table
    if table is None or is_view(entry):
        return
    if entry.kind is TableKind.CHILD:
        yield (
            f"{entry.fullname} has no tenant column; give it one (`tenantguard migrate sql "
            f"{entry.fullname}`)."
        )
        return
    if entry.column is not None:
        yield from _unique_faults(entry, table, entry.column.name)
    for key in parent_keys(table):
        fault = _foreign_fault(entry, catalog.entry(key.referred_table), key)
        if fault is not None:
            yield f"The foreign key ({_names(key.columns)}) of {entry.fullname} {fault}"


def _unique_faults(entry: Entry, table: Table, tenant: str) -> Iterator[str]:
    for kind, columns in _unique_keys(table):
        if tenant not in {getattr(column, "name", None) for column in columns}:
            names = _names(columns)
            yield (
                f"The {kind} ({names}) of {entry.fullname} lacks the tenant; make it "
                f"({tenant}, {names})."
            )


def _unique_keys(table: Table) -> Iterator[tuple[str, list[Any]]]:
    if table.primary_key.columns:
        yield "primary key", list(table.primary_key.columns)
    found: list[tuple[str, list[Any]]] = [
        *(
            ("unique key", list(key.columns))
            for key in table.constraints
            if isinstance(key, UniqueConstraint)
        ),
        *(("unique index", list(index.expressions)) for index in table.indexes if index.unique),
        *(
            ("exclusion constraint", list(key.columns))
            for key in table.constraints
            if isinstance(key, ExcludeConstraint)
        ),
    ]
    # A table's constraints are a set.
    yield from sorted(found, key=lambda each: (each[0], _names(each[1])))


def _foreign_fault(child: Entry, parent: Entry, key: ForeignKeyConstraint) -> str | None:
    if child.column is None and parent.column is not None:
        return f"leads from a table that is on every node to {parent.fullname}, which is not."
    if child.column is None or parent.kind is TableKind.SHARED:
        return None
    if parent.column is None:
        return (
            f"leads to {parent.fullname}, which is {parent.kind.value} and on one node; declare "
            "that in shared=, or drop the key."
        )
    pairs = [(each.parent, each.column) for each in key.elements]
    if (child.column, parent.column) not in pairs:
        own, theirs = (
            _names([side.column, *columns])
            for side, columns in zip((child, parent), zip(*pairs, strict=True), strict=True)
        )
        return f"lacks the tenant; make it ({own}) with references to {parent.fullname} ({theirs})."
    if (key.ondelete or "").upper() in _SETS or key.onupdate:
        return (
            "would change the tenant column with ON DELETE SET or ON UPDATE; name the other "
            "columns, ondelete='SET NULL (…)', or leave it out."
        )
    return None


def _names(columns: Iterable[Any]) -> str:
    return ", ".join(str(getattr(column, "name", column)) for column in columns)
