"""The parts of a compound: which columns can be followed, and the kind that they make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CHAR, NCHAR, Boolean, Date, Enum, Integer, LargeBinary, String, Uuid

from tenantguard.columns import kinds
from tenantguard.columns.compound_kind import Compound, compound_of
from tenantguard.columns.types import Encrypted
from tenantguard.errors import ConfigurationError
from tenantguard.keytable import MIGRATING

if TYPE_CHECKING:
    from sqlalchemy import Column, Table

    from tenantguard.columns.field import Field
    from tenantguard.columns.kind import Kind

__all__ = ["kind_of_plain", "settled"]

_PLAIN: tuple[tuple[type[Any], Kind], ...] = (
    (String, kinds.STR),
    (Integer, kinds.INT),
    (Date, kinds.DATE),
    (Boolean, kinds.BOOL),
    (Uuid, kinds.UUID_),
    (LargeBinary, kinds.BYTES),
)
"""Types whose values the database stores as they are given, and does not round, pad or convert."""


def settled(field: Field, column: Column[Any], table: Table) -> Field:
    """Return *field* for *column*, once the types of its parts in *table* are known."""
    declared = cast("Compound", field.kind)
    parts = [_part(part, column, table) for part in declared.parts]
    kind = compound_of(declared.parts, declared.folds, tuple(map(_kind_of, parts)))
    encrypted = [each.type.field for each in parts if isinstance(each.type, Encrypted)]
    _check_as_hidden(f"{table.fullname}.{column.name}", field, encrypted)
    purposes = [each.reading.purposes for each in (*encrypted, field)]
    restricted = [each for each in purposes if each is not None]
    return field.copy(kind, frozenset.intersection(*restricted) if restricted else None)


def _check_as_hidden(name: str, field: Field, parts: list[Field]) -> None:
    """Refuse a compound that would give away what its parts hide."""
    for part in parts:
        if part.bound and not field.bound:
            raise ConfigurationError(
                f"Column {name} follows {part.name}, whose values open in their row only. Give it "
                "bind='row' too: elsewhere it would open with them."
            )
        if part.pad is not None and field.pad is None:
            raise ConfigurationError(
                f"Column {name} follows {part.name}, whose lengths are hidden. Give it padding= "
                "too: its own length would tell them."
            )


def _part(part: str, column: Column[Any], table: Table) -> Column[Any]:
    found = table.columns.get(part)
    if found is None:
        raise ConfigurationError(
            f"Column {table.fullname}.{column.name} follows {part!r}, and the table has no such "
            "column before it. Name columns, and declare them first, in the same class."
        )
    if not _is_given(found):
        raise ConfigurationError(
            f"Column {table.fullname}.{column.name} cannot follow {part!r}: a part gets its values "
            "from Python alone. It is no key, is not generated, not being migrated, and has no "
            "onupdate= and no default of the server's or of SQL."
        )
    return found


def _is_given(part: Column[Any]) -> bool:
    by_database = (part.server_default, part.server_onupdate, part.onupdate, part.computed)
    default = part.default
    of_sql = default is not None and (default.is_sequence or default.is_clause_element)
    return not (
        part.primary_key
        or part.foreign_keys
        or of_sql
        or MIGRATING in part.info
        or any(each.info.get(MIGRATING) == part.name for each in part.table.columns)
        or any(each is not None for each in by_database)
    )


def _kind_of(part: Column[Any]) -> Kind:
    type_: Any = part.type
    kind = type_.field.kind if isinstance(type_, Encrypted) else kind_of_plain(type_)
    if kind is None:
        raise ConfigurationError(
            f"encrypted_compound() cannot follow {part}: the database may store another value of "
            "its type than it is given. Plain parts are text, integers, dates, bools, UUIDs or "
            "bytes, by SQLAlchemy's own types; others can be encrypted columns."
        )
    return kind


def kind_of_plain(type_: Any) -> Kind | None:
    """Return the kind of values of *type_*; None if the database may store others than given."""
    own = type(type_).__module__.startswith("sqlalchemy.") and not type_._variant_mapping  # noqa: SLF001
    converted = isinstance(type_, CHAR | NCHAR | Enum) or getattr(type_, "as_uuid", True) is False
    if converted or not own:
        return None
    return next((kind for plain, kind in _PLAIN if isinstance(type_, plain)), None)
