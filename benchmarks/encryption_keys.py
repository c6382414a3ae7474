"""What a tenant's keys cost: unwrapped for the first time in a process, and made.

Unwrapping is measured in the process alone; a cold statement, whose process does not know the keys
yet, on a local socket. Round trips are counted through a loopback proxy.
"""

from __future__ import annotations

from time import perf_counter_ns, sleep
from typing import TYPE_CHECKING, Any

from bench import compare, often, report
from encryption_data import Visit, clinic, tenant
from encryption_lists import values
from proxy import proxy
from sqlalchemy import create_engine, insert, select
from tink import aead, proto_keyset_format

from tenantguard import tenant_context
from tenantguard.crypto.keysets import open_data_keyset

if TYPE_CHECKING:
    from collections.abc import Callable

    from encryption_data import Clinic
    from sqlalchemy import Engine

    from tenantguard.keystore import Keystore

TENANTS = 1_000
ONE = "Tink, one keyset, unchecked"


def unwrapping(built: Clinic) -> None:
    keystore = built.guard._open_keystore()
    named = str(tenant(0))
    rows: Any = [
        (row.purpose, row.kek_uri, row.wrapped, row.check_value, row.state, True)
        for row in built.run("SELECT * FROM tenantguard_keys WHERE tenant_id = :id", id=tenant(0))
    ]
    data = next(row for row in rows if row[0] == "data")
    kek, context = keystore._provider.kek, keystore._context(named, "data")

    def bare() -> object:
        return proto_keyset_format.parse_encrypted(data[2], kek, context).primitive(aead.Aead)

    work = {
        ONE: often(bare),
        "one keyset, checked": often(lambda: open_data_keyset(data[2], data[3], kek, context)),
        "a tenant's two, checked": often(lambda: keystore._unwrapped(named, rows)),
        "a tenant's two, made": often(
            lambda: [keystore._new_row(named, purpose) for purpose in ("data", "index")]
        ),
    }
    report("A tenant's keysets, in the process", compare(work, rounds=100, repeat=50), base=ONE)


def reading(engine: Engine, keystore: Keystore, *, cold: bool) -> Callable[[], object]:
    query = select(Visit.patient).where(Visit.id == 1)

    def run() -> object:
        if cold:
            keystore.forget()
        with engine.begin() as connection:
            return connection.execute(query).all()

    return run


def keystore_of(engine: Engine) -> Keystore:
    context: Any = engine.dialect.execution_ctx_cls
    keystore: Keystore = context.keys.__self__
    return keystore


def writing(engine: Engine, number: int) -> None:
    with tenant_context(tenant(number)), engine.begin() as connection:
        connection.execute(insert(Visit), values(number) | {"tenant_id": tenant(number)})


def cold_statement(built: Clinic) -> None:
    """Compare one read in a transaction of its own, without and with the keys' being read."""
    keystore = keystore_of(built.engine)
    with tenant_context(tenant(0)):
        work = {
            "keys known": often(reading(built.engine, keystore, cold=False)),
            "keys read": often(reading(built.engine, keystore, cold=True)),
        }
        samples = compare(work, rounds=200, repeat=5)
    report("A read in a transaction, local socket", samples, base="keys known")


def first_write(built: Clinic) -> None:
    """Compare a tenant's first write, which makes its keys, with those that follow."""
    samples: dict[str, list[float]] = {"keys made": [], "keys read": [], "keys known": []}
    for number in range(1, TENANTS):
        # What a transaction has made itself is read once more by the next.
        for times in samples.values():
            start = perf_counter_ns()
            writing(built.engine, number)
            times.append((perf_counter_ns() - start) / 1000)
    report("A tenant's write in a transaction, local socket", samples, base="keys known")


def round_trips(built: Clinic) -> None:
    with proxy(built.admin.url) as between:
        engine = create_engine(between.url(built.app_url))
        built.guard.protect(engine)
        keystore = keystore_of(engine)
        built.run(f"INSERT INTO practices SELECT '{tenant(TENANTS)}'")

        def counted(work: Callable[[], object]) -> int:
            sleep(0.05)
            before: int = between.round_trips
            work()
            sleep(0.05)
            return between.round_trips - before

        with tenant_context(tenant(0)):
            reading(engine, keystore, cold=False)()
            known = counted(reading(engine, keystore, cold=False))
            read = counted(reading(engine, keystore, cold=True))
        made, *again = (counted(lambda: writing(engine, TENANTS)) for _ in range(3))
        engine.dispose()
    print("\nRound trips of a transaction with one statement")
    print(f"  a read: keys read {read}, keys known {known}")
    print(f"  a write: keys made {made}, keys read {again[0]}, keys known {again[1]}")


def main() -> None:
    with clinic(TENANTS) as built:
        writing(built.engine, 0)
        unwrapping(built)
        cold_statement(built)
        first_write(built)
        round_trips(built)
