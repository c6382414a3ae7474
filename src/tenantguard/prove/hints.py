"""What conditions, bounds of partitions and triggers say of the values they want."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Hints", "hints_of"]

_STRING = re.compile(r"(E?)'((?:[^']|'')*)'", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.])")
_PATTERN = re.compile(r"(?<![!~])~\*?\s*\(*(E?)'((?:[^']|'')*)'", re.IGNORECASE)
_LIKE = re.compile(r"(?:(?<!!)~~\*?|\bI?LIKE)\s*\(*(E?)'((?:[^']|'')*)'", re.IGNORECASE)


@dataclass(slots=True)
class Hints:
    """Constants in the order in which they are written, and the patterns among them."""

    strings: list[str] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    likes: list[str] = field(default_factory=list)

    @property
    def lengths(self) -> list[int]:
        """The numbers that may be lengths."""
        found = [int(each) for each in self.numbers if each.isdigit() and len(each) < 5]  # noqa: PLR2004
        return sorted({near for each in found for near in (each, each + 1, each - 1) if near > 0})


def hints_of(texts: list[str]) -> Hints:
    """Return the constants in *texts*, which are SQL expressions or the bodies of functions."""
    hints = Hints()
    for text in texts:
        hints.patterns += [_unescaped(*each) for each in _PATTERN.findall(text)]
        hints.likes += [_unescaped(*each) for each in _LIKE.findall(text)]
        hints.strings += [_unescaped(*each) for each in _STRING.findall(text)]
        # A negative number is stored as text: '-5'::integer.
        hints.numbers += [each for each in hints.strings if _NUMBER.fullmatch(each)]
        hints.numbers += _NUMBER.findall(_STRING.sub("''", text))
    for name in ("strings", "numbers", "patterns", "likes"):
        setattr(hints, name, list(dict.fromkeys(getattr(hints, name))))
    return hints


def _unescaped(escaping: str, text: str) -> str:
    text = text.replace("''", "'")
    return text.replace("\\\\", "\\") if escaping else text
