"""How far a policy of a generated script opens a table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tenantguard.report.script_names import CAST, NAME, SETTING

if TYPE_CHECKING:
    from tenantguard.report.script_facts import Fact

__all__ = ["EVERY", "changed_policy", "is_bound"]

EVERY = "true"
_VERIFIED = rf'{NAME}\."tenantguard_verified"\(\)'
_BOUND = re.compile(
    rf"(?P<column>{NAME}) = "
    rf"(?P<open>\(SELECT )?(?P<tenant>{SETTING}|{_VERIFIED})(?P<cast>{CAST})(?(open)\))"
)


def is_bound(expression: str) -> bool:
    """Return whether *expression* lets the rows of the bound tenant pass, and no others."""
    return _BOUND.fullmatch(expression) is not None


def changed_policy(old: Fact | None, new: Fact | None) -> tuple[bool | None, str]:
    """Return whether a policy got weaker (None: neither), and what happened to it.

    A restrictive policy takes away, a permissive one adds: dropping it is the opposite.
    """
    if old is None or new is None:
        mode = (old or new or ("",))[0]
        weaker = (mode == "RESTRICTIVE") is (new is None)
        return weaker, f"({mode.lower()}) {'dropped' if new is None else 'added'}"
    if old[1] != new[1]:
        return True, f"is of {new[1]} instead of {old[1]}"
    if old[0] != new[0]:
        return new[0] == "PERMISSIVE", f"is {new[0].lower()} instead of {old[0].lower()}"
    verdicts = {_compared(old[2], new[2]), _compared(old[3], new[3])}
    if True in verdicts:
        return True, "shows more, or is not understood"
    return (False if False in verdicts else None), "changed"


def _compared(old: str, new: str) -> bool | None:
    """Return whether *new* lets more pass than *old*; True also where nobody knows."""
    if old == new:
        return None
    ours, theirs = _BOUND.fullmatch(old), _BOUND.fullmatch(new)
    if theirs is None:
        return True
    if ours is None:
        return old != EVERY
    if (ours["column"], ours["cast"]) != (theirs["column"], theirs["cast"]):
        return True
    was, now = ("tenantguard_verified" in each["tenant"] for each in (ours, theirs))
    return None if was is now else was
