"""The stage as a fixture; test modules of this directory name this file in `pytest_plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from attacking import Stage, loose_tags, target
from locks import Locks
from practice import A, B

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import World


@pytest.fixture(scope="module")
def built_stage(world: World, request: pytest.FixtureRequest) -> Iterator[Stage]:
    loose_tags(world)
    locks = Locks(world, str(request.config.getoption("driver")))
    built = Stage(world, locks, target(world, A), target(world, B))
    yield built
    built.locks.dispose()


@pytest.fixture
def stage(built_stage: Stage) -> Iterator[Stage]:
    """The stage; afterwards B's rows must be what they were."""
    before = built_stage.rows()
    yield built_stage
    after = built_stage.rows()
    if after != before:
        built_stage.restore()
    assert {**after, A: []} == {**before, A: []}, "rows of another tenant changed"
