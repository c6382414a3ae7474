"""Strings that match a regular expression, made by walking through it."""

from __future__ import annotations

import importlib
import re
import string
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

__all__ = ["like_strings", "matching_strings"]

_LIMIT = 12
"""The most repetitions beyond those that are asked for."""

# PostgreSQL's words that Python's expressions do not have.
_CLASSES = {
    "[:alpha:]": "a-zA-Z",
    "[:upper:]": "A-Z",
    "[:lower:]": "a-z",
    "[:digit:]": "0-9",
    "[:alnum:]": "a-zA-Z0-9",
    "[:xdigit:]": "0-9a-fA-F",
    "[:space:]": " ",
    "[:blank:]": " ",
    "[:word:]": "a-zA-Z0-9_",
    "[:punct:]": "!-",
}
_WORDS = {r"\m": r"\b", r"\M": r"\b", r"\y": r"\b", r"\Z": r"\Z", r"\A": r"\A"}
_CATEGORIES = {
    "CATEGORY_DIGIT": string.digits,
    "CATEGORY_SPACE": " ",
    "CATEGORY_WORD": string.ascii_letters + string.digits + "_",
}
_ANY = string.ascii_lowercase + string.digits + string.ascii_uppercase + "-_ .@/+#"


def matching_strings(pattern: str, chance: Random, count: int = 6) -> list[str]:
    """Return up to *count* strings that match *pattern*; none where it is not understood."""
    try:
        parsed: Any = importlib.import_module("re._parser").parse(_translated(pattern))
    except (re.error, ImportError, OverflowError):
        return []
    made: list[str] = []
    for extra in range(count):
        try:
            made.append(_Walk(chance, extra).sequence(parsed))
        except (KeyError, IndexError):
            continue
    return list(dict.fromkeys(made))


def like_strings(pattern: str) -> list[str]:
    """Return strings that are LIKE *pattern*."""
    return [
        pattern.replace("%", filler).replace("_", "a").replace("\\", "") for filler in ("", "a")
    ]


def _translated(pattern: str) -> str:
    pattern = re.sub(r"^\*\*\*[:=]", "", pattern)
    for theirs, ours in (*_CLASSES.items(), *_WORDS.items()):
        pattern = pattern.replace(theirs, ours)
    return pattern


class _Walk:
    """One way through a parsed expression; *extra* is how often to repeat beyond the least."""

    def __init__(self, chance: Random, extra: int) -> None:
        self._chance = chance
        self._extra = extra
        self._groups: dict[int, str] = {}
        self._steps: dict[str, Callable[[Any], str]] = {
            "LITERAL": chr,
            "NOT_LITERAL": lambda value: self._other({chr(value)}),
            "ANY": lambda _: self._chance.choice(string.ascii_lowercase),
            "IN": self._one_of,
            "BRANCH": lambda value: self.sequence(self._chance.choice(value[1])),
            "SUBPATTERN": self._group,
            "GROUPREF": lambda value: self._groups[value],
            "MAX_REPEAT": self._repeated,
            "MIN_REPEAT": self._repeated,
            "POSSESSIVE_REPEAT": self._repeated,
            "ATOMIC_GROUP": self.sequence,
            "AT": lambda _: "",
            "ASSERT": lambda _: "",
            "ASSERT_NOT": lambda _: "",
        }

    def sequence(self, parsed: Any) -> str:
        return "".join(self._steps[str(step)](value) for step, value in parsed)

    def _group(self, value: Any) -> str:
        made = self.sequence(value[-1])
        if value[0] is not None:
            self._groups[value[0]] = made
        return made

    def _repeated(self, value: Any) -> str:
        least, most, inner = value
        times = min(int(most), int(least) + min(self._extra, _LIMIT))
        return "".join(self.sequence(inner) for _ in range(times))

    def _one_of(self, members: Any) -> str:
        listed = [(str(kind), value) for kind, value in members]
        allowed: list[str] = []
        for kind, value in listed:
            if kind == "LITERAL":
                allowed.append(chr(value))
            elif kind == "RANGE":
                allowed += [
                    chr(each) for each in range(value[0], min(value[1], value[0] + 128) + 1)
                ]
            elif kind == "CATEGORY":
                allowed += _CATEGORIES.get(str(value), "")
        if listed[0][0] == "NEGATE":
            return self._other(set(allowed))
        return self._chance.choice(allowed)

    def _other(self, refused: set[str]) -> str:
        return self._chance.choice([each for each in _ANY if each not in refused])
