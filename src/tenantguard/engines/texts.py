"""What PostgreSQL's error messages say, without the values that they repeat.

What is not known to repeat none is taken to repeat one.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["REFERENCE", "without_values"]

_HIDDEN = "(hidden)"
_SHOWN_BY = "[values are hidden; protect(show_parameters=True) shows them]"
# Classes whose messages name tables, columns, constraints and types, and repeat no value.
_NAMING = frozenset(
    "08 23 25 26 28 2B 34 3B 3D 3F 40 42 44 53 55 57".split()  # noqa: SIM905
)
# Of those, what quotes a piece of the statement, or what was to be a name.
_QUOTING = frozenset(("42601", "42602", "42622", "42704"))
# What functions of the database's own say, under whatever SQLSTATE they like.
_RAISING = frozenset(("exec_stmt_raise", "exec_stmt_assert"))
_OTHER_LANGUAGES = ("plpy", "plperl", "pltcl")
_WRITTEN = f"A function or trigger of the database raised an error {_SHOWN_BY}"
# In whatever language the server's messages are, and whatever quotes the value itself has.
_QUOTED = re.compile("[\"'“”„«»‹›‘’‚「」『』`].*[\"'“”„«»‹›‘’‚「」『』`]", re.DOTALL)  # noqa: RUF001
_NUMBER = re.compile(r"(?<![\w(])-?\d[\w.]*")
_AFTER_COLON = re.compile(r"(:\s).*", re.DOTALL)

REFERENCE = {
    "isinsert": "The row that is referred to does not exist, or belongs to another tenant.",
    "isdelete": "The row is still referred to.",
    "": "The row that is referred to does not exist or belongs to another tenant, or the row is "
    "still referred to.",
}
"""What a foreign key's violation means, by the kind of the statement."""


def without_values(message: str, code: str | None, origin: tuple[str, str], rest: Any) -> str:
    """Return PostgreSQL's primary *message* without values.

    Args:
        message: It may be in any language.
        code: The SQLSTATE; None for an error of the driver's own.
        origin: The function and the file of PostgreSQL's source that raised it.
        rest: What else there was and is hidden; if there was nothing, and nothing is hidden in the
            message, it stays as it is.
    """
    function, file = origin
    if function in _RAISING or file.startswith(_OTHER_LANGUAGES):
        return _WRITTEN
    if code is None or code[:2] not in _NAMING or code in _QUOTING:
        shorter = _AFTER_COLON.sub(rf"\1{_HIDDEN}", _QUOTED.sub(_HIDDEN, message))
        shorter = _NUMBER.sub(_HIDDEN, shorter)
    else:
        shorter = message
    return f"{shorter} {_SHOWN_BY}" if rest or shorter != message else message
