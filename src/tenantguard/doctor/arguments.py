"""What an engine's connections are made with, which its address alone does not tell."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tenantguard.doctor.libpq import HARMLESS

if TYPE_CHECKING:
    from sqlalchemy import Engine

__all__ = ["arguments_of", "beyond_address", "makes_own_connections"]

_CREATORS_MODULE = "sqlalchemy.engine.create"


def makes_own_connections(engine: Engine) -> bool:
    """Return whether *engine*'s connections are made by a function that is not SQLAlchemy's."""
    return getattr(_creator(engine), "__module__", None) != _CREATORS_MODULE


def arguments_of(engine: Engine) -> Mapping[str, Any] | None:
    """Return what *engine*'s driver is called with, or None if that cannot be known."""
    if makes_own_connections(engine) or _is_listened_to(engine):
        return None
    try:
        # SQLAlchemy keeps them nowhere else; `do_connect` shows them only while it connects.
        kept = inspect.getclosurevars(_creator(engine)).nonlocals
    except TypeError:
        return None
    arguments, positional = kept.get("cparams"), kept.get("cargs_tup", kept.get("cargs"))
    # Without any argument SQLAlchemy gives libpq one empty text.
    if not isinstance(arguments, Mapping) or positional is None or any(positional):
        return None
    return arguments


def beyond_address(engine: Engine) -> list[str] | None:
    """Return the names of what *engine* connects with beside its address; None if unknown.

    What changes neither where and as whom it connects, nor its session, is left out.
    """
    arguments = arguments_of(engine)
    if arguments is None:
        return None
    alone = engine.dialect.create_connect_args(engine.url)[1]
    return sorted(
        name
        for name, value in arguments.items()
        if name not in HARMLESS and (name not in alone or alone[name] != value)
    )


def _creator(engine: Engine) -> Any:
    pool: Any = engine.pool
    return pool._creator  # noqa: SLF001


def _is_listened_to(engine: Engine) -> bool:
    """Return whether a listener that is not the guard's may change the arguments."""
    dispatch: Any = engine.dialect.dispatch
    return not all(_is_ours(listener) for listener in dispatch.do_connect)


def _is_ours(listener: Any) -> bool:
    return str(getattr(listener, "__module__", "")).startswith("tenantguard.binding.")
