"""What the signed setting costs a statement and a transaction.

Run: python benchmarks/signed.py

Two databases on one server, the same rows, roles and locks; in one of them row-level security
believes signatures only. The pieces take turns. PostgreSQL verifies once for each protected table
of a statement.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bench import compare, fill, machine, often, report
from locks import Locks, build_world
from practice import A, Order, Patient, Practice
from signing_world import build_signed
from sqlalchemy import Engine, create_engine, select, text

from tenantguard import tenant_context
from tenantguard.demo.server import embedded_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench import Work
    from sqlalchemy import URL

PATIENTS: Any = Patient.__table__
ORDERS: Any = Order.__table__
PRACTICES: Any = Practice.__table__
UNSIGNED, SIGNED = "named", "signed"

POINT = select(PATIENTS.c.name).where(PATIENTS.c.id == 2)
JOIN = (
    select(PATIENTS.c.name, ORDERS.c.what, PRACTICES.c.name)
    .join(ORDERS, ORDERS.c.patient_id == PATIENTS.c.id)
    .join(PRACTICES, PRACTICES.c.id == PATIENTS.c.tenant_id)
    .where(PATIENTS.c.id == 2)
)
LIST = select(PATIENTS.c.id, PATIENTS.c.name).order_by(PATIENTS.c.id).limit(1000)


def new_database(server: URL, name: str) -> URL:
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()
    return server.set(database=name)


def in_transaction(engine: Engine, query: Any) -> Callable[[], object]:
    """Return *query* in a transaction that stays open."""
    connection = engine.connect()
    return lambda: connection.execute(query).all()


def transaction(engine: Engine) -> Work:
    def run(times: int) -> None:
        for _ in range(times):
            with engine.begin() as connection:
                connection.execute(POINT).all()

    return run


def main() -> None:
    machine()
    with embedded_server() as server, TemporaryDirectory() as directory, tenant_context(A):
        url = server.url()
        worlds = {
            UNSIGNED: fill(build_world(new_database(url, UNSIGNED))),
            SIGNED: fill(build_signed(new_database(url, SIGNED), Path(directory) / "keys.json")),
        }
        locks = {name: Locks(world) for name, world in worlds.items()}
        engines = {name: each.both() for name, each in locks.items()}
        for title, query, repeat in (
            ("One row by its key, one table", POINT, 200),
            ("One row by its key, joined over three tables", JOIN, 200),
            ("A list of 1,000 rows, one table", LIST, 20),
        ):
            work = {name: often(in_transaction(engine, query)) for name, engine in engines.items()}
            report(title, compare(work, rounds=60, repeat=repeat), base=UNSIGNED)
        work = {name: transaction(engine) for name, engine in engines.items()}
        samples = compare(work, rounds=60, repeat=100)
        report("A whole transaction of one such query, from the pool", samples, base=UNSIGNED)
        for name, world in worlds.items():
            locks[name].dispose()
            world.dispose()


if __name__ == "__main__":
    main()
