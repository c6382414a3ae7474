"""Dates and times, with and without a zone, as ISO 8601."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from tenantguard.columns.kind import Kind, Tag, after

__all__ = ["DATE", "DATETIME", "TIME"]

_MICROSECOND = timedelta(microseconds=1)


def _pack_date(value: Any) -> bytes:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise TypeError
    return Tag.DATE + value.isoformat().encode("ascii")


def _unpack_date(packed: bytes) -> date:
    return date.fromisoformat(after(Tag.DATE, packed).decode("ascii"))


def _pack_datetime(value: Any) -> bytes:
    if not isinstance(value, datetime):
        raise TypeError
    if value.utcoffset() is None:
        return Tag.NAIVE + value.replace(tzinfo=None).isoformat().encode("ascii")
    return Tag.AWARE + value.astimezone(UTC).isoformat().encode("ascii")


def _unpack_datetime(packed: bytes) -> datetime:
    value = datetime.fromisoformat(packed[1:].decode("ascii"))
    if packed[:1] != (Tag.NAIVE if value.tzinfo is None else Tag.AWARE):
        raise ValueError
    return value


def _pack_time(value: Any) -> bytes:
    # A zone whose offset depends on the day has none for a time alone, and would be lost.
    if not isinstance(value, time) or (value.tzinfo is not None and value.utcoffset() is None):
        raise TypeError
    tag = Tag.NAIVE_TIME if value.tzinfo is None else Tag.AWARE_TIME
    return tag + value.isoformat().encode("ascii")


def _equal_time(value: Any) -> bytes:
    """Return the same bytes for 12:00+02:00 and 10:00+00:00, which are equal in Python."""
    packed = _pack_time(value)
    offset = value.utcoffset()
    if offset is None:
        return packed
    of_day = timedelta(
        hours=value.hour,
        minutes=value.minute,
        seconds=value.second,
        microseconds=value.microsecond,
    )
    return Tag.AWARE_TIME + str((of_day - offset) // _MICROSECOND).encode("ascii")


def _unpack_time(packed: bytes) -> time:
    value = time.fromisoformat(packed[1:].decode("ascii"))
    if packed[:1] != (Tag.NAIVE_TIME if value.tzinfo is None else Tag.AWARE_TIME):
        raise ValueError
    return value


DATE = Kind("a date", date, _pack_date, _unpack_date, _pack_date)
DATETIME = Kind("a datetime", datetime, _pack_datetime, _unpack_datetime, _pack_datetime)
TIME = Kind("a time", time, _pack_time, _unpack_time, _equal_time)
