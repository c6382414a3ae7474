"""What all services share: their packages, what users give for them, asking again once."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from tenantguard.errors import ConfigurationError, KeyUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SECONDS", "asked", "given", "package", "unreachable"]

SECONDS = 5.0
"""How long an answer may take."""

_T = TypeVar("_T")


def package(name: str, extra: str) -> Any:
    """Return the module *name*, which comes with tenantguard's *extra*.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError:
        pass
    raise ConfigurationError(
        f"The package of this key service is missing. Install `tenantguard[{extra}]`."
    )


def given(option: str, function: Callable[..., _T], *args: Any) -> _T:
    """Return what *function*, which the user gave as *option*, returns.

    Raises:
        KeyUnavailableError: If it raises. Its error is not shown: it may hold a secret.
    """
    try:
        return function(*args)
    except Exception as error:  # noqa: BLE001  (whatever a user's function raises)
        kind = type(error).__name__
    raise KeyUnavailableError(f"{option} has raised {kind}. Call it by itself to see why.")


def asked(ask: Callable[[], _T], lost: tuple[type[Exception], ...]) -> _T:
    """Return what *ask* returns; if the connection was *lost* or refused, ask once more.

    A service that is too slow, or says no, is not asked again.
    """
    try:
        return ask()
    except lost:
        return ask()


def unreachable(name: str) -> str:
    """Return the text for a service that did not answer."""
    return (
        f"{name} could not be reached, or did not answer in time. Keys that are in the cache "
        "serve until they expire. Look at the network, the address and the service's health."
    )
