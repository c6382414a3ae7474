"""When groups of equal blind indexes tell values: the thresholds, which the docs state."""

from __future__ import annotations

from enum import Enum

__all__ = ["FEW", "MANY", "RARE", "SKEWED", "Telling", "frequencies_tell", "telling_of"]

MANY = 20
"""Rows: a smaller group is too small for its frequency to be compared with anything."""
FEW = 50
"""So few different indexes, or lengths, can be matched with the values one after the other."""
SKEWED = 5
"""So many times as many rows as the average group has come by no chance."""
RARE = 0.01
"""The share of rows that may share their index where it still counts as unique."""


class Telling(Enum):
    """What a tenant's blind indexes tell of its values; the worse, the later."""

    NOTHING = "no value"
    UNIQUE = "unique"
    SHARED = "shared by few"
    EVEN = "evenly shared"
    FREQUENCIES = "frequencies tell"


def frequencies_tell(largest: float, groups: float, times: float) -> bool:
    """Return whether how often values occur tells them.

    Args:
        largest: Rows of the largest group.
        groups: How many groups there are.
        times: How many times as many rows as the average group the largest has.
    """
    return largest >= MANY and (groups <= FEW or times >= SKEWED)


def telling_of(largest: float, *, told: bool, unique: bool) -> Telling:
    """Return what indexes tell, the *largest* group of which has so many rows."""
    if told:
        return Telling.FREQUENCIES
    if unique:
        return Telling.UNIQUE
    return Telling.SHARED if largest < MANY else Telling.EVEN
