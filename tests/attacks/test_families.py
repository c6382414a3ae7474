"""The list of families is complete, and the table in the documentation is what is collected."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from collected import Named, items_of, unplaced
from families import FAMILIES
from results import DOCS, Recorder, written


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    """All attacks, as a run of them would collect them; each is taken for refused."""
    command = [sys.executable, str(Path(__file__).with_name("results.py")), "--list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return Recorder({node: Named(*each) for node, each in json.loads(listed.stdout).items()})


def test_every_item_has_an_attack(recorder: Recorder) -> None:
    """Each item of each family is tried by at least one test."""
    tried = {
        place
        for test in recorder.tests.values()
        if test.kind != "control"
        for place in items_of(test.name)
    }
    items = {(family, item) for family, items in FAMILIES.items() for item in items}
    assert items - tried == set()


def test_every_attack_has_a_family(recorder: Recorder) -> None:
    """A test of this directory that no family names is put into families.py."""
    assert unplaced(recorder.tests.values()) == []


def test_the_documented_table_is_what_is_collected(recorder: Recorder) -> None:
    """As many attacks, all refused; `python tests/attacks/results.py` writes the table anew."""
    page = DOCS.read_text("utf-8")
    assert page == written(recorder, page)
