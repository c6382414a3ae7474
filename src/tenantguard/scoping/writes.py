"""What a statement may write into the tenant column: the active tenant, and nothing else.

The column always takes a bind parameter of ours. What the caller supplied for it is kept aside and
compared at each execution, so that a wrong value is an error instead of being silently replaced.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, and_, cast, literal, null, select
from sqlalchemy.sql.elements import (
    BindParameter,
    ColumnClause,
    Grouping,
    Label,
    Null,
    TextClause,
)
from sqlalchemy.sql.expression import TableClause
from sqlalchemy.sql.visitors import iterate

from tenantguard.errors import CrossTenantError, UnknownTenantError, UnscopedStatementError
from tenantguard.scoping.references import FOREIGN
from tenantguard.scoping.statements import compiled_as, copy_with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.sql.elements import ColumnElement

    from tenantguard.catalog import Catalog, Entry
    from tenantguard.context import TenantId
    from tenantguard.scoping.compiler import TenantCompiler
    from tenantguard.scoping.references import Reference
    from tenantguard.scoping.scope import Scope

__all__ = ["Target", "Writes"]


@dataclass(frozen=True, slots=True)
class Target:
    """A table of tenants that a statement writes.

    Attributes:
        entry: Its classification.
        column: Its tenant column, in the statement's own construct of it; None for a child.
        references: Its foreign keys that the statement has to check.
    """

    entry: Entry
    column: ColumnClause[Any] | None
    references: list[Reference]

    @property
    def columns(self) -> list[ColumnClause[Any]]:
        """The columns that the statement does not take as they are given."""
        own = [] if self.column is None else [self.column]
        return [*own, *(each.column for each in self.references)]

    def holds(self, key: Any) -> bool:
        """Return whether *key* of a values dictionary means one of `columns`."""
        return any(_names(key, column) for column in self.columns)


@dataclass(slots=True, repr=False)
class Writes:
    """The tenant values that one compiled statement writes.

    Attributes:
        stamps: Bind parameters that take the active tenant in VALUES or SET.
        supplied: Bind parameters that the caller gave for the tenant column.
        keys: Names under which an execution's parameters may carry the tenant column.
        table: Name of the table, for messages.
    """

    stamps: list[BindParameter[Any]] = field(default_factory=list)
    supplied: list[BindParameter[Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    table: str = ""

    def check(
        self,
        compiler: TenantCompiler,
        params: Mapping[str, Any],
        extracted: Sequence[BindParameter[Any]] | None,
        scope: Scope,
        tenant: TenantId,
    ) -> None:
        """Raise `CrossTenantError` unless each supplied value is None or *tenant*."""
        for key in self.keys:
            self._compare(params.get(key), scope, tenant)
        if self.supplied:
            current = _current_values(compiler, extracted)
            for bind in self.supplied:
                value = params.get(bind.key, current.get(bind.key, bind).effective_value)
                self._compare(value, scope, tenant)

    def stamped_insert(
        self, compiler: TenantCompiler, statement: Any, target: Target, kwargs: Any
    ) -> Any:
        """Return *statement* with the tenant column taking the active tenant."""
        self.table = target.entry.name
        state = statement._compile_state_factory(statement, compiler, **kwargs)  # noqa: SLF001
        compiled = state.statement
        if compiled.select is not None:
            names, source = self._stamped_select(compiler, compiled, target)
            state.statement = copy_with(compiled, select=source, _select_names=names)
            state._dict_parameters = dict.fromkeys(names, null())  # noqa: SLF001
        elif state._has_multi_parameters:  # noqa: SLF001
            state._multi_parameters = [  # noqa: SLF001
                self._stamped_row(compiler, row, target)
                for row in state._multi_parameters  # noqa: SLF001
            ]
            state._dict_parameters = state._multi_parameters[0]  # noqa: SLF001
        else:
            state._dict_parameters = self._stamped_row(  # noqa: SLF001
                compiler,
                state._dict_parameters or {},  # noqa: SLF001
                target,
            )
            # Compiled without values, SQLAlchemy would take a parameter for each column, unchecked.
            state._no_parameters = False  # noqa: SLF001
        return compiled_as(statement, state)

    def note_supplied(
        self, compiler: TenantCompiler, insert: Any, column: ColumnClause[Any]
    ) -> bool:
        """Note what *insert* gives the tenant column, changing nothing; return whether it does."""
        self.table = _table_name(column)
        named = _parameter_keys(compiler, column)
        self.keys |= named
        rows = [insert._values or {}, *(row for rows in insert._multi_values for row in rows)]  # noqa: SLF001
        given = [
            value
            for row in rows
            if hasattr(row, "items")
            for key, value in row.items()
            if _names(key, column)
        ]
        for value in given:
            if isinstance(value, BindParameter) or not _is_expression(value):
                self._take_supplied(value)
        selected = {getattr(name, "key", name) for name in insert._select_names or ()}  # noqa: SLF001
        return bool(named or given or selected & {column.key, column.name})

    def keep_tenant(self, compiler: TenantCompiler, state: Any, target: Target) -> None:
        """Let SET write nothing but the active tenant, and no reference to another's row."""
        self.table = target.entry.name
        row = state._dict_parameters or {}  # noqa: SLF001
        _refuse_hidden(row, target)
        # As in `stamped_insert`.
        state._no_parameters = False  # noqa: SLF001
        changes = [
            column
            for column in target.columns
            if _parameter_keys(compiler, column)
            or any(_names(key, column) for key in row)
            or getattr(column, "onupdate", None) is not None
        ]
        if changes:
            state._dict_parameters = self._stamped_row(compiler, row, target, only=changes)  # noqa: SLF001
            ordered = getattr(state, "_ordered_values", None)
            if ordered is not None:
                state._ordered_values = list(state._dict_parameters.items())  # noqa: SLF001

    def guarded_upsert(self, on_conflict: Any, target: Target, own: ColumnElement[bool]) -> Any:
        """Return *on_conflict* that fails on another tenant's row and keeps the tenant column.

        The division is by zero exactly where the row in conflict is not *own*; the error is
        translated when it arrives.
        """
        pairs = _pairs(on_conflict.update_values_to_set)
        _refuse_hidden((key for key, _ in pairs), target)
        changes = [self._conflicting(pair, target) for pair in pairs]
        mine = literal(1) / cast(Grouping(own), Integer) == literal(1)
        where = on_conflict.update_whereclause
        return copy_with(
            on_conflict,
            update_values_to_set=changes,
            update_whereclause=mine if where is None else and_(mine, Grouping(where)),
        )

    def _conflicting(self, pair: tuple[Any, Any], target: Target) -> tuple[Any, Any]:
        """Return what DO UPDATE sets, with a reference checked and a given tenant noted."""
        key, value = pair
        column = target.column
        if column is not None and _names(key, column) and not _is_own_column(value, column):
            self._take_supplied(value)
        for reference in target.references:
            # What stands in `excluded` was checked when it was to be inserted.
            if _names(key, reference.column) and not _is_own_column(value, reference.column):
                return key, reference.checked(value)
        return pair

    def _stamped_row(
        self,
        compiler: TenantCompiler,
        row: Mapping[Any, Any],
        target: Target,
        *,
        only: list[ColumnClause[Any]] | None = None,
    ) -> dict[Any, Any]:
        """Return *row* with the tenant and the references as they have to be.

        *only* are the columns that an UPDATE changes; without it, the row is a new one.
        """
        _refuse_hidden(row, target)
        written = set(map(id, target.columns if only is None else only))
        stamped = {key: value for key, value in row.items() if not target.holds(key)}
        if target.column is not None and id(target.column) in written:
            stamped[target.column] = self._stamped(compiler, row, target.column)
        for reference in target.references:
            if id(reference.column) in written:
                stamped.update(_checked(compiler, row, reference))
        return stamped

    def _stamped(
        self, compiler: TenantCompiler, row: Mapping[Any, Any], column: ColumnClause[Any]
    ) -> BindParameter[Any]:
        for key, value in row.items():
            if _names(key, column):
                self._take_supplied(value)
        self.keys |= _parameter_keys(compiler, column)
        return self._stamp(column)

    def _take_supplied(self, value: Any) -> None:
        if isinstance(value, BindParameter):
            self.supplied.append(value)
        elif isinstance(value, Null):
            return
        elif _is_expression(value):
            raise self._expression_error()
        else:
            self.supplied.append(BindParameter(None, value, unique=True))

    def _stamped_select(
        self, compiler: TenantCompiler, insert: Any, target: Target
    ) -> tuple[list[str], Any]:
        names = [getattr(name, "key", name) for name in insert._select_names]  # noqa: SLF001
        source = insert.select.subquery()
        given = list(zip(names, source.c, strict=True))
        selected = {name: value for name, value in given if not target.holds(name)}
        column = target.column
        if column is not None:
            for index, name in enumerate(names):
                if _names(name, column):
                    self._check_selected(compiler, insert.select, index)
            selected[column.key] = self._stamp(column)
        for reference in target.references:
            selected.update(_selected(compiler, given, reference, source))
        return list(selected), select(*selected.values())

    def _check_selected(self, compiler: TenantCompiler, source: Any, index: int) -> None:
        """Refuse a selected tenant that is neither a value nor some scoped table's own tenant."""
        selected = list(source.selected_columns)[index]
        while isinstance(selected, Label | Grouping):
            selected = selected.element
        if isinstance(selected, BindParameter):
            self.supplied.append(selected)
            return
        # Through aliases, sub-queries and CTEs, down to the columns of tables.
        bases = selected.base_columns
        if not all(_is_tenant_of_a_table(compiler.tenantguard.catalog, base) for base in bases):
            raise self._expression_error()

    def _stamp(self, column: ColumnClause[Any]) -> BindParameter[Any]:
        return self.stamp(
            BindParameter(column.key, None, type_=column.type, unique=True, required=False)
        )

    def stamp(self, parameter: BindParameter[Any]) -> BindParameter[Any]:
        """Let *parameter* take the active tenant at each execution; return it."""
        self.stamps.append(parameter)
        return parameter

    def _compare(self, value: Any, scope: Scope, tenant: TenantId) -> None:
        if value is None or value == tenant:
            return
        try:
            same = scope.canonical(value) == tenant
        except UnknownTenantError:
            same = False
        if not same:
            raise CrossTenantError(
                f"A row of {self.table!r} was given another tenant than the active one. Leave the "
                "tenant column out; it is filled from the context and never changes afterwards."
            )

    def _expression_error(self) -> CrossTenantError:
        return CrossTenantError(
            f"The tenant column of {self.table!r} was given an SQL expression. Leave it out; it is "
            "filled from the context."
        )


def _checked(
    compiler: TenantCompiler, row: Mapping[Any, Any], reference: Reference
) -> dict[Any, Any]:
    """Return what *row* gives *reference*'s column, checked; empty if it gives nothing."""
    column = reference.column
    given = [value for key, value in row.items() if _names(key, column)]
    if column.key in (compiler.column_keys or ()):
        # It overrules what the statement itself says.
        given = [BindParameter(column.key, type_=column.type, required=True)]
    if not given:
        reference.refuse_default()
        return {}
    compiler.division_says = FOREIGN
    return {column: reference.checked(given[-1])}


def _selected(
    compiler: TenantCompiler, given: list[tuple[str, Any]], reference: Reference, source: Any
) -> Iterator[tuple[str, Any]]:
    """Yield the column of *source* that goes into *reference*'s column, checked."""
    found = [(name, value) for name, value in given if _names(name, reference.column)]
    if not found:
        reference.refuse_default()
    for name, value in found:
        compiler.division_says = FOREIGN
        yield name, reference.checked(value, source)


def _refuse_hidden(keys: Iterable[Any], target: Target) -> None:
    """Refuse to set an SQL expression that may be one of *target*'s columns by another name.

    SQLAlchemy renders it as it is. An element of an array in another column may pass.
    """
    for key in keys:
        element = getattr(key, "__clause_element__", lambda key=key: key)()
        if isinstance(element, str) or target.holds(element):
            continue
        if any(_hides(part, target) for part in iterate(element)):
            raise UnscopedStatementError(
                f"A column of {target.entry.name!r} is set by an SQL expression for its name, "
                "which cannot be checked. Name it by its key, or by the table's own column."
            )


def _hides(part: Any, target: Target) -> bool:
    """Return whether *part* is text, or a column by which rows are checked."""
    if isinstance(part, ColumnClause):
        return part.is_literal or target.holds(part)
    return isinstance(part, TextClause)


def _pairs(values: Any) -> list[tuple[Any, Any]]:
    return list(values.items()) if hasattr(values, "items") else list(values)


def _names(key: Any, column: ColumnClause[Any]) -> bool:
    """Return whether *key* of a values dictionary means *column*, as SQLAlchemy matches them.

    It matches by the key alone, whatever table the key's column belongs to.
    """
    name = key if isinstance(key, str) else getattr(key, "key", None)
    return name in (column.key, column.name) or getattr(key, "name", None) == column.name


def _parameter_keys(compiler: TenantCompiler, column: ColumnClause[Any]) -> set[str]:
    """Return the names under which the execution's parameters carry *column*."""
    return {column.key, column.name} & set(compiler.column_keys or ())


def _is_expression(value: Any) -> bool:
    return hasattr(value, "__clause_element__") or hasattr(value, "_compiler_dispatch")


def _table_name(column: ColumnClause[Any]) -> str:
    return str(getattr(column.table, "name", ""))


def _is_tenant_of_a_table(catalog: Catalog, column: Any) -> bool:
    table = getattr(column, "table", None)
    if not isinstance(column, ColumnClause) or not isinstance(table, TableClause):
        return False
    own = catalog.entry(table).column
    return own is not None and own.name == column.name


def _is_own_column(value: Any, column: ColumnClause[Any]) -> bool:
    """Return whether *value* is `excluded.tenant` or the row's own tenant."""
    return isinstance(value, ColumnClause) and value.name == column.name


def _current_values(
    compiler: TenantCompiler, extracted: Sequence[BindParameter[Any]] | None
) -> dict[str, BindParameter[Any]]:
    """Map the binds that were there when the statement was cached to those of this execution."""
    if extracted is None or compiler.cache_key is None:
        return {}
    originals = compiler.cache_key[1]
    return {old.key: new for old, new in zip(originals, extracted, strict=True)}
