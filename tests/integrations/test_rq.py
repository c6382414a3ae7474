"""RQ: a job's tenant is its enqueuer's, in every way to enqueue it and to fail."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import rq_work as work
from fakeredis import FakeRedis
from jobbing import OWNED, SHOWS, Office, open_office
from practice import A, B
from rq import Callback, Queue, Retry, SimpleWorker
from rq.job import Job

from tenantguard import (
    ConfigurationError,
    EnvelopeError,
    TenantGuard,
    current_tenant,
    tenant_context,
)
from tenantguard.context import active_tenant
from tenantguard.integrations.rq import TenantJob, TenantQueue
from tenantguard.jobs import envelope as envelopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from locks import World

# RQ 1.16 warns of what it does itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The `(push|pop)_connection` function is deprecated:DeprecationWarning"
)


@pytest.fixture(scope="module")
def office(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    opened = open_office(world, tmp_path_factory.mktemp("office"))
    yield opened
    opened.dispose()


class Server(FakeRedis):
    """Redis in memory; fakeredis knows these two commands in some versions only."""

    name = ""

    def client_setname(self, name: str, **_: Any) -> Any:
        self.name = name

    def client_list(self, *_: Any, **__: Any) -> Any:
        return [{"name": self.name, "addr": "127.0.0.1:1"}]


class Desk:
    """A queue with a server of its own, in memory, and a worker without a process of its own."""

    def __init__(self, office: Office) -> None:
        self.office = office
        self.redis: Any = Server()
        self.job_class: Any = type("OwnJob", (TenantJob,), {"guard": office.guard})
        queue_class: Any = type("OwnQueue", (TenantQueue,), {"job_class": self.job_class})
        self.queue = queue_class("work", connection=self.redis)
        work.desk.office = office
        work.seen.clear()

    def enqueue(self, function: Any, tenant: Any, *args: Any, **options: Any) -> Any:
        with self.office.guard.tenant_context(tenant):
            return self.queue.enqueue(function, *args, **options)

    def run(self, **options: Any) -> None:
        """Work until the queue is empty."""
        worker = SimpleWorker([self.queue], connection=self.redis, job_class=self.job_class)
        worker.work(burst=True, logging_level="DEBUG", **options)

    def unsealed(self, function: Any, meta: dict[str, Any] | None = None) -> Any:
        """Enqueue as somebody does who can write to Redis and has no key."""
        queue = Queue("work", connection=self.redis)
        return queue.enqueue(function, meta=meta or {})


@pytest.fixture
def desk(office: Office) -> Desk:
    return Desk(office)


def error_of(job: Any) -> str:
    return str(job.latest_result().exc_string)


def test_a_job_runs_as_the_tenant_that_enqueued_it(desk: Desk) -> None:
    """Tenants that take turns on one worker each read their own rows, and nothing is kept."""
    jobs = [(tenant, desk.enqueue(work.read, tenant)) for tenant in (A, B, B, A)]
    sweep = desk.queue.enqueue(work.sweep)
    desk.run()
    assert [job.return_value() for _, job in jobs] == [OWNED[tenant] for tenant, _ in jobs]
    assert sweep.return_value() == "nobody"
    assert active_tenant() is None


def test_actor_and_purpose_go_along(desk: Desk) -> None:
    """The job acts for whoever enqueued it, asynchronous functions too."""
    with desk.office.guard.tenant_context(A, actor="user 7", purpose="a request"):
        job = desk.queue.enqueue(work.acting)
    desk.run()
    assert job.return_value() == ("user 7", "a request", OWNED[A])


@pytest.mark.parametrize("failure", [work.fail, work.leave, work.leave_open])
def test_no_failure_keeps_the_tenant(desk: Desk, failure: Callable[[], None]) -> None:
    """However a job ends, the next one without a tenant has none, and the next tenant its own."""
    failed = desk.enqueue(failure, A)
    sweep = desk.queue.enqueue(work.sweep)
    nobody = desk.unsealed(work.read)
    own = desk.enqueue(work.read, B)
    desk.run()
    assert work.seen == [("began", A)]
    assert failed.get_status() in ("failed", "finished")
    assert sweep.return_value() == "nobody"
    assert "has no envelope" in error_of(nobody)
    assert own.return_value() == OWNED[B]


def test_a_retry_has_the_tenant(desk: Desk) -> None:
    """Each attempt is the enqueuer's."""
    job = desk.enqueue(work.third_time, A, retry=Retry(max=3))
    desk.run()
    assert work.seen == [A, A, A]
    assert job.return_value() == OWNED[A]


def test_callbacks_have_the_tenant(desk: Desk) -> None:
    """on_success and on_failure act for the job's tenant; of a job for nobody, they do not run."""
    callbacks = {"on_success": Callback(work.succeeded), "on_failure": Callback(work.failed)}
    desk.enqueue(work.read, A, **callbacks)
    desk.enqueue(work.fail, B, **callbacks)
    desk.run()
    assert work.seen == [("succeeded", A), ("began", B), ("failed", B)]
    plain = Queue("work", connection=desk.redis)
    plain.enqueue(work.read, **callbacks)
    desk.run()
    assert len(work.seen) == 3


def test_the_callback_of_a_stopped_job_has_the_tenant(desk: Desk) -> None:
    """RQ calls it in the worker itself; a job without one has none."""
    job = desk.enqueue(work.read, A, on_stopped=Callback(work.stopped))
    fetched = desk.job_class.fetch(job.id, connection=desk.redis)
    fetched.stopped_callback(fetched, desk.redis)
    assert work.seen == [("stopped", A)]
    assert active_tenant() is None
    assert fetched.success_callback is None


def test_what_a_job_enqueues_is_its_tenants(desk: Desk) -> None:
    """A worker seals as well."""
    work.desk.queue = desk.queue
    desk.enqueue(work.enqueues, B)
    desk.run()
    assert work.seen == [OWNED[B]]


def test_jobs_in_one_call_and_dependents_have_the_tenant(desk: Desk) -> None:
    """enqueue_many, and a job that waits for another."""
    with desk.office.guard.tenant_context(A):
        many = desk.queue.enqueue_many([Queue.prepare_data(work.read) for _ in range(2)])
        waits = desk.queue.enqueue(work.read, depends_on=many)
    desk.run()
    assert [job.return_value() for job in (*many, waits)] == [OWNED[A]] * 3


def test_a_job_is_enqueued_by_its_name(desk: Desk) -> None:
    """An application that does not have the worker's code seals as well."""
    job = desk.enqueue("rq_work.read", A)
    missing = desk.enqueue("nowhere.read", A)
    desk.run()
    assert job.return_value() == OWNED[A]
    assert "nowhere" in error_of(missing)


def test_a_job_without_a_worker_runs_as_the_active_tenant(desk: Desk) -> None:
    """is_async=False, as in tests, gives what a worker would, and gives the tenant back."""
    queue: Any = Queue("now", connection=desk.redis, job_class=desk.job_class, is_async=False)
    with tenant_context(A):
        with tenant_context(B):
            assert queue.enqueue(work.read).return_value() == OWNED[B]
        assert queue.enqueue(work.sweep).return_value() == "nobody"
        assert current_tenant() == A


def test_a_callers_meta_is_left_alone(desk: Desk) -> None:
    """One dictionary for many jobs does not carry one tenant's envelope to another."""
    meta = {"mine": 1}
    first = desk.enqueue(work.read, A, meta=meta)
    second = desk.enqueue(work.read, B, meta=meta)
    assert meta == {"mine": 1}
    assert first.meta["mine"] == second.meta["mine"] == 1
    desk.run()
    assert (first.return_value(), second.return_value()) == (OWNED[A], OWNED[B])


def test_a_scheduled_job_lasts_from_its_time(desk: Desk) -> None:
    """The time for which it is scheduled does not eat into the time that it may wait."""
    at = datetime.now(UTC) + timedelta(days=7)
    with desk.office.guard.tenant_context(A):
        jobs = [
            desk.queue.enqueue(work.read),
            desk.queue.enqueue_at(at, work.read),
            desk.queue.enqueue_at(at.astimezone().replace(tzinfo=None), work.read),
            desk.queue.enqueue_in(timedelta(days=7), work.read),
        ]
    signing = desk.office.guard.signing_keys()
    lasts = []
    for job in jobs:
        stored = desk.job_class.fetch(job.id, connection=desk.redis).meta["tenantguard"]
        opened = envelopes.open_envelope(stored, task="rq_work.read", signing=signing)
        lasts.append(round((opened.expires - opened.issued) / 86_400))
    assert lasts == [1, 8, 8, 8]


# -- what is refused --------------------------------------------------------------------------


def test_a_job_for_nobody_is_refused(desk: Desk) -> None:
    """Without its function having run."""
    job = desk.queue.enqueue(work.begin)
    desk.run()
    assert "EnvelopeError" in error_of(job)
    assert work.seen == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda _: None, "has no envelope"),
        (lambda text: text[:-1], "malformed"),
        (lambda text: text.replace(".", ".A", 1), "not signed"),
        (lambda text: [text], "malformed"),
    ],
)
def test_a_forged_job_is_refused(
    desk: Desk, damage: Callable[[str], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a tenant in the log, and without harm to the next."""
    caplog.set_level(logging.DEBUG)
    own = desk.enqueue(work.begin, A)
    moved = desk.unsealed(work.read, {"tenantguard": own.meta["tenantguard"]})
    forged = desk.unsealed(work.begin, {"tenantguard": damage(own.meta["tenantguard"])})
    after = desk.enqueue(work.read, B)
    desk.run()
    assert work.seen == [("began", A)]
    assert "not signed for this task" in error_of(moved)
    assert said in error_of(forged)
    assert after.return_value() == OWNED[B]
    assert not any(tenant in caplog.text for tenant in SHOWS)


def test_an_old_job_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day is what a job may wait."""
    job = desk.enqueue(work.begin, A)
    later = datetime.now(UTC).timestamp() + 86_401
    monkeypatch.setattr(envelopes, "time", lambda: later)
    desk.run()
    assert "has expired" in error_of(job)
    assert work.seen == []


def test_a_tenant_suspended_in_the_queue_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is asked at the first transaction."""
    monkeypatch.setattr(desk.office.guard._registry, "is_unknown", lambda _: True)
    job, other = desk.enqueue(work.read, A), desk.enqueue(work.read, B)
    desk.office.suspend(A)
    try:
        desk.run()
    finally:
        desk.office.suspend(A, until_now=True)
    assert "is suspended" in error_of(job)
    assert other.return_value() == OWNED[B]


def test_a_tenantless_job_has_no_tenant(desk: Desk) -> None:
    """Neither its enqueuer's nor one that somebody writes into its meta."""
    own = desk.enqueue(work.sweep, A)
    given = desk.enqueue(work.read, A).meta["tenantguard"]
    written = desk.unsealed(work.sweep, {"tenantguard": given})
    desk.run()
    assert "tenantguard" not in own.meta
    assert (own.return_value(), written.return_value()) == ("nobody", "nobody")


def test_a_job_class_names_its_guard(desk: Desk) -> None:
    """A TenantJob as it is does not run, and says what to do."""
    with pytest.raises(ConfigurationError, match="names no guard"):
        Queue("work", connection=desk.redis, job_class=TenantJob).enqueue(work.read)
    job = desk.enqueue(work.begin, A)
    bare: Any = TenantJob.fetch(job.id, connection=desk.redis)
    with pytest.raises(ConfigurationError, match="--job-class"):
        bare.perform()
    assert work.seen == []


def test_a_plain_job_is_scheduled_as_before(desk: Desk) -> None:
    """The queue leaves jobs of other classes alone."""
    queue = type("Plain", (TenantQueue,), {"job_class": Job})("plain", connection=desk.redis)
    job: Any = queue.enqueue_in(timedelta(days=1), work.read)
    assert job.meta == {}


def test_a_forked_worker_runs_the_job_as_its_tenant(desk: Desk) -> None:
    """A child process has the tenant of its job, and the worker none."""
    jobs = [desk.enqueue(work.begin, tenant) for tenant in (A, B)]
    for job in jobs:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            # As RQ's Worker does: perform in the child, and leave it without clean-up.
            fetched = desk.job_class.fetch(job.id, connection=desk.redis)
            os.write(writing, str(fetched.perform()).encode())
            os._exit(0)
        os.close(writing)
        assert os.waitpid(child, 0)[1] == 0
        with os.fdopen(reading) as answer:
            assert answer.read() == ("A" if job is jobs[0] else "B")
        assert active_tenant() is None


def test_observing_refuses_no_job(world: World, tmp_path: Path) -> None:
    """Jobs that were enqueued before the guard was there still run; refusals are counted."""
    office = open_office(world, tmp_path, mode="observe")
    desk = Desk(office)
    old = desk.unsealed(work.begin)
    own = desk.enqueue(work.begin, B)
    desk.run()
    assert (old.return_value(), own.return_value()) == ("nobody", "B")
    assert office.guard.observations.counts["refused"] == 1
    office.dispose()


def test_switched_off_nothing_happens(world: World) -> None:
    """mode='off' needs no keys, and seals and refuses nothing."""
    guard = TenantGuard(
        world.guard.catalog.metadata, tenants="practices", roles=world.guard.roles, mode="off"
    )
    desk = Desk(Office(guard, world.admin, world))
    with tenant_context(A):
        job = desk.queue.enqueue(work.begin)
        sweep = desk.queue.enqueue(work.sweep)
    desk.run()
    assert (job.meta, job.return_value(), sweep.return_value()) == ({}, "nobody", "nobody")


def test_the_worker_may_have_a_tenant_of_its_own(desk: Desk) -> None:
    """It is not used, and still there afterwards."""
    job, nobody = desk.enqueue(work.read, B), desk.unsealed(work.read)
    with tenant_context(A):
        desk.run()
        assert current_tenant() == A
    assert job.return_value() == OWNED[B]
    assert EnvelopeError.__name__ in error_of(nobody)
