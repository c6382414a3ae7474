"""How fast values are sealed anew and plaintext is sealed, beside a plain UPDATE of the same rows.

Run: python benchmarks/encrypt_existing.py [ROWS]
Needs: pip install 'tenantguard[bench]'; 100,000 rows and about a minute, unless ROWS is given.

Each figure is the median of the rounds, all in one run. The plain UPDATE writes text of the same
length as the plaintext, in batches of the same size, each its own transaction, by the same keyset
pagination: what any backfill has to do. The searchable column's UPDATE also keeps an index.

Then what the trigger of `kept_by="trigger"` costs beside a generated column, in the database: the
same statements on two tables that differ in that alone. And how long a table is locked while a
search column is added in either form.
"""

from __future__ import annotations

import sys
import uuid
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import machine
from locks import unique_roles
from sqlalchemy import ForeignKey, create_engine, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tenantguard import Exact, KeyFile, TenantGuard, encrypted_str, rls
from tenantguard.cli.encrypt.access import access_to
from tenantguard.cli.encrypt.changing import asking, send
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.demo.server import embedded_server
from tenantguard.encrypt.backfilling import Backfilling
from tenantguard.encrypt.migrating import migration_of
from tenantguard.encrypt.passes import Unit
from tenantguard.encrypt.rewriting import Rewriting
from tenantguard.encrypt.schema import expand, structure_of
from tenantguard.encrypt.working import Pace, work
from tenantguard.rls.kept import keeping

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Engine

    from tenantguard.encrypt.batches import Job

TENANT = uuid.UUID(int=0xA << 100)
ROUNDS = 3
SIZE = 1000
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


class Base(DeclarativeBase):
    pass


class Practice(Base):
    __tablename__ = "practices"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)


class Patient(Base):
    __tablename__ = "patients"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"), index=True)
    plain_name: Mapped[str] = mapped_column("name")
    copy: Mapped[str | None]
    indexed: Mapped[str | None] = mapped_column(index=True)
    sealed: Mapped[str | None] = encrypted_str(migrating="name")
    found: Mapped[str | None] = encrypted_str(search=Exact(), migrating="name")


class Generated(Base):
    __tablename__ = "generated"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    city: Mapped[str]
    name: Mapped[str] = encrypted_str(search=Exact())


class Kept(Base):
    __tablename__ = "kept"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("practices.id"))
    city: Mapped[str]
    name: Mapped[str] = encrypted_str(search=Exact(kept_by="trigger"))


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    machine("tink")
    with embedded_server(SETTINGS) as server, TemporaryDirectory() as directory:
        key_file = Path(directory) / "key.json"
        make_key_file(key_file, environment="benchmark")
        roles = unique_roles()
        keys = KeyFile(key_file, environment="benchmark")
        guard = TenantGuard(Base.metadata, tenants="practices", roles=roles, keys=keys)
        admin = create_engine(server.url())
        Base.metadata.create_all(admin)
        rls.apply(admin, guard.catalog, roles, create_roles=True)
        fill(admin, rows)
        print(f"{rows:,} rows of one tenant, batches of {SIZE}, median of {ROUNDS} rounds")
        measure(guard, admin, rows)
        writing(admin, rows)
        rewriting_table(guard, admin, rows)
        admin.dispose()


def fill(admin: Engine, rows: int) -> None:
    with admin.begin() as connection:
        connection.execute(insert(Practice), {"id": TENANT})
        connection.execute(
            text(
                "INSERT INTO patients (tenant_id, name) "
                "SELECT :tenant, 'patient ' || n FROM generate_series(1, :rows) n"
            ),
            {"tenant": TENANT, "rows": rows},
        )


def measure(guard: TenantGuard, admin: Engine, rows: int) -> None:
    table = Base.metadata.tables["patients"]
    entry = guard.catalog.entry(table)
    jobs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
    for column in ("sealed", "found"):
        migration = replace(migration_of(guard.catalog, "patients.name"), sealed=table.c[column])
        backfill = Backfilling(migration)
        with admin.connect() as connection:
            found = structure_of(asking(connection), migration)
        assert found is not None
        send(admin, expand(migration, found), progress=lambda *_: None)
        emptied = emptying(admin, column)
        jobs[f"backfill, {column}"] = emptied, working(guard, admin, backfill, rows)
        jobs[f"rewrite, {column}"] = (
            rotating(guard, admin),
            working(guard, admin, Rewriting(entry, [table.c[column]]), rows),
        )
    plain = {
        "plain UPDATE": (emptying(admin, "copy"), updating(admin, "copy", rows)),
        "plain UPDATE, indexed": (emptying(admin, "indexed"), updating(admin, "indexed", rows)),
    }
    times: dict[str, list[float]] = {name: [] for name in (*plain, *jobs)}
    for _ in range(ROUNDS):
        for name, (prepare, run) in {**plain, **jobs}.items():
            prepare()
            vacuum(admin)
            started = perf_counter()
            run()
            times[name].append(perf_counter() - started)
    report(times, rows)


def report(times: dict[str, list[float]], rows: int) -> None:
    medians = {name: median(each) for name, each in times.items()}
    for name, seconds in medians.items():
        beside = "plain UPDATE, indexed" if "found" in name or "indexed" in name else "plain UPDATE"
        print(
            f"  {name:24} {seconds:6.2f} s  {rows / seconds:9,.0f} rows/s  "
            f"{medians[beside] / seconds:5.2f}x of {beside!r}"
        )


def emptying(admin: Engine, column: str) -> Callable[[], None]:
    def run() -> None:
        with admin.begin() as connection:
            # An UPDATE that does not name the plaintext would empty it, too.
            connection.execute(text(f"UPDATE patients SET {column} = NULL, name = name"))

    return run


def working(guard: TenantGuard, admin: Engine, job: Job, rows: int) -> Callable[[], None]:
    def run() -> None:
        access = access_to(guard, admin)
        unit = Unit(job, str(TENANT), rows)
        done = work(access, [unit], pace=Pace(SIZE), progress=lambda *_: None, create=True)
        assert done.values.total() == rows, (done.values, done.failed, done.shut, done.left)

    return run


def rotating(guard: TenantGuard, admin: Engine) -> Callable[[], None]:
    """Give the tenant a new primary key; the benchmark's rounds need one each."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "encrypt"))
    from rotating import rotate_at  # noqa: PLC0415

    def run() -> None:
        rotate_at(admin, guard, TENANT, "benchmark")

    return run


def updating(admin: Engine, column: str, rows: int) -> Callable[[], None]:
    statement = text(
        f"UPDATE patients SET {column} = v.value "
        "FROM unnest(CAST(:ids AS int[]), CAST(:texts AS text[])) AS v(id, value) "
        "WHERE patients.id = v.id"
    )

    def run() -> None:
        after, done = 0, 0
        while True:
            with admin.begin() as connection:
                read: list[Any] = list(
                    connection.execute(
                        text(
                            f"SELECT id, name FROM patients WHERE {column} IS NULL AND id > :after "
                            "ORDER BY id LIMIT :size"
                        ),
                        {"after": after, "size": SIZE},
                    )
                )
                if not read:
                    break
                values = {"ids": [row.id for row in read], "texts": [row.name for row in read]}
                done += connection.execute(statement, values).rowcount
                after = read[-1].id
        assert done == rows

    return run


def vacuum(admin: Engine) -> None:
    with admin.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM (FULL, ANALYZE) patients"))
        connection.execute(text("CHECKPOINT"))


# Of a search column that is there and filled already, so that rows fulfil it.
FOLLOWS = "CONSTRAINT follows CHECK (found_bidx IS NOT DISTINCT FROM substring(found, 5, 16))"
WRITES = {
    "INSERT": "INSERT INTO {} (id, tenant_id, city, name) "
    "SELECT id, tenant_id, '', found FROM patients",
    "UPDATE of the value": "UPDATE {} SET name = overlay(name PLACING sha256(name) FROM 5)",
    "UPDATE of another column": "UPDATE {} SET city = city || 'x'",
}
ONE = "INSERT INTO {} (id, tenant_id, city, name) SELECT :id, tenant_id, '', found FROM patients "
SINGLE = 1000


def writing(admin: Engine, rows: int) -> None:
    """Say what the trigger costs beside a generated column."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(ROUNDS + 2):
        for table in ("generated", "kept"):
            run(admin, [f"TRUNCATE {table}"])
        for name, statement in WRITES.items():
            for table in ("generated", "kept"):
                seconds = run(admin, [statement.format(table)])
                times.setdefault((name, table), []).append(seconds / rows)
        for table in ("generated", "kept"):
            seconds = inserting(admin, table, rows)
            times.setdefault(("INSERT of one row", table), []).append(seconds / SINGLE)
    for name in (*WRITES, "INSERT of one row"):
        pairs = list(zip(times[name, "generated"], times[name, "kept"], strict=True))
        ratios = sorted(other / one for one, other in pairs)
        one, other = (median(each) * 1e6 for each in zip(*pairs, strict=True))
        print(
            f"  {name:24} {one:6.1f} µs a row generated, {other:6.1f} by trigger, "
            f"{median(ratios):.2f}x ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        )


def run(admin: Engine, statements: list[str]) -> float:
    with admin.begin() as connection:
        connection.execute(text("SET LOCAL synchronous_commit = off"))
        started = perf_counter()
        for statement in statements:
            connection.execute(text(statement))
        return perf_counter() - started


def inserting(admin: Engine, table: str, rows: int) -> float:
    """Insert rows in a statement each, as an application does."""
    statement = text(ONE.format(table) + "WHERE patients.id = 1")
    with admin.begin() as connection:
        started = perf_counter()
        for number in range(SINGLE):
            connection.execute(statement, {"id": 10 * rows + number})
        return perf_counter() - started


def rewriting_table(guard: TenantGuard, admin: Engine, rows: int) -> None:
    """Say how long a table is locked while a search column is added to it, in either form."""
    del guard
    lock = "ACCESS EXCLUSIVE"
    trigger = keeping("patients", "keeper", "keeper", "BEGIN RETURN NEW; END")
    alter, other = "ALTER TABLE patients", "SHARE UPDATE EXCLUSIVE"
    generated = "bytea GENERATED ALWAYS AS (substring(sealed, 5, 16)) STORED"
    statements = {
        "ADD COLUMN bytea": (lock, [f"{alter} ADD plain_bytes bytea"]),
        "CREATE TRIGGER": ("SHARE ROW EXCLUSIVE", list(trigger)),
        "ADD CHECK … NOT VALID": (lock, [f"{alter} ADD {FOLLOWS} NOT VALID"]),
        "VALIDATE": (other, [f"{alter} VALIDATE CONSTRAINT follows"]),
        "ADD COLUMN … GENERATED": (lock, [f"{alter} ADD generated {generated}"]),
    }
    for name, (taken, changes) in statements.items():
        seconds = run(admin, changes)
        print(f"  {name:24} {seconds * 1000:8.1f} ms under {taken}, {rows:,} rows")


if __name__ == "__main__":
    main()
