"""Who acts, for which tenant, and why.

The active tenant lives in a context variable, so it follows threads started through
`contextvars.copy_context`, asyncio tasks and generators exactly as Python defines it: a plain new
thread starts with no tenant.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import Any, TypeVar
from uuid import UUID

from tenantguard.errors import ConfigurationError, CrossTenantError, TenantNotSetError

__all__ = [
    "ActiveTenant",
    "TenantId",
    "active_tenant",
    "current_actor",
    "current_purpose",
    "current_tenant",
    "in_system_access",
    "in_unscoped_text",
    "leave_block",
    "no_tenant",
    "system_context",
    "tenant_context",
    "unscoped_text",
]

TenantId = UUID | int | str
"""A tenant's id, of the type of the registry's primary key."""


class ActiveTenant:
    """The tenant of the current context.

    *given* is what the caller passed; the guard stores the canonical value and its text here on
    first use, so that they are computed once per context and not once per statement. *keys* are
    those that the context's statements have used last. *actor* and *purpose* say who acts, and why.
    """

    __slots__ = ("actor", "canonical", "given", "keys", "owner", "purpose", "text")

    def __init__(
        self, given: TenantId, actor: str | None = None, purpose: str | None = None
    ) -> None:
        self.given = given
        self.actor = actor
        self.purpose = purpose
        self.canonical: TenantId | None = None
        self.text: str | None = None
        self.owner: object = None
        self.keys: Any = None

    def __repr__(self) -> str:
        return "<ActiveTenant>"


_Entered = TypeVar("_Entered")

_tenant: ContextVar[ActiveTenant | None] = ContextVar("tenantguard_tenant", default=None)
_system_reason: ContextVar[str | None] = ContextVar("tenantguard_system_reason", default=None)

_text_reason: ContextVar[str | None] = ContextVar("tenantguard_text_reason", default=None)

active_tenant = _tenant.get
"""The current context's `ActiveTenant`, or None."""


@contextmanager
def tenant_context(
    tenant: TenantId, *, actor: str | None = None, purpose: str | None = None
) -> Iterator[None]:
    """Act for *tenant* inside the block.

    Works in synchronous and asynchronous code. Blocks may be nested; an open transaction or session
    of the outer tenant refuses to be used inside the inner block.

    Args:
        tenant: The id as the registry's primary key has it, or its canonical text.
        actor: Who acts, such as the signed-in user's id; `current_actor` returns it, also in the
            jobs that the block enqueues.
        purpose: Why; `current_purpose` returns it, likewise.

    Raises:
        ConfigurationError: If *tenant* is not a UUID, an int or a non-empty str, *actor* or
            *purpose* is not a non-empty str, or the block is left in another context
            (`contextvars`) than it was entered in.
        CrossTenantError: If system access is active.
    """
    if isinstance(tenant, bool) or not isinstance(tenant, UUID | int | str) or tenant == "":
        raise ConfigurationError(
            "tenant_context() takes a UUID, an int or a non-empty str. "
            "A request without a tenant must be refused, not run with an empty one."
        )
    for said in (actor, purpose):
        if said is not None and (not isinstance(said, str) or not said):
            raise ConfigurationError(
                "tenant_context(actor=…, purpose=…) take a non-empty str each, or nothing."
            )
    if _system_reason.get() is not None:
        raise CrossTenantError(
            "tenant_context() inside system_access(): leave system access before acting for a "
            "tenant."
        )
    active = ActiveTenant(tenant, actor, purpose)
    token = _tenant.set(active)
    try:
        yield
    finally:
        leave_block(token, active)


@contextmanager
def no_tenant() -> Iterator[None]:
    """Act for no tenant inside the block, whatever is active around it."""
    token = _tenant.set(None)
    try:
        yield
    finally:
        leave_block(token, None)


def leave_block(token: Token[_Entered | None], own: _Entered | None) -> None:
    """Leave the block that has set *own* with *token*.

    Raises:
        ConfigurationError: If that was in another context.
    """
    found = token.var.get()
    try:
        token.var.reset(token)
    except ValueError:
        raise ConfigurationError(
            "A tenant's block was left in another context than it was entered in. Enter the "
            "tenant in an `async def` generator where a framework runs the two in different "
            "threads, and close generators where they were started."
        ) from None
    if found is not own:
        # A generator's block is still open, or was closed before this one that it was entered in.
        # What was active then may be so no longer.
        token.var.set(None)


def current_tenant() -> TenantId:
    """Return the active tenant's id as it was given to `tenant_context`.

    Raises:
        TenantNotSetError: If no tenant is active.
    """
    active = _tenant.get()
    if active is None:
        raise TenantNotSetError(
            "No tenant is active. Wrap the work in `with tenant_context(tenant_id):`, "
            "or let the framework adapter resolve it from the request."
        )
    return active.given


def current_actor() -> str | None:
    """Return who acts, as `tenant_context(actor=…)` was told; None if it was not, or no tenant."""
    active = _tenant.get()
    return None if active is None else active.actor


def current_purpose() -> str | None:
    """Return why, as `tenant_context(purpose=…)` was told; None if it was not, or no tenant."""
    active = _tenant.get()
    return None if active is None else active.purpose


@contextmanager
def system_context(reason: str) -> Iterator[None]:
    """Mark the block as system access; no tenant can be active in it.

    Raises:
        ConfigurationError: If *reason* is empty.
        CrossTenantError: If a tenant is active.
    """
    if not reason.strip():
        raise ConfigurationError(
            'system_access() needs a reason, such as reason="nightly billing".'
        )
    if _tenant.get() is not None:
        raise CrossTenantError(
            "system_access() inside tenant_context(): leave the tenant before acting for the "
            "system."
        )
    token = _system_reason.set(reason)
    try:
        yield
    finally:
        _system_reason.reset(token)


@contextmanager
def unscoped_text(reason: str) -> Iterator[None]:
    """Mark the block as one whose SQL text may pass where no lock holds it.

    Raises:
        ConfigurationError: If *reason* is empty.
    """
    if not reason.strip():
        raise ConfigurationError(
            'unscoped_text() needs a reason, such as reason="statistics of all practices".'
        )
    token = _text_reason.set(reason)
    try:
        yield
    finally:
        _text_reason.reset(token)


def in_unscoped_text() -> bool:
    """Return whether such a block is active."""
    return _text_reason.get() is not None


def in_system_access() -> bool:
    """Return whether system access is active."""
    return _system_reason.get() is not None
