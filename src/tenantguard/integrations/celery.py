"""Celery: each task runs as the tenant that enqueued it."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, signals
from celery.utils.imports import symbol_by_name
from celery.utils.time import maybe_make_aware

from tenantguard.context import active_tenant, no_tenant
from tenantguard.errors import ConfigurationError, TenantGuardError
from tenantguard.jobs.declared import check_reason
from tenantguard.jobs.envelope import LIFETIME

if TYPE_CHECKING:
    from tenantguard.guard import TenantGuard

__all__ = ["CeleryGuard", "TenantTask"]

_LOG = logging.getLogger("tenantguard")
_HEADER = "tenantguard"
_EXTENSION = "tenantguard"
_ENTERED = "_tenantguard_entered"
_CELERYS_OWN = frozenset(
    f"celery.{name}"
    for name in ("accumulate", "backend_cleanup", "chain", "chord", "chord_unlock", "group")
)
"""Celery's own tasks that run no function of the application; its map, starmap and chunks do."""


class TenantTask(Task):
    """The base class of tasks that run as a tenant; base classes of your own derive from it.

    `@app.task(tenantless="removes expired files")` declares that a task needs no tenant, and why.
    It is sent without one, and runs without one.
    """

    abstract = True
    tenantless: str | None = None

    @classmethod
    def on_bound(cls, app: Celery) -> None:
        """Refuse a tenantless task without a reason."""
        if cls.tenantless is not None:
            check_reason(cls.tenantless)
        super().on_bound(app)

    def apply(self, *args: Any, headers: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run here and now, as the tenant that is active."""
        return super().apply(*args, headers=_of(self.app).seal(self.name, headers), **options)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Refuse to start for nobody: Celery calls it where an error fails the task."""
        entered = getattr(self.request, _ENTERED, None)
        if not isinstance(entered, _Entered):
            raise _without_guard()
        if not entered.ready:
            raise entered.refusal or _without_guard()
        super().before_start(task_id, args, kwargs)


class CeleryGuard:
    """Run each task of *app* as the tenant that enqueued it, and refuse those of nobody.

    A message carries the active tenant's envelope in the header `tenantguard`. In the worker the
    tenant is active from before the task starts until its callbacks are sent, so that chains,
    groups, chords, retries and handlers such as `on_failure` have it too. `apply()` and eager mode
    run likewise.

    Args:
        app: The application; create the guard before its tasks are used.
        guard: The application's guard, with signing=.
        expires_in: How long a message may wait, from the time for which it was scheduled.

    Raises:
        ConfigurationError: If *app* has a `CeleryGuard` already, its task class does not derive
            from `TenantTask`, its tasks are in use already, or *guard* has no signing keys.
    """

    def __init__(
        self, app: Celery, guard: TenantGuard, *, expires_in: timedelta = LIFETIME
    ) -> None:
        if hasattr(app, _EXTENSION):
            raise ConfigurationError("The app already has a CeleryGuard; one app has one guard.")
        if guard.mode != "off":
            guard.signing_keys()
        self._app = app
        self._guard = guard
        self._expires_in = expires_in
        self._send = app.send_task
        _derive_tasks(app)
        setattr(app, _EXTENSION, self)
        # Not the signal before_task_publish: it does not say which app sends, and Celery swallows
        # what its receivers raise.
        app.send_task = self._send_sealed
        # Functions, not methods: Celery 5.3 takes the method of a second object for connected.
        signals.task_prerun.connect(_enter)
        signals.task_postrun.connect(_leave)

    def seal(
        self, name: str, headers: dict[str, Any] | None, *, delay: timedelta = timedelta(0)
    ) -> dict[str, Any]:
        """Return *headers* with the active tenant's envelope for the task *name*.

        Without a tenant they are as they were, and the worker refuses the task.
        """
        task = self._app.tasks.get(name)
        if task is not None and not isinstance(task, TenantTask):
            raise ConfigurationError(
                f"Task {name!r} has a base class that does not derive from TenantTask. Import it "
                "from tenantguard.integrations.celery, and derive yours from it."
            )
        if getattr(task, "tenantless", None) is not None or self._guard.mode == "off":
            return headers or {}
        if active_tenant() is None:
            if name not in _CELERYS_OWN:
                _LOG.warning(
                    "Task %s is sent without a tenant; the worker will refuse it. Send it while "
                    "one is active, or declare it tenantless=….",
                    name,
                )
            return headers or {}
        envelope = self._guard.envelope(task=name, expires_in=self._expires_in + delay)
        return {**(headers or {}), _HEADER: envelope}

    def _send_sealed(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        *rest: Any,
        headers: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        sealed = self.seal(name, headers, delay=self._delay(countdown, eta))
        return self._send(name, args, kwargs, countdown, eta, *rest, headers=sealed, **options)

    def _delay(self, countdown: float | None, eta: datetime | str | None) -> timedelta:
        if countdown is not None:
            return max(timedelta(0), timedelta(seconds=countdown))
        if eta is None:
            return timedelta(0)
        at = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
        delay: timedelta = maybe_make_aware(at, self._app.timezone) - self._app.now()
        return max(timedelta(0), delay)

    def enter(self, task: Task) -> None:
        """Enter the tenant of the message that *task* is to run; until `task_postrun`."""
        entered = _Entered()
        # What the message's headers have put there is replaced.
        setattr(task.request, _ENTERED, entered)
        try:
            self._enter_tenant(task, entered)
            entered.ready = True
        except TenantGuardError as error:
            entered.refusal = error
            _LOG.warning("Refused task %s: %s", task.name, error)

    def _enter_tenant(self, task: Task, entered: _Entered) -> None:
        if self._guard.mode == "off":
            return
        entered.enter_context(no_tenant())
        envelope = (task.request.headers or {}).get(_HEADER)
        needs_none = getattr(task, "tenantless", None) is not None
        if needs_none or (envelope is None and task.name in _CELERYS_OWN):
            return
        entered.enter_context(self._guard.job(envelope, task=task.name))


class _Entered(ExitStack):
    """The block that a task runs in: whether it was entered, and what refused it if it was not."""

    ready = False
    refusal: TenantGuardError | None = None


def _enter(task: Task, **_: Any) -> None:
    found: CeleryGuard | None = getattr(task.app, _EXTENSION, None)
    if found is not None:
        found.enter(task)


def _leave(task: Task, **_: Any) -> None:
    entered = getattr(task.request, _ENTERED, None)
    if isinstance(entered, _Entered):
        entered.close()


def _of(app: Celery) -> CeleryGuard:
    found: CeleryGuard | None = getattr(app, _EXTENSION, None)
    if found is None:
        raise _without_guard()
    return found


def _without_guard() -> ConfigurationError:
    return ConfigurationError(
        "The task's app has no CeleryGuard. Create it where the app is: CeleryGuard(app, guard)."
    )


def _derive_tasks(app: Celery) -> None:
    """Let the tasks of *app* be `TenantTask`s."""
    given = symbol_by_name(app.task_cls)
    if issubclass(given, TenantTask):
        return
    if given is not Task:
        raise ConfigurationError(
            "The app's task_cls does not derive from TenantTask. Import it from "
            "tenantguard.integrations.celery, and derive yours from it."
        )
    if "Task" in vars(app):
        raise ConfigurationError(
            "The app's tasks are in use already. Create the CeleryGuard right after the app."
        )
    app.task_cls = TenantTask
