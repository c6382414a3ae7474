"""Each planted fault is found by the probe that it is for, and by none on the table beside it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from zoo import ZOO, Zoo, build_zoo

from tenantguard import rls
from tenantguard.prove import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

TABLES = {name: ZOO[name] for name in ("plain", "parents", "children")}

_TENANT = "nullif(current_setting('tenantguard.tenant', true), '')::uuid"
_OWN = f"tenant_id = (SELECT {_TENANT})"
_NONE = """
DROP POLICY tenantguard_application ON plain;
DROP POLICY tenantguard_application_floor ON plain;
"""


def only(*policies: str) -> str:
    """SQL that puts *policies* in the place of the application's."""
    made = (
        f"CREATE POLICY fault_{number} ON plain {policy};" for number, policy in enumerate(policies)
    )
    return _NONE + "\n".join(made)


@dataclass(frozen=True, slots=True)
class Fault:
    """SQL run by a superuser, and the codes that have to be among the findings."""

    name: str
    sql: str
    codes: set[str]
    table: str = "plain"
    absent: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name


_READS = {"read", "key", "copy", "unset", "malformed", "savepoint", "prepared", "cursor"}
_WRITES = {"update", "delete", "returning", "write-unset", "insert", "move", "upsert"}

FAULTS = (
    Fault(
        "row-level security is off",
        "ALTER TABLE plain DISABLE ROW LEVEL SECURITY",
        _READS | _WRITES,
    ),
    Fault("a policy for everything", only("USING (true)"), _READS | _WRITES),
    Fault(
        "the application owns the table, and FORCE is off",
        "ALTER TABLE plain OWNER TO {application}; ALTER TABLE plain NO FORCE ROW LEVEL SECURITY",
        _READS | _WRITES | {"truncate"},
    ),
    Fault(
        "the application bypasses policies",
        "ALTER ROLE {application} BYPASSRLS",
        _READS | _WRITES,
    ),
    Fault(
        "the application is in the maintenance role",
        "GRANT {maintenance} TO {application}; DROP POLICY tenantguard_application_floor ON plain",
        {"read", "delete", "insert"},
    ),
    Fault(
        "WITH CHECK lets everything pass",
        only(f"USING ({_OWN}) WITH CHECK (true)"),
        {"insert", "move"},
        absent=frozenset({"read", "update", "delete"}),
    ),
    Fault(
        "no policy for UPDATE",
        only(
            f"FOR SELECT USING ({_OWN})",
            f"FOR INSERT WITH CHECK ({_OWN})",
            f"FOR DELETE USING ({_OWN})",
        ),
        {"own-update"},
        absent=frozenset({"read", "insert", "delete", "update"}),
    ),
    Fault(
        "no policy for SELECT",
        only(f"FOR INSERT WITH CHECK ({_OWN})", f"FOR DELETE USING ({_OWN})"),
        {"own-read", "own-update", "own-delete"},
        absent=frozenset({"own-insert"}),
    ),
    Fault(
        "UPDATE is open without WHERE",
        only(
            f"FOR SELECT USING ({_OWN})",
            f"FOR INSERT WITH CHECK ({_OWN})",
            f"FOR DELETE USING ({_OWN})",
            "FOR UPDATE USING (true) WITH CHECK (true)",
        ),
        {"update"},
        absent=frozenset({"read", "delete", "insert"}),
    ),
    Fault(
        "DELETE is open without WHERE",
        only(
            f"FOR SELECT USING ({_OWN})",
            f"FOR INSERT WITH CHECK ({_OWN})",
            f"FOR UPDATE USING ({_OWN})",
            "FOR DELETE USING (true)",
        ),
        {"delete", "write-unset"},
        absent=frozenset({"read", "update", "insert", "returning"}),
    ),
    Fault(
        "an upsert reaches what may be read",
        only(
            "FOR SELECT USING (true)",
            f"FOR INSERT WITH CHECK ({_OWN})",
            "FOR UPDATE USING (true) WITH CHECK (tenant_id IS NOT NULL)",
            f"FOR DELETE USING ({_OWN})",
        ),
        {"upsert", "read", "update"},
    ),
    Fault(
        "no tenant means every tenant",
        only(f"USING ({_TENANT} IS NULL OR {_OWN})"),
        {"unset", "write-unset"},
        absent=frozenset({"read", "insert", "malformed"}),
    ),
    Fault(
        "a malformed tenant means every tenant",
        only(
            "USING (CASE WHEN current_setting('tenantguard.tenant', true) ~ '^[0-9a-f-]{36}$' "
            f"THEN {_OWN} ELSE current_setting('tenantguard.tenant', true) <> '' END)"
        ),
        {"malformed"},
        absent=frozenset({"read", "unset"}),
    ),
    Fault(
        "a helper said to be IMMUTABLE",
        f"""CREATE FUNCTION helper() RETURNS uuid LANGUAGE sql IMMUTABLE
            AS $$ SELECT {_TENANT} $$;
        ALTER FUNCTION helper() SET search_path = pg_catalog;"""
        + only("USING (tenant_id = helper())"),
        {"prepared"},
        absent=frozenset({"read", "insert"}),
    ),
    Fault("TRUNCATE is granted", "GRANT TRUNCATE ON plain TO {application}", {"truncate"}),
    Fault(
        "TRUNCATE is granted to everybody, and other tables refer to it",
        "GRANT TRUNCATE ON parents TO PUBLIC",
        {"truncate"},
        table="parents",
    ),
    Fault(
        "the foreign key has no tenant",
        """DO $$ DECLARE found name; BEGIN
            SELECT conname INTO STRICT found FROM pg_constraint
                WHERE conrelid = 'children'::regclass AND contype = 'f' AND cardinality(conkey) = 2;
            EXECUTE format('ALTER TABLE children DROP CONSTRAINT %I', found);
        END $$""",
        {"foreign-key"},
        table="children",
        absent=frozenset({"read", "insert"}),
    ),
)


@pytest.fixture(scope="module")
def zoo(admin_url: URL) -> Iterator[Zoo]:
    built = build_zoo(admin_url, TABLES, "")
    yield built
    built.dispose()


@contextmanager
def planted(zoo: Zoo, sql: str) -> Iterator[None]:
    """Plant *sql*; afterwards the database is as it was generated."""
    roles = zoo.guard.roles
    names = {"{application}": roles.application, "{maintenance}": roles.maintenance}
    for name, role in names.items():
        sql = sql.replace(name, role)
    zoo.run(sql)
    try:
        yield
    finally:
        zoo.run(
            f"""ALTER ROLE {roles.application} NOBYPASSRLS;
            REVOKE {roles.maintenance} FROM {roles.application};
            ALTER TABLE plain OWNER TO CURRENT_USER;
            REVOKE ALL ON plain, parents FROM PUBLIC;
            DO $$ DECLARE name name; BEGIN
                FOR name IN SELECT polname FROM pg_policy WHERE polname LIKE 'fault%' LOOP
                    EXECUTE format('DROP POLICY %I ON plain', name);
                END LOOP;
            END $$;
            DROP FUNCTION IF EXISTS helper"""
        )
        rls.apply(zoo.admin, zoo.guard.catalog, roles)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_found_by_its_probe(zoo: Zoo, fault: Fault) -> None:
    with planted(zoo, fault.sql):
        found = zoo.prove()[fault.table]
    codes = {each.code.removeprefix("prove-") for each in found.findings}
    assert found.state is State.BROKEN
    assert fault.codes <= codes
    assert not codes & fault.absent
    assert {each.object for each in found.findings} == {f"public.{fault.table}"}


def test_without_a_fault_nothing_is_found(zoo: Zoo) -> None:
    """Also after every fault was planted and taken away."""
    for fault in FAULTS:
        with planted(zoo, fault.sql):
            pass
    assert {each.state for each in zoo.prove().values()} == {State.PROVEN}
