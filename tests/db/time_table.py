"""The page docs/time.md, as tests/db/time_cases.py declares it.

PYTHONPATH=src:tests:tests/db python tests/db/time_table.py > docs/time.md
"""

from __future__ import annotations

import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from time_cases import CASES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from time_cases import Case

PAGE = Path(__file__).parents[2] / "docs" / "time.md"

_HEAD = """\
# What runs when, and as whom

The active tenant is a context variable. Python decides who inherits it: a task, a callback and
`asyncio.to_thread` get a copy of what was active where they were started; a thread and a process
that is spawned start with none. The library refuses what would mix two tenants. Each row below is a
test, on PostgreSQL. [Conformance](conformance.md) says the same of frameworks: streamed bodies,
WebSockets, background tasks, dependencies.
"""
_FOOT = """\
## The one to know

A generator that enters a tenant leaves it active for whoever asks for its next value, until it
ends: that is how Python's context variables work, for `def` and `async def` generators alike, and
nothing can be noticed from outside. What runs between two steps then runs as the *generator's*
tenant, unless it uses a session or transaction that is open already, which is refused. Enter the
tenant around the loop instead, or leave the block before each `yield`, or run the steps in a
context of their own: `context = copy_context()`, then `context.run(next, rows)`.

## Streamed results

With the execution options `stream_results` and `yield_per`, and with `AsyncSession.stream()`, rows
come out only while the tenant is active that executed the statement; that includes rows that wait
in memory. A refusal loses nothing: the tenant itself may read on. Anybody may close the result, and
where its loop may be broken off somebody should: `with session.scalars(…) as rows:`.

A result that is not streamed has been fetched whole when `execute()` returns. It may be read
anywhere, like a list; calling `yield_per(n)` on it afterwards changes nothing about that. What its
objects load later is refused to others.

This page is written by `PYTHONPATH=src:tests:tests/db python tests/db/time_table.py`.
"""


def render() -> str:
    """Return the whole page."""
    topics = "\n".join(_topic(topic, cases) for topic, cases in groupby(CASES, attrgetter("topic")))
    return f"{_HEAD}\n{topics}\n{_FOOT}"


def _topic(topic: str, cases: Iterable[Case]) -> str:
    lines = [f"## {topic}\n", "| what runs | what happens | what to do |", "|---|---|---|"]
    lines += [f"| {case.title} | {_happens(case)} | {case.do} |" for case in cases]
    return "\n".join(lines) + "\n"


def _happens(case: Case) -> str:
    return f"raises `{case.raises.__name__}`" if case.raises else case.happens


if __name__ == "__main__":
    sys.stdout.write(render())
