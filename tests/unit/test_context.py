"""The tenant follows the context, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from typing import Any
from uuid import UUID

import pytest

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    TenantNotSetError,
    current_tenant,
    tenant_context,
)
from tenantguard.context import ActiveTenant, in_system_access, system_context


def test_tenant_is_set_inside_and_gone_afterwards() -> None:
    """The block has the tenant; before and after there is none."""
    with tenant_context("a"):
        assert current_tenant() == "a"
    with pytest.raises(TenantNotSetError, match="No tenant is active"):
        current_tenant()


def test_nested_blocks_restore_the_outer_tenant() -> None:
    """Leaving the inner block, also by an exception, brings the outer tenant back."""
    with tenant_context(1):
        with tenant_context(2):
            assert current_tenant() == 2
        with pytest.raises(ZeroDivisionError), tenant_context(2):
            1 / 0  # noqa: B018
        assert current_tenant() == 1


@pytest.mark.parametrize("nothing", [None, "", b"a", 1.5, True, False, object()])
def test_what_is_no_tenant_is_refused(nothing: Any) -> None:
    """None and the empty text never become a tenant."""
    with pytest.raises(ConfigurationError, match="takes a UUID, an int or a non-empty str"):
        tenant_context(nothing).__enter__()


def test_a_new_thread_has_no_tenant() -> None:
    """A plain thread does not inherit the tenant by accident."""
    seen: list[object] = []

    def look() -> None:
        try:
            seen.append(current_tenant())
        except TenantNotSetError:
            seen.append(None)

    with tenant_context("a"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [None]


def test_tasks_keep_their_own_tenant() -> None:
    """Interleaved tasks each see the tenant they set."""

    async def work(tenant: int) -> list[object]:
        seen: list[object] = []
        with tenant_context(tenant):
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(current_tenant())
        return seen

    async def main() -> list[list[object]]:
        return await asyncio.gather(*(work(tenant) for tenant in range(4)))

    assert asyncio.run(main()) == [[tenant] * 5 for tenant in range(4)]


def test_system_access_and_tenant_exclude_each_other() -> None:
    """Neither can be entered from inside the other."""
    with tenant_context("a"), pytest.raises(CrossTenantError, match="leave the tenant"):
        system_context("billing").__enter__()
    with system_context("billing"):
        assert in_system_access()
        with pytest.raises(CrossTenantError, match="leave system access"):
            tenant_context("a").__enter__()
    assert not in_system_access()


def test_system_access_needs_a_reason() -> None:
    """A blank reason is none."""
    with pytest.raises(ConfigurationError, match="needs a reason"):
        system_context("  ").__enter__()


def test_repr_does_not_show_the_tenant() -> None:
    """A tenant id does not get into a traceback or a log by way of repr."""
    assert repr(ActiveTenant(UUID(int=7))) == "<ActiveTenant>"
