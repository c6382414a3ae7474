"""What a key's life costs: wrapped anew and rotated for many tenants, and kept in the cache.

The commands' own loops run against a plain batched UPDATE of the same rows, in turn. The cache is
measured in the process alone: memory is the growth of the resident set.
"""

from __future__ import annotations

import gc
import os
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any
from uuid import UUID

from bench import machine
from sqlalchemy import text
from vault import ENVIRONMENT, build_vault

from tenantguard import KeyFile, Keyring, TenantGuard, keystore
from tenantguard.cli.keys import rewrap
from tenantguard.cli.keys.changing import _BATCH, KeyTable
from tenantguard.cli.keys.opening import Opened
from tenantguard.cli.keys.writing import Change
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.crypto.keysets import new_data_keyset, new_index_keyset
from tenantguard.crypto.rotation import add_key, promote_key
from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from vault import Vault

    from tenantguard.cli.keys.writing import KeyRow
    from tenantguard.crypto.keyfile import KeyProvider

TENANTS = 10_000
CACHED = 100_000
ROUNDS = 2
DATA = "k.purpose = 'data'"


def tenant(number: int) -> UUID:
    return UUID(int=number + 1)


def fill(vault: Vault) -> None:
    """Give the registry 10,000 tenants, each with keysets."""
    held = vault.guard._open_keystore()
    with vault.admin.begin() as connection:
        connection.execute(text("DELETE FROM tenantguard_keys"))
        connection.execute(text("DELETE FROM practices"))
        for start in range(0, TENANTS, 500):
            batch = [str(tenant(number)) for number in range(start, start + 500)]
            registry = ", ".join(f"('{each}')" for each in batch)
            connection.exec_driver_sql(f"INSERT INTO practices VALUES {registry}")
            rows = ", ".join(
                held._new_row(each, what) for each in batch for what in ("data", "index")
            )
            connection.exec_driver_sql(
                "INSERT INTO tenantguard_keys (tenant_id, purpose, kek_uri, wrapped, check_value) "
                f"VALUES {rows}"
            )
    with vault.admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE tenantguard_keys")


def plain(table: KeyTable, vault: Vault, condition: str) -> int:
    """Write the rows' own contents, in batches as large, by their primary key."""
    rows = list(table.rows(condition))
    for start in range(0, len(rows), _BATCH):
        with vault.admin.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE tenantguard_keys SET wrapped = %s, check_value = %s "
                "WHERE tenant_id = %s::uuid AND purpose = %s",
                [
                    (row.wrapped, row.check, row.tenant, row.purpose)
                    for row in rows[start : start + _BATCH]
                ],
            )
    return len(rows)


def timed(what: str, work: Callable[[], int], per: int) -> None:
    start = perf_counter()
    number = work()
    seconds = perf_counter() - start
    print(f"  {what:44} {number:7,} rows {seconds:7.2f} s {number / per / seconds:9,.0f} tenants/s")


def changing(table: KeyTable, act: Any) -> Callable[[], int]:
    def make(row: KeyRow) -> Change | None:
        made = act(table.stored(row))
        return Change(row, row.kek_uri, *made) if made else None

    return lambda: table.change(DATA, make).done


def rewrapping(table: KeyTable, keys: KeyProvider) -> Callable[[], int]:
    return lambda: table.change("true", lambda row: rewrap._change(table, keys, row)).done


def round_of(vault: Vault, keys: Keyring) -> None:
    roles, metadata = vault.guard.roles, vault.guard.catalog.metadata
    guard = TenantGuard(metadata, tenants="practices", roles=roles, keys=keys)
    table = KeyTable(Opened(guard, vault.admin, keys))
    print(f"\n{TENANTS:,} tenants, batches of {_BATCH} rows")
    for what, work, per in (
        ("plain UPDATE, both keysets", lambda: plain(table, vault, "true"), 2),
        ("rewrap, both keysets", rewrapping(table, keys), 2),
        ("plain UPDATE, data keysets", lambda: plain(table, vault, DATA), 1),
        ("rotate: add", changing(table, add_key), 1),
        ("rotate: seal", changing(table, promote_key), 1),
    ):
        timed(what, work, per)


def rates(vault: Vault, new: Path) -> None:
    old, key = (KeyFile(each, environment=ENVIRONMENT) for each in (vault.key_file, new))
    for _ in range(ROUNDS):
        round_of(vault, Keyring(key, old))
        round_of(vault, Keyring(old, key))


def resident() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def rows_of(held: Any, name: str) -> list[tuple[Any, ...]]:
    kek, uri = held._provider.kek, held._provider.uri
    return [
        (what, uri, *make(kek, held._context(name, what)), "active", True, 0.0)
        for what, make in (("data", new_data_keyset), ("index", new_index_keyset))
    ]


class Cache:
    """A keystore whose rows are not asked of a database."""

    def __init__(self, vault: Vault, stored: dict[str, list[tuple[Any, ...]]]) -> None:
        self.held: Any = vault.another_guard()._open_keystore()
        self._stored = stored

    def hit(self, name: str) -> object:
        return self.held._cached(name)

    def miss(self, name: str) -> object:
        return self.held._read(lambda _: self._stored[name], name, create=False)

    def either(self, name: str) -> object:
        return self.hit(name) or self.miss(name)


def microseconds(work: Callable[[str], object], names: list[str]) -> float:
    start = perf_counter()
    for name in names:
        work(name)
    return (perf_counter() - start) / len(names) * 1e6


def caching(vault: Vault) -> None:
    names = [str(tenant(number)) for number in range(CACHED)]
    made: Any = vault.guard._open_keystore()
    stored = {name: rows_of(made, name) for name in names}
    for bound in (10_000, 2 * CACHED):
        keystore._TENANTS = bound
        cache = Cache(vault, stored)
        gc.collect()
        before = resident()
        miss = microseconds(cache.miss, names)
        gc.collect()
        grown, kept = resident() - before, list(cache.held._cache)
        hit = microseconds(cache.hit, Random(1).choices(kept, k=CACHED))
        alike = microseconds(cache.either, Random(2).choices(names, k=20_000))
        print(
            f"\nCache bound {bound:,}, {CACHED:,} tenants: {len(kept):,} kept, {grown:.0f} MiB, "
            f"{grown * 1024 / len(kept):.1f} KiB a tenant\n"
            f"  hit {hit:.2f} µs, miss without its round trip {miss:.0f} µs, tenants at random "
            f"{alike:.1f} µs"
        )
        cache.held.forget()


def main() -> None:
    machine()
    with embedded_server() as running, TemporaryDirectory() as directory:
        new = Path(directory) / "new.json"
        make_key_file(new, environment=ENVIRONMENT)
        vault = build_vault(running.url(), Path(directory))
        fill(vault)
        rates(vault, new)
        caching(vault)
        vault.dispose()


if __name__ == "__main__":
    main()
