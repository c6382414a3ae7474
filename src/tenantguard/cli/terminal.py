"""Text for a terminal that is not ours: what somebody wrote into a row, or named a column."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return *text* without characters that a terminal obeys."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
