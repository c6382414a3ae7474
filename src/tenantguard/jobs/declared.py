"""What a function for workers declares: that it is a tenant's task, or that it needs no tenant."""

from __future__ import annotations

from functools import wraps
from inspect import isasyncgenfunction, iscoroutinefunction, isgeneratorfunction
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from datetime import timedelta

__all__ = [
    "GuardedTask",
    "guarded_task",
    "refuse_generators",
    "task_name",
    "tenantless",
    "tenantless_reason",
]

_MARK = "_tenantguard_tenantless"

_Result_co = TypeVar("_Result_co", covariant=True)
_Function = TypeVar("_Function", bound="Callable[..., Any]")


class GuardedTask(Protocol[_Result_co]):
    """A function that runs as the tenant of the envelope it is given."""

    def __call__(self, *args: Any, tenantguard: str | None = None, **kwargs: Any) -> _Result_co:
        """Run as the tenant of the envelope *tenantguard*, and for no other."""

    def envelope(self, *, expires_in: timedelta | None = None) -> str:
        """Return the envelope with which the active tenant enqueues this task."""


def guarded_task(
    function: Callable[..., _Result_co],
    *,
    seal: Callable[[timedelta | None], str],
    entered: Callable[[str | None], AbstractContextManager[None]],
) -> GuardedTask[_Result_co]:
    """Return *function* so that it runs within what *entered* makes of its envelope.

    Raises:
        ConfigurationError: If *function* is a generator, whose body runs after the call.
    """
    refuse_generators(function)
    run: Any = _asynchronous if iscoroutinefunction(function) else _synchronous
    guarded = run(function, entered)

    def envelope(*, expires_in: timedelta | None = None) -> str:
        return seal(expires_in)

    guarded.envelope = envelope
    return cast("GuardedTask[_Result_co]", guarded)


def _synchronous(function: Callable[..., Any], entered: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def guarded(*args: Any, tenantguard: str | None = None, **kwargs: Any) -> Any:
        with entered(tenantguard):
            return function(*args, **kwargs)

    return guarded


def _asynchronous(function: Callable[..., Any], entered: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    async def guarded(*args: Any, tenantguard: str | None = None, **kwargs: Any) -> Any:
        with entered(tenantguard):
            return await function(*args, **kwargs)

    return guarded


def refuse_generators(function: Callable[..., Any]) -> None:
    """Raise a `ConfigurationError` if calling *function* would not run its body."""
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise ConfigurationError(
            "A generator's body runs after the call, when its tenant is gone. Give a plain "
            "function or `async def` without `yield`."
        )


def task_name(function: Callable[..., Any]) -> str:
    """Return the name that a task has unless it is given one: its module and its own."""
    return f"{function.__module__}.{function.__qualname__}"


def tenantless(reason: str) -> Callable[[_Function], _Function]:
    """Declare that the decorated function is enqueued and run without a tenant.

    Args:
        reason: Why it needs none, such as "removes files that have expired".

    Raises:
        ConfigurationError: If *reason* is empty.
    """
    check_reason(reason)

    def mark(function: _Function) -> _Function:
        setattr(function, _MARK, reason)
        return function

    return mark


def tenantless_reason(function: object) -> str | None:
    """Return why *function* needs no tenant, None if it does need one."""
    return getattr(function, _MARK, None)


def check_reason(reason: object) -> None:
    """Raise a `ConfigurationError` unless *reason* says something."""
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            'A tenantless task needs a reason, such as tenantless="removes expired files".'
        )
