"""Tenants' keysets under a key in a service: what it costs, and what its absence means."""

from __future__ import annotations

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from threading import Event
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from drivers import ASYNC, DRIVERS, address
from key_commands import Keys, assert_could_not_look, serve
from serving import Service, serving
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import Session
from transit import KEY, TOKEN, Transit
from vault import Base, Patient

from tenantguard import KeyUnavailableError, TenantGuard, tenant_context
from tenantguard.kms import VaultTransit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from serving import Asked
    from sqlalchemy import Engine
    from vault import Vault

KEYS = "tenantguard_keys"
NAMES = select(Patient.name).order_by(Patient.id)
every_driver = pytest.mark.parametrize("driver", DRIVERS)
in_tasks = pytest.mark.parametrize("dialect", ASYNC)


@pytest.fixture(scope="module")
def engine_of_keys() -> Transit:
    return Transit()


@pytest.fixture
def service(engine_of_keys: Transit) -> Iterator[Service]:
    """Another address each time, with the same keys."""
    with serving(engine_of_keys) as running:
        yield running


def guarded(vault: Vault, service: Service, **options: Any) -> TenantGuard:
    """A guard of another process: it has no keys in its cache."""
    options = {"environment": "test", "token": lambda: TOKEN, "timeout": 10.0, **options}
    keys = VaultTransit(service.address, KEY, **options)
    return TenantGuard(Base.metadata, tenants="practices", roles=vault.guard.roles, keys=keys)


@contextmanager
def process(vault: Vault, service: Service, driver: str, **options: Any) -> Iterator[Engine]:
    engine = vault.protected_by(guarded(vault, service, **options), driver)
    yield engine
    engine.dispose()


def write(engine: Engine, tenant: UUID, name: str = "p") -> None:
    with tenant_context(tenant), Session(engine) as session:
        session.add(Patient(name=name))
        session.commit()


def read(engine: Engine, tenant: UUID) -> list[str]:
    with tenant_context(tenant), engine.connect() as connection:
        return list(connection.scalars(NAMES))


def expire(engine: Engine) -> None:
    """Let five minutes pass."""
    keys_for: Any = engine.dialect.execution_ctx_cls.keys  # type: ignore[attr-defined]
    for keys in keys_for.__self__._cache.values():
        keys.expires = 0.0


def verbs(service: Service) -> Counter[str]:
    """What the service was asked for since the last look."""
    counted = Counter(request.path.split("/")[3] for request in service.asked)
    service.asked.clear()
    return counted


# -- what it costs ----------------------------------------------------------------------------


@every_driver
def test_a_tenants_keys_cost_two_questions(
    vault: Vault, service: Service, tenant: UUID, driver: str
) -> None:
    """Making them costs four, each being tried before it is stored; with the cache, none."""
    with process(vault, service, driver) as engine:
        assert verbs(service) == {}
        write(engine, tenant, "first")
        assert verbs(service) == {"encrypt": 2, "decrypt": 4}
        write(engine, tenant, "second")
        assert verbs(service) == {"decrypt": 2}
        assert read(engine, tenant) == ["first", "second"]
        assert verbs(service) == {}
    with process(vault, service, driver) as engine:
        assert read(engine, tenant) == ["first", "second"]
        assert read(engine, tenant) == ["first", "second"]
        assert verbs(service) == {"decrypt": 2}
        with tenant_context(tenant), Session(engine) as session:
            assert session.scalar(select(Patient.name).where(Patient.name == "FIRST")) == "first"
        assert verbs(service) == {}


# -- when it is down --------------------------------------------------------------------------


@every_driver
def test_a_sealed_service_stops_encrypted_columns_alone(
    vault: Vault, service: Service, engine_of_keys: Transit, tenant: UUID, driver: str
) -> None:
    """The application starts, and its other columns work; nothing is made or stored."""
    engine_of_keys.sealed = True
    try:
        with process(vault, service, driver) as engine:
            for name in ("p", "q"):
                with pytest.raises(KeyUnavailableError, match="Unseal it") as refusal:
                    write(engine, tenant, name)
                assert str(tenant) not in str(refusal.value)
                assert TOKEN not in str(refusal.value)
            with tenant_context(tenant), engine.connect() as connection:
                assert connection.scalars(select(Patient.city)).all() == []
            assert vault.run(f"SELECT 1 FROM {KEYS} WHERE tenant_id = :t", t=tenant) == []
            engine_of_keys.sealed = False
            write(engine, tenant)
            assert read(engine, tenant) == ["p"]
    finally:
        engine_of_keys.sealed = False


@every_driver
def test_cached_keys_serve_while_it_is_down(
    vault: Vault, service: Service, engine_of_keys: Transit, tenant: UUID, driver: str
) -> None:
    """Until they expire; then it is an error, and afterwards all is well again."""
    with process(vault, service, driver) as engine:
        write(engine, tenant)
        read(engine, tenant)
        engine_of_keys.sealed = True
        try:
            write(engine, tenant, "q")
            assert read(engine, tenant) == ["p", "q"]
            expire(engine)
            with pytest.raises(KeyUnavailableError, match="Unseal it"):
                read(engine, tenant)
            with pytest.raises(KeyUnavailableError, match="Unseal it"):
                write(engine, tenant, "lost")
        finally:
            engine_of_keys.sealed = False
        assert read(engine, tenant) == ["p", "q"]


# -- whom it stops ----------------------------------------------------------------------------

EXCHANGED = {
    "another tenant's": "o.tenant_id = '{other}' AND o.purpose = k.purpose",
    "another purpose's": "o.tenant_id = '{tenant}' AND o.purpose <> k.purpose",
}


@pytest.mark.parametrize("which", EXCHANGED)
def test_rows_cannot_be_exchanged(vault: Vault, service: Service, tenant: UUID, which: str) -> None:
    """Who writes the database cannot let a tenant use another keyset than its own."""
    other = UUID("aaaaaaaa-0000-4000-8000-00000000000a")
    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
        write(engine, other)
    condition = EXCHANGED[which].format(other=other, tenant=tenant)
    vault.run(
        f"UPDATE {KEYS} k SET wrapped = o.wrapped, check_value = o.check_value FROM {KEYS} o "
        f"WHERE {condition} AND k.tenant_id = '{tenant}'"
    )
    with process(vault, service, "psycopg") as engine:
        with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
            read(engine, tenant)
        assert read(engine, other)
    vault.run("DELETE FROM patients WHERE tenant_id = :t", t=other)
    vault.run(f"DELETE FROM {KEYS} WHERE tenant_id = :t", t=other)


def test_another_environment_is_refused(vault: Vault, service: Service, tenant: UUID) -> None:
    """Its name is not in the row; put there by hand, the keyset does not open either."""
    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    with process(vault, service, "psycopg", environment="staging") as engine:
        with pytest.raises(KeyUnavailableError, match="another key-encryption key, or another"):
            read(engine, tenant)
        vault.run(f"UPDATE {KEYS} SET kek_uri = replace(kek_uri, 'test', 'staging')")
        with pytest.raises(KeyUnavailableError, match="belongs to another tenant"):
            read(engine, tenant)


# -- on an event loop -------------------------------------------------------------------------


@asynccontextmanager
async def running(vault: Vault, guard: TenantGuard, dialect: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(address(vault.app_url, dialect))
    guard.protect(engine)
    yield engine
    await engine.dispose()


async def names(engine: AsyncEngine, tenant: UUID) -> list[str]:
    with tenant_context(tenant):
        async with engine.connect() as connection:
            return list(await connection.scalars(NAMES))


async def until(event: Event) -> None:
    """Wait for a thread's *event* as a task: other tasks run meanwhile."""
    await asyncio.to_thread(event.wait)


@in_tasks
def test_the_event_loop_goes_on(vault: Vault, service: Service, tenant: UUID, dialect: str) -> None:
    """While the service has not answered, another task works, and lets it answer."""

    async def run() -> list[str]:
        async with running(vault, guarded(vault, service), dialect) as engine:
            service.held.clear()
            reading = asyncio.create_task(names(engine, tenant))
            await until(service.arrived)
            service.held.set()
            return await reading

    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    service.arrived.clear()
    assert asyncio.run(run()) == ["p"]


@in_tasks
def test_the_loops_own_threads_are_not_needed(
    vault: Vault, service: Service, tenant: UUID, dialect: str
) -> None:
    """They may all be waiting, even for the same keyset: the service is asked all the same."""

    async def run() -> list[str]:
        loop, gate = asyncio.get_running_loop(), Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        waiting = loop.run_in_executor(None, gate.wait)
        try:
            async with running(vault, guarded(vault, service), dialect) as engine:
                return await asyncio.wait_for(names(engine, tenant), 10.0)
        finally:
            gate.set()
            await waiting

    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    assert asyncio.run(run()) == ["p"]


@in_tasks
def test_keys_are_made_beside_the_loop(
    vault: Vault, service: Service, tenant: UUID, dialect: str
) -> None:
    """So is a tenant's first value, which wraps new keysets."""

    async def run() -> list[str]:
        async with running(vault, guarded(vault, service), dialect) as engine:
            service.held.clear()

            async def writing() -> None:
                with tenant_context(tenant):
                    async with engine.begin() as connection:
                        await connection.execute(insert(Patient).values(name="p"))

            task = asyncio.create_task(writing())
            await until(service.arrived)
            service.held.set()
            await task
            return await names(engine, tenant)

    assert asyncio.run(run()) == ["p"]


class Meeting(dict[Any, Any]):
    """The flights of a key, which tell when *number* have asked for one."""

    def __init__(self, guard: TenantGuard, number: int) -> None:
        super().__init__()
        kek: Any = guard.keys and guard.keys.kek
        kek._flights._flights = self
        self.expect(number)

    def expect(self, number: int) -> None:
        self.missing, self.all_here = number, Event()

    def get(self, key: Any, default: Any = None) -> Any:
        self.missing -= 1
        if not self.missing:
            self.all_here.set()
        return super().get(key, default)


@in_tasks
def test_tasks_of_one_tenant_share_the_questions(
    vault: Vault, service: Service, engine_of_keys: Transit, tenant: UUID, dialect: str
) -> None:
    """Four tasks that miss the cache at once ask for two keysets, not for eight."""

    async def run() -> list[list[str]]:
        guard = guarded(vault, service)
        meeting = Meeting(guard, 4)
        gates = [Event(), Event()]
        waiting = iter(gates)

        def answer(request: Asked) -> tuple[int, Any]:
            next(waiting).wait()
            return engine_of_keys(request)

        service.answer = answer
        async with running(vault, guard, dialect) as engine:
            tasks = [asyncio.create_task(names(engine, tenant)) for _ in range(4)]
            for gate in gates:
                # Each comes for the one keyset, and back for the other.
                await until(meeting.all_here)
                meeting.expect(4)
                gate.set()
            return await asyncio.gather(*tasks)

    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    verbs(service)
    assert asyncio.run(run()) == [["p"]] * 4
    assert verbs(service) == {"decrypt": 2}


@in_tasks
def test_a_cancelled_task_leaves_the_others_their_answer(
    vault: Vault, service: Service, tenant: UUID, dialect: str
) -> None:
    """The one that has asked goes away; who waits for the same is served, and so is the next."""

    async def run() -> tuple[list[str], list[str]]:
        guard = guarded(vault, service)
        meeting = Meeting(guard, 2)
        async with running(vault, guard, dialect) as engine:
            service.held.clear()
            first = asyncio.create_task(names(engine, tenant))
            await until(service.arrived)
            second = asyncio.create_task(names(engine, tenant))
            await until(meeting.all_here)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            service.held.set()
            return await second, await names(engine, tenant)

    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    verbs(service)
    service.arrived.clear()
    assert asyncio.run(run()) == (["p"], ["p"])
    assert verbs(service) == {"decrypt": 2}


# -- the commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["list", "--verify"], ["check"], ["rewrap"]], ids=lambda each: each[0]
)
def test_a_service_that_is_down_is_no_finding(  # noqa: PLR0917  (fixtures)
    vault: Vault,
    service: Service,
    engine_of_keys: Transit,
    tenant: UUID,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
) -> None:
    """The commands could not look: they do not advise to restore keysets that are whole."""
    with process(vault, service, "psycopg") as engine:
        write(engine, tenant)
    serve(monkeypatch, guard=guarded(vault, service))
    keys = Keys(vault)
    looked = keys(*command)
    assert (looked.exit_code != 2, service.asked != []) == (True, True), looked.output
    engine_of_keys.sealed = True
    try:
        refused = keys(*command)
    finally:
        engine_of_keys.sealed = False
    assert_could_not_look(refused, "Unseal it")
