"""What a process must not take over from the one that forked it: connections, locks, threads."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar
from weakref import WeakSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PerProcess", "forget_after_fork"]

_T = TypeVar("_T")


class _Forgetting(Protocol):
    def forget(self) -> None: ...


class PerProcess(Generic[_T]):
    """Something that is made when it is first needed, and anew in a forked process.

    Args:
        make: Makes it; called by one thread.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self.forget()
        forget_after_fork(self)

    def forget(self) -> None:
        """Make it anew when it is needed next."""
        # Another thread of the parent may have held the lock.
        self._lock = Lock()
        self._made: list[_T] = []

    def __call__(self) -> _T:
        """Return it."""
        if not self._made:
            with self._lock:
                if not self._made:
                    self._made.append(self._make())
        return self._made[0]


_open: WeakSet[_Forgetting] = WeakSet()


def forget_after_fork(each: _Forgetting) -> None:
    """Let *each* forget in every process that is forked from here on."""
    _open.add(each)


def _forget_all() -> None:
    for each in _open:
        each.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
