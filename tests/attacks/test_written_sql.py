"""Whole statements written as SQL: refused where the first lock is alone, contained by the second."""

# ruff: noqa: E501  (the tables have an attack a line)

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from attacking import (
    BINDING,
    COUNTING,
    CROSSED,
    LOCKS,
    ROW_SECURITY,
    UNSCOPED,
    Attack,
    Stage,
    Target,
    cases,
)
from practice import A
from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

pytest_plugins = ["staging"]

NO_ROW = "P0001"  # what RAISE EXCEPTION raises
DIVISION = "22012"
SYNTAX = "42601"
MERGING = 150000


def _values(at: Target) -> dict[str, Any]:
    return {
        "tenant": at.tenant,
        "a": A,
        "loose": at.loose,
        "order": at.order,
        "user": at.user,
        "patient": at.patient,
        "name": at.name,
    }


def _run(statement: str, *before: str) -> Callable[[Session, Target], object]:
    """Execute *statement*; the result is the number of rows that it returned or changed."""

    def work(session: Session, at: Target) -> object:
        for each in before:
            session.execute(text(each))
        bound = text(statement)
        values = _values(at)
        result: Any = session.execute(bound, {name: values[name] for name in bound._bindparams})
        return len(result.all()) if result.returns_rows else int(result.rowcount)

    return work


def _in_block(body: str) -> Callable[[Session, Target], object]:
    """Run *body* as an anonymous block, which takes no parameters."""

    def work(session: Session, at: Target) -> object:
        written = body.format(**_values(at)).replace(":", "\\:")
        session.execute(
            text(f"DO $$ BEGIN {written}; IF NOT FOUND THEN RAISE EXCEPTION 'none'; END IF; END $$")
        )
        return 1

    return work  # fmt: skip


LEAKY = """
CREATE FUNCTION pg_temp.leak(word text, wanted text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS
$$ BEGIN IF word = wanted THEN RAISE EXCEPTION 'seen'; END IF; RETURN true; END $$
""".strip()


def _attack(name: str, work: Any, *, refused: str = "0", **more: Any) -> Attack:
    # What a policy refuses has its own error under both locks; what nobody may do, the database's.
    second = ROW_SECURITY if refused == CROSSED else refused
    return Attack(name, work, first=UNSCOPED, second=second, both=refused, **more)


READS = [
    _attack("select", _run("SELECT name FROM patients WHERE id = :patient")),
    _attack("only", _run("SELECT name FROM ONLY patients WHERE id = :patient")),
    _attack("table", _run("SELECT 1 FROM (TABLE patients) p WHERE p.id = :patient")),
    _attack("lateral", _run("SELECT o.what FROM practices, LATERAL (SELECT what FROM orders WHERE id = :order) o"), real="2"),
    _attack("recursive cte", _run("WITH RECURSIVE t AS (SELECT id FROM patients WHERE id = :patient UNION SELECT p.id FROM patients p JOIN t ON p.referred_by_id = t.id) SELECT id FROM t")),
    _attack("materialised cte", _run("WITH t AS MATERIALIZED (SELECT * FROM patients) SELECT id FROM t WHERE id = :patient")),
    _attack("window", _run("SELECT * FROM (SELECT id, first_value(name) OVER () AS f FROM patients) s WHERE id = :patient")),
    _attack("tablesample", _run("SELECT id FROM patients TABLESAMPLE bernoulli (100) WHERE id = :patient")),
    _attack("for update of", _run("SELECT p.id FROM patients p JOIN orders o ON o.patient_id = p.id WHERE p.id = :patient FOR UPDATE OF p")),
    _attack("row locks without keys", _run("SELECT id FROM patients WHERE id = :patient FOR NO KEY UPDATE SKIP LOCKED")),
    _attack("union", _run("SELECT name FROM patients WHERE id = :patient UNION ALL SELECT name FROM patients WHERE id = :patient AND false")),
    _attack("exists", _run("SELECT 1 WHERE EXISTS (SELECT FROM orders WHERE id = :order)")),
    _attack("values", _run("SELECT v.k FROM (VALUES (CAST(:patient AS int))) v(k) JOIN patients p ON p.id = v.k")),
    _attack("function of the whole row", _run("SELECT row_to_json(p) FROM patients p WHERE p.id = :patient")),
    _attack("system column", _run("SELECT ctid FROM patients WHERE id = :patient")),
    _attack("temporary copy", _run("SELECT 1 FROM loot WHERE id = :patient", "CREATE TEMP TABLE loot ON COMMIT DROP AS SELECT * FROM patients")),
    _attack("select into", _run("SELECT 1 FROM loot WHERE id = :patient", "SELECT * INTO TEMP loot FROM patients")),
    _attack("temporary view", _run("SELECT 1 FROM loot WHERE id = :patient", "CREATE TEMP VIEW loot AS SELECT * FROM patients")),
    _attack("cursor", _run("FETCH ALL FROM c", "DECLARE c CURSOR FOR SELECT id FROM patients WHERE name LIKE 'patient b%'"), control="0", real="3"),
    _attack("cursor with hold", _run("FETCH ALL FROM h", "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM patients WHERE name LIKE 'patient b%'"), control="0", real="3"),
    _attack("function of one's own", _run("SELECT pg_temp.found(:patient) WHERE pg_temp.found(:patient) IS NOT NULL", "CREATE FUNCTION pg_temp.found(k int) RETURNS text LANGUAGE sql AS 'SELECT name FROM patients WHERE id = k'")),
    _attack("definer function of one's own", _run("SELECT 1 WHERE pg_temp.found(:patient) IS NOT NULL", "CREATE FUNCTION pg_temp.found(k int) RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT name FROM patients WHERE id = k'")),
    _attack("block that reads", _in_block("PERFORM 1 FROM patients WHERE id = {patient}"), refused=NO_ROW),
    _attack("search path", _run("SELECT id FROM patients WHERE id = :patient", "SET LOCAL search_path = public, pg_temp")),
]  # fmt: skip

INFERENCE = [
    _attack("leaky function in where", _run("SELECT id FROM patients WHERE pg_temp.leak(name, :name)", LEAKY), refused="3", control=NO_ROW),
    _attack("leaky function in a join", _run("SELECT 1 FROM practices JOIN patients p ON pg_temp.leak(p.name, :name)", LEAKY), refused="3", control=NO_ROW),
    _attack("division by a foreign value", _run("SELECT id FROM patients WHERE 1 / CASE WHEN name = :name THEN 0 ELSE 1 END = 0"), control=DIVISION),
    _attack("cast of a foreign value", _run("SELECT id FROM patients WHERE name = :name AND CAST(name AS int) = 0"), control="22P02"),
    _attack("division in a policy's shadow", _run("SELECT count(*) FROM users WHERE tenant_id = :tenant HAVING 1 / (1 - count(*)) = 5"), control=DIVISION),
    _attack("statistics", _run("SELECT 1 FROM pg_stats WHERE tablename = 'patients' LIMIT 1", "ANALYZE patients"), control="0", real="1"),
    _attack("statistics' table", _run("SELECT 1 FROM pg_statistic LIMIT 1"), refused=ROW_SECURITY, control=ROW_SECURITY, real="1"),
    _attack("last value of a sequence", _run("SELECT last_value FROM patients_id_seq"), refused=ROW_SECURITY, control=ROW_SECURITY, real="1"),
    _attack("a sequence set back", _run("SELECT setval('patients_id_seq', 1)"), refused=ROW_SECURITY, control=ROW_SECURITY, real="1"),
    _attack("pages of the table", _run("SELECT pg_read_file('PG_VERSION')"), refused=ROW_SECURITY, control=ROW_SECURITY, real="1"),
]  # fmt: skip

WRITES = [
    _attack("insert", _run("INSERT INTO tags (tenant_id, name) VALUES (:tenant, 'new')"), refused=CROSSED),
    _attack("insert several", _run("INSERT INTO tags (tenant_id, name) VALUES (:a, 'n'), (:tenant, 'new')"), refused=CROSSED, control="2"),
    _attack("insert returning", _run("INSERT INTO tags (tenant_id, name) VALUES (:tenant, 'new') RETURNING id"), refused=CROSSED),
    _attack("insert from select", _run("INSERT INTO tags (tenant_id, name) SELECT :a, email FROM users WHERE id = :user")),
    _attack("insert from select, foreign tenant", _run("INSERT INTO tags (tenant_id, name) SELECT id, 'new' FROM (VALUES (CAST(:tenant AS uuid))) v(id)"), refused=CROSSED),
    _attack("update", _run("UPDATE tags SET name = 'evil' WHERE id = :loose")),
    _attack("update that moves", _run("UPDATE tags SET tenant_id = :tenant WHERE name = 'loose a'"), refused=CROSSED),
    _attack("update from", _run("UPDATE tags t SET name = u.email FROM users u WHERE u.id = :user AND t.name = 'loose a'")),
    _attack("update of a foreign row from", _run("UPDATE tags t SET name = 'evil' FROM practices p WHERE t.id = :loose")),
    _attack("delete", _run("DELETE FROM tags WHERE id = :loose")),
    _attack("delete using", _run("DELETE FROM tags t USING users u WHERE u.tenant_id = t.tenant_id AND t.id = :loose")),
    _attack("delete returning", _run("DELETE FROM users WHERE id = :user RETURNING email")),
    _attack("delete in a cte", _run("WITH gone AS (DELETE FROM tags WHERE id = :loose RETURNING id) SELECT id FROM gone")),
    _attack("insert in a cte", _run("WITH made AS (INSERT INTO tags (tenant_id, name) VALUES (:tenant, 'new') RETURNING id) SELECT id FROM made"), refused=CROSSED),
    _attack("upsert", _run("INSERT INTO tags (id, tenant_id, name) VALUES (:loose, :a, 'e') ON CONFLICT (id) DO UPDATE SET name = 'evil'"), refused=CROSSED),
    _attack("upsert that takes over", _run("INSERT INTO tags (id, tenant_id, name) VALUES (:loose, :a, 'e') ON CONFLICT (id) DO UPDATE SET tenant_id = excluded.tenant_id"), refused=CROSSED),
    _attack("where current of", _run("UPDATE tags SET name = 'evil' WHERE CURRENT OF c", "DECLARE c CURSOR FOR SELECT id FROM tags WHERE name = 'loose b' FOR UPDATE", "MOVE NEXT FROM c"), refused="24000", control="24000", real="1"),
    _attack("truncate", _run("TRUNCATE order_tags"), refused=ROW_SECURITY, control=ROW_SECURITY, real="-1"),
    _attack("truncate with cascade", _run("TRUNCATE patients RESTART IDENTITY CASCADE"), refused=ROW_SECURITY, control=ROW_SECURITY, real="-1"),
    _attack("block that updates", _in_block("UPDATE tags SET name = 'evil' WHERE id = {loose}"), refused=NO_ROW),
    _attack("block that inserts", _in_block("INSERT INTO tags (tenant_id, name) VALUES ('{tenant}', 'new')"), refused=CROSSED),
    _attack("trigger of one's own", _run("CREATE TRIGGER t BEFORE INSERT ON tags EXECUTE FUNCTION suppress_redundant_updates_trigger()"), refused=ROW_SECURITY, control=ROW_SECURITY, real="-1"),
    _attack("rule of one's own", _run("CREATE RULE r AS ON INSERT TO tags DO NOTHING"), refused=ROW_SECURITY, control=ROW_SECURITY, real="-1"),
    _attack("child of one's own", _run("CREATE TEMP TABLE spy () INHERITS (tags)"), refused=ROW_SECURITY, control=ROW_SECURITY, real="-1"),
]  # fmt: skip

MERGES = [
    _attack("merge that updates", _run("MERGE INTO tags t USING (VALUES (CAST(:loose AS int))) v(k) ON t.id = v.k WHEN MATCHED THEN UPDATE SET name = 'evil'")),
    _attack("merge that deletes", _run("MERGE INTO tags t USING (VALUES (CAST(:loose AS int))) v(k) ON t.id = v.k WHEN MATCHED THEN DELETE")),
    _attack("merge that inserts", _run("MERGE INTO tags t USING (VALUES (0)) v(k) ON t.id = v.k WHEN NOT MATCHED THEN INSERT (tenant_id, name) VALUES (:tenant, 'new')"), refused=CROSSED),
    _attack("merge that moves", _run("MERGE INTO tags t USING (VALUES (0)) v(k) ON t.name = 'loose a' WHEN MATCHED THEN UPDATE SET tenant_id = :tenant"), refused=CROSSED),
    _attack("merge from a foreign row", _run("MERGE INTO tags t USING (SELECT email FROM users WHERE id = :user) v(e) ON t.name = 'loose a' WHEN MATCHED THEN UPDATE SET name = v.e")),
]  # fmt: skip


def _counted(attacks: list[Attack]) -> list[Any]:
    """SQLAlchemy does not tell how many rows a MERGE changes with asyncpg."""
    return cases([replace(each, drivers=COUNTING) for each in attacks])


def _under(attack: Attack, lock: str) -> Attack:
    """Return *attack* as the first lock alone takes it: text is refused, whoever's rows are meant."""
    return attack if lock in BINDING else replace(attack, control=UNSCOPED)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", cases([*READS, *INFERENCE, *WRITES]))
def test_written_sql_reaches_own_rows_only(stage: Stage, attack: Attack, lock: str) -> None:
    """What SQL can say reaches the tenant's own rows where policies hold, and is else not sent."""
    stage.ends(_under(attack, lock), lock)


@pytest.mark.parametrize("attack", cases([*READS, *INFERENCE, *WRITES]))
def test_without_locks_written_sql_reaches_everything(stage: Stage, attack: Attack) -> None:
    """Negative control: each statement reaches the foreign row when nothing stops it."""
    stage.is_real(attack)


@pytest.mark.parametrize("lock", LOCKS)
@pytest.mark.parametrize("attack", _counted(MERGES))
def test_a_merge_reaches_own_rows_only(
    stage: Stage, attack: Attack, lock: str, server_version: int
) -> None:
    """MERGE reads, changes and adds the tenant's own rows; before PostgreSQL 15 there is none."""
    if server_version < MERGING and lock in BINDING:
        attack = replace(attack, second=SYNTAX, both=SYNTAX, control=SYNTAX)
    stage.ends(_under(attack, lock), lock)


@pytest.mark.parametrize("attack", _counted(MERGES))
def test_without_locks_a_merge_reaches_everything(
    stage: Stage, attack: Attack, server_version: int
) -> None:
    """Negative control: each MERGE reaches the foreign row when nothing stops it."""
    stage.is_real(replace(attack, real=SYNTAX) if server_version < MERGING else attack)
