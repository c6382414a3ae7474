"""The drivers that tenantguard binds, behind one face: SQLAlchemy's synchronous Engine.

An asynchronous engine has a synchronous one inside, which works where SQLAlchemy's greenlet runs.
So one test serves every driver: conftest.py runs it in such a greenlet where that is needed.
"""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

if TYPE_CHECKING:
    from collections.abc import Callable

SYNC = ("psycopg", "psycopg2")
ASYNC = ("psycopg-async", "asyncpg")
DRIVERS = (*SYNC, *ASYNC)


def address(url: URL, driver: str) -> URL:
    """Return *url* for *driver*."""
    url = url.set(drivername=f"postgresql+{driver.removesuffix('-async')}")
    if driver == "asyncpg" and "sslmode" in url.query:
        query = {key: value for key, value in url.query.items() if key != "sslmode"}
        return url.set(query={**query, "ssl": url.query["sslmode"]})
    return url


def engine_of(url: URL, driver: str, **options: Any) -> Engine:
    """Return an engine of *driver*; of an asynchronous one, the synchronous engine inside."""
    if driver in ASYNC:
        return create_async_engine(address(url, driver), **options).sync_engine
    return create_engine(address(url, driver), **options)


def in_greenlet(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call *function* where asynchronous engines work."""
    return _loop().run_until_complete(greenlet_spawn(function, *args, **kwargs))


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """Return the one loop that all connections of this process live in."""
    return asyncio.new_event_loop()


def close_loop() -> None:
    """Close the loop, if there was one."""
    if _loop.cache_info().currsize:
        _loop().close()
        _loop.cache_clear()
