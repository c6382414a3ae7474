"""What binding and scrubbing cost a transaction of one query, on a network and on a socket.

Run: python benchmarks/transaction.py

A loopback proxy adds 1 ms each way and counts round trips. Each round takes a connection from the
pool, runs one query in a transaction, and gives the connection back, so that the scrub is included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import compare, machine, report, world
from locks import Locks
from practice import A, Patient
from proxy import proxy
from sqlalchemy import Engine, create_engine, select

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

PATIENTS: Any = Patient.__table__
DELAY = 0.001


def transaction(engine: Engine, *, by_hand: bool) -> Callable[[], object]:
    query = select(PATIENTS.c.name).where(PATIENTS.c.id == 2)
    if by_hand:
        query = query.where(PATIENTS.c.tenant_id == A)

    def run() -> object:
        with engine.begin() as connection:
            return connection.execute(query).all()

    return run


def measure(title: str, plain: Engine, guarded: Engine, *, rounds: int, repeat: int) -> None:
    times = compare(
        {
            "unprotected, WHERE by hand": transaction(plain, by_hand=True),
            "protected": transaction(guarded, by_hand=False),
        },
        rounds=rounds,
        repeat=repeat,
    )
    report(title, times, base="unprotected, WHERE by hand")


def engines(locks: Locks, app: URL, admin: URL) -> tuple[Engine, Engine]:
    guarded = create_engine(app)
    locks.world.guard.protect(guarded)
    # Unprotected rows are read by a superuser, whom no policy slows down.
    return create_engine(admin), guarded


def main() -> None:
    machine()
    with world() as built, tenant_context(A):
        locks = Locks(built)
        admin = built.admin.url
        plain, guarded = engines(locks, built.app_url, admin)
        measure("Transaction on a local socket", plain, guarded, rounds=40, repeat=50)
        with proxy(admin, delay=DELAY) as slow:
            plain, guarded = engines(locks, slow.url(built.app_url), slow.url(admin))
            measure("Transaction with 1 ms each way", plain, guarded, rounds=40, repeat=10)
            for name, engine, by_hand in (
                ("unprotected", plain, True),
                ("protected", guarded, False),
            ):
                before = slow.round_trips
                transaction(engine, by_hand=by_hand)()
                print(f"  round trips, {name}: {slow.round_trips - before}")
            plain.dispose()
            guarded.dispose()
        locks.dispose()


if __name__ == "__main__":
    main()
