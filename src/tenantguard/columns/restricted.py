"""Which columns are restricted, and forgetting what was loaded of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper, object_session
from sqlalchemy.orm.util import AliasedInsp

from tenantguard.columns.types import Encrypted
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import MetaData

    from tenantguard.columns.field import Field

__all__ = ["forget_restricted", "has_restricted", "restricted_fields"]


def has_restricted(metadata: MetaData) -> bool:
    """Return whether the reading of any column of *metadata* is restricted."""
    return any(_field(each) for table in metadata.tables.values() for each in table.columns)


def restricted_fields(columns: Iterable[Any]) -> set[Field]:
    """Return the restricted fields of *columns*, which are columns or mapped classes.

    Raises:
        ConfigurationError: If one of *columns* is not restricted or has none that is, or there are
            none.
    """
    fields: set[Field] = set()
    given = list(columns)
    for each in given:
        found = _fields(each)
        if not found:
            given = []
            break
        fields |= found
    if not given:
        raise ConfigurationError(
            "reveal() takes columns that were declared with reveal=…, or mapped classes that have "
            "such, and at least one: `with guard.reveal(Patient.notes, reason=…):`."
        )
    return fields


def forget_restricted(objects: Iterable[Any]) -> None:
    """Expire the restricted attributes of *objects*, except what the application has set."""
    keys_of: dict[Mapper[Any], set[str]] = {}
    for each in objects:
        state = inspect(each)
        if state.mapper not in keys_of:
            keys_of[state.mapper] = _restricted_keys(state.mapper)
        keys = keys_of[state.mapper] & (state.dict.keys() - state.committed_state.keys())
        session = object_session(each)
        if keys and session is not None:
            session.expire(each, keys)


def _restricted_keys(mapper: Mapper[Any]) -> set[str]:
    attributes = mapper.column_attrs
    return {each.key for each in attributes if any(map(_field, each.columns))}


def _fields(given: Any) -> set[Field]:
    inspected = inspect(given, raiseerr=False)
    columns = [given]
    if isinstance(inspected, Mapper | AliasedInsp):
        columns = list(inspected.mapper.columns)
    return {field for each in columns if (field := _field(each)) is not None}


def _field(column: Any) -> Field | None:
    type_ = getattr(column, "type", None)
    if not isinstance(type_, Encrypted) or type_.field.reading.purposes is None:
        return None
    return type_.field
