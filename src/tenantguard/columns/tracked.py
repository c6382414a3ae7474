"""The types of documents whose attributes notice when they are changed in place."""

from __future__ import annotations

from sqlalchemy.ext.mutable import MutableDict, MutableList

from tenantguard.columns.types import Encrypted

__all__ = ["EncryptedDict", "EncryptedList"]


class EncryptedDict(Encrypted):
    """A column of dicts."""

    cache_ok = True


class EncryptedList(Encrypted):
    """A column of lists."""

    cache_ok = True


# By their classes, once: a mapped column's own type is copied, and would not be recognised.
MutableDict.associate_with(EncryptedDict)
MutableList.associate_with(EncryptedList)
