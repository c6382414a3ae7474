"""What each column of a row may hold, and which conditions bind the columns together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from tenantguard.prove.hints import hints_of
from tenantguard.prove.scalars import Wish
from tenantguard.prove.shape import Check
from tenantguard.prove.values import base_of, domain_checks, is_checked_inside, values_for
from tenantguard.rls.names import literal, quote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tenantguard.prove.shape import Column, Table, Type

__all__ = ["DEFAULT", "PARTITION", "Tries", "conditions", "groups", "open_key", "wished"]

DEFAULT = "DEFAULT"
PARTITION = "partition"
"""The name of the condition that a row fits one of the table's partitions."""

_SHUFFLED_FROM = 4
"""After so many tries the likeliest values are not tried first any more."""


@dataclass(slots=True)
class Tries:
    """What the errors of earlier tries have taught.

    Attributes:
        filled: Columns that are given a value although they may be NULL or have a default.
        keyed: Columns of a key that may be NULL, and had better not be: no NULL conflicts.
        turns: How many of a column's likeliest values are put behind the others.
        everything: Whether every column is filled.
        any_partition: Whether the row's partition is made for it.
        fresh: Whether rows of shared tables are invented, although there are some.
        number: How many tries there were.
    """

    filled: set[str] = field(default_factory=set)
    keyed: frozenset[str] = frozenset()
    turns: dict[str, int] = field(default_factory=dict)
    everything: bool = False
    any_partition: bool = False
    fresh: bool = False
    number: int = 0
    chance: Random = field(default_factory=Random)

    def turn(self, columns: tuple[str, ...]) -> None:
        """Try other values for *columns*."""
        for name in columns:
            self.turns[name] = self.turns.get(name, 0) + 1


def wished(table: Table, column: Column, tries: Tries, types: Mapping[int, Type]) -> list[str]:
    """Return SQL expressions to try for *column*, the likeliest first."""
    base = base_of(column.type_id, column.type, types)
    wish = Wish(hints_of(_told(table, column)), _is_unique(table, column), tries.chance)
    texts = values_for(column.type_id, column.type, types, wish)
    made = _turned([f"{literal(each)}::{base}" for each in texts], column, tries)
    wanted = tries.everything or column.name in tries.filled | tries.keyed
    none = [] if column.not_null else [f"NULL::{base}"]
    if column.default is not None and not column.counts:
        return [*made, DEFAULT] if wanted else [DEFAULT, *made, *none]
    return [*made, *none] if wanted else [*none, *made]


def open_key(table: Table, tenant: str | None) -> frozenset[str]:
    """Return the columns that may be NULL of the key by which an upsert finds another's row.

    That is a key without the column *tenant* if there is one, and of these one that is never NULL.
    """
    nullable = {each.name for each in table.columns.values() if not each.not_null}
    keys = [frozenset(each.columns) for each in table.keys if each.arbitrates and each.columns]
    best = min(keys, key=lambda key: (tenant in key, bool(key & nullable)), default=frozenset())
    return best & nullable


def conditions(table: Table, tries: Tries, types: Mapping[int, Type]) -> list[Check]:
    """Return what the columns of a row have to fulfil together."""
    found = list(table.checks)
    for column in table.columns.values():
        names, itself = (column.name,), quote(column.name).replace("\\", r"\\")
        for number, check in enumerate(domain_checks(column.type_id, types)):
            expression = re.sub(r"\bVALUE\b", itself, check)
            found.append(Check(f"of the domain, {number}", expression, names))
        if is_checked_inside(column.type_id, types):
            found.append(Check("of the type", "true", names))
    if table.parts and not table.has_default_part and not tries.any_partition:
        anywhere = " OR ".join(f"({each})" for each in table.parts)
        found.append(Check(PARTITION, anywhere, _named_in(table, anywhere)))
    return found


def groups(checks: list[Check]) -> list[list[Check]]:
    """Return *checks* in groups that have no column in common."""
    made: list[list[Check]] = []
    for check in checks:
        names = set(check.columns)
        joined = [each for each in made if names & {n for one in each for n in one.columns}]
        made = [each for each in made if each not in joined]
        made.append([one for each in joined for one in each] + [check])
    return made


def _told(table: Table, column: Column) -> list[str]:
    own = [check.expression for check in table.checks if column.name in check.columns]
    parts = [each for each in table.parts if _mentions(each, column.name)]
    sources = [each for each in table.sources if _mentions(each, column.name)]
    return [*own, *parts, *sources]


def _mentions(text: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _named_in(table: Table, text: str) -> tuple[str, ...]:
    return tuple(name for name in table.columns if _mentions(text, name))


def _is_unique(table: Table, column: Column) -> bool:
    return any(column.name in key.columns for key in table.keys)


def _turned(values: list[str], column: Column, tries: Tries) -> list[str]:
    if tries.number > _SHUFFLED_FROM:
        tries.chance.shuffle(values)
        return values
    turns = tries.turns.get(column.name, 0) % max(1, len(values))
    return values[turns:] + values[:turns]
