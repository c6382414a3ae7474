"""The thread that follows changes of keys for a process."""

from __future__ import annotations

import logging
import os
import random
import socket
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from tenantguard.errors import ConfigurationError, sqlstate
from tenantguard.following.listener import NotDeliveredError, listening

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from tenantguard.following.listener import Listener

__all__ = ["KeyFollower"]

_LOG = logging.getLogger("tenantguard")

_GATHERING = 0.2
"""Seconds in which what else comes is taken together: who changes many keys tells it often."""
_SOONEST = 0.5
_LATEST = 60.0
"""How long to wait before connecting again, at first and in the end, in seconds."""
_ON_STANDBY = "25006"

_MEANWHILE = "Until then keys that were changed or destroyed are used for five minutes at the most"


class KeyFollower:
    """Calls *forget* whenever keys were changed, and whenever it may have missed that.

    It is a context manager. A forked process does not have its thread: call `guard.follow_keys()`
    there.

    Args:
        engine: Where to connect; it is used by this alone.
        channel: What to listen to.
        forget: Forgets all keys.
    """

    def __init__(self, engine: Engine, channel: str, forget: Callable[[], object]) -> None:
        self._engine = engine
        self._channel = channel
        self._forget = forget
        self._following = Event()
        self._stopping = Event()
        self._said: str | None = None
        self._thread: Thread | None = None
        self._sockets: tuple[socket.socket, ...] = ()

    def __repr__(self) -> str:
        return f"<KeyFollower following={self.following}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def following(self) -> bool:
        """Whether changes are heard at once."""
        return self._following.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait until changes are heard at once, for so long at most; return whether they are."""
        return self._following.wait(seconds)

    def start(self) -> Self:
        """Begin to follow, which can be done once; return itself.

        Raises:
            ConfigurationError: If it has begun, or ended, before.
        """
        if self._thread is not None or self._stopping.is_set():
            raise ConfigurationError(
                "This KeyFollower has been started before. Call guard.follow_keys() again, also in "
                "a forked process."
            )
        self._sockets = socket.socketpair()
        # A thread that waits does not keep the process from ending.
        self._thread = Thread(target=self._run, name="tenantguard keys", daemon=True)
        self._thread.start()
        _started.add(self)
        return self

    def stop(self, seconds: float = 5.0) -> None:
        """Follow no longer, and close the connection, which takes so long at most."""
        self._stopping.set()
        thread, self._thread = self._thread, None
        if thread is not None:
            # It may have ended by itself.
            with suppress(OSError):
                self._sockets[1].send(b"\0")
            thread.join(seconds)

    def lose_thread(self) -> None:
        """Be one that has stopped: in a forked process, which has no thread and no connection."""
        # Another thread of the parent may have held their locks.
        self._following, self._stopping = Event(), Event()
        self._stopping.set()
        self._thread = None
        self._close()

    def _close(self) -> None:
        for each in self._sockets:
            each.close()

    # -- in the thread ------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _SOONEST
        while not self._stopping.is_set():
            try:
                self._follow()
            except Exception as error:  # noqa: BLE001  (a thread's error would be nobody's)
                if self._following.is_set():
                    self._said, pause = None, _SOONEST
                self._following.clear()
                if not self._tell(error):
                    break
            # Not all processes at once.
            self._stopping.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = min(pause * 2, _LATEST)
        self._following.clear()
        self._close()

    def _follow(self) -> None:
        """Connect, and forget keys whenever that is told, until told to stop."""
        with listening(self._engine, self._channel, self._sockets[0]) as listener:
            # What was told before is missed.
            self._forget()
            self._following.set()
            _LOG.info("Following changes of keys on the channel %s.", self._channel)
            self._serve(listener)

    def _serve(self, listener: Listener) -> None:
        while not self._stopping.is_set():
            if self._channel in listener.wait():
                self._forget()
                _LOG.info("Keys were changed: those in the cache are forgotten.")
            self._stopping.wait(_GATHERING)

    def _tell(self, error: Exception) -> bool:
        """Log why keys are not followed, once for each reason; return whether to try again."""
        if self._stopping.is_set():
            return False
        if isinstance(error, NotDeliveredError) and error.pooler:
            _LOG.error(
                "Changes of keys are not followed: a connection pooler, such as PgBouncer in "
                "transaction mode, is between follow_keys() and PostgreSQL, and notifications do "
                "not pass. Give it PostgreSQL's own address, or a session pool's. %s.",
                _MEANWHILE,
            )
            return False
        reason = _reason(error)
        if reason != self._said:
            self._said = reason
            _LOG.warning("Changes of keys are not followed: %s. %s.", reason, _MEANWHILE)
        return True


def _reason(error: Exception) -> str:
    """Return what *error* is, without its text: that could quote the address."""
    if isinstance(error, NotDeliveredError):
        return "a notification did not arrive. It is tried again"
    code = sqlstate(error)
    if code == _ON_STANDBY:
        return "the address is a standby's, which cannot listen. Give the primary's"
    name = type(getattr(error, "orig", None) or error).__name__
    detail = f"{name}, SQLSTATE {code}" if code else name
    return f"no connection ({detail}). It is tried again; look at the address if that goes on"


_started: WeakSet[KeyFollower] = WeakSet()


def _lose_threads() -> None:
    for follower in _started:
        follower.lose_thread()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_threads)
