"""Run every attack and write the table of docs/isolation.md: `python tests/attacks/results.py`.

`--list` runs nothing and prints the attacks as JSON; a test compares the table with them.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from attacking import LOCKS  # noqa: E402
from collected import Named, families_of, files, is_counted, named  # noqa: E402
from families import FAMILIES, NOT_APPLICABLE  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).parents[2] / "docs" / "isolation.md"
BEGIN, END = "<!-- attacks -->", "<!-- end of attacks -->"
OWN_ROWS = "on own rows:"
_HEAD = """\
| family | attacks | both locks | first alone | second alone | controls broken |
|---|---|---|---|---|---|
"""


_COUNTED = """\
Where an attack can be aimed at own rows, it succeeds there. Beside that, {controls} tests show that
an attack is real without the locks, or that legitimate use works; {limits} tests of what PostgreSQL
[cannot hide](limits.md) are no refusals, and not counted. Neither is what needs an application, a
pooler or a driver of its own: `tests/integrations` and `tests/db` have it."""


@dataclass(slots=True)
class Recorder:
    """A pytest plugin that keeps what families name, or what is counted, and how it ended."""

    tests: dict[str, Named] = field(default_factory=dict)
    leaked: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    counted_only: bool = False

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            test = named(item)
            wanted = is_counted(test) or (families_of(test.name) and not self.counted_only)
            (kept if wanted else left).append(item)
            if wanted:
                self.tests[item.nodeid] = test
        config.hook.pytest_deselected(items=left)
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            control = OWN_ROWS in report.longreprtext
            control = control or self.tests[report.nodeid].kind == "control"
            (self.broken if control else self.leaked).add(report.nodeid)


def table(recorder: Recorder) -> str:
    """Return the table of families and locks, and the reasons for what does not apply."""
    rows = [(family, _of(recorder, family)) for family in FAMILIES]
    lines = [_row(family, recorder, tests) for family, tests in rows]
    every = {node: test for _, tests in rows for node, test in tests.items()}
    lines.append(_row("**all**", recorder, every))
    limits = sum(test.kind == "limit" for test in every.values())
    controls = sum(test.kind == "control" for test in every.values())
    reasons = [
        f"- **{family}.** {NOT_APPLICABLE[family]}" for family, tests in rows if _missing(tests)
    ]
    return "\n".join(
        [
            _HEAD + "\n".join(lines),
            "",
            _COUNTED.format(controls=controls, limits=limits),
            "",
            "Not applicable, by family:",
            "",
            *reasons,
        ]
    )  # fmt: skip


def _of(recorder: Recorder, family: str) -> dict[str, Named]:
    return {
        node: test
        for node, test in recorder.tests.items()
        if is_counted(test) and families_of(test.name)[:1] == [family]
    }


def _row(family: str, recorder: Recorder, tests: dict[str, Named]) -> str:
    attacks = {node: test for node, test in tests.items() if test.kind == "attack"}
    missing = _missing(tests)
    cells = []
    for lock in LOCKS:
        under = {node for node, test in attacks.items() if test.lock == lock}
        away = f", {missing[lock]} n/a" if missing[lock] else ""
        cells.append(f"{len(under - recorder.leaked)} of {len(under)}{away}")
    names = {test.name for test in attacks.values()}
    broken = len(recorder.broken & tests.keys())
    return f"| {family} | {len(names)} | {' | '.join(cells)} | {broken} |"


def _missing(tests: dict[str, Named]) -> Counter[str]:
    """Return how many attacks do not run under each lock."""
    attacks = [test for test in tests.values() if test.kind == "attack"]
    names = {test.name for test in attacks}
    ran = {(test.name, test.lock) for test in attacks}
    missing = {lock: sum((name, lock) not in ran for name in names) for lock in LOCKS}
    return +Counter(missing)


def written(recorder: Recorder, page: str) -> str:
    """Return *page* with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(recorder)}\n{END}{after}"


def collect(*options: str) -> tuple[int, Recorder]:
    """Run pytest on everything that families name, and return how that ended."""
    recorder = Recorder(counted_only="--collect-only" not in options)
    code = pytest.main(["-p", "no:cacheprovider", *options, *files()], plugins=[recorder])
    return int(code), recorder


def main(arguments: Iterable[str]) -> int:
    """Print the list, or run the attacks and write the table."""
    if "--list" in arguments:
        with redirect_stdout(sys.stderr):
            code, recorder = collect("--collect-only", "-qqq")
        sys.stdout.write(json.dumps({key: astuple(each) for key, each in recorder.tests.items()}))
        return code
    code, recorder = collect("-q", "--tb=line")
    DOCS.write_text(written(recorder, DOCS.read_text("utf-8")), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
