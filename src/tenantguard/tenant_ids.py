"""Tenant ids of the types that a registry may have: UUID, integer, text."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy.dialects import postgresql
from sqlalchemy.types import (
    BigInteger,
    Integer,
    SmallInteger,
    String,
    TypeDecorator,
    TypeEngine,
    Uuid,
)

from tenantguard.context import TenantId
from tenantguard.errors import ConfigurationError

__all__ = ["affinity", "canonical", "to_text"]

_MAX_TEXT_ID = 8192


def affinity(type_: TypeEngine[Any]) -> type[TypeEngine[Any]]:
    """Return which of the supported types *type_* is.

    Raises:
        ConfigurationError: If it is none of them.
    """
    found: type[TypeEngine[Any]] | None = _stored(type_)._type_affinity  # noqa: SLF001
    for supported in _CANONICAL:
        if found is not None and issubclass(found, supported):
            return supported
    raise ConfigurationError(
        "A tenant id is a UUID, an integer or a text; the registry's primary key is none of them."
    )


def canonical(given: TenantId, type_: TypeEngine[Any]) -> TenantId:
    """Return *given* as a column of *type_* would hold it.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: If it is not of that type.
    """
    stored = _stored(type_)
    value: TenantId = _CANONICAL[affinity(stored)](given, stored)
    return value


def to_text(type_: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return a function from a canonical id to what PostgreSQL compares its columns with."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    return type_.dialect_impl(dialect).bind_processor(dialect) or _same


def _same(value: TenantId) -> TenantId:
    return value


def _stored(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return what PostgreSQL holds for *type_*: a decorated type may be text elsewhere."""
    while isinstance(type_, TypeDecorator):
        type_ = type_.load_dialect_impl(postgresql.dialect())  # type: ignore[no-untyped-call]
    return type_


def _canonical_uuid(given: TenantId, type_: TypeEngine[Any]) -> TenantId:
    if isinstance(given, int):
        raise TypeError
    value = given if isinstance(given, UUID) else UUID(given)
    return value if getattr(type_, "as_uuid", True) else str(value)


def _canonical_int(given: TenantId, type_: TypeEngine[Any]) -> TenantId:
    value = int(given) if isinstance(given, int | str) else None
    if value is None or isinstance(given, bool) or str(given) != str(value):
        raise ValueError
    if not -(1 << _bits(type_)) <= value < 1 << _bits(type_):
        raise ValueError
    return value


def _bits(type_: TypeEngine[Any]) -> int:
    if isinstance(type_, BigInteger):
        return 63
    return 15 if isinstance(type_, SmallInteger) else 31


def _canonical_text(given: TenantId, type_: TypeEngine[Any]) -> TenantId:
    text = str(given) if isinstance(given, UUID) else given
    length = getattr(type_, "length", None) or _MAX_TEXT_ID
    if not isinstance(text, str) or not text or "\0" in text or len(text) > length:
        raise ValueError
    text.encode("utf-8")
    return text


_CANONICAL: dict[type[TypeEngine[Any]], Any] = {
    Uuid: _canonical_uuid,
    Integer: _canonical_int,
    String: _canonical_text,
}
