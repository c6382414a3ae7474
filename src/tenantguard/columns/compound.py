"""A column that follows others of its row, to search by them together through one blind index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack, cast

from tenantguard.columns.compound_kind import Compound, unsettled
from tenantguard.columns.compound_parts import settled
from tenantguard.columns.normalize import normalizer
from tenantguard.columns.options import Options, declared
from tenantguard.columns.search import Exact
from tenantguard.columns.types import SEALS, Encrypted
from tenantguard.errors import ConfigurationError, EncryptedQueryError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Column, Dialect, Table
    from sqlalchemy.orm import MappedColumn


__all__ = [
    "FOLLOWS",
    "EncryptedCompound",
    "compounds_of",
    "encrypted_compound",
    "parts_of",
]

_NOT_TAKEN = ("default", "default_factory", "insert_default", "migrating")


class _Follows:
    """Stands for the value of a compound, which is made of its row's parts when it is sealed."""

    def __repr__(self) -> str:
        return "<made of its parts>"


FOLLOWS = _Follows()


def encrypted_compound(
    *parts: str,
    normalize: Mapping[str, str] | None = None,
    search: Exact | None = None,
    **options: Unpack[Options],
) -> MappedColumn[tuple[Any, ...]]:
    """Declare a column that seals the values of *parts* as one, to search by all of them together.

    `Patient.name_and_born == ("Anna", date(1980, 1, 2))` finds by one blind index; none of the
    parts has to be searchable by itself. The column follows its parts: whatever writes one of them
    writes it too, or is refused. It is NULL while one of them is. Like a deferred column it is not
    loaded with its row. Limits and leakage: docs/encryption.md.

    Args:
        parts: The names of two or more columns of the same table, encrypted or plain, declared
            before this one. Their number, order and types cannot be changed later.
        normalize: By part, what counts as equal; see `Exact`.
        search: An `Exact()` that says few_values= or tenant_column=.
        options: As for `encrypted_str`, without defaults and migrating=. With parts that are
            restricted by reveal=, it is for those who may read all of them.

    Raises:
        ConfigurationError: If an option does not fit, or a part is none that can be followed.
        TypeError: If an encrypted column has no such option.
    """
    folds = dict(normalize or {})
    _check_parts(parts, folds)
    refused = next((each for each in _NOT_TAKEN if each in options), None)
    if refused is not None or not isinstance(search, Exact | None) or (search and search.name):
        raise ConfigurationError(
            f"encrypted_compound() follows its parts: it takes no {', '.join(_NOT_TAKEN)}, and "
            "search= takes one Exact() without a name."
        )
    kind = unsettled(parts, tuple(folds.get(part) for part in parts))
    following = cast("Options", {"deferred": True, **options, "insert_default": _following(parts)})
    return declared(kind, search or Exact(), following, EncryptedCompound)


class EncryptedCompound(Encrypted):
    """A column that holds the values of others of its row."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], Any]:
        """Refuse a value: the compiler knows its parts, and has another processor for it."""
        if not hasattr(dialect, SEALS):
            return super().bind_processor(dialect)

        def refuse(value: Any) -> None:
            if value is not None:
                raise self.unfollowed()

        return refuse

    def unfollowed(self) -> EncryptedQueryError:
        """Return the error for a statement that does not tell the values of all parts."""
        field = self.field
        names = ", ".join(cast("Compound", field.kind).parts)
        return EncryptedQueryError(
            f"Column {field.name} follows the columns {names}, and the statement does not give "
            "all of them as values of Python. Write them together: change objects of a session and "
            "flush it (bulk_save_objects writes what has changed alone), or name all of them in "
            "the statement, and leave this column to the library. "
            "ON CONFLICT takes all of them from excluded; INSERT … SELECT cannot."
        )

    def _attach(self, column: Column[Any], table: Table) -> None:
        if self.field.context is None:
            super().__init__(settled(self.field, column, table), stored=self._stored)
        super()._attach(column, table)


def compounds_of(table: Any) -> list[Column[Any]]:
    """Return the columns of *table* that follow others."""
    return [each for each in table.columns if isinstance(each.type, EncryptedCompound)]


def parts_of(compound: Column[Any]) -> list[Column[Any]]:
    """Return the columns that *compound* follows."""
    kind = cast("EncryptedCompound", compound.type).field.kind
    return [compound.table.columns[part] for part in cast("Compound", kind).parts]


def _check_parts(parts: tuple[str, ...], folds: Mapping[str, str]) -> None:
    if len(parts) < 2 or len(set(parts)) < len(parts) or not all(map(_is_name, parts)):  # noqa: PLR2004
        raise ConfigurationError(
            "encrypted_compound() takes the names of two or more columns of its table, such as "
            "encrypted_compound('name', 'born')."
        )
    for part, fold in folds.items():
        if part not in parts:
            raise ConfigurationError(
                "encrypted_compound(normalize=…) has a name that is none of its parts; they are "
                f"{', '.join(parts)}."
            )
        normalizer(fold)


def _is_name(part: object) -> bool:
    return isinstance(part, str) and bool(part)


def _following(parts: tuple[str, ...]) -> Callable[[Any], _Follows | None]:
    """Return the default on engines without keys: NULL, or what their processor refuses."""

    def default(context: Any) -> _Follows | None:
        given = context.get_current_parameters()
        return None if any(given.get(part) is None for part in parts) else FOLLOWS

    return default
