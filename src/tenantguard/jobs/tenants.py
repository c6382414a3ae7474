"""Work for every tenant, one after another, each in a context of its own."""

from __future__ import annotations

import logging
from asyncio import create_task
from contextvars import copy_context
from dataclasses import dataclass, field
from inspect import isawaitable, iscoroutinefunction
from typing import TYPE_CHECKING, Any

from tenantguard.context import active_tenant, in_system_access
from tenantguard.errors import ConfigurationError, CrossTenantError
from tenantguard.jobs.declared import refuse_generators

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
    from contextlib import AbstractContextManager

    from tenantguard.context import TenantId

    Entered = Callable[[TenantId], AbstractContextManager[None]]
    Progress = Callable[["TenantReport"], object]

__all__ = ["EachTenant", "TenantFailure", "TenantReport", "check_work", "in_turn"]

_LOG = logging.getLogger("tenantguard")


@dataclass(frozen=True, slots=True, repr=False)
class TenantFailure:
    """One tenant whose work raised.

    Attributes:
        index: Which one it was, counted from 0.
        tenant: Its id; not in the representation.
        error: What the work raised.
    """

    index: int
    tenant: TenantId
    error: Exception

    def __repr__(self) -> str:
        return f"<TenantFailure {self.index} {type(self.error).__name__}>"


@dataclass(slots=True, repr=False)
class TenantReport:
    """How far the work has come.

    Attributes:
        total: How many tenants there were at the start; None if nobody counted them.
        done: For how many the work has ended, one way or the other.
        failures: Those for whom it raised.
        stopped: Whether it was given up before the last tenant.
    """

    total: int | None
    done: int = 0
    failures: list[TenantFailure] = field(default_factory=list)
    stopped: bool = False

    def __repr__(self) -> str:
        return f"<TenantReport {self.summary}>"

    @property
    def summary(self) -> str:
        """The counts, in words."""
        of = "" if self.total is None else f" of {self.total}"
        stopped = ", stopped" if self.stopped else ""
        return f"{self.done}{of} tenants done, {len(self.failures)} failed{stopped}"

    def raise_for_errors(self) -> None:
        """Raise an `ExceptionGroup` of what the tenants' work has raised, if any did."""
        if self.failures:
            raise ExceptionGroup(self.summary, [failure.error for failure in self.failures])


@dataclass(slots=True)
class EachTenant:
    """The work and its report.

    Args:
        work: Called with each tenant's id.
        entered: Returns the block in which a tenant's work runs.
        report: Where to count.
        stop_after: Give up once so many tenants have failed.
        progress: Called with the report after each tenant.
    """

    work: Callable[[TenantId], object]
    entered: Entered
    report: TenantReport
    stop_after: int | None
    progress: Progress | None

    def run(self, tenants: Iterable[TenantId]) -> TenantReport:
        """Work for each of *tenants*."""
        try:
            for tenant in tenants:
                self._ended(tenant, copy_context().run(self._raised, tenant))
                if self.report.stopped:
                    break
        except BaseException as error:
            self._interrupted(error)
            raise
        return self.report

    async def arun(self, tenants: AsyncIterable[TenantId]) -> TenantReport:
        """Work for each of *tenants*, asynchronously."""
        try:
            async for tenant in tenants:
                each = create_task(self._araised(tenant), context=copy_context())
                self._ended(tenant, await each)
                if self.report.stopped:
                    break
        except BaseException as error:
            self._interrupted(error)
            raise
        return self.report

    def _raised(self, tenant: TenantId) -> Exception | None:
        try:
            with self.entered(tenant):
                self.work(tenant)
        except Exception as error:  # noqa: BLE001  (collected, whatever it is)
            return error
        return None

    async def _araised(self, tenant: TenantId) -> Exception | None:
        try:
            with self.entered(tenant):
                result: Any = self.work(tenant)
                if isawaitable(result):
                    await result
        except Exception as error:  # noqa: BLE001  (collected, whatever it is)
            return error
        return None

    def _ended(self, tenant: TenantId, error: Exception | None) -> None:
        report = self.report
        if error is not None:
            report.failures.append(TenantFailure(report.done, tenant, error))
            report.stopped = self.stop_after is not None and (
                len(report.failures) >= self.stop_after
            )
        report.done += 1
        if self.progress is not None:
            self.progress(report)

    def _interrupted(self, error: BaseException) -> None:
        self.report.stopped = True
        _LOG.warning("Interrupted: %s.", self.report.summary)
        error.add_note(f"for_each_tenant: {self.report.summary}.")


def check_work(work: Callable[..., Any], *, asynchronous: bool) -> None:
    """Raise unless *work* can be run here.

    Raises:
        ConfigurationError: If it would not run at all: a generator, or a coroutine nobody awaits.
        CrossTenantError: If a tenant or system access is active.
    """
    refuse_generators(work)
    if not asynchronous and iscoroutinefunction(work):
        raise ConfigurationError(
            "for_each_tenant() does not await its work. Use `await guard.afor_each_tenant(…)`."
        )
    if active_tenant() is not None or in_system_access():
        raise CrossTenantError(
            "for_each_tenant() inside tenant_context() or system_access(): leave the block first. "
            "Each tenant's work gets a block of its own."
        )


async def in_turn(tenants: Iterable[TenantId]) -> AsyncIterator[TenantId]:
    """Yield each of *tenants*."""
    for tenant in tenants:
        yield tenant
