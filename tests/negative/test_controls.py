"""Take each guard away: its test goes red. A guard whose test stays green is not tested."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from controls import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1
BROKEN = re.compile(r"^E\s+(?:TypeError|AttributeError|NameError|ImportError).*", re.MULTILINE)

Runs = dict[str, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(server: URL, request: pytest.FixtureRequest) -> Iterator[Runs]:
    """The controls that were asked for, run on all cores."""
    # Copied here: pytest changes its environment between tests, while threads would read it.
    environment = {
        **os.environ,
        "TENANTGUARD_TEST_URL": server.render_as_string(hide_password=False),
        "PYTHONPATH": os.pathsep.join(
            filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
        ),
    }
    wanted = [item.callspec.params["name"] for item in request.session.items if _is_ours(item)]  # type: ignore[attr-defined]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {name: pool.submit(without, name, environment) for name in wanted}


def _is_ours(item: pytest.Item) -> bool:
    return item.name.startswith(f"{test_without_the_guard_a_test_goes_red.__name__}[")


def without(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the test of the guard *name* with the guard taken away."""
    control = CONTROLS[name]
    # What the missing guard leaves open is closed late, by the collector: not what is asked here.
    plugins = ["-p", "controls", "-p", "no:unraisableexception"]
    command = [sys.executable, "-m", "pytest", *plugins, "-x", control.test]
    words = ["-k", control.words] if control.words else []
    return subprocess.run(
        [*command, *words],
        cwd=ROOT,
        env={**environment, "TENANTGUARD_REMOVED": name},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", CONTROLS)
def test_without_the_guard_a_test_goes_red(runs: Runs, name: str) -> None:
    """A test fails; one that could not be found, collected or set up does not count.

    Neither does a guard taken away so clumsily that the library breaks.
    """
    result = runs[name].result()
    assert result.returncode == TESTS_FAILED, result.stdout[-2000:]
    assert "1 failed" in result.stdout
    assert BROKEN.findall(result.stdout) == []
