"""How long all rules take on a database with 1,000 tables, and how long pgrls takes on the same.

Run: python benchmarks/check.py [--tables 1000] [--pgrls .venv-pgrls/bin/pgrls]

Each table has the five policies that are generated, a key to the next one, and two more columns.
The check runs as a superuser and takes nothing from an earlier run. Which rules take longest is
printed too; what they ask first is shared with those that come later.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from bench import machine
from locks import unique_roles
from pgrls_lint import configured
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Uuid,
    create_engine,
    text,
)

from tenantguard import TenantGuard, rls
from tenantguard.check import connected, examine
from tenantguard.demo.server import embedded_server

ROUNDS = 3
SLOWEST = 8


def models(count: int) -> MetaData:
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    for number in range(count - 1):
        above = ForeignKey(f"table_{max(0, number - 1)}.id")
        Table(
            f"table_{number}",
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", ForeignKey("practices.id"), nullable=False, index=True),
            Column("above_id", Integer, above, index=True),
            Column("name", String),
        )
    return metadata


def check(engine: Engine, guard: TenantGuard) -> tuple[float, dict[str, float], int]:
    """Return how many seconds all rules took, each rule, and how much was found or not seen."""
    marks: list[tuple[str, float]] = []

    def note(_done: int, _total: int, rule: str) -> None:
        marks.append((rule, perf_counter()))

    start = perf_counter()
    with connected(engine, guard.catalog, guard.roles) as subject:
        result = examine(subject, progress=note)
    end = perf_counter()
    ends = [at for _, at in marks[1:]] + [end]
    rules = {rule: after - at for (rule, at), after in zip(marks, ends, strict=True)}
    for each in (*result.unseen, *result.findings[:5]):
        print(f"  {each}"[:300])
    return end - start, rules, len(result.findings) + len(result.unseen)


def lint(pgrls: str, engine: Engine, guard: TenantGuard) -> tuple[float, int]:
    """Return how many seconds pgrls took, and how it ended."""
    with TemporaryDirectory() as directory:
        command = configured(pgrls, engine.url, guard.catalog, guard.roles, Path(directory))
        start = perf_counter()
        ended = subprocess.run(command, capture_output=True, check=False).returncode
        return perf_counter() - start, ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pgrls", help="the command; without it only ours is measured")
    parser.add_argument("--tables", type=int, default=1000)
    options = parser.parse_args()
    machine()
    guard = TenantGuard(models(options.tables), tenants="practices", roles=unique_roles())
    with embedded_server() as server:
        admin = create_engine(server.url())
        guard.catalog.metadata.create_all(admin)
        start = perf_counter()
        steps = rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
        print(f"{options.tables} tables: {len(steps)} steps in {perf_counter() - start:.0f} s")
        with admin.connect() as connection:
            policies = connection.scalar(text("SELECT count(*) FROM pg_policy"))
            print(
                f"PostgreSQL {connection.scalar(text('SHOW server_version'))}; {policies} policies"
            )
        ours = [check(admin, guard) for _ in range(ROUNDS)]
        seconds = median(each[0] for each in ours)
        print(f"tenantguard: {len(ours[0][1])} rules, {ours[0][2]} findings, {seconds:.2f} s")
        for rule, taken in sorted(ours[-1][1].items(), key=lambda each: -each[1])[:SLOWEST]:
            print(f"  {taken:6.2f} s  {rule}")
        if options.pgrls:
            theirs, ended = lint(options.pgrls, admin, guard)
            print(f"pgrls lint: ended with {ended}, {theirs:.2f} s: {theirs / seconds:.1f}x ours")
        admin.dispose()


if __name__ == "__main__":
    main()
