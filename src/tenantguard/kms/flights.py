"""Asking a service that takes its time: once for all who ask the same, beside the event loop."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import Future
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING

from sqlalchemy.util import await_only, concurrency

from tenantguard.errors import TenantGuardError
from tenantguard.kms.processes import forget_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    Answer = bytes | TenantGuardError
    Flight = Future[Answer]

__all__ = ["Flights"]


class Flights:
    """Answers that are under way. None is kept once it has come."""

    def __init__(self) -> None:
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        """Forget those of the parent of a forked process: its threads are not here."""
        self._lock = Lock()
        self._flights: dict[Hashable, Flight] = {}

    def alone(self, work: Callable[[], bytes]) -> bytes:
        """Return what *work* returns, or raise what it raises."""
        flight = _new()
        _launch(flight, partial(_fly, flight, work))
        return _landed(flight)

    def shared(self, key: Hashable, work: Callable[[], bytes]) -> bytes:
        """Do so for all who ask for *key* meanwhile."""
        with self._lock:
            flight = self._flights.get(key)
            first = flight is None
            if flight is None:
                flight = self._flights[key] = _new()
                flight.add_done_callback(lambda _: self._flights.pop(key, None))
        if first:
            _launch(flight, partial(_fly, flight, work))
        return _landed(flight)


def _new() -> Flight:
    flight: Flight = Future()
    # One of those who wait cannot cancel it for the others.
    flight.set_running_or_notify_cancel()
    return flight


def _launch(flight: Flight, fly: Callable[[], None]) -> None:
    if not _on_loop():
        fly()
        return
    try:
        # Not the loop's threads: they may all be waiting for this very flight.
        Thread(target=fly, name="tenantguard key service", daemon=True).start()
    except RuntimeError as error:
        # No thread is to be had.
        flight.set_exception(error)


def _fly(flight: Flight, work: Callable[[], bytes]) -> None:
    try:
        flight.set_result(work())
    except TenantGuardError as error:
        flight.set_result(error)
    except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
        flight.set_exception(error)


def _landed(flight: Flight) -> bytes:
    answer = await_only(asyncio.wrap_future(flight)) if _on_loop() else flight.result()
    if isinstance(answer, TenantGuardError):
        # Each who waits has an error of its own, without the frames that had keys in them.
        raise type(answer)(*answer.args)
    return answer


def _on_loop() -> bool:
    """Return whether this is SQLAlchemy's greenlet on an event loop, which waiting would stop."""
    # Without greenlet there are no asynchronous engines.
    return "greenlet" in sys.modules and bool(concurrency.in_greenlet())
