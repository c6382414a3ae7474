"""The SQLAlchemy types of encrypted columns, and what can be asked of them in a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BindParameter,
    Boolean,
    ColumnElement,
    LargeBinary,
    column,
    func,
    null,
)
from sqlalchemy.sql import coercions, operators, roles
from sqlalchemy.sql.base import SchemaEventTarget
from sqlalchemy.sql.elements import BinaryExpression, ClauseElement, Null
from sqlalchemy.sql.lambdas import PyWrapper
from sqlalchemy.types import UserDefinedType

from tenantguard.columns.masks import showing
from tenantguard.columns.refusals import no_keys, not_unpacked, unanswerable
from tenantguard.columns.sending import SEALS, Sealed, SearchValue, noting, refuse_no_list
from tenantguard.columns.storage import attach_storage, searched_column
from tenantguard.context import active_tenant
from tenantguard.crypto.format import INDEX_SIZE
from tenantguard.errors import ConfigurationError, MaskedError
from tenantguard.keytable import ENCRYPTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Column, Dialect, Table
    from sqlalchemy.sql.operators import OperatorType

    from tenantguard.columns.blind_index import BlindIndex
    from tenantguard.columns.field import Field, Unsealed

__all__ = ["SEALS", "WHOLE", "Encrypted", "SearchValue"]

WHOLE = "tenantguard_whole"
"""Annotates a column that stands where its ciphertext may: in IS NULL, or to take its index."""

_EMPTY: dict[Any, tuple[Any, Any]] = {
    operators.eq: (operators.is_, operators.is_not),
    operators.is_: (operators.is_, operators.is_not),
    operators.ne: (operators.is_not, operators.is_),
    operators.is_not: (operators.is_not, operators.is_),
}
_EQUALS: tuple[Any, ...] = (operators.eq, operators.ne)
_LISTS: tuple[Any, ...] = (operators.in_op, operators.not_in_op)
_EQUAL: tuple[Any, ...] = (operators.eq, operators.in_op)
_BOOLEAN = Boolean()
_BYTES = (bytes, bytearray, memoryview)
_SEARCHES = (*_EQUALS, *_LISTS)


class _Comparator(UserDefinedType.Comparator[Any]):
    """Turns `==` and IN into a search of the blind index, and refuses everything else."""

    __slots__ = ()

    type: Encrypted

    def operate(self, op: OperatorType, *other: Any, **_kwargs: Any) -> ColumnElement[Any]:
        if op in _EMPTY and (other[0] is None or isinstance(other[0], Null)):
            operator, negated = _EMPTY[op]
            return BinaryExpression(self._whole(), null(), operator, negate=negated)
        if op in _EQUALS and _is_sql(other[0]):
            # SQLAlchemy compares columns too, as keys of dictionaries; the compiler refuses it.
            role = roles.BinaryElementRole
            right = coercions.expect(role, other[0], expr=self.expr, operator=op)
            return BinaryExpression(self.expr, right, op)
        if op in _SEARCHES:
            return self.find(op, other[0], None)
        raise unanswerable(self.type.field)

    def find(self, op: OperatorType, other: Any, search: str | None) -> ColumnElement[Any]:
        """Return the condition that the blind index called *search* is one that *other* has."""
        type_ = self.type.search_value(search, listed=op in _LISTS, equal=op in _EQUAL)
        equal = operators.eq if op in _EQUAL else operators.ne
        # Negated it becomes NOT (…): the other operator alone would not be its opposite.
        return BinaryExpression(
            self._index(type_.index), self._value(other, type_), equal, type_=_BOOLEAN
        )

    def reverse_operate(
        self,
        op: OperatorType,  # noqa: ARG002
        other: Any,  # noqa: ARG002
        **_kwargs: Any,
    ) -> ColumnElement[Any]:
        raise unanswerable(self.type.field)

    def _whole(self) -> Any:
        return self.expr._annotate({WHOLE: True})  # noqa: SLF001

    def _index(self, index: BlindIndex) -> Any:
        """Return the generated column; in a sub-query, which lacks it, the index itself."""
        column: Any = self.expr
        source, name = getattr(column, "table", None), getattr(column, "name", "")
        found = searched_column(source, name, index.name)
        if found is not None:
            return found
        return func.substring(self._whole(), index.offset + 1, INDEX_SIZE, type_=LargeBinary())

    def _value(self, other: Any, type_: SearchValue) -> BindParameter[Any]:
        if isinstance(other, PyWrapper):
            # A lambda's closure: another value takes its place at the next execution.
            other = other._sa__py_wrapper_literal(expr=column("", type_))  # noqa: SLF001
        if isinstance(other, BindParameter):
            return _retyped(other, type_)
        if _is_sql(other):
            raise unanswerable(self.type.field)
        value = other
        if type_.listed:
            refuse_no_list(self.type.field, other)
            value = list(other)
        return BindParameter(self.type.field.bind_name, value, type_=type_, unique=True)


def _is_sql(other: Any) -> bool:
    expression = isinstance(other, ClauseElement) or hasattr(other, "__clause_element__")
    return expression and not isinstance(other, BindParameter)


def _retyped(bind: BindParameter[Any], type_: SearchValue) -> BindParameter[Any]:
    clone = bind._clone(maintain_key=True)  # noqa: SLF001
    clone.type = type_
    # A list is sent as one array, so that its length is no other statement.
    clone.expanding = False
    return clone


class Encrypted(Sealed, SchemaEventTarget):
    """A column's values, sealed with the tenant's key on their way to the database."""

    cache_ok = True
    comparator_factory = _Comparator

    def __init__(self, field: Field, *, stored: bool = False) -> None:
        super().__init__(field)
        self._stored = stored
        # One for all searches: SQLAlchemy computes an instance's part of a cache key once.
        self._search_values = {
            (each.name, listed, equal): SearchValue(field, each, listed, equal)
            for each in field.indexes
            for listed in (False, True)
            for equal in (False, True)
        }
        self.hashable = field.kind.python_type not in (object, dict, list)

    @property
    def python_type(self) -> type[Any]:
        """The type of the column's values."""
        return self.field.kind.python_type

    def search_value(
        self, search: str | None = None, *, listed: bool = False, equal: bool = True
    ) -> SearchValue:
        """Return the type of a value, or a list, that this column is compared with by *search*.

        Raises:
            EncryptedQueryError: If the column has no search of that name.
        """
        return self._search_values[self.field.search_named(search).name, listed, equal]

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Unsealed | None]:
        """Note the value, so that it is sealed when the keys are there.

        A value that is bound to its row is refused here: the compiler knows its row, and has
        another processor for it.
        """
        if self.field.bound and hasattr(dialect, SEALS):
            return self.field.refuse_unplaced
        return noting(self.field.send, self.field, dialect)

    def compare_values(self, x: Any, y: Any) -> bool:
        """Return whether an attribute is unchanged; another mask than the one loaded is a change.

        The unit of work then tries to write it, and is refused.
        """
        try:
            return bool(x == y)
        except MaskedError:
            return False

    @property
    def _has_column_expression(self) -> bool:
        # SQLAlchemy's name for whether there is a `column_expression`.
        return self.field.bound

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        """Return what is listed for a column that is bound to its row: its row's key too."""
        from tenantguard.columns.row_binding import listed  # noqa: PLC0415  (has a type of ours)

        return listed(colexpr, self.field)

    def split(self, sent: bytes) -> tuple[bytes, bytes | None]:
        """Return what was *sent* for a bound value: the value, and the bytes of its row's key."""
        return sent, None

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], Any]:  # noqa: ARG002
        """Open what is fetched with the keys of the active tenant, if it may be read."""
        field, split = self.field, self.split
        bound, context, unpack = field.bound, field.attached, field.kind.unpack

        def process(stored: Any) -> Any:
            if stored is None:
                return None
            active = active_tenant()
            keys = None if active is None else active.keys
            if keys is None:
                raise no_keys(field, tenant=active is not None)
            if type(stored) is not bytes:
                # Text or a number, of an expression that claims this type, is no sealed value.
                stored = bytes(stored) if isinstance(stored, _BYTES) else b""
            if bound:
                return field.open(keys, *split(stored))
            # As field.open() does it, without the call: this runs for each value of each row.
            packed = keys.open(context, stored)
            try:
                return unpack(packed)
            except ValueError as error:
                refused = not_unpacked(field, error)
            raise refused

        return showing(field, process, dialect)

    def copy(self, **_kwargs: Any) -> Encrypted:
        """Return the type for another table's column."""
        # Whoever copies a table's column copies what is beside it too: to_metadata(), Alembic.
        return type(self)(self.field.copy(), stored=self.field.context is not None)

    def _set_parent(self, parent: Any, **_kwargs: Any) -> None:
        parent._on_table_attach(self._attach)  # noqa: SLF001

    def _attach(self, column: Column[Any], table: Table) -> None:
        if column.primary_key or column.unique or column.index or column.foreign_keys:
            raise ConfigurationError(
                f"Column {table.fullname}.{column.name} is encrypted, and each value differently: "
                "it cannot be a key, unique or indexed. To find rows, declare search=Exact()."
            )
        if self.field.context is not None:
            # The type of another table's column: that one keeps its labels.
            column.type = self.copy()
            column.type._attach(column, table)  # noqa: SLF001
            return
        self.field.attach(table.fullname, column.name)
        column.info[ENCRYPTED] = self.field.labels
        if not self._stored:
            attach_storage(column, table, self.field.indexes)
