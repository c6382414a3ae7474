"""What a statement can ask of a column of plaintext and the encrypted one that takes its place.

A row's value is the sealed one, and the plaintext where nothing is sealed yet. What is asked is
asked of both, so that the answer is the same before and after a row was sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

from sqlalchemy import BindParameter, and_, or_
from sqlalchemy.orm import Bundle, PropComparator
from sqlalchemy.sql import operators, roles
from sqlalchemy.sql.elements import ClauseElement, ClauseList, Null
from sqlalchemy.sql.lambdas import PyWrapper

from tenantguard.errors import EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import ColumnElement

    from tenantguard.columns.pair_attribute import Both

__all__ = [
    "PairComparator",
    "named_alone",
    "refuse_pairs",
    "selected_pair",
    "two_columns",
]

_EQUALS = (operators.eq, operators.ne)
_LISTS = (operators.in_op, operators.not_in_op)
_NULL = (operators.is_, operators.eq)
_NOT_NULL = (operators.is_not, operators.ne)


class _Listed(roles.BinaryElementRole[Any], roles.WhereHavingRole, ClauseList):
    """Two columns that stand in a list of columns, and for no expression."""

    inherit_cache = True

    @property
    def key(self) -> NoReturn:
        pair: Both = self._annotations["bundle"].pair
        raise EncryptedQueryError(
            f"{pair} is two columns, and was given where one is named. Name both columns of the "
            "table there, in from_select() and set_=, each with its value."
        )

    @property
    def type(self) -> NoReturn:
        raise self._unanswerable()

    @property
    def _proxy_key(self) -> NoReturn:
        raise self._unanswerable()

    def __invert__(self) -> NoReturn:
        raise self._unanswerable()

    def label(self, *_: Any) -> NoReturn:
        raise self._unanswerable()

    def between(self, *_: Any, **__: Any) -> NoReturn:
        raise self._unanswerable()

    def _unanswerable(self) -> EncryptedQueryError:
        return unanswerable(self._annotations["bundle"].pair)


class _Selected(Bundle[Any]):
    """Both columns in a list of selected ones; in a row, the value that they make."""

    pair: Both

    def __clause_element__(self) -> Any:
        found = super().__clause_element__()  # type: ignore[no-untyped-call]
        role = roles.ColumnsClauseRole
        listed = _Listed(*found.clauses, _literal_as_text_role=role, group=False)
        annotated: Any = listed._annotate(found._annotations)  # noqa: SLF001
        return annotated._set_propagate_attrs(found._propagate_attrs)  # noqa: SLF001

    def create_row_processor(
        self,
        query: Any,  # noqa: ARG002
        procs: Sequence[Callable[[Any], Any]],
        labels: Sequence[str],  # noqa: ARG002
    ) -> Callable[[Any], Any]:
        """Return what makes the value of a row."""
        sealed, plain = procs
        value = self.pair.value
        return lambda row: value(sealed(row), plain(row))


class PairComparator(PropComparator[Any]):
    """Turns a comparison into one of both columns, and refuses what they cannot answer."""

    prop: Both

    @property
    def _columns(self) -> tuple[Any, Any]:
        entity: Any = (self._adapt_to_entity or self._parententity).entity
        sealed, plain = self.prop.keys
        return getattr(entity, sealed), getattr(entity, plain)

    def __clause_element__(self) -> Any:
        selected = _Selected(self.prop.key, *self._columns)
        selected.pair = self.prop
        return selected

    def operate(self, op: Any, *other: Any, **kwargs: Any) -> ColumnElement[Any]:
        """Return the condition on both columns.

        Raises:
            EncryptedQueryError: If ciphertext could not answer, or the other side is no value.
        """
        sealed, plain = self._columns
        value = _read_twice(other[0]) if other else None
        if value is None or isinstance(value, Null):
            if op in _NULL and other:
                return and_(sealed.is_(None), plain.is_(None))
            if op in _NOT_NULL and other:
                return or_(sealed.is_not(None), plain.is_not(None))
        elif (op in _EQUALS or op in _LISTS) and not kwargs:
            self._check(value)
            # Either side is true or false where the other's row is, never NULL: NOT is right too.
            return or_(
                and_(sealed.is_not(None), op(sealed, value)),
                and_(sealed.is_(None), self._compared(op, plain, value)),
            )
        raise unanswerable(self.prop)

    def reverse_operate(self, op: Any, other: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002
        """Refuse an operator that has a value on its left."""
        raise unanswerable(self.prop)

    def _compared(self, op: Any, plain: Any, value: Any) -> Any:
        alike = self.prop.alike
        if alike is None:
            return op(plain, value)
        type_ = plain.type
        if op in _LISTS:
            values = [alike(BindParameter(None, each, type_, unique=True)) for each in value]
            return op(alike(plain), values)
        return op(alike(plain), alike(BindParameter(None, value, type_, unique=True)))

    def _check(self, value: Any) -> None:
        given = isinstance(value, ClauseElement | PyWrapper) or hasattr(value, "__clause_element__")
        if given:
            raise EncryptedQueryError(
                f"{self.prop} is compared with values of Python only: two columns are asked, and "
                "one parameter (bindparam, a lambda's variable) cannot serve both. Give the value "
                "itself, or compare the two columns with a parameter each."
            )

    # -- writes -------------------------------------------------------------------------------

    def _bulk_update_tuples(self, value: Any) -> Sequence[tuple[Any, Any]]:
        """Return what `values()` and updates by criteria write, in SQLAlchemy's form."""
        if isinstance(value, ClauseElement | PyWrapper) or hasattr(value, "__clause_element__"):
            raise EncryptedQueryError(
                f"{self.prop} was given an SQL expression or a parameter, and writes two columns, "
                "one of them encrypted. Give it a value of Python, or write the two columns with "
                "a parameter each."
            )
        return list(zip(self._columns, self.prop.written(value), strict=True))

    def _bulk_dml_setter(self, _key: str) -> Callable[[dict[str, Any]], None]:
        """Return what SQLAlchemy 2.1 calls for each row that is written in bulk."""
        spread: Callable[[dict[str, Any]], None] = self.prop.spread
        return spread


def _read_twice(value: Any) -> Any:
    """Return *value*, or what it gives if it can be read once only: both columns are asked."""
    return list(value) if isinstance(value, Iterator) else value


def selected_pair(select: Any) -> Both | None:
    """Return what *select* lists that is two columns, if anything."""
    for each in getattr(select, "_raw_columns", ()):
        bundle = each._annotations.get("bundle")  # noqa: SLF001
        if isinstance(bundle, _Selected):
            pair: Both = bundle.pair
            return pair
    return None


def refuse_pairs(selects: Iterable[Any]) -> None:
    """Refuse what is two columns in *selects*, whose columns are not those of rows."""
    for pair in filter(None, map(selected_pair, selects)):
        raise two_columns(pair)


def two_columns(pair: Both) -> EncryptedQueryError:
    """Return the error for *pair* where no session makes one value of its two columns."""
    sealed, plain = pair.keys
    return EncryptedQueryError(
        f"{pair} is two columns, of which a session makes one value when it is selected: not in "
        f"UNION, in a sub-query that is one value, or on a Connection. List {sealed} and {plain} "
        "there, and take the second where the first is None."
    )


def named_alone(pair: Both) -> EncryptedQueryError:
    """Return the error for *pair* where SQLAlchemy looks for one column to load."""
    sealed, plain = pair.keys
    return EncryptedQueryError(
        f"{pair} is two columns, and stands where attributes to load are named: in refresh(), "
        "with_expression() or, in SQLAlchemy 2.0, in load_only(), defer() or undefer(). Name "
        f"{sealed} and {plain} there."
    )


def unanswerable(pair: Both) -> EncryptedQueryError:
    """Return the error for what the database cannot do with the two columns of *pair*."""
    return EncryptedQueryError(
        f"{pair} is an encrypted column and the plaintext that it takes the place of: the database "
        "cannot order, match or compute with both. Use ==, !=, in_(), not_in() or is_(None), or "
        "load the rows and do it in Python; count rows where is_not(None)."
    )
