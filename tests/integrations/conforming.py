"""The table docs/conformance.md, as the suite declares it.

PYTHONPATH=tests python tests/integrations/conforming.py > docs/conformance.md
"""

from __future__ import annotations

import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from conformance import CASES, FORMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.forms import Case, Declared, Outcome

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"

_HEAD = """\
# Conformance

What an application of each form does with the tenant, case by case. Everything here is tested on
PostgreSQL, with rows of two tenants, against what a superuser sees: `def` forms with psycopg and
psycopg2, `async def` forms with asynchronous psycopg and asyncpg. A case either works for the right
tenant or raises the error that is named; there is no third.

"FastAPI, dependency" has no resolver: an `async def` generator dependency enters the tenant.

```python
async def tenant(connection: HTTPConnection) -> AsyncIterator[None]:
    with guard.tenant_context(tenant_of(connection)):
        yield
```

A form that cannot express a case has no entry there. ¹ marks what FastAPI before 0.118 does
differently: it leaves generator dependencies before the response is sent, so what runs later has no
tenant there and raises `TenantNotSetError`.
"""
_FOOT = """\
## What to do where it raises

- `TenantNotSetError` in a thread or pool: hand over the tenant, and enter it there with
  `tenant_context`; or run the work in `contextvars.copy_context()`.
- `TenantNotSetError` in a body or background task: let a resolver name the tenant, or enter it
  again in the generator or task. Flask: see [Streaming](flask.md#streaming).
- `ConfigurationError` from a `def` generator: Starlette and FastAPI run its halves in different
  contexts. Make it `async def`. Until then a block in such a generator does not hold beyond its
  first step: what follows runs as the request's own tenant, or as none.
- A mounted Starlette or FastAPI application answers errors itself, with 500, before they reach the
  middleware. Register handlers in it for the pages that you want.
- A task that a request starts carries the request's tenant as long as it lives.
- Starlette leaves a `def` body whose client has gone to the garbage collector; until then it keeps
  its session and its connection. An `async def` body is closed at once.

This page is written by `PYTHONPATH=tests python tests/integrations/conforming.py`.
"""


def render() -> str:
    """Return the whole page."""
    topics = "\n".join(map(_topic, *zip(*_by_topic(), strict=True)))
    return f"{_HEAD}\n{topics}\n{_FOOT}"


def _by_topic() -> Iterator[tuple[str, list[Case]]]:
    by_topic = attrgetter("topic")
    for topic, cases in groupby(sorted(CASES, key=by_topic), key=by_topic):
        yield topic, list(cases)


def _topic(topic: str, cases: list[Case]) -> str:
    forms = [form for form in FORMS if any(form in case.declared for case in cases)]
    lines = [
        f"## {topic}\n",
        f"| | {' | '.join(form.title for form in forms)} |",
        "|---" * (len(forms) + 1) + "|",
    ]
    for case in cases:
        cells = " | ".join(_cell(case.declared.get(form)) for form in forms)
        lines.append(f"| {case.title} | {cells} |")
    return "\n".join(lines) + "\n"


def _cell(declared: Declared | None) -> str:
    if declared is None:
        return ""
    note = "" if declared.before is declared.now else " ¹"
    return f"{_words(declared.now)}{note}"


def _words(outcome: Outcome) -> str:
    return "works" if outcome is None else f"raises `{outcome.__name__}`"


if __name__ == "__main__":
    sys.stdout.write(render())
