"""A search by name in a million rows: by blind index, against plaintext with an index.

Both columns are in one table, under the same policies, and are asked from one protected engine. The
searched tenant's names are really sealed; those of the other tenants are random bytes of the stored
format, with a blind index for each name.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import compare, report
from encryption_data import Patient, clinic, tenant
from sqlalchemy import event, select

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from bench import Work
    from encryption_data import Clinic
    from sqlalchemy import Connection, Engine, Select

TENANTS, EACH, BEARERS = 200, 5_000, 5
NAMES = EACH // BEARERS
SEARCHED = tenant(7)
EXPLAIN = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, FORMAT JSON) "

# Spread as an application writes: tenants by turns, names in no order. 2741 has no factor in
# common with EACH.
FILL = f"""
INSERT INTO patients (tenant_id, plain_name, name)
SELECT ('aaaaaaaa-0000-0000-0000-' || lpad(to_hex(tenant), 12, '0'))::uuid,
       'patient ' || lpad(name::text, 8, '0'),
       '\\x9e540101' || substring(sha256((tenant || '/' || name)::bytea), 1, 16)
                     || substring(sha512(number::text::bytea), 1, 50)
FROM (SELECT number, number % {TENANTS} AS tenant,
             number / {TENANTS} * 2741 % {EACH} / {BEARERS} AS name
      FROM generate_series(0, {TENANTS * EACH} - 1) number) spread
WHERE tenant <> {SEARCHED.int & 0xFFFF}
"""


def name_of(number: int) -> str:
    return f"patient {number:08}"


def fill(built: Clinic) -> None:
    start = perf_counter()
    built.run(FILL)
    order = [position * 2741 % EACH // BEARERS for position in range(EACH)]
    rows = [
        {"tenant_id": SEARCHED, "plain_name": name_of(number), "name": name_of(number)}
        for number in order
    ]
    built.write(Patient, rows)
    built.run("VACUUM ANALYZE patients")
    ((count,),) = built.run("SELECT count(*) FROM patients")
    print(
        f"{count} rows of {TENANTS} tenants, each name {BEARERS} times in a tenant; "
        f"filled in {perf_counter() - start:.0f} s"
    )


def searches(*, reading: bool) -> dict[str, tuple[Select[Any], Any]]:
    """Return both searches; with *reading*, they select the name that they search for."""
    pairs = {"plaintext, index": Patient.plain_name, "blind index": Patient.name}
    query: Select[Any] = select(Patient.id)
    return {
        name: (query.add_columns(column) if reading else query, column)
        for name, column in pairs.items()
    }


def statement(connection: Connection, query: Select[Any], column: Any) -> Work:
    """Return the search through SQLAlchemy, for another name each time."""
    names = cycle(map(name_of, range(NAMES)))

    def run(times: int) -> None:
        for name in islice(names, times):
            found = connection.execute(query.where(column == name)).all()
            if len(found) != BEARERS:
                raise ValueError("A search did not find what was written.")

    return run


@contextmanager
def sent(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Give the statements that are sent, with their parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def explained(
    built: Clinic, query: Select[Any], column: Any, names: int
) -> Generator[Any, None, None]:
    """Yield the server's plan and times of the search for as many names as are asked for."""
    with built.engine.connect() as connection:
        with sent(built.engine) as seen:
            for number in range(names):
                connection.execute(query.where(column == name_of(number))).all()
        for text, parameters in seen:
            result = connection.exec_driver_sql(EXPLAIN + text, parameters)
            yield result.scalar_one()[0]


def server_times(built: Clinic, *, rounds: int) -> None:
    """Print what the server needs, in turns, in milliseconds as it says itself."""
    plans = {
        name: explained(built, *search, rounds) for name, search in searches(reading=True).items()
    }
    executing: dict[str, list[float]] = {name: [] for name in plans}
    planning: dict[str, list[float]] = {name: [] for name in plans}
    last = {}
    for _ in range(rounds):
        for name, each in plans.items():
            last[name] = plan = next(each)
            executing[name].append(plan["Execution Time"] * 1000)
            planning[name].append(plan["Planning Time"] * 1000)
    for each in plans.values():
        each.close()
    report("The server's own time, executing", executing, base="plaintext, index")
    report("The server's own time, planning", planning, base="plaintext, index")
    for name, plan in last.items():
        print(f"\nThe plan, {name}")
        print_node(plan["Plan"])


def print_node(node: dict[str, Any], depth: int = 1) -> None:
    said = ("Index Name", "Index Cond", "Recheck Cond", "Filter", "One-Time Filter")
    details = "; ".join(f"{each}: {node[each]}" for each in said if each in node)
    rows = f"{node['Actual Rows']:.0f} rows"
    print(f"{'  ' * depth}{node['Node Type']}, {rows}{'; ' if details else ''}{details}")
    for child in node.get("Plans", []):
        print_node(child, depth + 1)


def main() -> None:
    with clinic(TENANTS) as built, tenant_context(SEARCHED):
        fill(built)
        with built.engine.connect() as connection:
            for reading, title in ((False, "its ids"), (True, "ids and names")):
                work = {
                    name: statement(connection, *search)
                    for name, search in searches(reading=reading).items()
                }
                samples = compare(work, rounds=100, repeat=50)
                report(f"A search for {title}, {BEARERS} rows", samples, base="plaintext, index")
        server_times(built, rounds=300)
        sizes = built.run(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) / 1e6 "
            "FROM pg_index WHERE indrelid = 'patients'::regclass ORDER BY 1"
        )
        print("\n" + ", ".join(f"{name} {size:.0f} MB" for name, size in sizes))
