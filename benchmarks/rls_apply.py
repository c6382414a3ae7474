"""How long a query waits while `rls apply` runs on a filled database that is read and written.

Run: python benchmarks/rls_apply.py

Clients, each a process of its own, read a row, write a row, and note their longest wait: first
alone for some seconds, then while apply runs. In the last case a transaction that has read the
tables stays open in front of it, as a report or a backup does.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from contextlib import contextmanager, nullcontext
from statistics import median
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from bench import machine
from locks import fill, unique_roles
from practice import Base, make_guard
from sqlalchemy import Engine, create_engine, text

from tenantguard import rls
from tenantguard.demo.server import embedded_server
from tenantguard.rls.step import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from tenantguard import TenantGuard

ROWS = 100_000
"""Patients, orders and tags of an order, for each of the two tenants."""

CLIENTS = 3
ALONE = 5
READER = 8
"""Seconds for which the clients are alone, and for which the reader is in front."""

FILL = """
INSERT INTO patients (tenant_id, name)
    SELECT p.id, 'patient ' || n FROM practices p, generate_series(1, {rows}) n;
INSERT INTO orders (tenant_id, patient_id, what, cents)
    SELECT tenant_id, id, 'crown', 100 FROM patients;
INSERT INTO order_tags (tenant_id, order_id, tag_id)
    SELECT o.tenant_id, o.id, (SELECT min(id) FROM tags t WHERE t.tenant_id = o.tenant_id)
    FROM orders o ON CONFLICT DO NOTHING
"""
READ = "SELECT name FROM patients WHERE id = %s"
WRITE = "UPDATE orders SET cents = cents + 1 WHERE id = %s"


class Waits(NamedTuple):
    """What the clients waited, in milliseconds."""

    queries: int
    typical: float
    longest_read: float
    longest_write: float


def client(address: str) -> None:
    """Read and write single rows until the standard input ends; print the waits."""
    waits: dict[str, list[float]] = {READ: [], WRITE: []}
    ended = threading.Event()

    def listen() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    with psycopg.connect(address, autocommit=True) as connection:
        print("ready", flush=True)
        while not ended.is_set():
            for statement, found in waits.items():
                start = perf_counter()
                connection.execute(statement, (random.randrange(1, ROWS),))
                found.append((perf_counter() - start) * 1000)
    print(json.dumps(list(waits.values())))


@contextmanager
def clients(url: URL, found: list[Waits]) -> Iterator[None]:
    """Run the clients during the block, and add what they waited to *found*."""
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    running = [
        subprocess.Popen(
            [sys.executable, __file__, address],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(CLIENTS)
    ]
    for each in running:
        if each.stdout is not None:
            each.stdout.readline()
    yield
    answers = [json.loads(each.communicate("")[0]) for each in running]
    reads, writes = ([ms for answer in answers for ms in answer[at]] for at in (0, 1))
    every = [*reads, *writes]
    found.append(Waits(len(every), median(every), max(reads), max(writes)))


@contextmanager
def reader(admin: Engine) -> Iterator[None]:
    """Keep a transaction open that has read the tables, for READER seconds."""

    def read() -> None:
        with admin.connect() as connection:
            connection.execute(text("SELECT FROM patients, orders, tags LIMIT 1"))
            started.set()
            sleep(READER)

    started = threading.Event()
    thread = threading.Thread(target=read)
    thread.start()
    started.wait()
    yield
    thread.join()


def unprotect(admin: Engine, guard: TenantGuard) -> None:
    """Take policies and grants away again; keys and indexes stay."""
    steps = rls.generate(guard.catalog, guard.roles)[::-1]
    with admin.begin() as connection:
        for step in steps:
            for line in step.down if step.phase is Phase.PROTECTION else ():
                connection.exec_driver_sql(line, execution_options={"no_parameters": True})


def measure(title: str, admin: Engine, guard: TenantGuard, *, behind: bool = False) -> None:
    found: list[Waits] = []
    with clients(admin.url, found):
        sleep(ALONE)
    with clients(admin.url, found), reader(admin) if behind else nullcontext():
        start = perf_counter()
        steps = rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
        seconds = perf_counter() - start
    print(f"\n{title}: {len(steps)} steps in {seconds:.1f} s", flush=True)
    for name, waits in zip(("alone", "apply runs"), found, strict=True):
        print(
            f"  {name:<12} {waits.queries:7} queries, median {waits.typical:6.2f} ms, longest: "
            f"read {waits.longest_read:7.1f} ms, write {waits.longest_write:7.1f} ms",
            flush=True,
        )


def database(admin: Engine) -> None:
    Base.metadata.create_all(admin)
    fill(admin)
    with admin.begin() as connection:
        for statement in FILL.format(rows=ROWS).split(";"):
            connection.exec_driver_sql(statement)
    with admin.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM ANALYZE"))
        sizes: Any = connection.execute(
            text("SELECT (SELECT count(*) FROM patients), (SELECT count(*) FROM orders)")
        ).one()
        print(f"PostgreSQL {connection.scalar(text('SHOW server_version'))}; {sizes[0]} patients")


def main() -> None:
    machine()
    print(f"{CLIENTS} clients; lock_timeout of apply 3 s")
    with embedded_server() as server:
        admin = create_engine(server.url())
        guard = make_guard(unique_roles())
        database(admin)
        measure("Everything: keys, indexes, policies, grants", admin, guard)
        unprotect(admin, guard)
        measure("Policies and grants; keys and indexes are there", admin, guard)
        unprotect(admin, guard)
        title = f"The same behind a reader whose transaction lasts {READER} s"
        measure(title, admin, guard, behind=True)
        admin.dispose()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        client(sys.argv[1])
    else:
        main()
