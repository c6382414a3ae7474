"""Which data statement a call in a script runs, as far as the script's text says it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Values", "Written", "dotted", "written_by"]

_NAME = r'(?:"(?:[^"]|"")+"|[\w$]+)'
_STATEMENT = re.compile(
    r"(?:^|[;(]|\b(?:BEGIN|THEN|ELSE|LOOP)\b|\bWITH\b.*?\))\s*"
    r"(INSERT\s+INTO|UPDATE|DELETE\s+FROM|MERGE\s+INTO)\s+(?:ONLY\s+)?"
    rf"({_NAME}(?:\s*\.\s*{_NAME})?)?",
    re.IGNORECASE | re.DOTALL,
)
_NOT_SENT = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_DEFINES = re.compile(r"\s*CREATE\b", re.IGNORECASE)
_UNKNOWN = "\0"
"""Stands in text for what the script puts in when it runs."""

_RUN = {"execute", "exec_driver_sql", "executemany", "scalar", "scalars"}
_CONSTRUCTS = {"insert", "update", "delete"}
_OF_SESSIONS = {"add_all", "bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"}
_TABLES = {"table", "Table"}


@dataclass(frozen=True, slots=True)
class Written:
    """INSERT, UPDATE, DELETE or MERGE, and the table's name, if the script says it."""

    kind: str
    table: str | None


class Values:
    """What the names of a script stand for, wherever in it they are set."""

    def __init__(self, module: ast.Module) -> None:
        self._values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(module):
            for target, value in _bound(node):
                if isinstance(target, ast.Name):
                    self._values.setdefault(target.id, []).append(value)

    def of(self, name: str) -> list[ast.expr]:
        """Return what *name* may be."""
        return self._values.get(name, [])


def written_by(call: ast.Call, values: Values) -> Written | None:
    """Return the data statement that *call* runs, None if none is to be seen."""
    name = dotted(call.func)
    last = name.rpartition(".")[2]
    if last == "bulk_insert" or last in _OF_SESSIONS or name.lower().endswith("session.add"):
        return Written("INSERT", _table(call, values, frozenset()))
    if last in _RUN and call.args:
        return _statement(call.args[0], values, frozenset())
    return None


def dotted(node: ast.AST) -> str:
    """Return the names of *node*, such as "op.get_bind().execute", without any argument."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return f"{dotted(node.func)}()" if isinstance(node, ast.Call) else ""


def _bound(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        yield from ((target, node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.comprehension):
        several = node.iter.elts if isinstance(node.iter, ast.List | ast.Tuple) else [node.iter]
        yield from ((node.target, value) for value in several)


def _statement(node: ast.expr, values: Values, seen: frozenset[str]) -> Written | None:
    text = _text(node)
    if text is not None:
        return _in_text(text)
    if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in _CONSTRUCTS:
        kind = dotted(node.func).rpartition(".")[2].upper()
        return Written(kind, _table(node, values, seen))
    found = (_statement(each, values, now) for each, now in _below(node, values, seen))
    return next((written for written in found if written), None)


def _table(node: ast.expr, values: Values, seen: frozenset[str]) -> str | None:
    if isinstance(node, ast.Call) and dotted(node.func).rpartition(".")[2] in _TABLES:
        first = node.args[0] if node.args else None
        name = first.value if isinstance(first, ast.Constant) else None
        return name if isinstance(name, str) else None
    found = (_table(each, values, now) for each, now in _below(node, values, seen))
    return next((table for table in found if table), None)


def _below(
    node: ast.expr, values: Values, seen: frozenset[str]
) -> Iterator[tuple[ast.expr, frozenset[str]]]:
    """Yield what *node* is made of: what a name stands for, what a call is given and called on."""
    if isinstance(node, ast.Name) and node.id not in seen:
        yield from ((each, seen | {node.id}) for each in values.of(node.id))
    elif isinstance(node, ast.Call):
        yield from ((each, seen) for each in (*node.args, node.func))
    elif isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        yield node.value, seen
    elif isinstance(node, ast.IfExp):
        yield from ((each, seen) for each in (node.body, node.orelse))
    elif isinstance(node, ast.List | ast.Tuple):
        yield from ((each, seen) for each in node.elts)


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(each) or _UNKNOWN for each in node.values)
    if isinstance(node, ast.BinOp):
        left = _text(node.left)
        right = _text(node.right) if isinstance(node.op, ast.Add) else ""
        return None if left is None else left + (_UNKNOWN if right is None else right)
    return None


def _in_text(text: str) -> Written | None:
    sent = _NOT_SENT.sub(" ", text)
    match = None if _DEFINES.match(sent) else _STATEMENT.search(sent)
    if match is None:
        return None
    names = re.findall(_NAME, match[2] or "")
    table = ".".join(name.strip('"').replace('""', '"') for name in names)
    return Written(match[1].split()[0].upper(), table or None)
