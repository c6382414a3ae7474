"""Who may read a column's values now: whom its purposes name, and whom a block reveals them to."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tenantguard.context import active_tenant, leave_block
from tenantguard.errors import ConfigurationError, TenantNotSetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.context import ActiveTenant

__all__ = ["OnError", "Reading", "may_read", "reading_now", "revealing"]

OnError = Literal["raise", "placeholder"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one column is read.

    Attributes:
        purposes: What its values are read for; None restricts nothing.
        on_error: What becomes of a value that cannot be opened.
    """

    purposes: frozenset[str] | None
    on_error: OnError

    @classmethod
    def declared(cls, reveal: Collection[str] | None, on_error: OnError) -> Reading:
        """Return what `reveal=` and `on_error=` of a column say.

        Raises:
            ConfigurationError: If they say nothing that is known.
        """
        if on_error not in ("raise", "placeholder"):
            raise ConfigurationError("on_error= takes 'raise' or 'placeholder'.")
        if reveal is None:
            return cls(None, on_error)
        # A str is a collection of letters.
        named = isinstance(reveal, Collection) and not isinstance(reveal, str | bytes)
        if not named or not all(isinstance(each, str) and each for each in reveal):
            raise ConfigurationError(
                "reveal= takes a collection of purposes, such as reveal={'treatment', 'billing'}; "
                "an empty one lets nobody read without guard.reveal()."
            )
        return cls(frozenset(reveal), on_error)


class _Revealed:
    """What one block reveals, and to which tenant context.

    Where a task was started in the block, its copy of the context outlives the block; *active* is
    None then, so that the task cannot read any more either.
    """

    __slots__ = ("active", "fields", "outer")

    def __init__(
        self, active: ActiveTenant, fields: frozenset[object], outer: _Revealed | None
    ) -> None:
        self.active: ActiveTenant | None = active
        self.fields = fields
        self.outer = outer

    def to(self, active: ActiveTenant) -> frozenset[object]:
        """Return what this block and those around it reveal to *active*."""
        around: frozenset[object] = frozenset() if self.outer is None else self.outer.to(active)
        return around | self.fields if self.active is active else around


_revealed: ContextVar[_Revealed | None] = ContextVar("tenantguard_revealed", default=None)


@contextmanager
def revealing(fields: Iterable[object]) -> Iterator[None]:
    """Let `may_read` say yes for *fields* inside the block, to the tenant context that is active.

    One that is entered inside the block is another: it may not read them.

    Raises:
        TenantNotSetError: If no tenant is active.
        ConfigurationError: If the block is left in another context than it was entered in.
    """
    active = active_tenant()
    if active is None:
        raise TenantNotSetError(
            "reveal() outside of a tenant. Enter it inside `with tenant_context(tenant_id):` of "
            "the tenant whose values are to be read."
        )
    own = _Revealed(active, frozenset(fields), _revealed.get())
    token = _revealed.set(own)
    try:
        yield
    finally:
        own.active = None
        leave_block(token, own)


def may_read(field: object, purposes: frozenset[str]) -> bool:
    """Return whether *field*, whose values are read for *purposes*, may be read now."""
    active = active_tenant()
    if active is None:
        return False
    if active.purpose in purposes:
        return True
    revealed = _revealed.get()
    return revealed is not None and field in revealed.to(active)


def reading_now() -> object:
    """Return all that `may_read` depends on: the purpose, and what is revealed."""
    active, revealed = active_tenant(), _revealed.get()
    purpose = None if active is None else active.purpose
    # Asked several times for each object that a session loads: mostly nothing is revealed.
    if active is None or revealed is None or not (fields := revealed.to(active)):
        return purpose
    return purpose, fields
