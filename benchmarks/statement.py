"""What the first lock costs a statement, against the WHERE that one would write by hand.

Run: python benchmarks/statement.py

Each pair runs on engines with the same binding, in turns, so that only the scoping differs.
"""

from __future__ import annotations

from locks import Locks
from practice import A, Patient
from setup import compare, machine, report, world
from sqlalchemy import Engine, bindparam, select
from sqlalchemy.orm import Session

from tenantguard import tenant_context

PATIENTS = Patient.__table__


def orm(engine: Engine, *, by_hand: bool) -> object:
    with Session(engine) as session:

        def run() -> object:
            query = select(Patient).where(Patient.id == 2)
            if by_hand:
                query = query.where(Patient.tenant_id == A)
            session.expunge_all() if False else None
            return session.execute(query).all()

        yield run


def main() -> None:
    machine()
    with world() as built:
        locks = Locks(built)
        plain, guarded = locks.second_alone(), locks.both()
        with tenant_context(A), Session(plain) as s1, Session(guarded) as s2:
            c1, c2 = s1.connection(), s2.connection()
            by_hand_orm = lambda: s1.execute(  # noqa: E731
                select(Patient).where(Patient.id == 2, Patient.tenant_id == A)
            ).all()
            scoped_orm = lambda: s2.execute(select(Patient).where(Patient.id == 2)).all()  # noqa: E731
            by_hand_core = lambda: c1.execute(  # noqa: E731
                select(PATIENTS).where(PATIENTS.c.id == 2, PATIENTS.c.tenant_id == A)
            ).all()
            scoped_core = lambda: c2.execute(select(PATIENTS).where(PATIENTS.c.id == 2)).all()  # noqa: E731
            times = compare(
                {"ORM, WHERE by hand": by_hand_orm, "ORM, scoped": scoped_orm},
                rounds=60,
                repeat=100,
            )
            report("One row by its key, cached, ORM", times, base="ORM, WHERE by hand")
            times = compare(
                {"Core, WHERE by hand": by_hand_core, "Core, scoped": scoped_core},
                rounds=60,
                repeat=100,
            )
            report("One row by its key, cached, Core", times, base="Core, WHERE by hand")
            join = select(Patient).join(Patient.orders).where(Patient.id == bindparam("id"))
            dialects = plain.dialect, guarded.dialect
            hand = join.where(Patient.tenant_id == A)
            times = compare(
                {
                    "compiled by hand": lambda: hand.compile(dialect=dialects[0]),
                    "compiled scoped": lambda: join.compile(dialect=dialects[1]),
                },
                rounds=40,
                repeat=50,
            )
            report("Compiling a join, uncached", times, base="compiled by hand")
        locks.dispose()


if __name__ == "__main__":
    main()
