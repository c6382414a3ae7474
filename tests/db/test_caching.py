"""A cache that tenants share: what docs/caching.md shows, and what the key keeps apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drivers import SYNC
from practice import A, B, Patient
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from tenantguard import (
    ConfigurationError,
    TenantGuard,
    TenantNotSetError,
    UnknownTenantError,
    tenant_context,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from locks import Locks, World

# The recipe is the same for every driver.
pytestmark = pytest.mark.drivers(*SYNC)

PAGE = Path(__file__).parents[2] / "docs" / "caching.md"
KEYS = re.compile(r"tg:[0-9a-f]{32}:[0-9a-f]{64}")


class Shown:
    """The page's code, run to the letter, with engines of the tests."""

    def __init__(self, locks: Locks) -> None:
        self.recipe, self.use = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        self.names: dict[str, Any] = {
            "guard": locks.world.guard,
            "engine": locks.both(),
            "select": select,
            "Patient": Patient,
            "tenant_context": tenant_context,
        }

    def set_up(self, recipe: str) -> None:
        exec(compile(recipe, str(PAGE), "exec"), self.names)

    def patients(self, tenant: Any) -> list[str]:
        """The names that the page's query gives *tenant*."""
        scope = {**self.names, "practice_id": tenant}
        exec(compile(self.use, str(PAGE), "exec"), scope)
        return sorted(patient.name for patient in scope["patients"])

    def entries(self) -> list[str]:
        return list(self.names["region"].actual_backend._cache)


@pytest.fixture
def shown(locks: Locks) -> Iterator[Shown]:
    shown = Shown(locks)
    yield shown
    event.remove(Session, "do_orm_execute", shown.names["from_cache"])


def _stored(world: World, tenant: UUID) -> list[str]:
    return sorted(row[2] for row in world.rows("patients", tenant))


def test_each_tenant_gets_its_own_rows_from_the_cache(shown: Shown, world: World) -> None:
    """A fills the cache and B asks the same: both get their own rows, from entries of their own."""
    shown.set_up(shown.recipe)
    for tenant in (A, B, A):
        assert shown.patients(tenant) == _stored(world, tenant)
    assert len(shown.entries()) == 2
    assert all(KEYS.fullmatch(key) for key in shown.entries())


def test_the_second_answer_is_from_the_cache(shown: Shown, world: World) -> None:
    """Positive control: a row that was added since is not in the cached result."""
    shown.set_up(shown.recipe)
    before = shown.patients(A)
    with tenant_context(A), Session(shown.names["engine"]) as session:
        session.add(Patient(name="added since"))
        session.commit()
    assert shown.patients(A) == before != _stored(world, A)
    with tenant_context(A), Session(shown.names["engine"]) as session:
        session.delete(session.scalars(select(Patient).filter_by(name="added since")).one())
        session.commit()


def test_a_key_without_the_tenant_would_leak(shown: Shown, world: World) -> None:
    """The attack is real: without the key mangler B gets A's rows, frozen, past both locks."""
    shown.set_up(shown.recipe.replace("key_mangler=guard.cache_key", ""))
    assert shown.patients(A) == _stored(world, A)
    assert shown.patients(B) == _stored(world, A)


def test_without_a_tenant_the_cache_is_not_asked(shown: Shown) -> None:
    """A region with the key mangler neither answers nor stores anything without a tenant."""
    shown.set_up(shown.recipe)
    shown.patients(A)
    with Session(shown.names["engine"]) as session:
        query = select(Patient).options(shown.names["FromCache"]())
        with pytest.raises(TenantNotSetError, match="cache key was asked for"):
            session.scalars(query)
    assert len(shown.entries()) == 1


def _key(guard: TenantGuard, tenant: Any, *parts: Any) -> str:
    with tenant_context(tenant):
        return guard.cache_key(*parts)


def test_keys_differ_by_tenant_and_by_parts(world: World) -> None:
    """No two lists of parts, and no two tenants, have the same key; the same ones always do."""
    lists = [(), ("",), ("a",), ("ab",), ("a", "b"), (b"a",), (1,), ("1",), (A,), (str(A),)]
    guard = world.guard
    keys = [_key(guard, tenant, *parts) for tenant in (A, B) for parts in lists]
    assert len(set(keys)) == 2 * len(lists)
    assert _key(guard, str(A).upper(), "a") == _key(guard, A, "a")
    assert {key[:36] for key in keys[: len(lists)]} == {keys[0][:36]}


def test_a_key_shows_neither_tenant_nor_parts(world: World) -> None:
    """Keys stand in logs and monitoring: nothing can be read from them."""
    key = _key(world.guard, A, "Müller", "\ud800")
    assert KEYS.fullmatch(key)
    assert str(A)[:8] not in key


@pytest.mark.parametrize("part", [None, True, 1.5, ["a"], object()])
def test_values_that_are_not_stable_are_refused(world: World, part: Any) -> None:
    """What has no one text is no part of a key."""
    with pytest.raises(ConfigurationError, match="takes str, bytes, int and UUID"):
        _key(world.guard, A, part)


def test_a_malformed_tenant_has_no_key(world: World) -> None:
    """The key is of the tenant as the registry would hold it."""
    with pytest.raises(UnknownTenantError):
        _key(world.guard, "not a uuid", "a")
