"""One encrypted column: what its values are, and how they are sealed, opened and searched."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from tenantguard.columns.blind_index import BlindIndex, WrongLength
from tenantguard.columns.masks import packing
from tenantguard.columns.reading import Reading
from tenantguard.columns.refusals import (
    not_searchable,
    not_unpacked,
    unfit,
    unplaced,
    without_row,
    wrong_length,
)
from tenantguard.columns.search import checked_searches
from tenantguard.crypto.format import FieldContext, header_of, is_bound
from tenantguard.crypto.padding import padding_of
from tenantguard.errors import ConfigurationError, EncryptionError

if TYPE_CHECKING:
    from collections.abc import Collection

    from tenantguard.columns.kind import Kind
    from tenantguard.columns.reading import OnError
    from tenantguard.columns.search import Searches
    from tenantguard.crypto.padding import Padding
    from tenantguard.crypto.tenant_keys import TenantKeys

__all__ = ["Field", "Unsealed"]

_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)


class Field:
    """An encrypted column of one table.

    Attributes:
        kind: The type of its values.
        search: How it is searched; None if not.
        indexes: Its blind indexes, in the order in which a stored value has them.
        label: The label that the application has given, `table.column`.
        padding: How its values are padded, as it was given; None if not.
        pad: Pads a value; None if not.
        reading: Who may read, and what becomes of values that cannot be opened.
        context: The labels that values are sealed for; None until the column is in a table.
        header: What a value begins with that is sealed as the column is declared today.
        bound: Whether its values open in their row only.
        accepts_unbound: Whether it opens values too that were sealed before they were bound.
    """

    __slots__ = (
        "_pack",
        "_unnamed",
        "accepts_unbound",
        "bound",
        "context",
        "header",
        "indexes",
        "kind",
        "label",
        "name",
        "pad",
        "padding",
        "reading",
        "search",
    )

    def __init__(
        self,
        kind: Kind,
        *,
        search: Searches | None = None,
        label: str | None = None,
        padding: Padding | None = None,
        bind: str = "column",
        accepts: str | None = None,
        reveal: Collection[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.kind = kind
        self.search = checked_searches(kind, search) or None
        self.label = label
        self.padding = padding
        self.pad = None if padding is None else padding_of(padding)
        self.reading = Reading.declared(reveal, on_error)
        self._pack = packing(self)
        self.name = label or "encrypted"
        self.context: FieldContext | None = None
        self.bound, self.accepts_unbound = bind == "row", accepts == "column"
        _check_label(label)
        declared = enumerate(self.search or ())
        self.indexes = tuple(BlindIndex(each, kind, position) for position, each in declared)
        self._unnamed = next((each for each in self.indexes if each.name is None), None)
        _check_binding(bind, accepts)
        padded = self.pad is not None
        self.header = header_of(len(self.indexes), padded=padded, bound=self.bound)

    def __repr__(self) -> str:
        return f"<Field {self.name}>"

    @property
    def attached(self) -> FieldContext:
        """The labels that values are sealed for.

        Raises:
            ConfigurationError: If the column is in no table yet.
        """
        if self.context is None:
            raise ConfigurationError(
                "An encrypted type was used without its column. Take it from a mapped column."
            )
        return self.context

    @property
    def labels(self) -> tuple[str, str]:
        """The table and the column that values are sealed for."""
        context = self.attached
        return context.table, context.column

    @property
    def bind_name(self) -> str:
        """What a parameter is called that the column is compared with."""
        return self.name.rpartition(".")[2]

    def copy(self, kind: Kind | None = None, reveal: Collection[str] | None = None) -> Field:
        """Return the same field for another table, of another *kind* or for fewer readers."""
        bind = "row" if self.bound else "column"
        accepts = "column" if self.accepts_unbound else None
        return Field(
            kind or self.kind,
            search=self.search,
            label=self.label,
            padding=self.padding,
            bind=bind,
            accepts=accepts,
            reveal=self.reading.purposes if reveal is None else reveal,
            on_error=self.reading.on_error,
        )

    def attach(self, table: str, column: str) -> None:
        """Take the labels, unless they are given, from the names in the models."""
        self.name = f"{table}.{column}"
        if self.label is not None:
            table, _, column = self.label.rpartition(".")
        self.context = FieldContext(table, column)
        for each in self.indexes:
            each.attach(self.context)

    def same_as(self, other: Field) -> bool:
        """Return whether a value that was sealed for *other* opens here, to the same readers."""
        mine, theirs = self.context, other.context
        if mine is None or theirs is None:
            return self is other
        if self.bound is not other.bound or self.reading.purposes != other.reading.purposes:
            return False
        return (mine.table, mine.column, self.kind) == (theirs.table, theirs.column, other.kind)

    def seal(self, keys: TenantKeys, value: Any, row: bytes | None = None) -> bytes:
        """Return *value* as it is stored.

        Args:
            keys: The tenant's keys.
            value: The value.
            row: The bytes of its row's primary key, if the column is bound to its row.

        Raises:
            EncryptedQueryError: If the column is bound to its row and there is none.
            EncryptedValueError: If it is not of the column's type.
            KeyUnavailableError: If the tenant has no key that may seal.
        """
        if self.bound is (row is None):
            raise unplaced(self)
        return self.send(value, keys, row=row)

    def send(
        self, value: Any, keys: TenantKeys, _given: object = None, *, row: bytes | None = None
    ) -> bytes:
        """Return what an `Unsealed` value is sent as; arguments and errors as for `seal`."""
        indexes = self.indexed(keys, value) if self.indexes else b""
        try:
            packed = self._pack(value)
        except _UNFIT:
            pass
        else:
            if self.pad is not None:
                packed = self.pad(packed)
            return keys.seal(self.context or self.attached, self.header, packed, indexes, row)
        raise unfit(self, value)

    def indexed(self, keys: TenantKeys, value: Any) -> bytes:
        """Return the blind indexes that *value* is stored with now, one after the other.

        Raises:
            EncryptedValueError: If it is not of the column's type.
        """
        try:
            if len(self.indexes) == 1:
                # As below, without the list: the most frequent case.
                only = self.indexes[0]
                return keys.index(only.prefix, only.of(value))
            return b"".join([keys.index(each.prefix, each.of(value)) for each in self.indexes])
        except _UNFIT:
            pass
        raise unfit(self, value)

    def search_named(self, name: str | None) -> BlindIndex:
        """Return the blind index that is called so; for None, the one that `==` uses.

        Raises:
            EncryptedQueryError: If the column has none.
        """
        for each in self.indexes:
            if each.name == name:
                return each
        raise not_searchable(self, name)

    def index(self, keys: TenantKeys, value: Any) -> bytes:
        """Return the blind index that `==` uses, as *value* is stored; errors as for `sought`."""
        return self.sought(self._unnamed or self.search_named(None), keys, value)[0]

    def sought(self, index: BlindIndex, keys: TenantKeys, value: Any) -> list[bytes]:
        """Return what *index* finds *value* by: one for each key that it can be stored under.

        Raises:
            EncryptedValueError: If it is not of the column's type.
            EncryptedQueryError: If it has not as many characters as the index is of.
        """
        try:
            equal = index.sought(value)
        except WrongLength:
            error: EncryptionError = wrong_length(self, index)
        except _UNFIT:
            error = unfit(self, value)
        else:
            return keys.candidates(index.prefix, equal)
        raise error

    def open(self, keys: TenantKeys, stored: bytes, row: bytes | None = None) -> Any:
        """Return the value that *stored* holds.

        Args:
            keys: The tenant's keys.
            stored: What the database has.
            row: The bytes of the primary key of the row that has it, if the column is bound.

        Raises:
            EncryptedQueryError: If the column is bound to its row and there is none.
            DecryptionError: If it cannot be opened.
            KeyUnavailableError: If the tenant has no key.
        """
        if self.bound is (row is None):
            raise unplaced(self)
        if self.accepts_unbound and not is_bound(stored):
            row = None
        packed = keys.open(self.attached, stored, row)
        try:
            return self.kind.unpack(packed)
        except ValueError as error:
            refused = not_unpacked(self, error)
        # Outside of the block: the cause would show the value.
        raise refused

    def refuse_unplaced(self, value: Any) -> None:
        """Refuse a value to be written whose row a statement does not tell; None is NULL."""
        if value is not None:
            raise without_row(self)


class Unsealed(partial[Any]):
    """A value on its way to the database; what is not sealed in time is refused by the driver.

    Called with the keys, and with what else the statement is given by the names of its parameters,
    it returns what is sent instead. The last of its arguments is the value.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "<Unsealed>"


def _check_label(label: str | None) -> None:
    if label is not None and not all(label.rpartition(".")[::2]):
        raise ConfigurationError(
            "label= names a table and a column, such as label='patients.name': those that the "
            "values were first sealed for."
        )


def _check_binding(bind: str, accepts: str | None) -> None:
    if bind not in ("column", "row"):
        raise ConfigurationError(
            "bind= is 'column', or 'row' for values that open in their row only."
        )
    if accepts not in (None, "column") or (accepts and bind != "row"):
        raise ConfigurationError(
            "accepts='column' is for a column with bind='row' that has values from before; leave "
            "accepts= out."
        )
