"""The tenants' keys: read from `tenantguard_keys` in the transaction that needs them, and cached.

Keys are read before the statement that needs them is sent, on its own connection, never by a type's
processor. What this transaction has inserted itself is not cached: a rollback would take it away.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from functools import partial
from math import inf
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from sqlalchemy.exc import DBAPIError

from tenantguard.binding import ask
from tenantguard.binding.literal import sql_literal
from tenantguard.context import active_tenant
from tenantguard.crypto.format import keyset_context
from tenantguard.crypto.keyring import provider_of
from tenantguard.crypto.tenant_keys import TenantKeys
from tenantguard.errors import KeyUnavailableError, TenantNotSetError, sqlstate
from tenantguard.keytable import PURPOSES
from tenantguard.rls.names import qualified, target_of
from tenantguard.rls.values import has_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection

    from tenantguard.catalog import Catalog
    from tenantguard.crypto.keyfile import KeyProvider

    Ask = Callable[[str], Sequence[Any]]

__all__ = ["KNOWN_EVERYWHERE", "Keystore", "is_fresh"]

_SECONDS = 300.0
"""How long a tenant's keys are used before the table is asked again."""
KNOWN_EVERYWHERE = _SECONDS + 60.0
"""After so many seconds every process has what was committed, or asks before it uses a key."""
_TENANTS = 10_000
_PATIENCE = "5s"
"""How long to wait for another transaction that makes the same tenant's keys."""
_NOW_SEEN = "pg_catalog.current_setting('transaction_isolation') = 'read committed'"
_SINCE = "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - {})"
_AGE = (
    "CASE WHEN pg_catalog.pg_is_in_recovery() THEN "
    f"CASE WHEN {_NOW_SEEN} THEN greatest(0, coalesce("
    f"{_SINCE.format('pg_catalog.pg_last_xact_replay_timestamp()')}, 'Infinity')) "
    "ELSE 'Infinity' END "
    f"WHEN {_NOW_SEEN} THEN 0 ELSE {_SINCE.format('pg_catalog.transaction_timestamp()')} END"
)
"""How old what the transaction sees is at the most, in seconds.

A standby has all that was committed before what it has replayed last. How far it was when an older
snapshot was taken, it does not say.
"""
_ITS_OWN = ("08", "25", "40", "53", "57", "58")
"""Classes of SQLSTATE that say something of the transaction or the server, not of the keys."""


class Keystore:
    """The keys of all tenants in one database.

    Args:
        provider: Where the key-encryption key is; a `Keyring` has several.
        catalog: The application's tables.
        tenant: Returns the active tenant's canonical id as text; None if no tenant is active.
    """

    def __init__(
        self, provider: KeyProvider, *, catalog: Catalog, tenant: Callable[[], str | None]
    ) -> None:
        self._provider = provider
        self._catalog = catalog
        self._table = qualified(target_of(catalog.entry(catalog.key_table)))
        self._tenant = tenant
        self._cache: OrderedDict[str, TenantKeys] = OrderedDict()
        self._lock = Lock()
        self._generation = 0
        self._changed = -inf
        _open.add(self)

    def __repr__(self) -> str:
        return "<Keystore>"

    def keys_for(self, connection: Connection, create: bool) -> TenantKeys:  # noqa: FBT001
        """Return the active tenant's keys, which its context then opens fetched values with.

        Args:
            connection: The connection that is about to send the statement; asked, if the keys are
                not known, at the cost of one round trip.
            create: Whether to make keys that the tenant does not have yet.

        Raises:
            TenantNotSetError: If no tenant is active.
            KeyUnavailableError: If the keys cannot be read, unwrapped or made.
        """
        active, tenant = active_tenant(), self._tenant()
        if active is None or tenant is None:
            raise TenantNotSetError(
                "Encrypted columns are sealed with the tenant's key, and no tenant is active. Wrap "
                "the work in `with tenant_context(tenant_id):`."
            )
        keys = self._cached(tenant) or self._read(partial(ask, connection), tenant, create=create)
        if keys.data is not None or keys.shredded or active.keys is None:
            # Another connection, which does not see a new key yet, does not take it from the rest.
            active.keys = keys
        return keys

    def create(self, run: Ask, tenant: str) -> bool:
        """Make the keys of *tenant*, unless it has them; return whether they were made.

        Args:
            run: Runs SQL, in a transaction that may write the tenant's rows of `tenantguard_keys`.
            tenant: The canonical text of its id.

        Raises:
            KeyUnavailableError: If they cannot be made, or one of the two keysets was lost.
        """
        rows = _asked(run, self._query(tenant))
        if not rows:
            self._make(run, tenant)
        elif len(rows) < len(PURPOSES):
            raise _incomplete()
        return not rows

    def _cached(self, tenant: str) -> TenantKeys | None:
        keys = self._cache.get(tenant)
        return keys if keys is not None and is_fresh(keys) else None

    def _read(self, run: Ask, tenant: str, *, create: bool) -> TenantKeys:
        began = self._generation, monotonic()
        rows = _asked(run, self._query(tenant))
        if create and not rows:
            self._make(run, tenant)
            began = self._generation, monotonic()
            rows = _asked(run, self._query(tenant))
        keys = self._unwrapped(tenant, rows)
        if rows and all(row[5] for row in rows):
            # Of a row that a transaction sees as it was when it began, that is how old it is.
            self._remember(tenant, keys, *began, age=max(row[6] for row in rows))
        return keys

    def _remember(
        self, tenant: str, keys: TenantKeys, generation: int, began: float, *, age: float
    ) -> None:
        """Keep *keys*, of rows so old when reading *began*, unless all were forgotten since."""
        with self._lock:
            # In this order, for forget() waits for nobody: what it has put away is kept by nobody.
            cache = self._cache
            if generation != self._generation or began - age <= self._changed:
                return
            keys.expires = began + _SECONDS - age
            cache[tenant] = keys
            # Who is active stays: read again, its keys are the newest.
            cache.move_to_end(tenant)
            if len(cache) > _TENANTS:
                cache.popitem(last=False)

    def _query(self, tenant: str) -> str:
        # A row as young as this transaction may be its own, which a rollback takes away.
        return (
            "SELECT purpose, kek_uri, wrapped, check_value, state, "  # noqa: S608  (a quoted name, an escaped literal)
            "created_at < pg_catalog.transaction_timestamp(), "
            f"{_AGE} "
            f"FROM {self._table} WHERE tenant_id = {sql_literal(tenant)}"
        )

    def _make(self, run: Ask, tenant: str) -> None:
        """Make both keysets, unless the tenant has values: then it had keysets, and lost them."""
        if not _asked(run, f"SELECT {has_values(self._catalog, sql_literal(tenant))}")[0][0]:
            self._insert(run, tenant)
        elif not _asked(run, self._query(tenant)):
            # Not made by another transaction in between, which has written a value too.
            raise KeyUnavailableError(
                "The tenant has encrypted values and no keys: its rows in tenantguard_keys were "
                "lost. Restore them from the backup that the values came from."
            )

    def _insert(self, run: Ask, tenant: str) -> None:
        """Make both keysets; of transactions that do so at the same time, one wins."""
        rows = ", ".join(self._new_row(tenant, purpose) for purpose in PURPOSES)
        patience = _asked(run, "SELECT pg_catalog.current_setting('lock_timeout')")[0][0]
        if patience == "0":
            _asked(run, _set_patience(_PATIENCE))
        _asked(
            run,
            f"INSERT INTO {self._table} (tenant_id, purpose, kek_uri, wrapped, check_value) "  # noqa: S608
            f"VALUES {rows} ON CONFLICT DO NOTHING",
        )
        if patience == "0":
            _asked(run, _set_patience(patience))

    def _new_row(self, tenant: str, purpose: str) -> str:
        from tenantguard.crypto import keysets  # noqa: PLC0415  (loads Tink)

        make = keysets.new_data_keyset if purpose == "data" else keysets.new_index_keyset
        wrapped, check = make(self._provider.kek, self._context(tenant, purpose))
        values = (sql_literal(tenant), f"'{purpose}'", sql_literal(self._provider.uri))
        return f"({', '.join(values)}, {_bytes_literal(wrapped)}, {_bytes_literal(check)})"

    def _unwrapped(self, tenant: str, rows: Sequence[Any]) -> TenantKeys:
        from tenantguard.crypto import keysets  # noqa: PLC0415  (loads Tink)

        keys = TenantKeys(tenant.encode())
        if 0 < len(rows) < len(PURPOSES):
            raise _incomplete()
        for purpose, uri, wrapped, check, state, *_ in rows:
            if state == "destroyed":
                return TenantKeys(tenant.encode(), shredded=True)
            provider = provider_of(self._provider, uri)
            if provider is None:
                raise KeyUnavailableError(
                    "The tenant's keys are wrapped by another key-encryption key, or another "
                    "environment's, than TenantGuard(keys=…) has. `tenantguard keys list` names it."
                )
            parts = (bytes(wrapped or b""), bytes(check or b""), provider.kek)
            context = self._context(tenant, purpose)
            if purpose == "data":
                keys.data = keysets.open_data_keyset(*parts, context)
                keys.writable = state == "active"
            else:
                keys.searching = keysets.open_index_keyset(*parts, context)
        return keys

    def _context(self, tenant: str, purpose: str) -> bytes:
        return keyset_context(self._provider.environment, tenant.encode(), purpose)

    def forget(self, *, changed: bool = False) -> None:
        """Forget all keys, those too that are being read: the database may be another.

        If they were *changed*, what a transaction or a standby sees that is older is not kept.
        """
        self._generation += 1
        if changed:
            self._changed = monotonic()
        # Last: what comes into the cache has been compared with both.
        self._cache = OrderedDict()

    def unlock(self) -> None:
        """Have a lock of its own, in a forked process: a thread of the parent may have held it."""
        self._lock = Lock()


def is_fresh(keys: TenantKeys) -> bool:
    """Return whether *keys* may still be used without a look at the table."""
    return keys.expires > monotonic()


_open: WeakSet[Keystore] = WeakSet()


def _forget_all() -> None:
    for keystore in _open:
        keystore.unlock()
        keystore.forget()


# Once for all: what is registered stays for as long as the process lives.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _asked(run: Ask, query: str) -> Sequence[Any]:
    try:
        return run(query)
    except DBAPIError as error:
        code = sqlstate(error) or ""
        if error.connection_invalidated or code.startswith(_ITS_OWN):
            raise
    # Outside of the block: PostgreSQL's text could quote the tenant.
    raise KeyUnavailableError(_REASONS.get(code, f"{_REFUSED} (SQLSTATE {code})."))


_REFUSED = "PostgreSQL did not let the tenant's keys be read or made"
_REASONS = {
    "42P01": f"{_REFUSED}: there is no table tenantguard_keys, or a table of the models is not in "
    "the database. Run your migrations, then `tenantguard rls apply`.",
    "42703": f"{_REFUSED}: a column of the models is not in the database. Run your migrations or, "
    "for one that is declared with migrating=, `tenantguard encrypt expand`; then `tenantguard rls "
    "apply`.",
    "42501": f"{_REFUSED}: a privilege is missing. Run `tenantguard rls apply`.",
    "55P03": f"{_REFUSED}: another transaction is making them and has not ended after {_PATIENCE}. "
    "Do not use two sessions for a tenant's first encrypted value, or make its keys beforehand "
    "with `tenantguard keys create`.",
    "23503": f"{_REFUSED}: the registry does not have the tenant. Create the tenant first.",
}


def _incomplete() -> KeyUnavailableError:
    # Both are made by one statement, so the other was lost; a new one would hide that.
    return KeyUnavailableError(
        "The tenant has one keyset of two: the other's row in tenantguard_keys was lost. Restore "
        "it from a backup."
    )


def _set_patience(value: str) -> str:
    return f"SELECT pg_catalog.set_config('lock_timeout', '{value}', true)"


def _bytes_literal(value: bytes) -> str:
    return f"pg_catalog.decode('{value.hex()}', 'hex')"
