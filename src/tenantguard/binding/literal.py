"""A text as an SQL literal that means the same on every connection."""

from __future__ import annotations

import re

__all__ = ["sql_literal"]

_PRINTABLE = re.compile("[ -~]*")
_ESCAPED = {ord("'"): "''", ord("\\"): "\\\\"}


def sql_literal(text: str) -> str:
    """Return *text* as an SQL literal of printable ASCII.

    So it depends neither on the session's `client_encoding` nor on `standard_conforming_strings`,
    which a tenant's text could have changed.
    """
    escaped = text.translate(_ESCAPED)
    if not _PRINTABLE.fullmatch(escaped):
        escaped = "".join(map(_printable, escaped))
    return f"E'{escaped}'"


def _printable(character: str) -> str:
    return character if " " <= character <= "~" else f"\\U{ord(character):08x}"
