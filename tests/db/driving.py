"""Driving the drivers themselves, synchronous and asynchronous ones alike."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from practice import A, B
from sqlalchemy.util import await_only

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from locks import World
    from sqlalchemy import Engine

NAMES = "SELECT name FROM patients ORDER BY name"
ONE = {"pool_size": 1, "max_overflow": 0}
"""A pool whose next check-out gets the same connection."""


def wait(value: Any) -> Any:
    """Return *value*, or what it comes to."""
    return await_only(value) if isawaitable(value) else value


def every(rows: Any) -> list[Any]:
    """Return all that *rows* yields, synchronously or not."""
    if not hasattr(rows, "__aiter__"):
        return list(rows)

    async def collect() -> list[Any]:
        return [row async for row in rows]

    return list(await_only(collect()))


@contextmanager
def inside(block: Any) -> Iterator[Any]:
    """Enter *block*, an ordinary or an asynchronous context manager."""
    if not hasattr(block, "__aenter__"):
        with block as entered:
            yield entered
        return
    entered = await_only(block.__aenter__())
    try:
        yield entered
    except BaseException as error:
        if not await_only(block.__aexit__(type(error), error, error.__traceback__)):
            raise
    else:
        await_only(block.__aexit__(None, None, None))


@contextmanager
def driven(engine: Engine, tenant: object) -> Iterator[Any]:
    """The driver's own connection, checked out for *tenant*."""
    with tenant_context(tenant):  # type: ignore[arg-type]
        checked_out: Any = engine.raw_connection()
        try:
            yield checked_out.driver_connection
        finally:
            checked_out.close()


def stored(world: World, tenant: object) -> list[str]:
    """The names of the patients that *tenant* has, whatever the locks say."""
    return sorted(str(row[2]) for row in world.rows("patients", tenant))


def names(rows: Any) -> list[str]:
    """Return the first column of *rows*."""
    return [row[0] for row in rows]


def serves_each(engine: Engine, world: World, way: Callable[[Any], list[str]]) -> None:
    """Assert that *way* gives A, B and A again their own rows, on one connection."""
    for tenant in (A, B, A):
        with driven(engine, tenant) as connection:
            assert way(connection) == stored(world, tenant)


def serves_next(engine: Engine, world: World, tenant: object = B) -> None:
    """Assert that the pool gives *tenant* its rows, and only those."""
    with tenant_context(tenant), engine.connect() as connection:  # type: ignore[arg-type]
        assert list(connection.exec_driver_sql(NAMES).scalars()) == stored(world, tenant)


def pause(seconds: float) -> Any:
    """Return what waits for *seconds* in the event loop."""
    return asyncio.sleep(seconds)
