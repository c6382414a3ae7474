"""From a finding to the line of the model that it is about.

A mapped class is found by its mapper, a column by the attribute that maps it, also in a mixin; a
Table by the call that makes it. What is not found for certain is its class or table; what is no
model's is the guard.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Mapper
from sqlalchemy.orm import class_mapper as mapper_of
from sqlalchemy.orm.exc import UnmappedClassError, UnmappedColumnError
from sqlalchemy.orm.mapper import _all_registries

from tenantguard.report.sources import (
    Sources,
    attribute_line,
    named_calls,
    single,
)
from tenantguard.rls.generate import entries
from tenantguard.rls.names import target_of

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator

    from sqlalchemy import Table

    from tenantguard.catalog import Catalog
    from tenantguard.findings import Finding
    from tenantguard.report.report import Place

__all__ = ["Places", "repository_root"]

_COLUMNS = {"Column", "mapped_column"}


class Places:
    """Where the models of *catalog* stand; called with a finding, it returns its place.

    Args:
        catalog: The application's tables.
        guard: What stands for the database where no model does.
        root: The directory that files are named from; by default the repository around the
            current directory.
    """

    def __init__(self, catalog: Catalog, guard: object, root: Path | None = None) -> None:
        self._catalog = catalog
        self._guard = guard
        self._sources = Sources(root or repository_root())
        self._known: dict[tuple[str | None, str | None], Place | None] = {}

    def __call__(self, finding: Finding) -> Place | None:
        """Return the place of what *finding* is about, or of the guard."""
        key = (finding.object, finding.column)
        if key not in self._known:
            table = self._tables.get(finding.object or "")
            found = None if table is None else self._of_table(table, finding.column)
            self._known[key] = found or self._of_guard
        return self._known[key]

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {
            ".".join(target_of(entry)): entry.table
            for entry in entries(self._catalog)
            if entry.table is not None
        }

    @cached_property
    def _mappers(self) -> dict[Any, list[Mapper[Any]]]:
        found: dict[Any, list[Mapper[Any]]] = {}
        for registry in _all_registries():
            # Not registry.mappers, which raises where mapping a class has failed.
            for manager in list(registry._managers):  # noqa: SLF001
                if manager.is_mapped:
                    found.setdefault(manager.mapper.local_table, []).append(manager.mapper)
        return found

    @cached_property
    def _of_guard(self) -> Place | None:
        found = [
            (module.__name__, line)
            for module, tree in self._sources.modules()
            for name, value in list(vars(module).items())
            if value is self._guard and (line := attribute_line(tree, name))
        ]
        return self._sources.place(*found[0]) if found else None

    def _of_table(self, table: Table, column: str | None) -> Place | None:
        mappers = self._mappers.get(table, [])
        if not mappers:
            return self._of_call(table, column)
        found = self._of_attribute(table, mappers, column)
        base = min(mappers, key=lambda each: len(each.class_.__mro__))
        return found or self._of_class(base.class_, table, column)

    def _of_attribute(
        self, table: Table, mappers: list[Mapper[Any]], column: str | None
    ) -> Place | None:
        found = {
            place
            for mapper in mappers
            if (key := _attribute(mapper, table, column))
            and (place := self._in_classes(mapper, table, key))
        }
        return single(list(found))

    def _in_classes(self, mapper: Mapper[Any], table: Table, key: str) -> Place | None:
        """Return where the first class that has *key* has it, the mapper's or a mixin."""
        for each in mapper.class_.__mro__:
            node = self._sources.definition(each)
            if node and not _maps_another(each, table) and (line := attribute_line(node, key)):
                return self._sources.place(each.__module__, line)
        return None

    def _of_class(self, class_: type, table: Table, column: str | None) -> Place | None:
        node = self._sources.definition(class_)
        if node is None:
            return self._of_call(table, column)
        line = _column_line(node, column) or node.lineno
        return self._sources.place(class_.__module__, line)

    def _of_call(self, table: Table, column: str | None) -> Place | None:
        calls = list(self._calls(table))
        if len(calls) > 1:
            # Another MetaData's table may have the name; the module that holds this one made it.
            calls = [each for each in calls if _holds(each[0], table)]
        if len(calls) != 1:
            return None
        [(module, call)] = calls
        return self._sources.place(module.__name__, _column_line(call, column) or call.lineno)

    def _calls(self, table: Table) -> Iterator[tuple[Any, ast.Call]]:
        for module, call in self._table_calls.get(table.name, ()):
            if _may_be_in(call, table):
                yield module, call

    @cached_property
    def _table_calls(self) -> dict[str, list[tuple[Any, ast.Call]]]:
        found: dict[str, list[tuple[Any, ast.Call]]] = {}
        for module, tree in self._sources.modules():
            for name, call in named_calls(tree, {"Table"}):
                found.setdefault(name, []).append((module, call))
        return found


def repository_root() -> Path:
    """Return the directory around the current one that has `.git`, or the current one."""
    here = Path.cwd()
    return next((each for each in (here, *here.parents) if (each / ".git").exists()), here)


def _attribute(mapper: Mapper[Any], table: Table, column: str | None) -> str | None:
    found = next((each for each in table.columns if each.name == column), None)
    try:
        return None if found is None else str(mapper.get_property_by_column(found).key)
    except UnmappedColumnError:
        return None


def _maps_another(class_: type, table: Table) -> bool:
    """Return whether *class_* is mapped to another table, whose attributes are not this one's."""
    try:
        return mapper_of(class_, configure=False).local_table is not table
    except UnmappedClassError:
        return False


def _column_line(node: ast.AST, column: str | None) -> int | None:
    if column is None:
        return None
    return single([call.lineno for name, call in named_calls(node, _COLUMNS) if name == column])


def _may_be_in(call: ast.Call, table: Table) -> bool:
    """Return whether *call* says *table*'s schema, or does not say it in so many words."""
    for each in call.keywords:
        if each.arg == "schema":
            value = getattr(each.value, "value", table.schema)
            return bool(value == table.schema)
    return True


def _holds(module: Any, table: Table) -> bool:
    return any(value is table for value in list(vars(module).values()))
