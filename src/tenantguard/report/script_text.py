"""A script of `tenantguard rls sql` as sections of statements: one section a transaction.

Only the form that the generator writes is read; whatever else stands there is kept as a statement
that nobody understands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Section", "sections", "statements"]

_HEAD = re.compile(r"-- (?P<title>[^\n]+): (?P<phase>[a-z]+)\nBEGIN;\n")
_END = "COMMIT"

# In this order: what begins a text or a name ends it as well.
_TOKEN = re.compile(
    r"""
    (?P<tagged>\$(?P<tag>[A-Za-z_][A-Za-z_0-9]*|)\$.*?\$(?P=tag)\$)
    | (?P<escape>\b[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<text>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<comment>--[^\n]*|/\*)
    | (?P<end>;)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Section:
    """A transaction of the script, as its comment names it; *title* is None for what has none."""

    title: str | None
    phase: str
    statements: tuple[str, ...]


def sections(script: str) -> list[Section]:
    """Return the sections of *script*, in order."""
    heads = list(_HEAD.finditer(script))
    first = heads[0].start() if heads else len(script)
    found = [Section(None, "", tuple(statements(script[:first])))]
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else len(script)
        body = statements(script[head.end() : end])
        if _END in body:
            inside, after = body[: body.index(_END)], body[body.index(_END) + 1 :]
            found.append(Section(head["title"], head["phase"], tuple(inside)))
            found.append(Section(None, "", tuple(after)))
        else:
            found.append(Section(None, "", ("BEGIN", *body)))
    return [each for each in found if each.title is not None or each.statements]


def statements(text: str) -> list[str]:
    """Return the statements of *text* without comments before them; a rest without end is one."""
    found: list[str] = []
    start = position = 0
    while token := _TOKEN.search(text, position):
        position = token.end()
        if token["comment"] == "/*":
            # What it comments out is no statement, and the generator writes none.
            break
        if token["comment"] and not text[start : token.start()].strip():
            # A comment between statements changes nothing; within one it is left, and not read.
            start = position
        if token["end"]:
            found.append(text[start : token.start()].strip())
            start = position
    rest = text[start:].strip()
    return [each for each in [*found, rest] if each]
