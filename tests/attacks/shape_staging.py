"""The stage of shapes as a fixture; test modules name this file in `pytest_plugins`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from locks import Locks
from practice import A, B
from shapes import ShapeStage, build_shapes, mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from locks import World
    from sqlalchemy import URL


@pytest.fixture(scope="module")
def shape_world(admin_url: URL) -> Iterator[World]:
    built = build_shapes(admin_url)
    yield built
    built.dispose()


@pytest.fixture(scope="module")
def built_shapes(shape_world: World, request: pytest.FixtureRequest) -> Iterator[ShapeStage]:
    locks = Locks(shape_world, str(request.config.getoption("driver")))
    mine, theirs = mark(shape_world, A, "a2"), mark(shape_world, B, "b2")
    built = ShapeStage(shape_world, locks, mine, theirs)
    yield built
    locks.dispose()


@pytest.fixture
def shapes(built_shapes: ShapeStage) -> Iterator[ShapeStage]:
    """The stage of shapes; afterwards B's rows must be what they were."""
    before = built_shapes.rows()
    yield built_shapes
    after = built_shapes.rows()
    if after != before:
        built_shapes.restore()
    assert {**after, A: []} == {**before, A: []}, "rows of another tenant changed"
