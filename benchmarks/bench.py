"""A database for the benchmarks, and how two pieces of work are compared."""

from __future__ import annotations

import os
import platform
import sys
from contextlib import contextmanager
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter_ns
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from locks import build_world
from sqlalchemy import text

from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from locks import World

    Work = Callable[[int], object]
    """Does something as often as it is told."""

    Samples = Mapping[str, list[float]]
    """What was measured in each round, by the name of the work."""

ROWS = 2_000
BLOCKS = 5
_PACKAGES = ("sqlalchemy", "psycopg", "psycopg2-binary", "asyncpg")


@contextmanager
def world() -> Iterator[World]:
    with embedded_server() as server:
        built = fill(build_world(server.url()))
        with built.admin.connect() as connection:
            print(f"PostgreSQL {connection.scalar(text('SHOW server_version'))}")
        yield built
        built.dispose()


def fill(built: World) -> World:
    """Give each tenant `ROWS` patients."""
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
    return built


def often(function: Callable[[], object]) -> Work:
    def run(times: int) -> None:
        for _ in range(times):
            function()

    return run


def compare(work: Mapping[str, Work], *, rounds: int, repeat: int) -> Samples:
    """Return the time of each piece of work in microseconds, a sample a round.

    The pieces take turns, and the turn goes back and forth (ABBA), so that what else the machine
    does, and what drifts, hits all of them alike.
    """
    for function in work.values():
        function(repeat)
    samples: dict[str, list[float]] = {name: [] for name in work}
    there = list(work)
    for names in islice(cycle([there, there[::-1]]), rounds):
        for name in names:
            start = perf_counter_ns()
            work[name](repeat)
            samples[name].append((perf_counter_ns() - start) / repeat / 1000)
    return samples


def ratios(samples: Samples, name: str, *, base: str) -> list[float]:
    """Return the ratio of the medians: of all rounds, then of each fifth of them."""
    own, other = samples[name], samples[base]
    size = max(1, len(own) // BLOCKS)
    parts = [slice(None), *(slice(n, n + size) for n in range(0, len(own) - size + 1, size))]
    return [median(own[part]) / median(other[part]) for part in parts]


def report(
    title: str, samples: Samples, *, base: str, unit: str = "µs", most: bool = False
) -> None:
    """Print medians and their ratio to *base*, with its range over five parts of the run.

    The last ratio is that of the better quarters: on a busy machine they are less disturbed. With
    *most*, more is better.
    """
    print(f"\n{title}")
    for name, values in samples.items():
        ratio, *parts = ratios(samples, name, base=base)
        calm = _better_quarter(values, most=most) / _better_quarter(samples[base], most=most)
        spread = f"({min(parts):.2f} to {max(parts):.2f})   quarters {calm:.3f}x"
        print(f"  {name:<28} {median(values):9.1f} {unit}   {ratio:.3f}x   {spread}", flush=True)


def _better_quarter(values: list[float], *, most: bool) -> float:
    return quantiles(values, n=4)[2 if most else 0]


def machine(*packages: str) -> None:
    """Print what the figures belong to."""
    versions = ", ".join(f"{name} {version(name)}" for name in (*_PACKAGES, *packages))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}, "
        f"Python {platform.python_version()}, {versions}"
    )
