"""What a guard does with columns whose reading is restricted, or that cannot be read."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import isawaitable, iscoroutinefunction
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from tenantguard.columns.reading import revealing
from tenantguard.columns.restricted import restricted_fields
from tenantguard.context import current_actor, current_purpose
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["GuardedReading", "RevealEvent", "Unopened"]

_AUDIT = logging.getLogger("tenantguard.audit")
_LOG = logging.getLogger("tenantguard")
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RevealEvent:
    """One use of `guard.reveal()`; the tenant is `current_tenant()`.

    Attributes:
        columns: The tables and columns that may be read in the block, such as `patients.notes`.
        reason: Why, as the block was told.
        actor: Who acts, as `tenant_context(actor=…)` was told.
        purpose: The purpose, as `tenant_context(purpose=…)` was told.
    """

    columns: tuple[str, ...]
    reason: str
    actor: str | None
    purpose: str | None


_Listener = TypeVar("_Listener", bound="Callable[[RevealEvent], object]")


class GuardedReading:
    """The restricted columns of a `TenantGuard`, which has the rest."""

    _listeners: list[Callable[[RevealEvent], object]]
    _unopened: Unopened

    if TYPE_CHECKING:

        def _count(self, name: str) -> None: ...

    @contextmanager
    def reveal(self, *columns: Any, reason: str) -> Iterator[None]:
        """Let restricted *columns* be read and searched inside the block, whatever the purpose.

        Each use is told to the functions that `on_reveal` was given, and then logged as
        `tenantguard.audit`, before anything can be read. The block serves the tenant context that
        it is entered in; blocks may be nested. What was loaded before is masked until it is loaded
        again, and an object that is held keeps what it has: docs/masks.md.

        Args:
            columns: Attributes such as `Patient.notes`, or mapped classes, which stand for all
                restricted columns that they have.
            reason: Why, such as the number of a ticket; it is told and logged.

        Raises:
            ConfigurationError: If *reason* is empty, or *columns* are not restricted.
            TenantNotSetError: If no tenant is active.
        """
        if not isinstance(reason, str) or not reason.strip():
            raise ConfigurationError('reveal() needs a reason, such as reason="ticket 4711".')
        fields = restricted_fields(columns)
        names = tuple(sorted({field.name for field in fields}))
        with revealing(fields):
            self._tell(RevealEvent(names, reason, current_actor(), current_purpose()))
            yield

    def on_reveal(self, listener: _Listener) -> _Listener:
        """Call *listener* with a `RevealEvent` for each use of `reveal`; return it.

        What it raises keeps the block from being entered, so nothing is revealed unheard.

        Raises:
            ConfigurationError: If it is asynchronous: nobody would wait for it.
        """
        if iscoroutinefunction(listener):
            raise _asynchronous()
        self._listeners.append(listener)
        return listener

    def _tell(self, event: RevealEvent) -> None:
        for listener in self._listeners:
            answer = listener(event)
            if isawaitable(answer):
                getattr(answer, "close", bool)()
                raise _asynchronous()
        self._count("reveal")
        # Quoted: a line break in a reason does not begin a line of its own.
        _AUDIT.info(
            "Reveal of %s: reason=%r actor=%r purpose=%r",
            ", ".join(event.columns),
            event.reason,
            event.actor,
            event.purpose,
        )

    def _note_unopened(self, column: str, reason: str) -> None:
        self._count("unreadable")
        self._unopened.note(column, reason)


class Unopened:
    """Warns of values that could not be opened, at most once a minute for a column and reason."""

    def __init__(self) -> None:
        self._warned: dict[tuple[str, str], float] = {}
        self._since: dict[tuple[str, str], int] = {}

    def note(self, column: str, reason: str) -> None:
        """Note a value of *column* that the error *reason* was raised for."""
        key = column, reason
        self._since[key] = self._since.get(key, 0) + 1
        now = monotonic()
        if now - self._warned.get(key, -_SECONDS) < _SECONDS:
            return
        self._warned[key] = now
        _LOG.warning(
            "Unreadable values in column %s: %d since the last warning (%s). docs/masks.md says "
            "how to find and mend such rows.",
            column,
            self._since.pop(key, 1),
            reason,
        )


def _asynchronous() -> ConfigurationError:
    return ConfigurationError(
        "on_reveal() takes a function that is not asynchronous: nobody would wait for it. Let it "
        "put the event into a queue, or write it where it is."
    )
