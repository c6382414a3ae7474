"""What one script makes and another does not: safer, the same, or weaker.

Whatever is not understood is weaker: a reviewer has to look at it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from tenantguard.report.script_new import New
from tenantguard.report.script_policies import changed_policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.report.script_facts import Fact, Facts, Key

__all__ = ["Change", "Verdict", "changes"]


class Verdict(Enum):
    """What a change does to the tenants' being apart."""

    WEAKER = "weaker"
    SAFER = "safer"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Change:
    """A change at *object*, which is a table, a role, a schema or a function."""

    verdict: Verdict
    object: str | None
    what: str


_WEAKER, _SAFER, _SAME = Verdict.WEAKER, Verdict.SAFER, Verdict.SAME

_MADE = {
    "row_security = off": (_SAFER, _WEAKER),
    "switch": (_SAFER, _WEAKER),
    "not null": (_SAFER, _WEAKER),
    # Without it, an INSERT in plain SQL is refused, and no more than that.
    "default": (_SAME, _SAME),
    "index": (_SAME, _SAME),
    "unique key": (_SAME, _SAME),
    "search column": (_SAME, _SAME),
    # Without them writes fail; what they do is part of the form.
    "search trigger": (_SAME, _SAME),
    "search function": (_SAME, _SAME),
    "sequences": (_SAME, _SAME),
    "foreign key": (_SAFER, _WEAKER),
    "validated": (_SAFER, _WEAKER),
    "format check": (_SAFER, _WEAKER),
    # It runs with its owner's rights, past the policies: somebody has to read it.
    "function": (_WEAKER, _SAFER),
    "owner": (_SAME, _WEAKER),
}
"""The verdict on what is added, and on what is dropped."""

_SETS = {
    "privileges": (_WEAKER, _SAFER),
    "execute": (_WEAKER, _SAFER),
    "revoked": (_SAFER, _WEAKER),
}
"""The same for what is added to a set of privileges or roles, and taken from it."""

_ATTRIBUTES = {"NOLOGIN": 0, "LOGIN": 1, "BYPASSRLS": 2}
_WORDS = re.compile(r"[A-Za-z_]+(?: [A-Za-z_]+){0,3}")


def changes(base: Facts, head: Facts) -> list[Change]:
    """Return what differs between *base* and *head*, the weaker first."""
    found = [*_objects(base, head), *_facts(base, head), *_unread(base, head)]
    order = list(Verdict)
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda each: (order.index(each.verdict), each.object or ""))


def _objects(base: Facts, head: Facts) -> Iterator[Change]:
    for at in sorted(base.objects.keys() - head.objects.keys()):
        if base.kinds(at) & {"role", "function", "search function"}:
            yield Change(_SAME, at, "is no longer in the script, which drops neither")
        elif base.kinds(at) - {"sequences"}:
            yield Change(_WEAKER, at, "is no longer in the script: nothing keeps its protection")
    new = New(base, head)
    for at in sorted(head.objects.keys() - base.objects.keys()):
        weak = list(new.judged(at))
        yield from (Change(_WEAKER, at, f"is new, and {each}") for each in weak)
        if not weak and head.kinds(at) - {"sequences"}:
            yield Change(_SAME, at, "is new, and held as the others are")


def _facts(base: Facts, head: Facts) -> Iterator[Change]:
    both = base.objects.keys() & head.objects.keys()
    keys = [key for key in {**base.known, **head.known} if key[1] in both]
    for key in keys:
        old, new = base.known.get(key), head.known.get(key)
        if old != new:
            yield from _changed(key, old, new)


def _changed(key: Key, old: Fact | None, new: Fact | None) -> Iterator[Change]:
    kind, at, name = key
    if kind in _SETS:
        yield from _set(key, set(old or ()), set(new or ()))
    elif kind == "role":
        yield Change(_role(old or (), new or ()), at, f"role: {_was(old)}, now {_was(new)}")
    elif kind == "policy":
        weaker, what = changed_policy(old, new)
        verdict = {True: _WEAKER, False: _SAFER, None: _SAME}[weaker]
        yield Change(verdict, at, f"policy {name} {what}")
    elif old is None or new is None:
        added, dropped = _MADE[kind]
        verdict, what = (added, "added") if old is None else (dropped, "dropped")
        yield Change(verdict, at, f"{_named(kind, name)} {what}")
    elif kind == "foreign key" and old[:3] == new[:3]:
        yield Change(_SAME, at, f"{_named(kind, name)}: what happens on delete or update changed")
    else:
        yield Change(_WEAKER, at, f"{_named(kind, name)} changed: not understood")


def _set(key: Key, old: set[str], new: set[str]) -> Iterator[Change]:
    kind, at, name = key
    more, less = _SETS[kind]
    of = f"{kind} of {name}" if kind == "privileges" else _named(kind, name)
    for verdict, words, values in ((more, "added", new - old), (less, "dropped", old - new)):
        if values:
            yield Change(verdict, at, f"{of} {words}: {', '.join(sorted(values))}")


def _role(old: Fact, new: Fact) -> Verdict:
    if set(new) - set(_ATTRIBUTES):
        return _WEAKER
    if not new:
        # The script drops no role; it is made elsewhere now.
        return _SAME
    was = max((_ATTRIBUTES.get(each, 3) for each in old), default=0)
    now = max(_ATTRIBUTES[each] for each in new)
    return _WEAKER if now > was else _SAFER if now < was else _SAME


def _unread(base: Facts, head: Facts) -> Iterator[Change]:
    for counted, words in ((head.unread - base.unread, "new"), (base.unread - head.unread, "gone")):
        for title, statement in counted:
            found = _WORDS.match(statement)
            start = f"{found.group()} …" if found else "…"
            yield Change(_WEAKER, title or None, f"not understood, and {words}: {start}")


def _was(fact: Fact | None) -> str:
    return " ".join(fact) if fact else "not in the script"


def _named(kind: str, name: str) -> str:
    words = {"switch": "", "row_security = off": "SET LOCAL row_security = off in"}.get(kind, kind)
    return " ".join(filter(None, (words, name)))
