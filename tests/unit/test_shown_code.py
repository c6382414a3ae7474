"""The Python that the documentation shows is of this version: its names, options and columns."""

from __future__ import annotations

import ast
import importlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from shown import ROOT, blocks

import tenantguard
from tenantguard import TenantGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(blocks(page))
]


def _tree(block: str) -> ast.AST:
    # Views and dependencies are shown with what they await, and without their function.
    block = block.replace("…", "...")
    tree = compile(block, "shown", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.AST)
    return tree


def _calls(tree: ast.AST) -> Iterator[tuple[Any, ast.Call]]:
    """Yield what *tree* calls of the library by its name, or on a guard, and the call."""
    names = {**vars(tenantguard), **dict(_imported(tree))}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in names:
                yield names[name], node
            case ast.Call(func=ast.Attribute(value=ast.Name(id="guard"), attr=name)):
                yield getattr(TenantGuard, name), node


def _imported(tree: ast.AST) -> Iterator[tuple[str, Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tenantguard"):
            module = importlib.import_module(node.module or "")
            for each in node.names:
                yield each.asname or each.name, getattr(module, each.name)


def _options(called: Any) -> set[str] | None:
    """Return the names that *called* takes arguments by; None if it takes any."""
    parameters = inspect.signature(called).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}


@pytest.mark.parametrize("block", BLOCKS)
def test_names_and_options_that_are_shown_exist(block: str) -> None:
    """What is imported is there, and is called with options that it takes."""
    for called, call in _calls(_tree(block)):
        given = {each.arg for each in call.keywords if each.arg}
        options = _options(called)
        assert options is None or given <= options, ast.unparse(call)


def test_columns_that_are_shown_can_be_declared() -> None:
    """Each encrypted column of the documentation is one, with the options that it is shown with."""
    declared = 0
    for block in BLOCKS:
        for _, call in _calls(_tree(str(block.values[0]))):
            if ast.unparse(call.func).startswith("encrypted_") and _is_complete(call):
                made = eval(ast.unparse(call), vars(tenantguard))
                assert str(made.column.type.compile()) == "BYTEA"
                declared += 1
    assert declared > 10


def _is_complete(call: ast.Call) -> bool:
    """Return whether *call* names nothing of the page's own, such as the class of an enum."""
    names = {each.id for each in ast.walk(call) if isinstance(each, ast.Name)}
    return names <= vars(tenantguard).keys() and "..." not in ast.unparse(call)


@pytest.mark.parametrize(
    "block",
    [
        "from tenantguard import Nothing",
        "from tenantguard.nowhere import Exact",
        "KeyFile('key.json', environ='production')",
        "guard.reveals(Patient.notes)",
        "guard.reveal(Patient.notes, why='x')",
        "class Patient(Base)\n    pass",
    ],
)
def test_what_there_is_not_is_noticed(block: str) -> None:
    """A name, a module, an option, a method that does not exist; what is no Python."""
    with pytest.raises((AssertionError, AttributeError, ImportError, SyntaxError)):
        test_names_and_options_that_are_shown_exist(block)
