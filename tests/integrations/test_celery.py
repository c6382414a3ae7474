"""Celery: a task's tenant is its enqueuer's, in every way to send it and to fail."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, Task, chain, chord, group, signals
from celery.contrib.testing.worker import start_worker
from celery.exceptions import SoftTimeLimitExceeded
from jobbing import OWNED, SHOWS, Office, open_office
from kombu.connection import Connection
from practice import A, B

from tenantguard import (
    ConfigurationError,
    EnvelopeError,
    TenantNotSetError,
    TenantSuspendedError,
    current_actor,
    current_purpose,
    current_tenant,
    tenant_context,
)
from tenantguard.context import active_tenant
from tenantguard.integrations.celery import CeleryGuard, TenantTask
from tenantguard.jobs import envelope as envelopes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from locks import World

_numbers = count()
TENANTS = (A, B)
WAIT = 60
ROWS = {str(tenant): names for tenant, names in OWNED.items()}


@pytest.fixture(scope="module")
def office(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    opened = open_office(world, tmp_path_factory.mktemp("office"))
    yield opened
    opened.dispose()


@pytest.fixture(autouse=True)
def _workers_stop_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks whether to stop when it has waited for a message: two seconds, otherwise."""
    wait: Any = Connection.drain_events
    monkeypatch.setattr(Connection, "drain_events", lambda self, **_: wait(self, timeout=0.05))


class Desk:
    """A Celery app with a broker of its own, in memory, and tasks that read names."""

    def __init__(self, office: Office, **options: Any) -> None:
        self.office = office
        self.app = Celery(
            f"desk{next(_numbers)}",
            broker="memory://",
            backend="cache+memory://",
            set_as_current=False,
        )
        self.app.conf.update(
            task_default_queue=f"queue{next(_numbers)}",
            broker_transport_options={"polling_interval": 0.02},
            broker_connection_retry_on_startup=True,
            worker_hijack_root_logger=False,
        )
        self.guard = CeleryGuard(self.app, office.guard, **options)
        self.seen: list[Any] = []
        self.read = self.task(name="read")(read_of(office))
        self.who = self.task(name="who")(who)
        self.touch = self.task(name="touch")(touch_of(self.seen))
        self.sweep = self.task(name="sweep", tenantless="removes expired files")(who)

    def task(self, **options: Any) -> Callable[[Callable[..., Any]], Any]:
        """Celery's decorator; unless it is said, a task belongs to every app of the process."""
        decorator: Callable[[Callable[..., Any]], Any] = self.app.task(shared=False, **options)
        return decorator

    @contextmanager
    def worker(self) -> Iterator[None]:
        """A worker in a thread, which runs one task after the other."""
        with start_worker(
            self.app, pool="solo", perform_ping_check=False, shutdown_timeout=WAIT, loglevel="INFO"
        ):
            yield

    def got(self, task: Any, tenant: Any, *args: Any, **options: Any) -> Any:
        """What *task* returns when *tenant* enqueues it."""
        with self.office.guard.tenant_context(tenant):
            result = task.apply_async(args, **options)
        return result.get(interval=0.02, timeout=WAIT)


def read_of(office: Office) -> Callable[[], list[str]]:
    def read() -> list[str]:
        return office.names()

    return read


def touch_of(seen: list[Any]) -> Callable[[], None]:
    def touch() -> None:
        seen.append("touched")

    return touch


def who() -> list[str] | None:
    """The rows' owner as the context says it; None without a tenant."""
    return None if active_tenant() is None else ROWS[str(current_tenant())]


@pytest.fixture
def desk(office: Office) -> Desk:
    return Desk(office)


def test_a_task_runs_as_the_tenant_that_enqueued_it(desk: Desk) -> None:
    """Tenants that take turns on one worker each read their own rows, and nothing is kept."""
    with desk.worker():
        for tenant in (A, B, B, A):
            assert desk.got(desk.read, tenant) == OWNED[tenant]
            assert desk.sweep.delay().get(interval=0.02, timeout=WAIT) is None


def test_tasks_of_two_tenants_in_one_queue(desk: Desk) -> None:
    """Sent in turns before the worker starts, each keeps its tenant."""
    results = []
    for tenant in (A, B) * 5:
        with desk.office.guard.tenant_context(tenant):
            results.append((tenant, desk.read.delay()))
    with desk.worker():
        for tenant, result in results:
            assert result.get(interval=0.02, timeout=WAIT) == OWNED[tenant]


def test_actor_and_purpose_go_along(desk: Desk) -> None:
    """The job acts for whoever enqueued it."""

    @desk.task(name="acting")
    def acting() -> list[Any]:
        return [current_actor(), current_purpose()]

    with desk.worker():
        with desk.office.guard.tenant_context(A, actor="user 7", purpose="a request"):
            result = acting.delay()
        assert result.get(interval=0.02, timeout=WAIT) == ["user 7", "a request"]


# -- ways to fail -----------------------------------------------------------------------------


def _error() -> None:
    raise ValueError("broken")


def _system_exit() -> None:
    raise SystemExit(3)


def _time_limit() -> None:
    raise SoftTimeLimitExceeded


def _left_open() -> None:
    tenant_context(A).__enter__()
    tenant_context(B).__enter__()


FAILURES: dict[str, Callable[[], None]] = {
    "error": _error,
    "soft time limit": _time_limit,
    "left open": _left_open,
}


@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_keeps_the_tenant(desk: Desk, failure: str) -> None:
    """However a task ends, the next one without a tenant has none, and the next tenant its own."""
    failing = desk.task(name="failing")(FAILURES[failure])
    with desk.worker():
        with desk.office.guard.tenant_context(A):
            result = failing.delay()
        result.get(interval=0.02, timeout=WAIT, propagate=False)
        assert desk.sweep.delay().get(interval=0.02, timeout=WAIT) is None
        with pytest.raises(EnvelopeError, match="has no envelope"):
            desk.read.delay().get(interval=0.02, timeout=WAIT)
        assert desk.got(desk.read, B) == OWNED[B]


def test_the_tenant_ends_with_the_task(desk: Desk) -> None:
    """It is left when the task has ended, not when its leftovers are collected."""

    def look(task: Any, **_: Any) -> None:
        desk.seen.append((task.name, active_tenant()))

    signals.task_postrun.connect(look)
    try:
        with tenant_context(A):
            outer = active_tenant()
            desk.read.apply()
    finally:
        signals.task_postrun.disconnect(look)
    assert desk.seen == [("read", outer)]


@pytest.mark.parametrize("interruption", [SystemExit, KeyboardInterrupt])
def test_an_interruption_keeps_no_tenant(desk: Desk, interruption: type[BaseException]) -> None:
    """What ends the worker itself leaves the tenant first."""

    @desk.task(name="interrupted")
    def interrupted() -> None:
        desk.seen.append(current_tenant())
        raise interruption

    with desk.office.guard.tenant_context(A):
        with pytest.raises(interruption):
            interrupted.apply()
        assert current_tenant() == A
    with pytest.raises(interruption):
        trace(desk, interrupted, A)
    assert desk.seen == [A, A]
    assert active_tenant() is None


def trace(desk: Desk, task: Any, tenant: Any) -> Any:
    """Run *task* as the worker's process does, in this thread."""
    from celery.app.trace import trace_task  # noqa: PLC0415

    with desk.office.guard.tenant_context(tenant):
        headers = desk.guard.seal(task.name, None)
    return trace_task(task, "id", (), {}, headers, app=desk.app)


def test_a_retry_has_the_tenant(desk: Desk) -> None:
    """The message of a retry carries an envelope, and lasts beyond its countdown."""

    @desk.task(name="retrying", bind=True, max_retries=2)
    def retrying(self: Any) -> list[str]:
        desk.seen.append(current_tenant())
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return desk.office.names()

    @desk.task(
        name="autoretry", autoretry_for=(ValueError,), retry_backoff=False, default_retry_delay=0
    )
    def autoretry() -> list[str]:
        desk.seen.append(current_tenant())
        if len(desk.seen) < 5:
            raise ValueError
        return desk.office.names()

    with desk.worker():
        assert desk.got(retrying, A) == OWNED[A]
        assert desk.got(autoretry, B) == OWNED[B]
    assert desk.seen == [A, A, A, B, B]


# -- ways to send -----------------------------------------------------------------------------


def test_chains_groups_and_chords_have_the_tenant(desk: Desk) -> None:
    """What a worker sends on, when a step is done, is its tenant's."""

    @desk.task(name="add")
    def add(*before: Any) -> list[Any]:
        flat = [name for each in before for name in each] if before else []
        return [*flat, *desk.office.names()]

    with desk.worker():
        for tenant in TENANTS:
            with desk.office.guard.tenant_context(tenant):
                sent = [
                    chain(add.s(), add.s(), add.s())(),
                    group(add.s(), add.s())(),
                    chord([add.s(), add.s()], add.s())(),
                    add.starmap([(), ()]).delay(),
                ]
            for result in sent:
                found = str(result.get(interval=0.02, timeout=WAIT))
                assert (OWNED[tenant][0] in found) is True
                other = B if tenant == A else A
                assert OWNED[other][0] not in found


def test_callbacks_and_handlers_have_the_tenant(desk: Desk) -> None:
    """link, link_error, on_success, on_failure and after_return act for the task's tenant."""

    class Telling(TenantTask):
        def on_success(self, *_: Any) -> None:
            desk.seen.append(("success", current_tenant()))

        def on_failure(self, *_: Any) -> None:
            desk.seen.append(("failure", current_tenant()))

        def after_return(self, *_: Any) -> None:
            desk.seen.append(("after", current_tenant()))

    @desk.task(name="linked")
    def linked(*_: Any) -> None:
        desk.seen.append(("link", current_tenant()))

    good = desk.task(name="good", base=Telling)(who)
    bad = desk.task(name="bad", base=Telling)(_error)
    with desk.worker():
        desk.got(good, A, link=linked.si())
        with pytest.raises(ValueError, match="broken"):
            desk.got(bad, B, link_error=linked.si())
        desk.got(linked, A)
    told = desk.seen
    assert sorted((what, OWNED[tenant][0][-2]) for what, tenant in told) == [
        ("after", "a"),
        ("after", "b"),
        ("failure", "b"),
        ("link", "a"),
        ("link", "a"),
        ("link", "b"),
        ("success", "a"),
    ]


def test_a_task_is_sent_by_its_name(desk: Desk) -> None:
    """An application that does not have the worker's code seals as well."""
    with desk.worker(), desk.office.guard.tenant_context(A):
        assert desk.app.send_task("read").get(interval=0.02, timeout=WAIT) == OWNED[A]
        assert desk.app.signature("read").delay().get(interval=0.02, timeout=WAIT) == OWNED[A]


def test_a_scheduled_message_lasts_from_its_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its countdown or eta does not eat into the time that a message may wait."""
    sent: list[Any] = []
    monkeypatch.setattr(desk.guard, "_send", lambda *_, **given: sent.append(given["headers"]))
    now = datetime.now(UTC)
    with desk.office.guard.tenant_context(A):
        desk.read.apply_async(countdown=7 * 86_400)
        desk.read.apply_async(eta=now + timedelta(days=7))
        desk.app.send_task("read", eta=(now + timedelta(days=7)).isoformat())
        desk.read.apply_async(eta=now - timedelta(days=7))
    lasts = []
    for headers in sent:
        opened = envelopes.open_envelope(
            headers["tenantguard"], task="read", signing=desk.office.guard.signing_keys()
        )
        lasts.append(round((opened.expires - now.timestamp()) / 86_400))
    assert lasts == [8, 8, 8, 1]


@pytest.mark.parametrize("eager", [True, False])
def test_eager_tasks_run_as_the_active_tenant(desk: Desk, *, eager: bool) -> None:
    """apply() and task_always_eager give what a worker would, and give the tenant back."""
    desk.app.conf.task_always_eager = eager
    desk.app.conf.task_eager_propagates = True
    send = desk.read.delay if eager else desk.read.apply
    with tenant_context(A):
        with tenant_context(B):
            assert send().get() == OWNED[B]
        assert desk.sweep.apply().get() is None
        assert current_tenant() == A
    with pytest.raises(EnvelopeError, match="has no envelope"):
        desk.read.apply(throw=True)


def test_a_tasks_function_can_be_called(desk: Desk) -> None:
    """A plain call is a plain call, in the caller's own tenant."""
    with tenant_context(A):
        assert desk.read() == OWNED[A]
    with pytest.raises(TenantNotSetError):
        desk.read()


# -- what is refused --------------------------------------------------------------------------


def envelope(desk: Desk, task: str, tenant: Any = A) -> str:
    with desk.office.guard.tenant_context(tenant):
        return desk.office.guard.envelope(task=task)


def test_a_message_for_nobody_is_refused(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """It is said where it is sent, and the worker does not run it."""
    with desk.worker():
        result = desk.touch.delay()
        assert "Task touch is sent without a tenant" in caplog.text
        with pytest.raises(EnvelopeError, match="has no envelope"):
            result.get(interval=0.02, timeout=WAIT)
    assert desk.seen == []


@pytest.mark.parametrize("task", ["celery.map", "celery.starmap", "celery.chunks"])
def test_celerys_own_tasks_run_nothing_for_nobody(desk: Desk, task: str) -> None:
    """Those that call the application's functions need an envelope like any other."""
    with desk.worker(), pytest.raises(EnvelopeError, match="has no envelope"):
        desk.app.send_task(task, kwargs={"task": desk.read.s(), "it": [()]}).get(
            interval=0.02, timeout=WAIT
        )


def test_what_celery_schedules_for_itself_runs(desk: Desk) -> None:
    """Its clean-up needs no tenant, and has none."""
    with desk.worker():
        assert desk.app.send_task("celery.backend_cleanup").get(interval=0.02, timeout=WAIT) is None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda desk: envelope(desk, "another"), "not signed for this task"),
        (lambda desk: envelope(desk, "touch")[:-1], "malformed"),
        (lambda desk: envelope(desk, "touch")[:-1] + "g", "malformed"),
        (lambda desk: envelope(desk, "touch").replace(".", ".A", 1), "not signed"),
        (lambda _: "", "has no envelope"),
        (lambda _: {"tenant": str(A)}, "malformed"),
    ],
)
def test_a_forged_message_is_refused(
    desk: Desk, damage: Callable[[Desk], Any], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the task having run, without a tenant in the log, and without harm to the next."""
    caplog.set_level(logging.DEBUG)
    headers = {"tenantguard": damage(desk)}
    with desk.worker():
        result = desk.guard._send("touch", headers=headers)
        with pytest.raises(EnvelopeError, match=said):
            result.get(interval=0.02, timeout=WAIT)
        assert desk.got(desk.read, B) == OWNED[B]
    assert desk.seen == []
    assert "Refused task touch" in caplog.text
    assert not any(tenant in caplog.text for tenant in SHOWS)


def test_headers_cannot_say_that_the_tenant_was_entered(desk: Desk) -> None:
    """Celery makes attributes of headers; ours is replaced."""
    with desk.worker():
        for header in ("_tenantguard_entered", "is_eager", "called_directly"):
            result = desk.guard._send("read", headers={header: True})
            with pytest.raises(EnvelopeError, match="has no envelope"):
                result.get(interval=0.02, timeout=WAIT)


def test_an_old_message_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A day is what a message may wait."""
    old = envelope(desk, "read")
    later = envelopes.time() + 86_401  # type: ignore[attr-defined]
    monkeypatch.setattr(envelopes, "time", lambda: later)
    with desk.worker(), pytest.raises(EnvelopeError, match="has expired"):
        desk.guard._send("read", headers={"tenantguard": old}).get(interval=0.02, timeout=WAIT)


def test_a_tenant_suspended_in_the_queue_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry is asked at the first transaction."""
    monkeypatch.setattr(desk.office.guard._registry, "is_unknown", lambda _: True)
    with desk.office.guard.tenant_context(A):
        result = desk.read.delay()
    desk.office.suspend(A)
    try:
        with desk.worker():
            with pytest.raises(TenantSuspendedError, match="is suspended"):
                result.get(interval=0.02, timeout=WAIT)
            assert desk.got(desk.read, B) == OWNED[B]
    finally:
        desk.office.suspend(A, until_now=True)


def test_a_tenantless_task_has_no_tenant(desk: Desk) -> None:
    """Neither its enqueuer's nor one that somebody writes into its message."""
    with desk.worker():
        assert desk.got(desk.sweep, A) is None
        headers = {"tenantguard": envelope(desk, "sweep")}
        assert desk.guard._send("sweep", headers=headers).get(interval=0.02, timeout=WAIT) is None


# -- setting up -------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["", "  ", True])
def test_a_tenantless_task_says_why(desk: Desk, reason: Any) -> None:
    """A reason that says nothing is none."""
    task = desk.task(name="lazy", tenantless=reason)(who)
    with pytest.raises(ConfigurationError, match="needs a reason"):
        task.delay()


def test_a_base_class_of_your_own_derives_from_ours(desk: Desk) -> None:
    """Otherwise sending says so, and in the worker the task has no tenant."""
    own = type("Own", (Task,), {"abstract": True})
    task = desk.task(name="own", base=own)(who)
    with tenant_context(A):
        with pytest.raises(ConfigurationError, match="does not derive from TenantTask"):
            task.delay()
        assert task.apply().get() is None


def test_an_app_has_one_guard(desk: Desk) -> None:
    """A second one is refused."""
    with pytest.raises(ConfigurationError, match="already has a CeleryGuard"):
        CeleryGuard(desk.app, desk.office.guard)


def test_a_guard_comes_before_the_tasks(office: Office) -> None:
    """Tasks that are in use have another base class."""
    app = Celery("late", set_as_current=False)
    app.task(name="early", shared=False)(who).delay  # noqa: B018
    with pytest.raises(ConfigurationError, match="right after the app"):
        CeleryGuard(app, office.guard)


def test_a_task_class_of_your_own_derives_from_ours(office: Office) -> None:
    """The app's task_cls likewise."""

    class Own(TenantTask):
        abstract = True

    with pytest.raises(ConfigurationError, match="task_cls does not derive"):
        CeleryGuard(
            Celery("own", task_cls=type("Other", (Task,), {}), set_as_current=False), office.guard
        )
    app = Celery("own", task_cls=Own, set_as_current=False)
    CeleryGuard(app, office.guard)
    with tenant_context(B):
        assert app.task(name="mine", shared=False)(who).apply().get() == OWNED[B]


def test_a_task_of_an_app_without_a_guard_is_refused() -> None:
    """A TenantTask does not run unguarded."""
    app = Celery("bare", task_cls=TenantTask, set_as_current=False)
    task = app.task(name="bare", shared=False)(who)
    with pytest.raises(ConfigurationError, match="has no CeleryGuard"):
        task.apply()
    result = Task.apply(task)
    with pytest.raises(ConfigurationError, match="has no CeleryGuard"):
        result.get()


def test_the_guard_needs_signing_keys(world: World) -> None:
    """It says so at once."""
    with pytest.raises(ConfigurationError, match="no signing="):
        CeleryGuard(Celery("unsigned", set_as_current=False), world.guard)


def test_two_apps_do_not_enter_each_others_tasks(office: Office) -> None:
    """Celery's signals are everybody's: each guard acts for its own app."""
    first, second = Desk(office), Desk(office)
    with tenant_context(A):
        assert first.who.apply().get() == OWNED[A]
    with tenant_context(B):
        assert second.who.apply().get() == OWNED[B]
    assert active_tenant() is None


def test_observing_refuses_no_task(world: World, tmp_path: Path) -> None:
    """Messages that were sent before the guard was there still run; refusals are counted."""
    office = open_office(world, tmp_path, mode="observe")
    desk = Desk(office)
    with desk.worker():
        assert desk.guard._send("who").get(interval=0.02, timeout=WAIT) is None
        assert desk.got(desk.who, B) == OWNED[B]
    assert office.guard.observations.counts["refused"] == 1
    office.dispose()
