"""The tenant follows the context, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    TenantNotSetError,
    current_actor,
    current_purpose,
    current_tenant,
    tenant_context,
)
from tenantguard.context import (
    ActiveTenant,
    active_tenant,
    in_system_access,
    no_tenant,
    system_context,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from contextlib import AbstractContextManager


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


def test_who_acts_and_why_belong_to_the_block() -> None:
    """An inner block has its own, or none; without a tenant there is neither."""

    def said() -> tuple[str | None, str | None]:
        return current_actor(), current_purpose()

    with tenant_context(1, actor="user 7", purpose="support case 3"):
        assert said() == ("user 7", "support case 3")
        with tenant_context(1):
            assert said() == (None, None)
        with no_tenant():
            assert said() == (None, None)
        assert said() == ("user 7", "support case 3")
    assert said() == (None, None)


@pytest.mark.parametrize("nobody", ["", 7, b"user", object()])
def test_who_and_why_are_texts(nobody: Any) -> None:
    """What could not be written into an audit or a message is refused."""
    for wrong in ({"actor": nobody}, {"purpose": nobody}):
        with pytest.raises(ConfigurationError, match="take a non-empty str each"):
            tenant_context(1, **wrong).__enter__()


def test_no_tenant_hides_the_outer_tenant() -> None:
    """Inside the block there is none; leaving it, also by an exception, brings it back."""
    with tenant_context(1):
        with no_tenant():
            with pytest.raises(TenantNotSetError, match="No tenant is active"):
                current_tenant()
            with tenant_context(2):
                assert current_tenant() == 2
            assert active_tenant() is None
        with pytest.raises(ZeroDivisionError), no_tenant():
            1 / 0  # noqa: B018
        assert current_tenant() == 1


def test_no_tenant_without_a_tenant_changes_nothing() -> None:
    """Where none is active, none is active afterwards either."""
    with no_tenant():
        assert active_tenant() is None
    assert active_tenant() is None


@pytest.mark.parametrize("block", [lambda: tenant_context(2), no_tenant])
def test_a_block_left_in_another_context_is_refused(
    block: Callable[[], AbstractContextManager[None]],
) -> None:
    """Frameworks that enter in one thread and leave in another are told so; no tenant moves."""
    entered = block()
    elsewhere = copy_context()
    elsewhere.run(entered.__enter__)
    with tenant_context(1):
        with pytest.raises(ConfigurationError, match="left in another context") as caught:
            entered.__exit__(None, None, None)
        assert current_tenant() == 1
    assert caught.value.__suppress_context__
    assert active_tenant() is None


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


def test_blocks_left_out_of_order_leave_no_tenant() -> None:
    """A generator's block that outlives the block it was entered in brings no tenant back."""

    def work(tenant: str) -> Generator[None]:
        with tenant_context(tenant):
            yield

    with tenant_context("outer"):
        one, two = work("one"), work("two")
        next(one)
        next(two)
        one.close()
        assert active_tenant() is None
        two.close()
        assert active_tenant() is None
    with tenant_context("outer"):
        left = work("left")
        next(left)
    left.close()
    assert active_tenant() is None
