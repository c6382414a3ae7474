"""Jobs: as whom they run, and work for every tenant."""

from __future__ import annotations

import asyncio
import logging
import pickle
import threading
from datetime import timedelta
from inspect import iscoroutinefunction
from time import time
from typing import TYPE_CHECKING, Any

import pytest
from drivers import address, engine_of
from jobbing import OWNED, SHOWS, Office, open_office
from practice import UNKNOWN, A, B, Base
from sqlalchemy.ext.asyncio import create_async_engine

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    EnvelopeError,
    EnvelopeExpiredError,
    TenantGuard,
    TenantNotSetError,
    TenantReport,
    TenantSuspendedError,
    UnknownTenantError,
    context,
    current_actor,
    current_purpose,
    current_tenant,
    tenant_context,
)
from tenantguard.context import active_tenant
from tenantguard.jobs import envelope as envelopes
from tenantguard.jobs import registered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from locks import World


@pytest.fixture(scope="module")
def office(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    system = engine_of(world.admin.url, "psycopg", pool_size=1, max_overflow=0)
    opened = open_office(world, tmp_path_factory.mktemp("office"), system_engine=system)
    yield opened
    opened.dispose()
    system.dispose()


def sealed(office: Office, tenant: Any, task: str = "read") -> str:
    with office.guard.tenant_context(tenant):
        return office.guard.envelope(task=task)


# -- the envelope of the active tenant --------------------------------------------------------


@pytest.mark.parametrize("tenant", [A, B])
def test_a_job_runs_as_the_tenant_that_enqueued_it(office: Office, tenant: Any) -> None:
    """In another thread, without a tenant, the envelope alone says whose rows they are."""
    found: list[Any] = []

    def work(envelope: str) -> None:
        with office.guard.job(envelope, task="read"):
            found.append((office.names(), current_actor(), current_purpose()))
        found.append(active_tenant())

    with office.guard.tenant_context(tenant, actor="user 7", purpose="monthly invoice"):
        thread = threading.Thread(target=work, args=[office.guard.envelope(task="read")])
        thread.start()
        thread.join()
    assert found == [(OWNED[tenant], "user 7", "monthly invoice"), None]


def test_the_workers_own_tenant_is_neither_used_nor_kept(office: Office) -> None:
    """What is active around a job has no part in it, and a job's tenant none in what follows."""
    with tenant_context(A, actor="operator"):
        with office.guard.job(sealed(office, B), task="read"):
            assert (office.names(), current_actor()) == (OWNED[B], None)
        with (
            pytest.raises(ZeroDivisionError),
            office.guard.job(sealed(office, B), task="read"),
        ):
            1 / 0  # noqa: B018
        assert current_tenant() == A
        with pytest.raises(EnvelopeError), office.guard.job(None, task="read"):
            pass
        assert office.names() == OWNED[A]


@pytest.mark.parametrize(
    ("envelope", "task", "said"),
    [
        (None, "read", "has no envelope"),
        ("", "read", "has no envelope"),
        ("tg1.x", "read", "malformed"),
        ("own", "another", "not signed for this task"),
    ],
)
def test_a_job_without_a_good_envelope_is_refused(
    office: Office, envelope: str | None, task: str, said: str
) -> None:
    """Also where a tenant happens to be active in the worker: nothing in the block runs."""
    given = sealed(office, A) if envelope == "own" else envelope
    ran = []
    with (
        tenant_context(A),
        pytest.raises(EnvelopeError, match=said) as caught,
        office.guard.job(given, task=task),
    ):
        ran.append(1)
    assert ran == []
    assert not any(tenant in str(caught.value) for tenant in SHOWS)


def test_a_job_that_waited_too_long_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """expires_in= is how long an envelope is believed; a day unless it is said."""
    with office.guard.tenant_context(A):
        short = office.guard.envelope(task="read", expires_in=timedelta(minutes=1))
    usual, now = sealed(office, A), time()
    for envelope, seconds in ((short, 61), (usual, 86_401)):
        with office.guard.job(envelope, task="read"):
            pass
        with monkeypatch.context() as later:
            later.setattr(envelopes, "time", lambda seconds=seconds: now + seconds)
            with (
                pytest.raises(EnvelopeExpiredError, match="has expired"),
                office.guard.job(envelope, task="read"),
            ):
                pass


def test_a_tenant_suspended_in_the_meantime_is_refused(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry has the last word, at the job's first transaction."""
    envelope = sealed(office, A)
    monkeypatch.setattr(office.guard._registry, "is_unknown", lambda _: True)
    office.suspend(A)
    try:
        with (
            office.guard.job(envelope, task="read"),
            pytest.raises(TenantSuspendedError, match="suspended") as caught,
        ):
            office.names()
    finally:
        office.suspend(A, until_now=True)
    assert not any(tenant in str(caught.value) for tenant in SHOWS)
    with office.guard.job(sealed(office, B), task="read"):
        assert office.names() == OWNED[B]


def test_a_tenant_that_is_gone_is_refused(office: Office) -> None:
    """So is one that the registry never had."""
    with (
        office.guard.job(sealed(office, UNKNOWN), task="read"),
        pytest.raises(UnknownTenantError, match="does not have the active tenant"),
    ):
        office.names()


def test_nothing_is_enqueued_without_a_tenant(office: Office) -> None:
    """The mistake shows where it is made."""
    with pytest.raises(TenantNotSetError, match="enqueued while no tenant is active"):
        office.guard.envelope(task="read")


def test_jobs_need_signing_keys(world: World) -> None:
    """Without signing= nothing is sealed or opened, and the message names the command."""
    guard = world.guard
    with tenant_context(A), pytest.raises(ConfigurationError, match="keys signing init"):
        guard.envelope(task="read")
    with (
        pytest.raises(ConfigurationError, match="no signing="),
        guard.job("tg1.e30.00000000." + "0" * 64, task="read"),
    ):
        pass


def test_observing_refuses_no_job(world: World, tmp_path: Path) -> None:
    """It counts; a job without an envelope runs without a tenant, as it did before."""
    office = open_office(world, tmp_path, mode="observe")
    assert office.guard.envelope(task="read") == ""
    ran = []
    with tenant_context(A), office.guard.job("", task="read"):
        ran.append(active_tenant())
    assert ran == [None]
    assert office.guard.observations.counts["refused"] == 2
    with office.guard.job(sealed(office, B), task="read"):
        assert current_tenant() == B
    office.dispose()


def test_switched_off_nothing_happens(world: World) -> None:
    """mode='off' seals nothing, opens nothing, and leaves the tenant that is active."""
    guard = TenantGuard(
        world.guard.catalog.metadata, tenants="practices", roles=world.guard.roles, mode="off"
    )
    with tenant_context(A):
        assert guard.envelope(task="read") == ""
        with guard.job(None, task="read"):
            assert current_tenant() == A


# -- guard.task -------------------------------------------------------------------------------


def test_a_task_takes_its_envelope(office: Office) -> None:
    """The decorated function runs as the tenant of `tenantguard=`, its arguments as given."""

    @office.guard.task
    def read(first: int, *, last: int) -> list[str]:
        """Read names."""
        return office.names()[first:last]

    with office.guard.tenant_context(A):
        mine = read.envelope()
    with office.guard.tenant_context(B):
        assert read(0, last=2, tenantguard=mine) == OWNED[A][:2]
        assert current_tenant() == B
    function: Any = read
    assert (function.__name__, function.__doc__) == ("read", "Read names.")
    with pytest.raises(EnvelopeError, match="has no envelope"):
        read(0, last=2)
    with tenant_context(A), pytest.raises(EnvelopeError, match="has no envelope"):
        read(0, last=2)


def test_an_asynchronous_task_takes_its_envelope(office: Office) -> None:
    """Tasks of two tenants that are interleaved each keep their own."""

    @office.guard.task(purpose="nightly report")
    async def read() -> tuple[list[str], str | None]:
        found = []
        for _ in range(3):
            await asyncio.sleep(0)
            found = office.names()
        return found, current_purpose()

    async def both() -> list[Any]:
        return await asyncio.gather(
            *(read(tenantguard=each) for each in envelopes_of), return_exceptions=True
        )

    envelopes_of = []
    for tenant in (A, B):
        with office.guard.tenant_context(tenant, purpose="a request"):
            envelopes_of.append(read.envelope())
    assert iscoroutinefunction(read)
    first, second = asyncio.run(both())
    assert (first, second) == ((OWNED[A], "nightly report"), (OWNED[B], "nightly report"))


def test_an_envelope_is_its_tasks_own(office: Office) -> None:
    """Two functions, or one under two names, do not take each other's envelopes."""

    def read() -> list[str]:
        return office.names()

    first, second = office.guard.task(name="first")(read), office.guard.task(read)
    with office.guard.tenant_context(A):
        envelope = first.envelope()
        assert first(tenantguard=envelope) == OWNED[A]
        with pytest.raises(EnvelopeError, match="not signed for this task"):
            second(tenantguard=envelope)


def a_generator() -> Iterator[int]:
    yield 1


async def an_async_generator() -> Any:
    yield 1


@pytest.mark.parametrize("function", [a_generator, an_async_generator])
def test_a_generator_is_no_task(office: Office, function: Callable[..., Any]) -> None:
    """Its body would run when the tenant is gone."""
    with pytest.raises(ConfigurationError, match="runs after the call"):
        office.guard.task(function)
    with pytest.raises(ConfigurationError, match="runs after the call"):
        office.guard.for_each_tenant(function, reason="test")


def test_a_task_is_pickled_by_its_name() -> None:
    """Queues that send functions by reference find the guarded one."""
    assert pickle.loads(pickle.dumps(module_task)) is module_task


def _module_task() -> Any:
    guard = TenantGuard(Base.metadata, tenants="practices")

    def module_task() -> None:
        """Do nothing."""

    module_task.__qualname__ = "module_task"
    return guard.task(module_task)


module_task = _module_task()


# -- every tenant -----------------------------------------------------------------------------


def test_each_tenant_gets_its_turn(office: Office) -> None:
    """The work runs once for each, as that tenant, and the progress is told."""
    found, told = {}, []

    def work(tenant: Any) -> None:
        found[tenant] = (office.names(), current_tenant() == tenant, current_purpose())

    report = office.guard.for_each_tenant(
        work, reason="rebuild names", progress=lambda now: told.append(now.summary)
    )
    assert found == {each: (OWNED[each], True, "rebuild names") for each in (A, B)}
    assert told == ["1 of 2 tenants done, 0 failed", "2 of 2 tenants done, 0 failed"]
    assert (report.done, report.total, report.failures, report.stopped) == (2, 2, [], False)
    report.raise_for_errors()
    assert active_tenant() is None


def test_a_failing_tenant_stops_no_other(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    """Errors are collected, and shown without the tenant."""
    caplog.set_level(logging.DEBUG, "tenantguard")
    done = []

    def work(tenant: Any) -> None:
        if tenant == A:
            raise ValueError("broken")
        done.append(office.names())

    report = office.guard.for_each_tenant(work, reason="test")
    assert done == [OWNED[B]]
    assert [(each.index, each.tenant) for each in report.failures] == [(0, A)]
    with pytest.raises(ExceptionGroup, match="2 of 2 tenants done, 1 failed") as caught:
        report.raise_for_errors()
    assert [str(each) for each in caught.value.exceptions] == ["broken"]
    shown = f"{report!r} {report.failures!r} {caught.value} {caplog.text}"
    assert "<TenantReport 2 of 2 tenants done, 1 failed>" in shown
    assert "<TenantFailure 0 ValueError>" in shown
    assert not any(tenant in shown for tenant in SHOWS)


@pytest.mark.parametrize(("stop_after", "done"), [(1, 2), (2, 3), (None, 5)])
def test_it_gives_up_after_so_many_failures(
    office: Office, stop_after: int | None, done: int
) -> None:
    """stop_after= counts tenants that failed, not those that were served."""

    def work(tenant: Any) -> None:
        if tenant == A:
            raise ValueError

    report = office.guard.for_each_tenant(
        work, reason="test", tenants=iter([B, A, A, B, B]), stop_after=stop_after
    )
    assert (report.done, report.stopped) == (done, stop_after is not None)
    assert repr(report).endswith(", stopped>") is (stop_after is not None)
    assert report.total is None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_says_how_far_it_came(
    office: Office, interruption: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """It is not a tenant's error: it ends the work at once."""
    reports: list[TenantReport] = []

    def work(tenant: Any) -> None:
        if tenant == B:
            raise interruption

    with pytest.raises(interruption) as caught:
        office.guard.for_each_tenant(
            work, reason="test", tenants=[A, A, B, A], progress=reports.append
        )
    assert (reports[-1].done, reports[-1].stopped) == (2, True)
    assert caught.value.__notes__ == ["for_each_tenant: 2 tenants done, 0 failed, stopped."]
    assert "Interrupted: 2 tenants done" in caplog.text
    assert active_tenant() is None


def test_nothing_is_left_for_the_next_tenant(office: Office) -> None:
    """Whatever one tenant's work enters and does not leave, the next starts without it."""
    seen = []

    def work(tenant: Any) -> None:
        seen.append((current_tenant(), office.names()))
        tenant_context(B if tenant == A else A).__enter__()
        context._system_reason.set("left open")

    report = office.guard.for_each_tenant(work, reason="test")
    assert [str(each.error) for each in report.failures] == []
    assert seen == [(A, OWNED[A]), (B, OWNED[B])]
    assert active_tenant() is None


def test_the_system_engine_is_free_while_the_work_runs(office: Office) -> None:
    """It has one connection, and the work may use it: none is held meanwhile."""
    system: Any = office.guard._system_engine
    assert office.guard.for_each_tenant(lambda _: assert_free(system), reason="test").failures == []


def assert_free(engine: Any) -> None:
    assert engine.pool.checkedout() == 0


def test_suspended_tenants_are_left_out(office: Office) -> None:
    """Their transactions would be refused."""
    office.suspend(A)
    try:
        seen: list[Any] = []
        report = office.guard.for_each_tenant(seen.append, reason="test")
    finally:
        office.suspend(A, until_now=True)
    assert (seen, report.total) == ([B], 1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tenants_are_read_in_batches(
    office: Office, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """Each is found once, wherever a batch ends."""
    monkeypatch.setattr(registered, "_BATCH", size)
    seen: list[Any] = []
    office.guard.for_each_tenant(seen.append, reason="test")
    assert seen == [A, B]


def test_an_empty_registry_is_no_error(office: Office) -> None:
    """Nobody to work for: nothing is done."""
    office.suspend(A)
    office.suspend(B)
    try:
        report = office.guard.for_each_tenant(lambda _: 1 / 0, reason="test")
    finally:
        office.suspend(A, until_now=True)
        office.suspend(B, until_now=True)
    assert repr(report) == "<TenantReport 0 of 0 tenants done, 0 failed>"


def test_it_is_not_started_inside_a_block(office: Office) -> None:
    """A tenant, or system access, cannot be taken along."""
    with tenant_context(A), pytest.raises(CrossTenantError, match="leave the block first"):
        office.guard.for_each_tenant(print, reason="test", tenants=[])
    with (
        office.guard.system_access(reason="test"),
        pytest.raises(CrossTenantError, match="leave the block first"),
    ):
        office.guard.for_each_tenant(print, reason="test", tenants=[])


def test_asynchronous_work_is_awaited_or_refused(office: Office) -> None:
    """The synchronous form would not run it, and says so."""
    seen = []

    async def work(tenant: Any) -> None:
        await asyncio.sleep(0)
        seen.append((tenant, office.names()))
        if tenant == A:
            raise ValueError("broken")

    with pytest.raises(ConfigurationError, match="afor_each_tenant"):
        office.guard.for_each_tenant(work, reason="test")
    told: list[int] = []
    report = asyncio.run(
        office.guard.afor_each_tenant(
            work, reason="test", progress=lambda now: told.append(now.done)
        )
    )
    assert seen == [(A, OWNED[A]), (B, OWNED[B])]
    assert (told, [each.tenant for each in report.failures]) == ([1, 2], [A])
    seen.clear()
    given = office.guard.afor_each_tenant(work, reason="test", tenants=[B, B], stop_after=1)
    assert asyncio.run(given).done == 2


def test_an_asynchronous_system_engine_is_read_asynchronously(world: World, tmp_path: Path) -> None:
    """The synchronous form says which one to use."""

    async def main() -> tuple[list[Any], Any]:
        system = create_async_engine(address(world.admin.url, "psycopg-async"))
        office = open_office(world, tmp_path, system_engine=system)
        seen: list[Any] = []
        with pytest.raises(ConfigurationError, match="afor_each_tenant"):
            office.guard.for_each_tenant(seen.append, reason="test")
        report = await office.guard.afor_each_tenant(seen.append, reason="test")
        await system.dispose()
        office.dispose()
        return seen, report.total

    assert asyncio.run(main()) == ([A, B], 2)


def test_a_cancelled_run_stops(office: Office) -> None:
    """Cancelling what awaits it cancels the tenant's work, and no other tenant's begins."""
    begun, ended = [], []
    running: list[Any] = []

    async def work(tenant: Any) -> None:
        begun.append(tenant)
        running[0].cancel()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(tenant)

    async def run() -> None:
        running.append(asyncio.current_task())
        await office.guard.afor_each_tenant(work, reason="test", tenants=[A, B])

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert (begun, ended) == ([A], [A])


def test_a_broken_progress_is_not_a_tenants_error(office: Office) -> None:
    """What the progress function raises comes out."""
    with pytest.raises(ZeroDivisionError):
        office.guard.for_each_tenant(
            lambda _: None, reason="test", tenants=[A], progress=lambda _: 1 / 0
        )
    assert active_tenant() is None
