"""Threads and tasks that change tenants all the time: no value under another tenant's key."""

from __future__ import annotations

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from drivers import address
from rowbound import Base, Letter, Practice
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from vault import build_vault

from tenantguard import keystore, tenant_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import URL, Engine
    from vault import Vault

VALUES = int(os.environ.get("TENANTGUARD_RACE_VALUES", "20000"))
"""How many values at the most; 400,000 is the long run."""

TENANTS, THREADS, TASKS, BATCH = 8, 4, 8, 25
COLUMNS = 3
"""Two that are bound to their row, the first of which is searched; and one that is not."""

TURNS = VALUES // (COLUMNS * BATCH * (THREADS + TASKS))
"""How often each thread and each task writes a batch as one of the tenants, and reads it."""

SEALED: Any = select(Letter.subject, Letter.body, Letter.loose)


@pytest.fixture(scope="module")
def bound(admin_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    built = build_vault(admin_url, tmp_path_factory.mktemp("keys"), base=Base)
    yield built
    built.dispose()


def _batch(tenant: UUID) -> list[dict[str, Any]]:
    """Return rows whose subjects no other batch has, of any tenant."""
    ids = [uuid4() for _ in range(BATCH)]
    return [{"id": id_, "subject": f"{id_}", "body": f"{tenant}", "loose": "x"} for id_ in ids]


def _listing(rows: list[dict[str, Any]]) -> Any:
    return SEALED.where(Letter.id.in_([row["id"] for row in rows]))


def _searching(rows: list[dict[str, Any]]) -> Any:
    return SEALED.where(Letter.subject == rows[0]["subject"])


def _check(rows: list[dict[str, Any]], listed: Iterable[Any], found: Iterable[Any]) -> None:
    values = [(row["subject"], row["body"], row["loose"]) for row in rows]
    assert sorted(map(tuple, listed)) == sorted(values)
    assert list(map(tuple, found)) == values[:1]


def _work_in_threads(engine: Engine, tenants: list[UUID], seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(TURNS):
        tenant = choose.choice(tenants)
        rows = _batch(tenant)
        with tenant_context(tenant), Session(engine) as session:
            session.execute(insert(Letter), rows)
            _check(rows, session.execute(_listing(rows)), session.execute(_searching(rows)))
            session.commit()


async def _work_in_tasks(vault: Vault, tenants: list[UUID]) -> None:
    engine = create_async_engine(address(vault.app_url, "asyncpg"))
    vault.another_guard().protect(engine)

    async def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(TURNS):
            tenant = choose.choice(tenants)
            rows = _batch(tenant)
            with tenant_context(tenant):
                async with AsyncSession(engine) as session:
                    await session.execute(insert(Letter), rows)
                    listed = await session.execute(_listing(rows))
                    _check(rows, listed, await session.execute(_searching(rows)))
                    await session.commit()

    await asyncio.gather(*(work(seed) for seed in range(TASKS)))
    await engine.dispose()


def _keys_by_tenant(vault: Vault) -> list[Any]:
    """Return each tenant's number of values, and of key ids that they begin with."""
    return vault.run(
        "SELECT tenant_id, count(*), array_agg(DISTINCT key) FROM ("
        "SELECT tenant_id, substring(subject, 21, 5) AS key FROM letters UNION ALL "
        "SELECT tenant_id, substring(body, 5, 5) FROM letters UNION ALL "
        "SELECT tenant_id, substring(loose, 5, 5) FROM letters) AS v GROUP BY tenant_id"
    )


def test_no_value_is_sealed_with_another_tenants_key(
    bound: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, tasks and tenants at once, while the cache of keys forgets all the time."""
    monkeypatch.setattr(keystore, "_SECONDS", 0.02)
    monkeypatch.setattr(keystore, "_TENANTS", TENANTS // 2)
    tenants = [uuid4() for _ in range(TENANTS)]
    with bound.admin.begin() as connection:
        connection.execute(insert(Practice), [{"id": tenant} for tenant in tenants])
    engine = bound.fresh_engine(pool_size=THREADS)
    with ThreadPoolExecutor(THREADS) as pool:
        running = [pool.submit(_work_in_threads, engine, tenants, seed) for seed in range(THREADS)]
        asyncio.run(_work_in_tasks(bound, tenants))
        for each in running:
            each.result()
    found = _keys_by_tenant(bound)
    assert sum(count for _, count, _ in found) == TURNS * (THREADS + TASKS) * BATCH * COLUMNS
    assert {UUID(str(tenant)) for tenant, _, _ in found} == set(tenants)
    keys = [set(map(bytes, used)) for _, _, used in found]
    assert all(len(used) == 1 for used in keys)
    assert len(set.union(*keys)) == TENANTS
