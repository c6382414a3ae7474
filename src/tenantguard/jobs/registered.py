"""The tenants that the registry has, read in batches through the system engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy import Column, ColumnElement, Select

    from tenantguard.context import TenantId

__all__ = ["RegisteredTenants"]

_BATCH = 500


class RegisteredTenants:
    """The ids of the tenants that are not suspended, in the order of the registry's key.

    No connection is open between two batches. A tenant that is added meanwhile is found if its key
    comes later.

    Args:
        key: The registry's primary key.
        suspended: The condition that a suspended tenant fulfils.
        access: Enters system access and returns the system engine.
    """

    def __init__(
        self,
        key: Column[Any],
        suspended: ColumnElement[bool] | None,
        access: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self._key = key
        self._suspended = suspended
        self._access = access

    def count(self) -> int:
        """Return how many there are."""
        return int(self._read(self._where(select(func.count()).select_from(self._key.table)))[0])

    def ids(self) -> Iterator[TenantId]:
        """Yield their ids."""
        batch: Sequence[Any] = self._read(self._after(None))
        while batch:
            yield from batch
            batch = self._read(self._after(batch[-1])) if len(batch) == _BATCH else ()

    async def acount(self) -> int:
        """Return how many there are."""
        query = self._where(select(func.count()).select_from(self._key.table))
        return int((await self._aread(query))[0])

    async def aids(self) -> AsyncIterator[TenantId]:
        """Yield their ids."""
        batch: Sequence[Any] = await self._aread(self._after(None))
        while batch:
            for each in batch:
                yield each
            batch = await self._aread(self._after(batch[-1])) if len(batch) == _BATCH else ()

    def _after(self, last: TenantId | None) -> Select[Any]:
        query = self._where(select(self._key).order_by(self._key).limit(_BATCH))
        return query if last is None else query.where(self._key > last)

    def _where(self, query: Select[Any]) -> Select[Any]:
        if self._suspended is None:
            return query
        # A condition that is NULL suspends nobody.
        return query.where(self._suspended.is_not(True))

    def _read(self, query: Select[Any]) -> Sequence[Any]:
        with self._access() as engine:
            if _is_async(engine):
                raise ConfigurationError(
                    "The system engine is asynchronous: use `await guard.afor_each_tenant(…)`."
                )
            with engine.connect() as connection:
                found: Sequence[Any] = connection.scalars(query).all()
                return found

    async def _aread(self, query: Select[Any]) -> Sequence[Any]:
        with self._access() as engine:
            if _is_async(engine):
                async with engine.connect() as connection:
                    found: Sequence[Any] = (await connection.scalars(query)).all()
                    return found
        return await asyncio.to_thread(self._read, query)


def _is_async(engine: Any) -> bool:
    # Not by the class: SQLAlchemy's asynchronous part needs greenlet, which not everybody has.
    return hasattr(engine, "sync_engine")
