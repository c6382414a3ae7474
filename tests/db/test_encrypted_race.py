"""Threads and tasks that change tenants all the time: no value under another tenant's key."""

from __future__ import annotations

import asyncio
import os
import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from drivers import address
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from vault import Patient, Practice

from tenantguard import keystore, tenant_context

if TYPE_CHECKING:
    import pytest
    from sqlalchemy import Engine
    from vault import Vault

VALUES = int(os.environ.get("TENANTGUARD_RACE_VALUES", "20000"))
"""How many values; 400,000 is the long run."""

TENANTS, THREADS, TASKS, BATCH = 8, 4, 8, 25


def _batch(tenant: UUID) -> list[dict[str, Any]]:
    return [{"name": f"{tenant} {number}", "notes": str(tenant)} for number in range(BATCH)]


def _check(tenant: UUID, found: list[Any]) -> None:
    assert len(found) == BATCH
    assert all(name.startswith(str(tenant)) and notes == str(tenant) for name, notes in found)


def _work_in_threads(engine: Engine, tenants: list[UUID], batches: int, seed: int) -> None:
    choose = random.Random(seed)
    query = select(Patient.name, Patient.notes).order_by(Patient.id.desc()).limit(BATCH)
    for _ in range(batches):
        tenant = choose.choice(tenants)
        with tenant_context(tenant), Session(engine) as session:
            rows = session.execute(insert(Patient).returning(Patient.id), _batch(tenant))
            newest = max(row[0] for row in rows)
            _check(tenant, list(session.execute(query.where(Patient.id <= newest))))
            session.commit()


async def _work_in_tasks(vault: Vault, tenants: list[UUID], batches: int) -> None:
    engine = create_async_engine(address(vault.app_url, "asyncpg"))
    vault.another_guard().protect(engine)
    query = select(Patient.name, Patient.notes).order_by(Patient.id.desc()).limit(BATCH)

    async def work(seed: int) -> None:
        choose = random.Random(seed)
        for _ in range(batches):
            tenant = choose.choice(tenants)
            with tenant_context(tenant):
                async with AsyncSession(engine) as session:
                    rows = await session.execute(
                        insert(Patient).returning(Patient.id), _batch(tenant)
                    )
                    newest = max(row[0] for row in rows)
                    found = await session.execute(query.where(Patient.id <= newest))
                    _check(tenant, list(found))
                    await session.commit()

    await asyncio.gather(*(work(seed) for seed in range(TASKS)))
    await engine.dispose()


def _keys_by_tenant(vault: Vault) -> list[Any]:
    """Return each tenant's number of values, and of key ids that they begin with."""
    return vault.run(
        "SELECT tenant_id, count(*), array_agg(DISTINCT key) FROM ("
        "SELECT tenant_id, substring(name, 21, 5) AS key FROM patients UNION ALL "
        "SELECT tenant_id, substring(notes, 5, 5) FROM patients) AS v GROUP BY tenant_id"
    )


def test_no_value_is_sealed_with_another_tenants_key(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads, tasks and tenants at once, while the cache of keys forgets all the time."""
    monkeypatch.setattr(keystore, "_SECONDS", 0.02)
    monkeypatch.setattr(keystore, "_TENANTS", TENANTS // 2)
    tenants = [uuid4() for _ in range(TENANTS)]
    with vault.admin.begin() as connection:
        connection.execute(insert(Practice), [{"id": tenant} for tenant in tenants])
    engine = vault.fresh_engine(pool_size=THREADS)
    # Two values a row; half of the rows by threads, half by tasks.
    batches = VALUES // 2 // BATCH // 2
    with ThreadPoolExecutor(THREADS) as pool:
        running = [
            pool.submit(_work_in_threads, engine, tenants, batches // THREADS, seed)
            for seed in range(THREADS)
        ]
        asyncio.run(_work_in_tasks(vault, tenants, batches // TASKS))
        for each in running:
            each.result()
    found = _keys_by_tenant(vault)
    assert sum(count for _, count, _ in found) == VALUES
    assert {UUID(str(tenant)) for tenant, _, _ in found} == set(tenants)
    keys = [set(map(bytes, used)) for _, _, used in found]
    assert all(len(used) == 1 for used in keys)
    assert len(set.union(*keys)) == TENANTS
