"""What a script of `tenantguard rls sql` makes, statement by statement, as facts by their names.

Only the generator's own forms are understood, word by word. Everything else is kept as a statement
that is not: nobody knows what it does.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from tenantguard.report.script_forms import FORMS
from tenantguard.report.script_readers import READERS
from tenantguard.report.script_text import sections, statements

if TYPE_CHECKING:
    from tenantguard.report.script_text import Section

__all__ = ["Fact", "Facts", "Key", "facts_of"]

Key = tuple[str, str, str]
"""Kind, object and name of a fact, such as ("policy", "public.orders", "tenantguard_support")."""

Fact = tuple[str, ...]
"""The parts of a fact's value; for privileges and what is revoked, a sorted set."""

_WAITS = re.compile(r"SET LOCAL lock_timeout = '\d+m?s'")
_ROW_SECURITY = "SET LOCAL row_security = off"


@dataclass
class Facts:
    """What a script makes.

    Attributes:
        known: The facts by their keys.
        unread: Statements that are not understood, by the section's title, with their number.
    """

    known: dict[Key, Fact] = field(default_factory=dict)
    unread: Counter[tuple[str, str]] = field(default_factory=Counter)

    @cached_property
    def objects(self) -> dict[str, dict[tuple[str, str], Fact]]:
        """What is known of each object, by kind and name."""
        found: dict[str, dict[tuple[str, str], Fact]] = {}
        for (kind, at, name), fact in self.known.items():
            found.setdefault(at, {})[kind, name] = fact
        return found

    def kinds(self, at: str) -> set[str]:
        """Return what kinds of facts are known of *at*."""
        return {kind for kind, _ in self.objects[at]}


def facts_of(script: str) -> Facts:
    """Return what *script* makes."""
    reader = _Reader()
    for section in sections(script):
        reader.section(section)
    return reader.facts


class _Reader:
    def __init__(self) -> None:
        self.facts = Facts()
        self._title = ""
        self._granted: set[str] = set()

    def section(self, section: Section) -> None:
        self._title = section.title or ""
        body = list(section.statements)
        if section.title is not None:
            self._settings(section, body)
        for statement in body:
            self.statement(statement)

    def statement(self, statement: str) -> None:
        for form, read in FORMS.get(statement.partition(" ")[0], ()):
            if (found := form.fullmatch(statement)) and READERS[read](self, found):
                return
        self.unread(statement)

    def unread(self, statement: str) -> None:
        self.facts.unread[self._title, statement] += 1

    def put(self, kind: str, at: str, name: str, *value: str) -> bool:
        """Note a fact; one that is there already is not understood a second time."""
        key = (kind, at, name)
        if key in self.facts.known:
            return False
        self.facts.known[key] = value
        return True

    def add(self, kind: str, at: str, name: str, values: set[str]) -> bool:
        """Add *values* to those of a fact that is a set."""
        key = (kind, at, name)
        if kind == "privileges":
            self._granted.add(at)
        self.facts.known[key] = tuple(sorted(values | set(self.facts.known.get(key, ()))))
        return True

    def _settings(self, section: Section, body: list[str]) -> None:
        """Take the transaction's settings off the beginning of *body*."""
        if body and _WAITS.fullmatch(body[0]):
            body.pop(0)
        if body and body[0] == _ROW_SECURITY:
            body.pop(0)
            self.put("row_security = off", self._title, section.phase, "")

    def granted(self, at: str) -> bool:
        """Return whether anything was granted on *at* so far."""
        return at in self._granted

    def has(self, kind: str, at: str, name: str) -> bool:
        """Return whether the fact is known."""
        return (kind, at, name) in self.facts.known

    def inside(self, body: str) -> bool:
        """Read the statements of a block."""
        for each in statements(body):
            self.statement(each)
        return True
