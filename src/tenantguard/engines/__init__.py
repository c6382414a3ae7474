"""Engines: which ones `protect()` is given, and what their errors may show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.exc import DBAPIError

from tenantguard.engines.driver_errors import explain, hide_values
from tenantguard.engines.texts import REFERENCE
from tenantguard.errors import ConfigurationError, CrossTenantError, sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["engines_of", "hide_parameters", "translate_refusals"]

_FOREIGN_KEY = "23503"


def engines_of(target: Any) -> list[Engine]:
    """Return the engines behind *target*: an engine, a sessionmaker, or Flask-SQLAlchemy's `db`.

    Of an AsyncEngine it is the engine inside, where the events are.

    Raises:
        ConfigurationError: If there are none.
    """
    if isinstance(target, Engine):
        # An engine made by execution_options() shares all it has with the one it was made from.
        return engines_of(target._proxied) if isinstance(target, OptionEngine) else [target]  # noqa: SLF001
    if isinstance(getattr(target, "sync_engine", None), Engine):
        return [target.sync_engine]
    options = getattr(target, "kw", None)
    if isinstance(options, dict):
        found = [options.get("bind"), *(options.get("binds") or {}).values()]
        engines = [engine for bind in found if bind is not None for engine in engines_of(bind)]
        if engines:
            return engines
    engines_by_bind = getattr(target, "engines", None)
    if engines_by_bind:
        return [engine for bind in engines_by_bind.values() for engine in engines_of(bind)]
    raise ConfigurationError(
        "protect() takes an Engine or AsyncEngine, a sessionmaker that has a bind, or "
        "Flask-SQLAlchemy's db inside an application context."
    )


def hide_parameters(
    engine: Engine, *, hide: bool, guarded: Callable[[str], bool] = lambda _table: False
) -> None:
    """Hide parameters, and the values in PostgreSQL's errors.

    Also on engines that were derived from *engine* before.

    Args:
        engine: An engine that has no such listener yet.
        hide: Whether to hide them.
        guarded: Whether the table of a name belongs to tenants; its foreign keys are explained.
    """
    engine.hide_parameters = hide
    # Not by an event of the engine: with one, SQLAlchemy dispatches all of them for each statement.
    base = engine.dialect.execution_ctx_cls
    engine.dialect.execution_ctx_cls = type(base.__name__, (_Hiding, base), {"hide": hide})
    # Before what raises an error of ours: SQLAlchemy raises that from the driver's.
    event.listen(engine, "handle_error", _Telling(guarded, hide=hide), insert=True)


class _Hiding:
    """Mixed into the execution context, which is made before anything shows a parameter."""

    hide: bool

    @classmethod
    def _init_compiled(cls, dialect: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        connection.engine.hide_parameters = cls.hide
        return super()._init_compiled(dialect, connection, *args, **kwargs)  # type: ignore[misc]

    @classmethod
    def _init_statement(cls, dialect: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        connection.engine.hide_parameters = cls.hide
        return super()._init_statement(dialect, connection, *args, **kwargs)  # type: ignore[misc]


class _Telling:
    """Listens to errors and decides what they tell."""

    def __init__(self, guarded: Callable[[str], bool], *, hide: bool) -> None:
        self._guarded = guarded
        self._hide = hide

    def __call__(self, context: Any) -> None:
        # Without a connection it is an attempt to connect, which has sent no value.
        error: BaseException = context.original_exception
        if self._hide and context.connection is not None:
            hide_values(error)
        if sqlstate(error) == _FOREIGN_KEY and self._guarded(_table_of(error)):
            explain(error, _meaning(context.execution_context))
        told = context.sqlalchemy_exception
        if isinstance(told, DBAPIError) and told.orig is error and sqlstate(error):
            kind = type(error)
            told.args = (f"({kind.__module__}.{kind.__name__}) {error}",)


def _table_of(error: Any) -> str:
    """Return the name of the table whose constraint *error* is about."""
    found = getattr(error, "diag", None) or error.__cause__
    return getattr(found, "table_name", None) or ""


def _meaning(execution: Any) -> str:
    compiled = getattr(execution, "compiled", None)
    kinds = [kind for kind in REFERENCE if kind and getattr(compiled, kind, False)]
    return REFERENCE["".join(kinds)]


def translate_refusals(engine: Engine) -> None:
    """Raise PostgreSQL's refusals on *engine* as errors of ours."""
    event.listen(engine, "handle_error", _translate)


def _translate(context: Any) -> None:
    """Turn PostgreSQL's refusals into ours, so that an application can tell them apart."""
    error = context.original_exception
    code = sqlstate(error)
    # psycopg and psycopg2 name these facts as they do; SQLAlchemy wraps asyncpg's error.
    diagnostics = getattr(error, "diag", None)
    compiled = getattr(context.execution_context, "compiled", None)
    # The text is in the server's language; the function that refused is not.
    refused_by = getattr(diagnostics, "source_function", None) or getattr(
        error.__cause__, "server_source_function", None
    )
    if code == "42501" and refused_by == "ExecWithCheckOptions":
        raise CrossTenantError(
            "PostgreSQL's row-level security refused to write a row of another tenant."
        ) from None
    meant = getattr(compiled, "division_says", "")
    if code == "22012" and meant:
        raise CrossTenantError(meant) from None
