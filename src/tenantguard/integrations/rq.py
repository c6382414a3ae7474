"""RQ: each job runs as the tenant that enqueued it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any

from rq import Queue
from rq.job import Job

from tenantguard.context import active_tenant, no_tenant
from tenantguard.errors import ConfigurationError
from tenantguard.jobs.declared import tenantless_reason
from tenantguard.jobs.envelope import LIFETIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantguard.guard import TenantGuard

__all__ = ["TenantJob", "TenantQueue"]

_META = "tenantguard"


class TenantJob(Job):
    """A job that carries the envelope of the tenant that enqueued it, in `meta["tenantguard"]`.

    Derive from it, name the guard, and give the class to queues and workers (`--job-class`). A
    function that is decorated with `@tenantless("reason")` runs without a tenant; every other
    without an envelope is refused. Callbacks such as `on_failure` run as the job does.

    Attributes:
        guard: The application's guard, with signing=.
        expires_in: How long a job may wait, retries included.
    """

    guard: TenantGuard
    expires_in: timedelta = LIFETIME

    @classmethod
    def create(cls, *args: Any, **kwargs: Any) -> Any:
        """Make a job of the active tenant."""
        job: Any = super().create(*args, **kwargs)
        return job.seal()

    def seal(self, *, delay: timedelta = timedelta(0)) -> TenantJob:
        """Put the active tenant's envelope into the job's meta, for *delay* longer than usual."""
        guard = _guard_of(self)
        if active_tenant() is None or guard.mode == "off" or self._needs_none():
            return self
        envelope = guard.envelope(task=self._task(), expires_in=self.expires_in + delay)
        # A new dictionary: the caller may give the same one to many jobs.
        self.meta = {**self.meta, _META: envelope}
        return self

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be inside the block whatever the job's envelope says, and nothing that was before."""
        guard = _guard_of(self)
        if self._needs_none() and guard.mode != "off":
            with no_tenant():
                yield
            return
        with guard.job(self.meta.get(_META), task=self._task()):
            yield

    def perform(self) -> Any:
        """Run the job's function as its tenant; RQ's workers call it."""
        with self.entered():
            return super().perform()

    @property
    def success_callback(self) -> Any:
        """What RQ calls after success, as the job's tenant."""
        return self._as_tenant(super().success_callback)

    @property
    def failure_callback(self) -> Any:
        """What RQ calls after a failure, as the job's tenant."""
        return self._as_tenant(super().failure_callback)

    @property
    def stopped_callback(self) -> Any:
        """What RQ calls when the job was stopped, as the job's tenant."""
        return self._as_tenant(super().stopped_callback)

    def _as_tenant(self, callback: Callable[..., Any] | None) -> Callable[..., Any] | None:
        if callback is None:
            return None

        @wraps(callback)
        def run(*args: Any, **kwargs: Any) -> Any:
            with self.entered():
                return callback(*args, **kwargs)

        return run

    def _task(self) -> str:
        return str(self.func_name)

    def _needs_none(self) -> bool:
        try:
            return tenantless_reason(self.func) is not None
        except (AttributeError, ImportError, ValueError):
            # The enqueuer need not have the worker's code.
            return False


class TenantQueue(Queue):
    """A queue whose scheduled jobs may wait from the time for which they were scheduled.

    Derive from it with `job_class` set to your `TenantJob`.
    """

    job_class: type[Job] = TenantJob

    def schedule_job(self, job: Any, datetime: datetime, *args: Any, **kwargs: Any) -> Any:
        """Schedule *job*, and let its envelope last from then."""
        if isinstance(job, TenantJob):
            job.seal(delay=_until(datetime))
        return super().schedule_job(job, datetime, *args, **kwargs)


def _until(at: datetime) -> timedelta:
    # RQ takes a time without a zone for the local time of the machine.
    return max(timedelta(0), at.astimezone(UTC) - datetime.now(UTC))


def _guard_of(job: TenantJob) -> TenantGuard:
    guard: TenantGuard | None = getattr(type(job), "guard", None)
    if guard is None:
        raise ConfigurationError(
            "The job's class names no guard. Derive it from TenantJob with `guard = …`, and give "
            "it to the queue (job_class=) and to the worker (--job-class)."
        )
    return guard
