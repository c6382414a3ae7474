"""The types of documents whose attributes notice when they are changed in place."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.mutable import MutableDict, MutableList

from tenantguard.columns.masks import is_masked
from tenantguard.columns.types import Encrypted

__all__ = ["EncryptedDict", "EncryptedList"]


class _Dict(MutableDict[Any, Any]):
    """A dict that notices changes; a mask has none."""

    @classmethod
    def coerce(cls, key: str, value: Any) -> Any:
        return value if is_masked(value) else super().coerce(key, value)


class _List(MutableList[Any]):
    """A list that notices changes; a mask has none."""

    @classmethod
    def coerce(cls, key: str, value: Any) -> Any:
        return value if is_masked(value) else super().coerce(key, value)


class EncryptedDict(Encrypted):
    """A column of dicts."""

    cache_ok = True


class EncryptedList(Encrypted):
    """A column of lists."""

    cache_ok = True


# By their classes, once: a mapped column's own type is copied, and would not be recognised.
_Dict.associate_with(EncryptedDict)
_List.associate_with(EncryptedList)
