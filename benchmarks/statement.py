"""What the first lock costs a statement, against the WHERE that one would write by hand.

Run: python benchmarks/statement.py

Each pair runs on engines with the same binding, in turns, so that only the scoping differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench import compare, machine, often, report, world
from locks import Locks
from practice import A, Order, Patient
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENTS: Any = Patient.__table__


def pair(engine: Engine, *, by_hand: bool) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return one row's read through the ORM and through Core, in a transaction that stays open."""
    session = Session(engine)
    connection = session.connection()
    mine = [Patient.tenant_id == A] if by_hand else []
    own = [PATIENTS.c.tenant_id == A] if by_hand else []

    def orm() -> object:
        return session.execute(select(Patient).where(Patient.id == 2, *mine)).all()

    def core() -> object:
        return connection.execute(select(PATIENTS).where(PATIENTS.c.id == 2, *own)).all()

    return orm, core


def compiling(engine: Engine, *, by_hand: bool) -> Callable[[], object]:
    """Return a compilation that no cache answers: a join of two tenant tables."""

    def run() -> object:
        query = select(Patient).join(Patient.orders).where(Patient.id == 2)
        if by_hand:
            query = query.where(Patient.tenant_id == A, Order.tenant_id == A)
        return query.compile(dialect=engine.dialect)

    return run


def main() -> None:
    machine()
    with world() as built, tenant_context(A):
        locks = Locks(built)
        plain, guarded = locks.second_alone(), locks.both()
        hand, scoped = pair(plain, by_hand=True), pair(guarded, by_hand=False)
        for kind, first, second in zip(("ORM", "Core"), hand, scoped, strict=True):
            samples = compare(
                {"WHERE by hand": often(first), "scoped": often(second)}, rounds=80, repeat=100
            )
            report(f"One row by its key, cached, {kind}", samples, base="WHERE by hand")
        samples = compare(
            {
                "WHERE by hand": often(compiling(plain, by_hand=True)),
                "scoped": often(compiling(guarded, by_hand=False)),
            },
            rounds=60,
            repeat=50,
        )
        report("Compiling a join, uncached", samples, base="WHERE by hand")
        locks.dispose()


if __name__ == "__main__":
    main()
