"""What a guard does with jobs: envelopes, tasks, and work for every tenant."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from tenantguard.context import current_actor, current_purpose, no_tenant
from tenantguard.errors import ConfigurationError, EnvelopeError, TenantNotSetError
from tenantguard.jobs.declared import guarded_task, task_name
from tenantguard.jobs.envelope import LIFETIME, new_envelope, open_envelope, seal_envelope
from tenantguard.jobs.registered import RegisteredTenants
from tenantguard.jobs.tenants import EachTenant, TenantReport, check_work, in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from datetime import timedelta

    from sqlalchemy import ColumnElement

    from tenantguard.catalog import Catalog
    from tenantguard.context import TenantId
    from tenantguard.crypto.signing import SigningFile
    from tenantguard.jobs.declared import GuardedTask

__all__ = ["GuardedJobs"]

_Result = TypeVar("_Result")


class GuardedJobs:
    """The jobs of a `TenantGuard`, which has the rest."""

    catalog: Catalog
    mode: str
    signing: SigningFile | None
    _suspended: ColumnElement[bool] | None

    if TYPE_CHECKING:

        def refuses(self, message: str) -> bool:
            """Return whether to refuse what *message* says."""

        def tenant_context(
            self, tenant: TenantId, *, actor: str | None = None, purpose: str | None = None
        ) -> AbstractContextManager[None]:
            """Act for *tenant* inside the block."""

        def system_access(self, *, reason: str) -> AbstractContextManager[Any]:
            """Enter the system engine."""

        def _tenant(self) -> TenantId: ...

        def _tenant_text(self) -> str | None: ...

    def envelope(
        self, *, task: str, purpose: str | None = None, expires_in: timedelta = LIFETIME
    ) -> str:
        """Return text that lets `job` run *task* as the active tenant, for a message to carry.

        It names the tenant, the actor and the purpose, readable by whoever sees the message, and is
        signed. Without a tenant the observe mode counts a refusal and returns an empty text.

        Args:
            task: The name of what the message asks for; the envelope opens for no other.
            purpose: Why, if it is not the context's purpose.
            expires_in: How long the job may wait.

        Raises:
            TenantNotSetError: If no tenant is active.
            ConfigurationError: If the guard has no signing=, or its file cannot be read.
        """
        if self.mode == "off":
            return ""
        if self._tenant_text() is None:
            refusal = TenantNotSetError(
                "A job was enqueued while no tenant is active. Wrap it in "
                "`with tenant_context(tenant_id):`, or declare the task tenantless, with the "
                "reason."
            )
            if self.refuses(str(refusal)):
                raise refusal
            return ""
        envelope = new_envelope(
            self._tenant(),
            actor=current_actor(),
            purpose=purpose or current_purpose(),
            expires_in=expires_in,
        )
        return seal_envelope(envelope, task=task, signing=self.signing_keys())

    @contextmanager
    def job(self, envelope: str | None, *, task: str) -> Iterator[None]:
        """Act inside the block for the tenant of *envelope*, whoever was active before.

        Raises:
            EnvelopeError: If it is missing, malformed, forged or sealed for another task.
            EnvelopeExpiredError: If the job waited for too long.
            UnknownTenantError: If the tenant's id is not of the registry's type.
        """
        if self.mode == "off":
            yield
            return
        with no_tenant():
            try:
                opened = open_envelope(envelope, task=task, signing=self.signing_keys())
            except EnvelopeError as error:
                if self.refuses(str(error)):
                    raise
                yield
                return
            with self.tenant_context(opened.tenant, actor=opened.actor, purpose=opened.purpose):
                yield

    @overload
    def task(self, function: Callable[..., _Result]) -> GuardedTask[_Result]: ...

    @overload
    def task(
        self, *, name: str | None = None, purpose: str | None = None
    ) -> Callable[[Callable[..., _Result]], GuardedTask[_Result]]: ...

    def task(
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        purpose: str | None = None,
    ) -> Any:
        """Make a function or `async def` run as the tenant who enqueued it.

        The decorated `send_invoice` has `send_invoice.envelope()` for the message, and is called in
        the worker with `send_invoice(…, tenantguard=envelope)`.

        Args:
            function: What is decorated; a generator is refused.
            name: The task's name; by default that of its module and its own.
            purpose: Why it runs, if that is always the same.

        Raises:
            ConfigurationError: If *function* is a generator.
        """
        if function is None:
            return partial(self.task, name=name, purpose=purpose)
        named = name or task_name(function)

        def seal(expires_in: timedelta | None) -> str:
            return self.envelope(task=named, purpose=purpose, expires_in=expires_in or LIFETIME)

        return guarded_task(function, seal=seal, entered=partial(self.job, task=named))

    def for_each_tenant(
        self,
        work: Callable[[TenantId], object],
        *,
        reason: str,
        tenants: Iterable[TenantId] | None = None,
        stop_after: int | None = None,
        progress: Callable[[TenantReport], object] | None = None,
    ) -> TenantReport:
        """Call *work* for every tenant that is not suspended, each in a context of its own.

        What a tenant's work raises is collected, and the next tenant follows. An interruption, such
        as Ctrl-C, ends it at once; the log and the error's note then say how far it came.

        Args:
            work: Called with a tenant's id while that tenant is active.
            reason: Why; the purpose of each context, and of the system access to the registry.
            tenants: Their ids, if not all that the registry has.
            stop_after: Give up once so many tenants have failed.
            progress: Called after each tenant with the report as it then is.

        Raises:
            ConfigurationError: If the guard has no system engine, or *work* is asynchronous or a
                generator.
            CrossTenantError: If a tenant or system access is active.
        """
        check_work(work, asynchronous=False)
        registered = self._registered(reason)
        total = registered.count() if tenants is None else None
        each = self._each(work, reason, total, stop_after, progress)
        return each.run(registered.ids() if tenants is None else tenants)

    async def afor_each_tenant(
        self,
        work: Callable[[TenantId], object],
        *,
        reason: str,
        tenants: Iterable[TenantId] | None = None,
        stop_after: int | None = None,
        progress: Callable[[TenantReport], object] | None = None,
    ) -> TenantReport:
        """Do what `for_each_tenant` does, awaiting what *work* returns; one tenant after another.

        The system engine may be asynchronous or not.
        """
        check_work(work, asynchronous=True)
        registered = self._registered(reason)
        total = await registered.acount() if tenants is None else None
        each = self._each(work, reason, total, stop_after, progress)
        return await each.arun(registered.aids() if tenants is None else in_turn(tenants))

    def _registered(self, reason: str) -> RegisteredTenants:
        _, key = self.catalog.registry_key()
        return RegisteredTenants(key, self._suspended, partial(self.system_access, reason=reason))

    def _each(
        self, work: Any, reason: str, total: int | None, stop_after: int | None, progress: Any
    ) -> EachTenant:
        entered = partial(self.tenant_context, purpose=reason)
        return EachTenant(work, entered, TenantReport(total), stop_after, progress)

    def signing_keys(self) -> SigningFile:
        """Return the keys that sign.

        Raises:
            ConfigurationError: If the guard has none, or their file cannot be read.
        """
        if self.signing is None:
            raise ConfigurationError(
                "The messages of jobs are signed, and TenantGuard has no signing=. Make a key with "
                "`tenantguard keys signing init FILE --environment NAME`, and pass "
                "signing=SigningFile(FILE, environment=NAME)."
            )
        _ = self.signing.keys
        return self.signing
