"""One encrypted column: what its values are, and how they are sealed, opened and searched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.columns.kind import UnknownMember
from tenantguard.columns.masks import is_masked, packing, unmasked
from tenantguard.columns.normalize import EXACT, normalizer
from tenantguard.columns.reading import Reading
from tenantguard.crypto.format import FieldContext
from tenantguard.errors import (
    ConfigurationError,
    DecryptionError,
    EncryptedQueryError,
    EncryptedValueError,
    MaskedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tenantguard.columns.kinds import Kind
    from tenantguard.columns.reading import OnError
    from tenantguard.crypto.tenant_keys import TenantKeys

__all__ = ["Exact", "Field", "Unsealed"]

_UNFIT = (TypeError, ValueError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class Exact:
    """Search by equality and IN, through a blind index beside the ciphertext.

    Equal values have equal indexes: whoever reads the database sees how often each value occurs,
    and which rows share one, but not the value.

    Args:
        normalize: What counts as equal, for text: `nfc-casefold` (case and composition of letters),
            `digits` (telephone and insurance numbers) or `email`. None compares exactly. With a
            version, such as `nfc-casefold-v1`, or without, which means the first version for good.
        few_values: Why a column with few different values may be searched although its index then
            tells them by their frequency, such as for a bool.
        tenant_column: The tenant column that the index begins with.
    """

    normalize: str | None = None
    few_values: str | None = None
    tenant_column: str = "tenant_id"


class Field:
    """An encrypted column of one table.

    Attributes:
        kind: The type of its values.
        search: How it is searched; None if not.
        label: The label that the application has given, `table.column`.
        reading: Who may read, and what becomes of values that cannot be opened.
        context: The labels that values are sealed for; None until the column is in a table.
    """

    __slots__ = (
        "_equal",
        "_pack",
        "_prefix",
        "context",
        "kind",
        "label",
        "name",
        "reading",
        "search",
    )

    def __init__(
        self,
        kind: Kind,
        *,
        search: Exact | None = None,
        label: str | None = None,
        reveal: Collection[str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.kind = kind
        self.search = search
        self.label = label
        self.reading = Reading.declared(reveal, on_error)
        self._pack = packing(self)
        self.name = label or "encrypted"
        self.context: FieldContext | None = None
        self._equal = kind.equal
        self._prefix = b""
        _check_label(label)
        _check_search(kind, search)

    def __repr__(self) -> str:
        return f"<Field {self.name}>"

    @property
    def labels(self) -> tuple[str, str]:
        """The table and the column that values are sealed for."""
        context = self._context()
        return context.table, context.column

    @property
    def bind_name(self) -> str:
        """What a parameter is called that the column is compared with."""
        return self.name.rpartition(".")[2]

    def copy(self) -> Field:
        """Return the same field for another table."""
        return Field(
            self.kind,
            search=self.search,
            label=self.label,
            reveal=self.reading.purposes,
            on_error=self.reading.on_error,
        )

    def attach(self, table: str, column: str) -> None:
        """Take the labels, unless they are given, from the names in the models."""
        self.name = f"{table}.{column}"
        if self.label is not None:
            table, _, column = self.label.rpartition(".")
        self.context = FieldContext(table, column)
        if self.search is not None:
            named = EXACT
            if self.search.normalize is not None:
                named, fold = normalizer(self.search.normalize)
                self._equal = _folding(fold, self.kind.pack)
            self._prefix = self.context.search_prefix(named)

    def same_as(self, other: Field) -> bool:
        """Return whether a value that was sealed for *other* opens here, to the same readers."""
        mine, theirs = self.context, other.context
        if mine is None or theirs is None:
            return self is other
        if self.reading.purposes != other.reading.purposes:
            return False
        return (mine.table, mine.column, self.kind) == (theirs.table, theirs.column, other.kind)

    def seal(self, keys: TenantKeys, value: Any) -> bytes:
        """Return *value* as it is stored.

        Raises:
            EncryptedValueError: If it is not of the column's type.
            KeyUnavailableError: If the tenant has no key that may seal.
        """
        indexes = b"" if self.search is None else self.index(keys, value)
        try:
            packed = self._pack(value)
        except _UNFIT:
            pass
        else:
            return keys.seal(self.context or self._context(), packed, indexes)
        raise self._unfit(value)

    def index(self, keys: TenantKeys, value: Any) -> bytes:
        """Return the blind index of *value*.

        Raises:
            EncryptedValueError: If it is not of the column's type.
            EncryptedQueryError: If the column is not searchable.
        """
        if self.search is None or self._equal is None:
            raise EncryptedQueryError(
                f"Column {self.name} is not searchable. Declare it with search=Exact()."
            )
        try:
            equal = self._equal(value)
        except _UNFIT:
            pass
        else:
            return keys.index(self._prefix, equal)
        raise self._unfit(value)

    def open(self, keys: TenantKeys, stored: bytes) -> Any:
        """Return the value that *stored* holds.

        Raises:
            DecryptionError: If it cannot be opened.
            KeyUnavailableError: If the tenant has no key.
        """
        packed = keys.open(self.context or self._context(), stored)
        try:
            return self.kind.unpack(packed)
        except UnknownMember:
            error = self._unknown_member()
        except ValueError:
            error = self._another_type()
        # Outside of the block: the cause would show the value.
        raise error

    def _another_type(self) -> DecryptionError:
        return DecryptionError(
            f"Column {self.name} holds a value that was sealed as another type than "
            f"{self.kind.name}. Declare the column as it was, or encrypt its values anew."
        )

    def _unknown_member(self) -> DecryptionError:
        enum = self.kind.python_type.__name__
        return DecryptionError(
            f"Column {self.name} holds the name of a member that {enum} does not have. If the "
            f"member was renamed, give it its old name too, as OLD = NEW in {enum}; if it was "
            "removed, put it back until no row has it."
        )

    def _unfit(self, value: Any) -> EncryptedValueError | MaskedError:
        # Raised outside of the block that failed: the cause would show the value.
        if is_masked(value):
            return unmasked(self.name)
        return EncryptedValueError(
            f"Column {self.name} takes {self.kind.name}; a value of type {type(value).__name__} "
            "was given that is none, or that cannot be stored."
        )

    def _context(self) -> FieldContext:
        if self.context is None:
            raise ConfigurationError(
                "An encrypted type was used without its column. Take it from a mapped column."
            )
        return self.context


class Unsealed:
    """A value on its way to the database; what is not sealed in time is refused by the driver.

    Attributes:
        seal: Returns what is sent instead, given the keys and the value: `Field.seal` or `.index`.
        value: The plaintext.
    """

    __slots__ = ("seal", "value")

    def __init__(self, seal: Callable[[TenantKeys, Any], bytes], value: Any) -> None:
        self.seal = seal
        self.value = value

    def __repr__(self) -> str:
        return "<Unsealed>"


def _folding(fold: Callable[[str], str], pack: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    def equal(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError
        return pack(fold(value))

    return equal


def _check_label(label: str | None) -> None:
    if label is not None and not all(label.rpartition(".")[::2]):
        raise ConfigurationError(
            "label= names a table and a column, such as label='patients.name': those that the "
            "values were first sealed for."
        )


def _check_search(kind: Kind, search: Exact | None) -> None:
    if search is None:
        return
    if not isinstance(search, Exact):
        raise ConfigurationError("search= takes an Exact(), such as search=Exact().")
    if kind.equal is None:
        raise ConfigurationError("Encrypted JSON cannot be searched; leave search= out.")
    if search.normalize is not None:
        normalizer(search.normalize)
        if kind.python_type is not str:
            raise ConfigurationError(
                f"Exact(normalize=…) is for text, not for a column that takes {kind.name}."
            )
    if kind.few and not (search.few_values or "").strip():
        raise ConfigurationError(
            f"A column that takes {kind.name} has so few values that a blind index tells them by "
            "their frequency. Leave search= out, or say why in Exact(few_values='…')."
        )
