"""What a guard does so that its processes notice changes of keys at once."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakSet

from tenantguard.errors import ConfigurationError
from tenantguard.following.channel import channel_of
from tenantguard.following.follower import KeyFollower
from tenantguard.following.listener import own_engine

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

    from tenantguard.catalog import Catalog
    from tenantguard.crypto.keyfile import KeyProvider

__all__ = ["GuardedKeys"]


class _Forgetting(Protocol):
    def forget(self, *, changed: bool) -> None: ...


_Keystore = TypeVar("_Keystore", bound=_Forgetting)


class GuardedKeys:
    """The followed keys of a `TenantGuard`, which has the rest."""

    catalog: Catalog
    keys: KeyProvider | None
    mode: Any
    _keystores: WeakSet[Any]
    _lock: Lock

    if TYPE_CHECKING:

        def _works_with(self, engine: Engine) -> bool: ...

    def follow_keys(self, address: str | URL | Engine) -> KeyFollower:
        """Notice at once that a `tenantguard keys` command has changed or destroyed keys.

        Without it, and while it is not connected, that takes five minutes at the most. A thread
        listens on a connection of its own, and lets this process forget its cached keys. Call it
        in each process, after a fork; what it returns is a context manager and has `stop()`. It
        does not wait for the connection. What keeps it from one is logged as `tenantguard`.

        Args:
            address: The database's, for psycopg or psycopg2, and PostgreSQL's own: notifications do
                not pass a pooler in transaction mode, and a standby has none. Or an engine that
                nothing else uses.

        Raises:
            ConfigurationError: If the guard has no keys=, or nothing can listen on *address*.
        """
        engine = own_engine(address)
        if self._works_with(engine):
            raise ConfigurationError(
                "follow_keys() was given an engine that the application works with. Give it the "
                "address, or an engine that nothing else uses."
            )
        if self.keys is None:
            raise ConfigurationError(
                "follow_keys() has nothing to follow: TenantGuard has no keys=. Pass them, or "
                "leave the call out."
            )
        _followed.add(self)
        follower = KeyFollower(engine, channel_of(self.catalog), self._forget_keys)
        return follower if self.mode == "off" else follower.start()

    def _noted(self, keystore: _Keystore) -> _Keystore:
        """Return *keystore*, which is to forget when keys have changed."""
        with self._lock:
            self._keystores.add(keystore)
        return keystore

    def _forget_keys(self) -> None:
        with self._lock:
            keystores = list(self._keystores)
        for keystore in keystores:
            keystore.forget(changed=True)

    def _unlock(self) -> None:
        """Have a lock of its own, in a forked process: the parent's thread may have held it."""
        self._lock = Lock()


_followed: WeakSet[GuardedKeys] = WeakSet()


def _unlock_all() -> None:
    for guard in _followed:
        guard._unlock()  # noqa: SLF001  (as its own)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock_all)
