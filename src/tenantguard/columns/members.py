"""Members of an enumeration, by their names: a value may change, and a name says what is meant."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Any, TypeVar

from tenantguard.columns.kind import Kind, Tag, UnknownMember, after
from tenantguard.errors import ConfigurationError

__all__ = ["member_of"]

_Member = TypeVar("_Member", bound=Enum)


@cache
def member_of(enum: type[_Member]) -> Kind:
    """Return the kind of values that *enum*'s members are: the same for the same enumeration.

    Raises:
        ConfigurationError: If *enum* is no enumeration, or has no members.
    """
    if not (isinstance(enum, type) and issubclass(enum, Enum) and enum.__members__):
        raise ConfigurationError(
            "encrypted_enum() takes a class of enum.Enum with members, such as "
            "encrypted_enum(Severity)."
        )
    # With the names that are other names of a member: a renamed one keeps its old name so.
    members = {name.encode(): member for name, member in enum.__members__.items()}
    packed = {
        member.name: Tag.MEMBER + member.name.encode() for member in enum.__members__.values()
    }

    def pack(value: Any) -> bytes:
        # A combination of flags has no name of its own.
        if not isinstance(value, enum) or value.name not in packed:
            raise TypeError
        return packed[value.name]

    def unpack(given: bytes) -> _Member:
        member = members.get(after(Tag.MEMBER, given))
        if member is None:
            raise UnknownMember
        return member

    return Kind(f"a member of {enum.__name__}", enum, pack, unpack, pack, few=True)
