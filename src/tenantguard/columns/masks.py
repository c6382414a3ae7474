"""What stands where a value may not be read, or cannot be: it has no value to give away.

What Python would answer by itself, whether a mask is true, equal to something, or to be pickled, is
refused: neither yes nor no is right. Order, length and parts it has none, so Python refuses those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

from tenantguard.columns.reading import may_read
from tenantguard.context import active_tenant
from tenantguard.errors import DecryptionError, MaskedError, TenantShreddedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Dialect

    from tenantguard.columns.field import Field

__all__ = [
    "UNREADABLE",
    "Masked",
    "Unreadable",
    "is_masked",
    "packing",
    "searching",
    "showing",
    "unmasked",
]

UNREADABLE = "_tenantguard_unreadable"
"""The attribute of a dialect that is called with a column and an error's name."""

_GONE = (DecryptionError, TenantShreddedError)


class Masked:
    """Stands for a value that may not be read here; the value was not opened.

    `str()`, `repr()` and `format()` give `•••`. Copies are the mask itself.

    Attributes:
        column: The table and column of the value.
    """

    __slots__ = ("column",)

    _text = "•••"
    _state = "masked here"
    _mend = (
        "Ask is_masked(value) first; to read it, enter the tenant with a purpose that its column "
        "names, or `with guard.reveal(…, reason=…):`, and load it there."
    )

    def __init__(self, column: str) -> None:
        self.column = column

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def __format__(self, _spec: str) -> str:
        return self._text

    def __bool__(self) -> NoReturn:
        raise self._refusal("was asked for, whether it is true or empty")

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        raise self._refusal("was compared")

    # By identity: it tells nothing of the value.
    __hash__ = object.__hash__

    def __copy__(self) -> Masked:
        return self

    def __deepcopy__(self, _memo: object) -> Masked:
        return self

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise self._refusal("was about to be pickled")

    @property
    def _parents(self) -> dict[object, object]:
        # Where SQLAlchemy's mutable types note whose value it is: a mask does not change.
        return {}

    def _refusal(self, what: str) -> MaskedError:
        return MaskedError(
            f"A value of column {self.column} is {self._state}, and {what}. {self._mend}"
        )


class Unreadable(Masked):
    """Stands for a value that could not be opened, in a column with `on_error="placeholder"`.

    `str()`, `repr()` and `format()` give `(unreadable)`.

    Attributes:
        column: The table and column of the value.
        reason: The name of the error, such as `TamperedError`.
    """

    __slots__ = ("reason",)

    _text = "(unreadable)"
    _state = "unreadable"
    _mend = "Ask is_masked(value) first; docs/masks.md says how to find and mend such rows."

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column)
        self.reason = reason


_TEXTS = frozenset({str(Masked("")), str(Unreadable("", ""))})


def is_masked(value: object) -> TypeGuard[Masked]:
    """Return whether *value* stands for one that may not, or cannot, be read."""
    return isinstance(value, Masked)


def showing(
    field: Field, open_value: Callable[[Any], Any], dialect: Dialect
) -> Callable[[Any], Any]:
    """Return *open_value* so that it gives placeholders and masks where *field* says so."""
    reading = field.reading
    if reading.on_error == "placeholder":
        open_value = _forgiving(field, open_value, dialect)
    if reading.purposes is None:
        return open_value
    purposes = reading.purposes

    def show(stored: Any) -> Any:
        if stored is None:
            return None
        active = active_tenant()
        # Without a tenant nothing is opened either; that error says more than a mask. Purposes are
        # looked at here, too, because it is done for each value.
        if active is None or active.purpose in purposes or may_read(field, purposes):
            return open_value(stored)
        return Masked(field.name)

    return show


def _forgiving(
    field: Field, open_value: Callable[[Any], Any], dialect: Dialect
) -> Callable[[Any], Any]:
    def open_or_replace(stored: Any) -> Any:
        try:
            return open_value(stored)
        except _GONE as error:
            reason = type(error).__name__
        getattr(dialect, UNREADABLE, _unnoticed)(field.name, reason)
        return Unreadable(field.name, reason)

    return open_or_replace


def _unnoticed(*_: object) -> None:
    """Stand for the guard of an engine that has none."""


def searching(field: Field, note: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return *note*, which takes a value to search for, so that only who may read can search.

    Whether a row is found would tell its value.
    """
    purposes = field.reading.purposes
    if purposes is None:
        return note

    def search(value: Any) -> Any:
        if not may_read(field, purposes) and active_tenant() is not None:
            raise MaskedError(
                f"Column {field.name} was searched by who may not read it: what is found tells the "
                "value. Enter the tenant with a purpose that the column names, or "
                "`with guard.reveal(…, reason=…):`."
            )
        return note(value)

    return search


def packing(field: Field) -> Callable[[Any], bytes]:
    """Return what packs *field*'s values; the text of a mask, which a form sends back, is none."""
    pack = field.kind.pack
    if field.reading.purposes is None and field.reading.on_error == "raise":
        return pack

    def pack_or_refuse(value: Any) -> bytes:
        if isinstance(value, str) and value.strip() in _TEXTS:
            raise unmasked(field.name)
        return pack(value)

    return pack_or_refuse


def unmasked(column: str) -> MaskedError:
    """Return the error for a mask that is about to be written into *column*."""
    return MaskedError(
        f"A mask was about to be written into column {column}: it stands for a value that was not "
        "opened. Leave the attribute as it was loaded, or set a value."
    )
