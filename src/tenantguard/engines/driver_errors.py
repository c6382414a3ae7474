"""Drivers' errors without values, changed where they are.

SQLAlchemy raises its error from the driver's, so that to raise another would not hide it.
"""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tenantguard.engines.texts import without_values
from tenantguard.errors import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["chain", "explain", "hide_values"]

_DONE = "_tenantguard_hidden"
_HIDDEN = ("message_detail", "message_hint", "context", "internal_query")
_ASYNCPG = ("detail", "hint", "context", "internal_query")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what it was raised from, or while handling."""
    waiting, seen = [error], set[int]()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__, each.__context__, getattr(each, "orig", None)]


def hide_values(error: BaseException) -> None:
    """Take PostgreSQL's texts that repeat values out of *error* and what it was raised from."""
    # What asyncpg raised comes after the error of SQLAlchemy's that wraps it, and gives its text.
    for each in reversed(list(chain(error))):
        if getattr(each, _DONE, False):
            continue
        if hasattr(each, "pgresult"):
            _hide_in_psycopg(each)
        elif hasattr(each, "pgerror"):
            _hide_in_psycopg2(each)
        elif hasattr(each, "server_source_function"):
            _hide_in_asyncpg(each)
        elif hasattr(each.__cause__, "server_source_function"):
            _hide_in_adapter(each)


def explain(error: BaseException, text: str) -> None:
    """Append *text* to the message of *error*."""
    error.args = (f"{str(error).rstrip()}\n{text}", *error.args[1:])


def _shorter(error: Any, diagnostics: Any, said: str, hidden: list[str | None]) -> str:
    origin = (diagnostics.source_function or "", diagnostics.source_file or "")
    return without_values(said, sqlstate(error), origin, any(hidden))


def _hide_in_psycopg(error: Any) -> None:
    from psycopg.pq import DiagnosticField  # noqa: PLC0415  (the driver is an optional extra)

    if error._info is None:  # noqa: SLF001
        _hide_in_client_error(error)
        return
    found = error.diag
    hidden = [getattr(found, name) for name in _HIDDEN]
    said = _shorter(error, found, found.message_primary or "", hidden)
    fields: dict[Any, bytes | None] = {}
    for field in DiagnosticField:
        value = getattr(found, field.name.lower(), None)
        fields[field] = None if value is None else value.encode(error._encoding)  # noqa: SLF001
    fields[DiagnosticField.MESSAGE_PRIMARY] = said.encode(error._encoding)  # noqa: SLF001
    for name in _HIDDEN:
        fields[DiagnosticField[name.upper()]] = None
    # As psycopg itself does for an error that is pickled.
    error._info = fields  # noqa: SLF001
    error.args = (said,)
    setattr(error, _DONE, True)


def _hide_in_client_error(error: Any) -> None:
    """Hide a value that psycopg could not read: it says which."""
    if type(error).__name__ == "DataError" and error.args:
        error.args = (without_values(str(error), None, ("", ""), None),)
        setattr(error, _DONE, True)


def _hide_in_psycopg2(error: Any) -> None:
    found = error.diag
    if error.pgerror is None:
        _hide_in_client_error(error)
        return
    names = [name for name in dir(found) if not name.startswith("_")]
    shown = {name: getattr(found, name) for name in names}
    hidden = [shown[name] for name in _HIDDEN]
    said = _shorter(error, found, found.message_primary or "", hidden)
    shown.update(dict.fromkeys(_HIDDEN), message_primary=said)
    # Its parts cannot be set, but a pickled error's are; that forgets the cursor too, which has the
    # statement with its values.
    error.__setstate__({"pgerror": f"ERROR:  {said}\n", "pgcode": error.pgcode})
    kind: Any = type(error)
    error.__class__ = _with_own_diagnostics(kind)
    error.__dict__["diag"] = SimpleNamespace(**shown)
    error.args = (said,)
    setattr(error, _DONE, True)


@cache
def _with_own_diagnostics(kind: Any) -> Any:
    """Return *kind*, an error of psycopg2, whose `diag` is what it was given."""

    def reduced(error: Any) -> tuple[Any, ...]:
        return kind, error.args, {"pgerror": error.pgerror, "pgcode": error.pgcode}

    members = {
        "__slots__": (),
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "__reduce__": reduced,
        "diag": property(lambda error: error.__dict__["diag"]),
    }
    return type(kind.__name__, (kind,), members)


def _hide_in_asyncpg(error: Any) -> None:
    hidden = [getattr(error, name, None) for name in _ASYNCPG]
    origin = (error.server_source_function or "", error.server_source_filename or "")
    message = str(error.args[0]) if error.args else ""
    said = without_values(message, error.sqlstate, origin, any(hidden))
    for name in _ASYNCPG:
        setattr(error, name, None)
    error.message = said
    error.args = (said,)
    setattr(error, _DONE, True)


def _hide_in_adapter(error: Any) -> None:
    """Let SQLAlchemy's error around asyncpg's say what that says now."""
    cause = error.__cause__
    error.args = (f"{type(cause)}: {cause}",)
    if hasattr(error, "detail"):
        error.detail = None
    setattr(error, _DONE, True)
