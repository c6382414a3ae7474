"""A database for the benchmarks: two engines on the same rows, one protected, one not."""

from __future__ import annotations

import platform
import sys
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from locks import build_world
from sqlalchemy import text

from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from locks import World

ROWS = 2_000


@contextmanager
def world() -> Iterator[World]:
    with embedded_server() as server:
        built = build_world(server.url())
        with built.admin.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO patients (tenant_id, name) SELECT p.id, 'patient ' || n "
                    "FROM practices p, generate_series(1, :rows) n"
                ),
                {"rows": ROWS},
            )
        with built.admin.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
        yield built
        built.dispose()


def compare(
    work: Mapping[str, Callable[[], object]], *, rounds: int, repeat: int
) -> dict[str, float]:
    """Return the median time of each piece of work in microseconds, measured in turns."""
    for function in work.values():
        for _ in range(repeat):
            function()
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, function in work.items():
            start = perf_counter_ns()
            for _ in range(repeat):
                function()
            times[name].append((perf_counter_ns() - start) / repeat / 1000)
    return {name: median(samples) for name, samples in times.items()}


def report(title: str, times: Mapping[str, float], *, base: str) -> None:
    print(f"\n{title}")
    for name, micros in times.items():
        print(f"  {name:<44} {micros:9.1f} µs   {micros / times[base]:5.2f}x")


def machine() -> None:
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"SQLAlchemy {version('sqlalchemy')}, psycopg {version('psycopg')}"
    )
