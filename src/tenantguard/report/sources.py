"""The application's own source files, parsed: where a class, an attribute or a call stands.

What is not there exactly once is not found: a wrong line would be worse than none.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tenantguard.report.report import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["Sources", "attribute_line", "named_calls", "single"]

_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_LOCALS = "<locals>"
_T = TypeVar("_T")


class Sources:
    """The modules below *root* that are imported, without those of the environment."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._environment = Path(sys.prefix).resolve()
        self._trees: dict[Path, ast.Module | None] = {}
        self._classes: dict[str, dict[str, list[ast.ClassDef]]] = {}

    def modules(self) -> Iterator[tuple[ModuleType, ast.Module]]:
        """Yield every such module with its source, ordered by name."""
        for name in sorted(sys.modules):
            module = sys.modules[name]
            tree = self.tree(name)
            if module is not None and tree is not None:
                yield module, tree

    def tree(self, module: str) -> ast.Module | None:
        """Return the source of *module*, None if it is not the application's own."""
        path = self._path(module)
        if path is None:
            return None
        if path not in self._trees:
            self._trees[path] = _parsed(path)
        return self._trees[path]

    def definition(self, class_: type) -> ast.ClassDef | None:
        """Return the statement that defines *class_*, if there is only one in its module."""
        module = class_.__module__
        if module not in self._classes:
            tree = self.tree(module)
            self._classes[module] = {} if tree is None else _classes(tree)
        return single(self._classes[module].get(class_.__qualname__, []))

    def place(self, module: str, line: int) -> Place | None:
        """Return *line* of *module* as a place below the root."""
        path = self._path(module)
        return None if path is None else Place(path.relative_to(self.root).as_posix(), line)

    def _path(self, module: str) -> Path | None:
        name = getattr(sys.modules.get(module), "__file__", None)
        if not isinstance(name, str) or not name.endswith(".py"):
            return None
        path = Path(name).resolve()
        if "site-packages" in path.parts or not path.is_relative_to(self.root):
            return None
        # An environment may stand in the repository, and the repository in no environment.
        inside = self._environment != self.root and path.is_relative_to(self._environment)
        return None if inside and not self.root.is_relative_to(self._environment) else path


def attribute_line(node: ast.ClassDef | ast.Module, name: str) -> int | None:
    """Return the line of the only assignment to, annotation of, or function called *name*."""
    return single([each.lineno for each in _inside(node) if name in _names(each)])


def named_calls(node: ast.AST, functions: set[str]) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of *functions* within *node* whose first argument is a text, and that."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and each.args and _called(each.func) in functions:
            argument = each.args[0]
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value, each


def single(found: list[_T]) -> _T | None:
    """Return the only one of *found*, None if there are several or none."""
    return found[0] if len(found) == 1 else None


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _classes(tree: ast.Module) -> dict[str, list[ast.ClassDef]]:
    """Return the classes by their names, such as "Outer.Inner" or "make.<locals>.Model"."""
    found: dict[str, list[ast.ClassDef]] = {}
    scopes: list[tuple[str, ast.AST]] = [("", tree)]
    while scopes:
        prefix, scope = scopes.pop()
        for node in _inside(scope):
            if isinstance(node, _SCOPES):
                name = f"{prefix}{node.name}"
                if isinstance(node, ast.ClassDef):
                    found.setdefault(name, []).append(node)
                inner = "." if isinstance(node, ast.ClassDef) else f".{_LOCALS}."
                scopes.append((f"{name}{inner}", node))
    return found


def _inside(scope: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of *scope*, and not those of what it defines."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, _BLOCKS) and not isinstance(child, _SCOPES):
            yield from _inside(child)


def _names(statement: ast.stmt) -> list[str]:
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return []
    return [each.id for each in targets if isinstance(each, ast.Name)]


def _called(function: ast.expr) -> str:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""
