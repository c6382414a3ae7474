"""A text as an SQL literal that means the same on every connection."""

from __future__ import annotations

__all__ = ["sql_literal"]

_ESCAPED = {ord("'"): "''", ord("\\"): "\\\\"}


def sql_literal(text: str) -> str:
    """Return *text* as an SQL literal of printable ASCII.

    So it depends neither on the session's `client_encoding` nor on `standard_conforming_strings`,
    which a tenant's text could have changed.
    """
    return "E'" + "".join(map(_escaped, text)) + "'"


def _escaped(character: str) -> str:
    if " " <= character <= "~":
        return character.translate(_ESCAPED)
    return f"\\U{ord(character):08x}"
