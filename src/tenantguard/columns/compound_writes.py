"""Which parameters of a statement hold the parts of a compound, so that it is made of them.

Every INSERT of a table with a compound, and every UPDATE of its parts, gets a parameter for it when
it is compiled. What that is sent as is computed at each execution, of the values that are sent
together with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Column, Table
from sqlalchemy.sql.elements import BindParameter, ColumnClause, Null

from tenantguard.columns.compound import (
    FOLLOWS,
    EncryptedCompound,
    compounds_of,
    parts_of,
)
from tenantguard.columns.compound_parts import kind_of_plain
from tenantguard.columns.expressions import is_encrypted, means
from tenantguard.columns.field import Unsealed
from tenantguard.columns.row_writes import parameter_of, set_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy.sql.compiler import SQLCompiler

    from tenantguard.columns.row_writes import RowBinds
    from tenantguard.crypto.tenant_keys import TenantKeys

    Followed = Iterator[tuple[str, Column[Any], tuple[str | None, ...]]]

__all__ = [
    "Parts",
    "follow_excluded",
    "follow_inserted",
    "follow_updated",
    "inserted_parts",
    "refuse_aliased",
    "refuse_selected",
    "updated_parts",
]


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """The parameters that hold what a compound is made of.

    Attributes:
        type: The compound's type.
        names: The parameters' names; None for a part that is NULL.
        row: The parameters that hold its row's primary key, if it is bound to its row.
    """

    type: EncryptedCompound
    names: tuple[str | None, ...]
    row: RowBinds | None

    def noting(self) -> Callable[[Any], Unsealed]:
        """Return the bind processor of the compound."""
        return lambda value: Unsealed(self._send, value)

    # Returns bytes; None, which no other sealed value is, where a part is NULL.
    def _send(self, _value: object, keys: TenantKeys, given: Mapping[str, Any]) -> Any:
        parts = tuple(None if name is None else given[name] for name in self.names)
        if any(part is None for part in parts):
            return None
        row = None if self.row is None else self.row.of(given)
        return self.type.field.seal(keys, parts, row)


def follow_inserted(compiler: SQLCompiler, table: Table, state: Any) -> None:
    """Give each row that an INSERT's *state* has a parameter for each compound of *table*."""
    compounds = compounds_of(table)
    if not compounds or (compiler.column_keys is None and state._no_parameters):  # noqa: SLF001
        return
    if state._multi_parameters:  # noqa: SLF001
        rows = [_with(row, compounds) for row in state._multi_parameters]  # noqa: SLF001
        state._multi_parameters, state._dict_parameters = rows, rows[0]  # noqa: SLF001
    else:
        _set(state, compounds)


def follow_updated(compiler: SQLCompiler, table: Table, state: Any) -> None:
    """Give an UPDATE's *state* a parameter for each compound of *table* whose parts it sets.

    Raises:
        EncryptedQueryError: If it sets some of the parts only, or the compound without them.
    """
    compounds = compounds_of(table)
    if not compounds:
        return
    changed = set_columns(compiler, table, state._dict_parameters)  # noqa: SLF001
    followed = [each for each in compounds if _follows(each, changed)]
    if followed:
        _set(state, followed)
        if getattr(state, "_ordered_values", None) is not None:
            state._ordered_values = list(state._dict_parameters.items())  # noqa: SLF001


def follow_excluded(table: Table, pairs: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Return *pairs*, what ON CONFLICT sets, with the compounds whose parts it sets.

    Raises:
        EncryptedQueryError: If it does not set all parts, or other than to what was proposed.
    """
    for compound in compounds_of(table):
        given = [[value for key, value in pairs if means(key, part)] for part in parts_of(compound)]
        kept = [pair for pair in pairs if not means(pair[0], compound)]
        if not any(given) and kept == pairs:
            continue
        if not all(map(_are_excluded, parts_of(compound), given)):
            raise _unfollowed(compound)
        proposed = given[0][0].table.columns
        pairs = [*kept, (compound.key, proposed[compound.key])]
    return pairs


def inserted_parts(compiler: SQLCompiler, table: Table, state: Any, *, in_cte: bool) -> Followed:
    """Yield each parameter of a compound in an INSERT, and those of its row's parts.

    Raises:
        EncryptedQueryError: If a part is given otherwise than as a value.
    """
    several = state._multi_parameters  # noqa: SLF001
    for number, row in enumerate(several or [state._dict_parameters or {}]):  # noqa: SLF001
        suffixes = (f"_m{number}", "")[: 1 + (number == 0)] if several else ("",)
        for compound in compounds_of(table):
            name = parameter_of(compiler, row, compound, ())
            if name is not None:
                yield name, compound, _names(compiler, row, compound, () if in_cte else suffixes)


def updated_parts(compiler: SQLCompiler, table: Table, state: Any, *, in_cte: bool) -> Followed:
    """Yield each parameter of a compound in an UPDATE, and those of its parts; errors likewise."""
    row = state._dict_parameters or {}  # noqa: SLF001
    for compound in compounds_of(table):
        name = parameter_of(compiler, row, compound, ())
        if name is not None:
            yield name, compound, _names(compiler, row, compound, () if in_cte else ("",))


def refuse_selected(table: Any) -> None:
    """Refuse INSERT … SELECT into *table* if it has a compound: the values are not known."""
    for compound in compounds_of(table):
        raise _unfollowed(compound)


def refuse_aliased(alias: Any) -> None:
    """Refuse to update *alias*, of a table that has a compound."""
    table = getattr(alias, "element", None)
    if isinstance(table, Table):
        refuse_selected(table)


def _set(state: Any, compounds: Iterable[Column[Any]]) -> None:
    state._dict_parameters = _with(state._dict_parameters or {}, compounds)  # noqa: SLF001
    state._no_parameters = False  # noqa: SLF001


def _with(row: Any, compounds: Iterable[Column[Any]]) -> dict[Any, Any]:
    """Return *row* with a parameter for each of *compounds*, in place of what it has for them."""
    following = {each.key: each for each in compounds}
    kept = {
        key: value
        for key, value in row.items()
        if not any(means(key, each) for each in following.values())
    }
    return kept | {key: _parameter(each) for key, each in following.items()}


def _parameter(compound: Column[Any]) -> BindParameter[Any]:
    return BindParameter(compound.key, FOLLOWS, type_=compound.type, unique=True)


def _follows(compound: Column[Any], changed: list[Column[Any]]) -> bool:
    """Return whether *compound* follows what is *changed*; refuse what would leave it behind."""
    set_parts = [part in changed for part in parts_of(compound)]
    if not any(set_parts) and compound not in changed:
        return False
    if not all(set_parts):
        raise _unfollowed(compound)
    return True


def _names(
    compiler: SQLCompiler, row: Any, compound: Column[Any], suffixes: tuple[str, ...]
) -> tuple[str | None, ...]:
    return tuple(_name(compiler, row, compound, part, suffixes) for part in parts_of(compound))


def _name(
    compiler: SQLCompiler,
    row: Any,
    compound: Column[Any],
    part: Column[Any],
    suffixes: tuple[str, ...],
) -> str | None:
    """Return the name of the parameter that gives *part* its value; None if that is NULL."""
    given = _given(row.items(), part)
    absent = given is None and part.key not in (compiler.column_keys or ())
    if isinstance(given, Null) or (absent and part.default is None):
        return None
    name = parameter_of(compiler, row, part, suffixes)
    if name is None or not _is_sent_as_given(compiler.binds[name].type, part):
        raise _unfollowed(compound)
    return name


def _is_sent_as_given(type_: Any, part: Column[Any]) -> bool:
    """Return whether a parameter of *type_* brings *part* the value that it is given."""
    if type_ is part.type or is_encrypted(part):
        return True
    return kind_of_plain(type_) is kind_of_plain(part.type)


def _given(pairs: Iterable[tuple[Any, Any]], column: Column[Any]) -> Any:
    return next((value for key, value in pairs if means(key, column)), None)


def _are_excluded(part: Column[Any], values: list[Any]) -> bool:
    """Return whether *values* are that of *part* in the row that was proposed for insertion."""
    return bool(values) and all(
        isinstance(value, ColumnClause)
        and getattr(value.table, "name", None) == "excluded"
        and value.shares_lineage(part)
        for value in values
    )


def _unfollowed(compound: Column[Any]) -> Exception:
    return cast("EncryptedCompound", compound.type).unfollowed()
