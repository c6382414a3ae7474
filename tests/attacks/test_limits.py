"""What PostgreSQL cannot hide, asserted as what it is: docs/limits.md names it, and the way round.

A limit is no refusal and is not counted as one. It is tested so that it is noticed when it changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attacking import BINDING, LOCKS, UNIQUE, Stage, Target, outcome
from practice import Patient, Tag, User
from sqlalchemy import insert, text
from sqlalchemy.dialects import postgresql

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

pytest_plugins = ["staging"]


def _email(stage: Stage, at: Target) -> str:
    return str(stage.world.rows("users", at.tenant)[0][2])


@pytest.mark.parametrize("lock", LOCKS)
def test_a_global_unique_key_tells_that_a_value_exists(stage: Stage, lock: str) -> None:
    """An address that another tenant's user has is refused as taken, and one nobody has is not."""

    def add(email: str) -> Any:
        row = insert(User).values(email=email, password_hash="x", tenant_id=stage.mine.tenant)
        return lambda session, _: session.execute(row) and "free"

    engine = stage.engine(lock)
    assert outcome(engine, add(_email(stage, stage.theirs)), stage.theirs) == UNIQUE
    assert outcome(engine, add("nobody@lab.example"), stage.theirs) == "'free'"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_primary_key_chosen_by_the_client_tells_that_a_row_exists(
    stage: Stage, lock: str
) -> None:
    """A key that another tenant's row has is taken, and one that no row has is not."""

    def add(key: int) -> Any:
        row = insert(Tag).values(id=key, name="mine", tenant_id=stage.mine.tenant)
        return lambda session, _: session.execute(row) and "free"

    assert outcome(stage.engine(lock), add(stage.theirs.loose), stage.theirs) == UNIQUE
    assert outcome(stage.engine(lock), add(10_001), stage.theirs) == "'free'"


@pytest.mark.parametrize("lock", LOCKS)
def test_do_nothing_tells_that_a_row_exists(stage: Stage, lock: str) -> None:
    """ON CONFLICT DO NOTHING does nothing on another tenant's key, and adds on a free one."""

    def add(key: int) -> Any:
        row = postgresql.insert(Tag).values(id=key, name="mine", tenant_id=stage.mine.tenant)
        counted = row.on_conflict_do_nothing().returning(Tag.id)
        return lambda session, _: len(session.execute(counted).all())

    assert outcome(stage.engine(lock), add(stage.theirs.loose), stage.theirs) == "0"
    assert outcome(stage.engine(lock), add(10_001), stage.theirs) == "1"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_sequence_shows_how_much_others_add(stage: Stage, lock: str) -> None:
    """Keys of one sequence have gaps where others have added rows."""

    def key(session: Session, _at: Target) -> object:
        patient = Patient(name="gap", tenant_id=_at.tenant)
        session.add(patient)
        session.flush()
        return patient.id

    engine = stage.engine(lock)
    first = int(outcome(engine, key, stage.mine))
    outcome(stage.engine("none"), key, stage.theirs)
    assert int(outcome(engine, key, stage.mine)) == first + 2


@pytest.mark.parametrize("lock", BINDING)
def test_explain_counts_the_rows_that_a_policy_removed(stage: Stage, lock: str) -> None:
    """EXPLAIN ANALYZE says how many rows others have in the pages that it read."""

    def explained(session: Session, _at: Target) -> object:
        session.execute(text("SET LOCAL enable_indexscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = session.scalars(text("EXPLAIN (ANALYZE) SELECT * FROM patients")).all()
        return [line.strip() for line in plan if "Removed" in line]

    assert outcome(stage.engine(lock), explained, stage.mine) == "['Rows Removed by Filter: 3']"


@pytest.mark.parametrize("lock", BINDING)
def test_the_catalog_counts_all_rows(stage: Stage, lock: str) -> None:
    """`reltuples`, which ANALYZE and VACUUM fill, is that of the whole table."""
    query = text("SELECT reltuples FROM pg_class WHERE relname = 'patients'")
    with stage.world.admin.begin() as admin:
        admin.execute(text("ANALYZE patients"))
    found = outcome(stage.engine(lock), lambda s, _: s.scalar(query), stage.mine)
    assert float(found) == 6.0


@pytest.mark.parametrize("lock", BINDING)
def test_the_catalog_shows_how_far_a_sequence_is(stage: Stage, lock: str) -> None:
    """`pg_sequences` shows the last value to whoever may take the next one."""
    query = text("SELECT last_value FROM pg_sequences WHERE sequencename = 'patients_id_seq'")
    assert int(outcome(stage.engine(lock), lambda s, _: s.scalar(query), stage.mine)) >= 6


@pytest.mark.parametrize("lock", BINDING)
def test_the_size_of_a_table_is_that_of_all_rows(stage: Stage, lock: str) -> None:
    """`pg_relation_size` speaks of files, which all tenants share."""
    query = text("SELECT pg_relation_size('patients') > 0")
    assert outcome(stage.engine(lock), lambda s, _: s.scalar(query), stage.mine) == "True"


@pytest.mark.parametrize("lock", BINDING)
def test_numbers_of_advisory_locks_are_everybodys(stage: Stage, lock: str) -> None:
    """Whether a number is locked is seen by every tenant; put the tenant into the number."""
    query = text("SELECT pg_try_advisory_xact_lock(4711)")
    with stage.world.admin.begin() as other:
        other.execute(text("SELECT pg_advisory_xact_lock(4711)"))
        held = outcome(stage.engine(lock), lambda s, _: s.scalar(query), stage.mine)
    assert held == "False"
    assert outcome(stage.engine(lock), lambda s, _: s.scalar(query), stage.mine) == "True"
