"""Where the rows of a table get their tenant from."""

# ruff: noqa: S608  (statements are put together from quoted names; there is no input in them)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.catalog import Kind, parent_keys
from tenantguard.errors import ConfigurationError
from tenantguard.rls.keys import lifted
from tenantguard.rls.names import qualified, quote, target_of

if TYPE_CHECKING:
    from sqlalchemy import ForeignKeyConstraint

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.rls.step import Target

__all__ = ["Backfill", "backfill"]


@dataclass(frozen=True, slots=True)
class Backfill:
    """The statement that fills the tenant column; *source* is None where a person completes it."""

    statement: str
    source: Target | None
    comment: str


def backfill(catalog: Catalog, entry: Entry, *, from_parent: str | None = None) -> Backfill:
    """Return how *entry*'s rows get their tenant.

    Args:
        catalog: The application's tables.
        entry: The table, scoped.
        from_parent: "parent.column": the parent's table and the column that leads to it. Without
            it, the only foreign key to a scoped table or to the registry is taken.

    Raises:
        ConfigurationError: If *from_parent* names no such foreign key.
    """
    keys = _candidates(catalog, entry)
    if from_parent is not None:
        named = {name: key for name, key in keys.items() if name == from_parent}
        if not named:
            raise ConfigurationError(_unknown_parent(entry, from_parent, list(keys)))
        keys = named
    if len(keys) == 1:
        [(name, key)] = keys.items()
        return _derived(catalog, entry, name, key)
    return _placeholder(entry, list(keys))


def _candidates(catalog: Catalog, entry: Entry) -> dict[str, ForeignKeyConstraint]:
    """Return the foreign keys that lead to a tenant, by "parent.column"."""
    found: dict[str, ForeignKeyConstraint] = {}
    for key in parent_keys(entry.table) if entry.table is not None else ():
        parent = catalog.entry(key.referred_table)
        columns = [column.name for column in key.columns]
        leads = parent.guarded and key.referred_table is not entry.table
        if leads and entry.column is not None and entry.column.name not in columns:
            found[f"{parent.fullname}.{columns[0]}"] = key
    return found


def _derived(catalog: Catalog, entry: Entry, name: str, key: ForeignKeyConstraint) -> Backfill:
    parent = catalog.entry(key.referred_table)
    own = quote(entry.column.name) if entry.column is not None else ""
    theirs = quote(parent.column.name) if parent.column is not None else ""
    child_target, parent_target = target_of(entry), target_of(parent)
    on = " AND ".join(
        f"c.{quote(each.parent.name)} = p.{quote(each.column.name)}" for each in key.elements
    )
    update = (
        f"UPDATE {qualified(child_target)} AS c SET {own} = p.{theirs}\n"
        f"        FROM {qualified(parent_target)} AS p WHERE {on} AND c.{own} IS NULL"
    )
    what = "the registry" if parent.kind is Kind.REGISTRY else "the parent's tenant"
    return Backfill(
        lifted([child_target, parent_target], update),
        parent_target,
        f"Each row gets {what} through {name}. Rows without a parent stay empty, and the check "
        "below refuses them.",
    )


def _placeholder(entry: Entry, names: list[str]) -> Backfill:
    own = quote(entry.column.name) if entry.column is not None else ""
    table = qualified(target_of(entry))
    statement = f"UPDATE {table} SET {own} = <THE TENANT OF THE ROW> WHERE {own} IS NULL"
    reason = (
        f"Several foreign keys lead to a tenant: {', '.join(names)}. Choose one with --from-parent"
        if names
        else "No foreign key of the models leads to a tenant"
    )
    return Backfill(statement, None, f"COMPLETE THIS STATEMENT; as it stands, it fails. {reason}.")


def _unknown_parent(entry: Entry, given: str, names: list[str]) -> str:
    choice = f"Choose one of: {', '.join(names)}." if names else "The table has no such key."
    return (
        f"--from-parent {given!r} is no foreign key of {entry.fullname} to a table with a tenant. "
        f"{choice} The form is parent_table.column, with the column of {entry.fullname}."
    )
