"""What binding and scrubbing cost a transaction of one query, with each driver.

Run: python benchmarks/transaction.py [DRIVER …]

On a local socket, and through a loopback proxy that adds 1 ms each way and counts round trips. Each
transaction takes a connection from the pool, runs one query, and gives the connection back, so that
the scrub is included; with NullPool it makes a connection of its own. Asynchronous drivers work in
an event loop.
"""

from __future__ import annotations

import sys
from asyncio import Runner
from contextlib import contextmanager
from time import sleep
from typing import TYPE_CHECKING, Any

from bench import compare, machine, report, world
from drivers import ASYNC, DRIVERS, address
from practice import A, Patient
from proxy import proxy
from sqlalchemy import NullPool, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench import Work
    from locks import World
    from proxy import Proxy
    from sqlalchemy import URL, Engine

PATIENTS: Any = Patient.__table__
DELAY = 0.001
BY_HAND, PROTECTED = "unprotected, WHERE by hand", "protected"


def transaction(engine: Engine | AsyncEngine, runner: Runner, *, by_hand: bool) -> Work:
    query = select(PATIENTS.c.name).where(PATIENTS.c.id == 2)
    if by_hand:
        query = query.where(PATIENTS.c.tenant_id == A)

    def run(times: int) -> None:
        if isinstance(engine, AsyncEngine):
            runner.run(_in_loop(engine, query, times))
            return
        for _ in range(times):
            with engine.begin() as connection:
                connection.execute(query).all()

    return run


async def _in_loop(engine: AsyncEngine, query: Any, times: int) -> None:
    for _ in range(times):
        async with engine.begin() as connection:
            (await connection.execute(query)).all()


@contextmanager
def pair(
    built: World, driver: str, through: Callable[[URL], URL], **options: Any
) -> Iterator[dict[str, Work]]:
    """Give the transaction on two engines of *driver*."""
    create: Callable[..., Any] = create_async_engine if driver in ASYNC else create_engine
    # Unprotected rows are read by a superuser, whom no policy slows down.
    plain = create(address(through(built.admin.url), driver), **options)
    guarded = create(address(through(built.app_url), driver), **options)
    built.guard.protect(guarded)
    with Runner() as runner:
        yield {
            BY_HAND: transaction(plain, runner, by_hand=True),
            PROTECTED: transaction(guarded, runner, by_hand=False),
        }
        for engine in (plain, guarded):
            if isinstance(engine, AsyncEngine):
                runner.run(engine.dispose())
            else:
                engine.dispose()


def measure(title: str, work: dict[str, Work], *, rounds: int, repeat: int) -> None:
    report(title, compare(work, rounds=rounds, repeat=repeat), base=BY_HAND)


def count(slow: Proxy, work: dict[str, Work]) -> None:
    """Print the round trips; the goodbye of a connection that is closed is counted as one."""
    trips = {}
    for name, run in work.items():
        run(1)
        sleep(0.05)
        before = slow.round_trips
        run(1)
        sleep(0.05)
        trips[name] = slow.round_trips - before
    added = trips[PROTECTED] - trips[BY_HAND]
    print(f"  round trips: {trips[BY_HAND]} and {trips[PROTECTED]}, so {added} added")


def of_driver(built: World, slow: Proxy, driver: str) -> None:
    """Many short rounds: what disturbs one of them does not move the median."""
    with pair(built, driver, slow.url) as work:
        measure(f"{driver}, 1 ms each way", work, rounds=250, repeat=2)
        count(slow, work)
    with pair(built, driver, lambda url: url) as work:
        measure(f"{driver}, local socket", work, rounds=500, repeat=5)
    with pair(built, driver, slow.url, poolclass=NullPool) as work:
        measure(f"{driver}, NullPool, 1 ms each way", work, rounds=50, repeat=1)
        count(slow, work)
    with pair(built, driver, lambda url: url, poolclass=NullPool) as work:
        measure(f"{driver}, NullPool, local socket", work, rounds=50, repeat=2)


def main() -> None:
    machine()
    with (
        world() as built,
        tenant_context(A),
        proxy(built.admin.url, delay=DELAY) as slow,
    ):
        for driver in sys.argv[1:] or DRIVERS:
            of_driver(built, slow, driver)


if __name__ == "__main__":
    main()
