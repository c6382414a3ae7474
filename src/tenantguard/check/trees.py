"""Where a column stands in an expression, read from PostgreSQL's stored form of it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["uses_of"]

# Whatever has a meaning to the reader is escaped by a backslash where it is a part of a name.
_TOKEN = re.compile(r"[{}]|(?:\\.|[^\s{}()\\])+", re.DOTALL)

_QUERY = "QUERY"


def uses_of(tree: str, number: int) -> Iterator[tuple[str, ...]]:
    """Yield for each use of column *number* of the expression's own table what it stands in.

    The outermost comes first; AND, OR and NOT have their own names, and the column itself is left
    out. Columns of tables in sub-selects are told from the outer one's by their level.
    """
    stack: list[_Node] = []
    tokens = [match.group() for match in _TOKEN.finditer(tree)]
    for position, word in enumerate(tokens):
        if word == "{":
            stack.append(_Node(tokens[position + 1]))
        elif word == "}":
            node = stack.pop()
            if node.is_column(number, sum(each.name == _QUERY for each in stack)):
                yield tuple(str(each) for each in stack)
        elif word.startswith(":") and stack:
            stack[-1].fields[word[1:]] = tokens[position + 1]


class _Node:
    """A node and the first token of each of its fields."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fields: dict[str, str] = {}

    def is_column(self, number: int, level: int) -> bool:
        # In the expression itself the policy's table is the only one.
        return (
            self.name == "VAR"
            and self.fields["varattno"] == str(number)
            and self.fields["varlevelsup"] == str(level)
        )

    def __str__(self) -> str:
        return self.fields["boolop"].upper() if self.name == "BOOLEXPR" else self.name
