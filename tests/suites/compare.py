"""Compare two runs of one suite, test by test, by the files that pytest's --junitxml writes.

    python compare.py without.xml with.xml

Exits with 0 if each test has the same outcome in both, else with 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Iterator

Outcomes = dict[tuple[str, int], tuple[str, str]]


def outcomes(path: str) -> Outcomes:
    """Return what became of each test in *path*, and the first line of why."""
    found: Outcomes = {}
    seen: Counter[str] = Counter()
    for case in ET.parse(path).getroot().iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        seen[name] += 1
        found[name, seen[name]] = _outcome(case)
    return found


def _outcome(case: ET.Element) -> tuple[str, str]:
    for tag in ("error", "failure", "skipped"):
        told = case.find(tag)
        if told is not None:
            kind = "xfailed" if told.get("type") == "pytest.xfail" else tag
            return kind, " ".join((told.get("message") or "").split())[:300]
    return "passed", ""


def differences(before: Outcomes, after: Outcomes) -> Iterator[str]:
    for test in sorted({*before, *after}):
        was, why_before = before.get(test, ("not run", ""))
        became, why_after = after.get(test, ("not run", ""))
        if was != became:
            yield f"{test[0]}: {was} -> {became}: {why_after or why_before}"


def main(without: str, guarded: str) -> int:
    before, after = outcomes(without), outcomes(guarded)
    for path, found in ((without, before), (guarded, after)):
        counts = Counter(outcome for outcome, _ in found.values())
        print(f"{path}: {len(found)} tests, {dict(sorted(counts.items()))}")  # noqa: T201
    lines = list(differences(before, after))
    print(f"{len(lines)} differences", *lines, sep="\n")  # noqa: T201
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
