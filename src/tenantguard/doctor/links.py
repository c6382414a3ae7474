"""Foreign keys between guarded tables: as the models have them, and as the database does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import NoReferencedColumnError, NoReferencedTableError

from tenantguard.catalog import Kind, parent_keys
from tenantguard.errors import ConfigurationError
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["Constraint", "Link", "links_of"]

Pairs = frozenset[tuple[str, str]]
"""Columns of a key with the columns that they refer to."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """A foreign key of the database; *checked* is whether new rows are held to it."""

    name: str
    valid: bool
    pairs: Pairs
    checked: bool


@dataclass(slots=True)
class Link:
    """What one table says of another: rows of *child* point at rows of *parent*.

    *pairs* holds the tenant on both sides where both tables have one. *constraints* are the
    database's foreign keys for it, with the tenant or without.
    """

    child: Entry
    parent: Entry
    pairs: Pairs
    modelled: bool
    constraints: list[Constraint] = field(default_factory=list)

    @property
    def carries_tenant(self) -> bool:
        """Whether a foreign key of the database holds the tenant as well."""
        return any(each.pairs == self.pairs for each in self.constraints)

    def __str__(self) -> str:
        return f"{'.'.join(target_of(self.child))} to {'.'.join(target_of(self.parent))}"


def links_of(catalog: Catalog, guarded: list[Entry], structure: dict[Target, Facts]) -> list[Link]:
    """Return the links between *guarded* tables, those of the models first.

    Raises:
        ConfigurationError: If a foreign key of the models leads to no table of theirs.
    """
    found: dict[tuple[Target, Target, Pairs], Link] = {}
    for child, parent, pairs in _of_models(catalog, guarded):
        _link(found, child, parent, pairs, modelled=True)
    by_target = {target_of(entry): entry for entry in guarded}
    for target, child in by_target.items():
        for key in structure.get(target, {}).get("keys", ()):
            parent_entry = by_target.get(tuple(key["parent"]))
            if parent_entry is not None:
                pairs = frozenset(zip(key["columns"], key["parent_columns"], strict=True))
                link = _link(found, child, parent_entry, pairs, modelled=False)
                link.constraints.append(
                    Constraint(key["name"], key["valid"], pairs, key["checked"])
                )
    return list(found.values())


def _link(
    found: dict[tuple[Target, Target, Pairs], Link],
    child: Entry,
    parent: Entry,
    pairs: Pairs,
    *,
    modelled: bool,
) -> Link:
    whole = pairs | _tenants(child, parent)
    key = (target_of(child), target_of(parent), whole)
    return found.setdefault(key, Link(child, parent, whole, modelled))


def _of_models(catalog: Catalog, guarded: list[Entry]) -> Iterator[tuple[Entry, Entry, Pairs]]:
    for child in guarded:
        for key in parent_keys(child.table) if child.table is not None else ():
            try:
                parent = catalog.entry(key.referred_table)
                pairs = frozenset((each.parent.name, each.column.name) for each in key.elements)
            except (NoReferencedTableError, NoReferencedColumnError):
                raise ConfigurationError(
                    f"A foreign key of {child.fullname} leads to a table or column that the "
                    "MetaData does not have. Import the module that defines it first."
                ) from None
            if parent.guarded:
                yield child, parent, pairs


def _tenants(child: Entry, parent: Entry) -> Pairs:
    """Return the pair of tenant columns; what points at the registry names its tenant itself."""
    if parent.kind is Kind.REGISTRY or child.column is None or parent.column is None:
        return frozenset()
    return frozenset({(child.column.name, parent.column.name)})
