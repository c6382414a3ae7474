"""The application's own source files, parsed: where a class, an attribute or a call stands.

What is not there exactly once is not found: a wrong line would be worse than none.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tenantguard.report.report import Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["Sources", "attribute_line", "calls_of", "single"]

_SCOPES = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_LOCALS = "<locals>"
_T = TypeVar("_T")


class Sources:
    """The modules below *root* that are imported, without those of the environment."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._environment = Path(sys.prefix).resolve()
        self._trees: dict[Path, ast.Module | None] = {}

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
        tree = self.tree(class_.__module__)
        return None if tree is None else _class_node(tree, class_.__qualname__)

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


def calls_of(node: ast.AST, functions: set[str], first: str) -> Iterator[ast.Call]:
    """Yield the calls of *functions* within *node* whose first argument is the text *first*."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and each.args and _called(each.func) in functions:
            argument = each.args[0]
            if isinstance(argument, ast.Constant) and argument.value == first:
                yield each


def single(found: list[_T]) -> _T | None:
    """Return the only one of *found*, None if there are several or none."""
    return found[0] if len(found) == 1 else None


def _parsed(path: Path) -> ast.Module | None:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _class_node(tree: ast.Module, qualname: str) -> ast.ClassDef | None:
    """Return the only class called *qualname*, such as "Outer.Inner" or "make.<locals>.Model"."""
    found: list[Any] = [tree]
    for part in qualname.split("."):
        if part != _LOCALS:
            found = [
                node
                for scope in found
                for node in _inside(scope)
                if isinstance(node, _SCOPES) and node.name == part
            ]
    return single([node for node in found if isinstance(node, ast.ClassDef)])


def _inside(scope: ast.AST) -> Iterator[ast.stmt]:
    """Yield the statements of *scope*, and not those of what it defines."""
    for child in ast.iter_child_nodes(scope):
        if isinstance(child, ast.stmt):
            yield child
        if not isinstance(child, _SCOPES):
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
