"""What the commands for keys begin with: the guard, the database and the guard's own key."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.cli.keys.rows import require_encryption
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.outcome import could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.errors import TenantGuardError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import Engine

    from tenantguard.crypto.keyfile import KeyProvider
    from tenantguard.guard import TenantGuard

__all__ = ["Opened", "opened", "own_key", "require_answer", "tracked"]

_PROBE = b"tenantguard probe"


@dataclass(frozen=True, slots=True, repr=False)
class Opened:
    """A guard whose key can be read, and an engine with the admin address."""

    guard: TenantGuard
    engine: Engine
    provider: KeyProvider


@contextmanager
def opened(guard_name: str | None, admin_url: str | None, *, asks: bool = True) -> Iterator[Opened]:
    """Yield guard, database and key; what cannot be had ends the command with 2.

    So does a key service that does not answer, unless the command *asks* it nothing.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    guard.catalog.check()
    engine = admin_engine(admin_url)
    try:
        provider, missed = own_key(guard)
        if provider is None:
            could_not_look(missed[0])
        if asks:
            require_answer(provider)
        yield Opened(guard, engine, provider)
    finally:
        engine.dispose()


def own_key(guard: TenantGuard) -> tuple[KeyProvider | None, list[str]]:
    """Return the guard's key, or why it cannot be read."""
    try:
        guard._open_keystore()  # noqa: SLF001  (the commands are the guard's own)
    except TenantGuardError as error:
        return None, [str(error)]
    return guard.keys, []


def require_answer(provider: KeyProvider) -> None:
    """Raise unless the key wraps and unwraps: else keysets would look as if they were damaged.

    Raises:
        KeyUnavailableError: If a key service does not answer, or refuses.
    """
    kek = provider.kek
    kek.decrypt(kek.encrypt(_PROBE, _PROBE), _PROBE)


def tracked(items: Iterable[Any], what: str, *, shown: bool) -> Iterator[Any]:
    """Yield *items* with a progress bar on a terminal."""
    listed = list(items)
    with progress_bar(what, shown=shown) as progress:
        for done, item in enumerate(listed):
            progress(done, len(listed), what)
            yield item
