"""Engines: which ones `protect()` is given, and what their errors may show."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine.base import OptionEngine

from tenantguard.errors import ConfigurationError, CrossTenantError, sqlstate

__all__ = ["engines_of", "hide_parameters", "translate_refusals"]

_ARGUMENT = re.compile(r"(query argument \$\d+): .*", re.DOTALL)


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


def hide_parameters(engine: Engine, *, hide: bool) -> None:
    """Hide parameters also on engines that were derived from *engine* before."""
    engine.hide_parameters = hide
    # Not by an event of the engine: with one, SQLAlchemy dispatches all of them for each statement.
    base = engine.dialect.execution_ctx_cls
    engine.dialect.execution_ctx_cls = type(base.__name__, (_Hiding, base), {"hide": hide})
    if hide:
        event.listen(engine, "handle_error", _hide_argument)


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


def _hide_argument(context: Any) -> None:
    """Take the value out of asyncpg's own error about a parameter that it cannot send."""
    error: BaseException | None = context.original_exception
    for each in (context.sqlalchemy_exception, error, error and error.__cause__):
        if each is not None and _ARGUMENT.search(str(each)):
            each.args = tuple(
                _ARGUMENT.sub(r"\1: its value is hidden", str(arg)) for arg in each.args
            )


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
