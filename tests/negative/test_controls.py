"""Take each guard away: its test goes red. A guard whose test stays green is not tested."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from controls import CONTROLS

if TYPE_CHECKING:
    from sqlalchemy import URL

ROOT = Path(__file__).parents[2]
TESTS_FAILED = 1


@pytest.mark.parametrize("name", CONTROLS)
def test_without_the_guard_a_test_goes_red(server: URL, name: str) -> None:
    """A test fails; one that could not be found, collected or set up does not count."""
    control = CONTROLS[name]
    environment = {
        **os.environ,
        "TENANTGUARD_REMOVED": name,
        "TENANTGUARD_TEST_URL": server.render_as_string(hide_password=False),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [sys.executable, "-m", "pytest", "-p", "controls", "-x", control.test]
    words = ["-k", control.words] if control.words else []
    result = subprocess.run(
        [*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == TESTS_FAILED, result.stdout[-2000:]
    assert "1 failed" in result.stdout
