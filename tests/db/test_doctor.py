"""`tenantguard doctor` on a database: each planted fault is found, and a clean one is clean."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import replace
from ssl import create_default_context
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from drivers import DRIVERS, engine_of
from rls_world import A, B, World, fill, make_world
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tenantguard import TenantGuard, rls
from tenantguard.cli import main
from tenantguard.doctor import Subject
from tenantguard.doctor.eyes import Eyes
from tenantguard.doctor.pooler import look_at_pooler
from tenantguard.errors import PolicyDriftError
from tenantguard.findings import Severity
from tenantguard.rls.generate import LOCK_TIMEOUT
from tenantguard.rls.names import target_of
from tenantguard.rls.verify import LOCKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

LINES = '"Oth er"."Li""n%e"'
NAME = 'Oth er.Li"n%e'
PASSWORD, VALUE = "canary-password", "canary-value"

# What the server of the day has is not this suite's matter; versions are planted elsewhere.
VERSION = ("--accept", "server-cve=tested apart", "--accept", "server-end-of-life=tested apart")


@pytest.fixture
def world(new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with make_world(new_database()) as made:
        fill(made)
        made.run(f"INSERT INTO users VALUES (2, '{B}', '{VALUE}', '{VALUE}')")
        rls.apply(made.owner, made.catalog, made.roles)
        serve(monkeypatch, made)
        yield made


def serve(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Let the command find guards, and an engine that `guard` protects."""
    module: Any = ModuleType("doctor_app")
    options: dict[str, Any] = {"tenants": "practices", "roles": world.roles}
    declared: dict[str, Any] = {
        "shared": world.catalog.shared,
        "untenanted": world.catalog.untenanted,
    }
    module.guard = TenantGuard(world.metadata, **options, **declared)
    module.observing = TenantGuard(world.metadata, mode="observe", **options, **declared)
    module.off = TenantGuard(world.metadata, mode="off", **options, **declared)
    module.loose = TenantGuard(world.metadata, **options)
    for guard in (module.guard, module.observing, module.off, module.loose):
        guard.catalog.lookups.extend(world.catalog.lookups)
    module.engine = create_engine(world.url.set(username=world.roles.application))
    module.guard.protect(module.engine)
    module.make_engine = lambda: module.engine
    module.broken = lambda: int(VALUE)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv("TENANTGUARD_DATABASE_URL", raising=False)
    monkeypatch.delenv("TENANTGUARD_ADMIN_URL", raising=False)


def doctor(
    world: World,
    *arguments: str,
    guard: str = "guard",
    application: URL | None = None,
    admin: URL | None = None,
) -> Result:
    """Run the command; no output of it ever holds a value, a tenant or a password."""
    given = application or world.url.set(username=world.roles.application)
    env = {
        "TENANTGUARD_DATABASE_URL": with_password(given),
        "TENANTGUARD_ADMIN_URL": with_password(admin or world.url),
    }
    result = CliRunner().invoke(
        main, ["doctor", "--guard", f"doctor_app:{guard}", *VERSION, *arguments], env=env
    )
    assert isinstance(result.exception, SystemExit | None)
    for canary in (PASSWORD, VALUE, str(A), str(B), A.hex, B.hex):
        assert canary not in result.output
    return result


def with_password(url: URL) -> str:
    return url.set(password=PASSWORD).render_as_string(hide_password=False)


def document(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def found(world: World, *arguments: str, guard: str = "guard") -> set[tuple[str, str | None]]:
    """The findings' codes and objects; every one says what mends it."""
    result = doctor(world, "--format", "json", *arguments, guard=guard)
    findings = document(result)["findings"]
    assert result.exit_code == (1 if findings else 0), result.output
    assert all(each["mend"] and each["message"] for each in findings)
    assert {each["severity"] for each in findings} <= {"error", "warning"}
    return {(each["code"], each["object"]) for each in findings}


@contextmanager
def login(world: World, granted: str) -> Iterator[URL]:
    """An address whose role is no superuser and is granted one role."""
    name = f"{world.url.database}_r_login"
    world.run(f'CREATE ROLE "{name}" LOGIN; GRANT "{granted}" TO "{name}"')
    try:
        yield world.url.set(username=name)
    finally:
        world.run(f'DROP ROLE "{name}"')


def composite(world: World, parent: str) -> str:
    """The name of the key of the lines to *parent* that holds the tenant."""
    [[name]] = world.run(
        f"SELECT conname FROM pg_constraint WHERE conrelid = '{LINES}'::regclass "
        f"AND confrelid = '{parent}'::regclass AND cardinality(conkey) = 2 AND contype = 'f'"
    )
    return str(name)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def unchecked(statement: str) -> str:
    """*statement* with no trigger, and so no foreign key, to refuse it."""
    return f"SET LOCAL session_replication_role = replica; {statement}"


def test_clean_database_is_clean(world: World) -> None:
    """What apply made holds in every check; the lines say what was seen, and how much of it."""
    result = doctor(world, "--engine", "doctor_app:engine")
    assert result.exit_code == 0, result.output
    assert "✓ keys: 5 of 5 keys between tables, 6 rows, none crosses" in result.stdout
    assert "✓ tenants: 3 of 3 tables, 5 rows, each of a tenant in the registry" in result.stdout
    assert "✓ engines: doctor_app:engine: protected" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("0 errors, 0 warnings")
    assert last.endswith("; 0 could not be looked at, 0 left out.")
    assert result.stderr == ""
    assert "\x1b" not in result.output


def test_json_has_a_version_and_names_every_check(world: World) -> None:
    """The document is versioned, and each check is in exactly one of its lists."""
    listed = document(doctor(world, "--format", "json"))
    assert listed["version"] == 1
    assert listed["findings"] == []
    checked = [each["check"] for each in listed["checked"]]
    assert checked == [
        "mode",
        "tables",
        "policies",
        "relations",
        "row-security",
        "keys",
        "tenants",
        "transport",
        "pooler",
        "version",
        "log",
    ]
    [left_out] = listed["not_looked_at"]
    assert (left_out["check"], left_out["chosen"]) == ("engines", True)
    assert "--engine myapp.db:engine" in left_out["reason"]


PLANTED = [
    # roles, policies and settings, which `rls.verify` finds
    ("ALTER TABLE users NO FORCE ROW LEVEL SECURITY", "rls-not-forced", "public.users"),
    ("REVOKE TEMP ON DATABASE {db} FROM PUBLIC", "could-not-compare", None),
    ("ALTER ROLE {app} SET tenantguard.tenant = '{A}'", "setting-default", None),
    ("ALTER ROLE {app} IN DATABASE {db} SET row_security = off", "row-security-off", None),
    # data
    (
        unchecked(f"INSERT INTO {LINES} VALUES (7, '{B}', 1, NULL)"),
        "key-crossed",
        NAME,
    ),
    (
        unchecked(f"INSERT INTO {LINES} VALUES (7, '{A}', 404, NULL)"),
        "key-crossed",
        NAME,
    ),
    (
        unchecked(f"UPDATE {LINES} SET parent = 1, tenant_id = '{B}', \"order\" = NULL;")
        + f"INSERT INTO {LINES} VALUES (8, '{A}', NULL, 1)",
        "key-crossed",
        NAME,
    ),
    (
        unchecked("UPDATE users SET tenant_id = gen_random_uuid() WHERE id = 1"),
        "row-of-unknown-tenant",
        "public.users",
    ),
    (
        "ALTER TABLE users ALTER tenant_id DROP NOT NULL; UPDATE users SET tenant_id = NULL",
        "row-without-tenant",
        "public.users",
    ),
    # beside the models
    (
        "CREATE VIEW v AS SELECT * FROM users; GRANT SELECT ON v TO {app}",
        "view-of-owner",
        "public.v",
    ),
    (
        (
            "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM users; "
            "CREATE VIEW w AS SELECT email FROM v; GRANT SELECT (email) ON w TO {app}"
        ),
        "view-of-owner",
        "public.w",
    ),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM users; GRANT SELECT ON m TO PUBLIC",
        "view-materialised",
        "public.m",
    ),
    ("CREATE TABLE t (i int); GRANT INSERT ON t TO {app}", "relation-unknown", "public.t"),
    (
        "CREATE TABLE t () INHERITS (users); GRANT SELECT ON t TO {app}",
        "partition-open",
        "public.t",
    ),
    (
        (
            "CREATE FUNCTION f(int) RETURNS bigint LANGUAGE sql SECURITY DEFINER "
            "AS 'SELECT count(*) FROM users'"
        ),
        "function-definer",
        "public.f",
    ),
    # the server's log
    ("ALTER ROLE {app} SET log_statement = 'all'", "log-parameters", None),
    ("ALTER DATABASE {db} SET log_min_duration_statement = 250", "log-parameters", None),
    (
        "ALTER ROLE {app} SET log_parameter_max_length_on_error = -1",
        "log-parameters-on-error",
        None,
    ),
]


@pytest.mark.parametrize(("damage", "code", "name"), PLANTED)
def test_planted_fault_is_found(world: World, damage: str, code: str, name: str | None) -> None:
    """Each fault ends with 1, under its code and the object's name."""
    plant(world, damage)
    assert (code, name) in found(world)


def plant(world: World, damage: str) -> None:
    names = {"{app}": f'"{world.roles.application}"', "{db}": f'"{world.url.database}"'}
    for placeholder, name in {**names, "{A}": str(A)}.items():
        damage = damage.replace(placeholder, name)
    world.run(damage)


@pytest.mark.parametrize(
    "harmless",
    [
        "CREATE VIEW v WITH (security_invoker) AS SELECT * FROM users; GRANT SELECT ON v TO {app}",
        "CREATE VIEW v AS SELECT * FROM materials; GRANT SELECT ON v TO {app}",
        "CREATE VIEW v AS SELECT * FROM users",
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM users",
        "CREATE TABLE t (i int)",
        "CREATE TABLE t () INHERITS (users)",
        "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        (
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; "
            "REVOKE EXECUTE ON FUNCTION f() FROM PUBLIC"
        ),
        (
            "ALTER ROLE {app} SET log_statement = 'all'; "
            "ALTER ROLE {app} SET log_parameter_max_length = 0"
        ),
        "ALTER ROLE {app} SET log_statement = 'ddl'",
        unchecked(f"INSERT INTO {LINES} VALUES (7, '{B}', 2, NULL)"),
        unchecked(f"INSERT INTO {LINES} VALUES (7, '{B}', NULL, NULL)"),
    ],
)
def test_harmless_neighbour_is_no_finding(world: World, harmless: str) -> None:
    """What looks like a fault and is none gives no finding."""
    plant(world, harmless)
    assert found(world) == set()


def test_validated_key_is_not_believed(world: World) -> None:
    """Crossing data under a key that PostgreSQL calls validated is counted all the same.

    The owner's ADD FOREIGN KEY succeeds on it under FORCE, and the owner's own count is zero.
    """
    name = composite(world, '"order"')
    world.run(
        f"ALTER TABLE {LINES} DROP CONSTRAINT {quoted(name)};"
        f"INSERT INTO {LINES} VALUES (7, '{B}', 1, NULL)"
    )
    world.run(
        f'SET LOCAL ROLE "{world.roles.owner}"; ALTER TABLE {LINES} ADD CONSTRAINT {quoted(name)} '
        'FOREIGN KEY (tenant_id, "order") REFERENCES "order" (tenant_id, id)'
    )
    [[valid]] = world.run(f"SELECT convalidated FROM pg_constraint WHERE conname = '{name}'")
    assert valid is True
    assert world.run_as(world.roles.owner, None, f"SELECT count(*) FROM {LINES}") == [(0,)]
    [finding] = document(doctor(world, "--format", "json"))["findings"]
    assert (finding["code"], finding["object"]) == ("key-crossed", NAME)
    assert finding["message"].startswith(f"1 rows of {NAME} point at a row of public.order ")
    assert name in finding["message"].partition("although ")[2].partition(" is validated")[0]
    query = finding["mend"].partition("role: ")[2]
    assert [row[0] for row in world.run(query)] == [7]


def test_key_without_the_tenant_and_key_not_validated(world: World) -> None:
    """A missing and an unvalidated composite key are found, and apply mends both."""
    missing, unvalidated = (quoted(composite(world, each)) for each in ('"order"', LINES))
    world.run(
        f"ALTER TABLE {LINES} DROP CONSTRAINT {missing}, DROP CONSTRAINT {unvalidated};"
        f"ALTER TABLE {LINES} ADD CONSTRAINT {unvalidated} FOREIGN KEY (tenant_id, parent) "
        f'REFERENCES {LINES} (tenant_id, "Id") ON DELETE CASCADE NOT VALID'
    )
    findings = document(doctor(world, "--format", "json"))["findings"]
    assert [(each["code"], each["object"]) for each in findings] == [
        ("key-without-tenant", NAME),
        ("key-not-valid", NAME),
    ]
    assert "public.order" in findings[0]["message"]
    assert all("tenantguard rls apply" in each["mend"] for each in findings)
    rls.apply(world.owner, world.catalog, world.roles)
    assert found(world) == set()


def test_key_that_only_the_database_has(world: World) -> None:
    """A foreign key that the models do not know is looked at too, and mended by declaring it."""
    world.run(
        'ALTER TABLE "order" ADD by_user int REFERENCES users (id);'
        'UPDATE "order" SET by_user = 1;'
        "ALTER TABLE practices ADD owner int REFERENCES users (id); UPDATE practices SET owner = 1"
    )
    findings = document(doctor(world, "--format", "json"))["findings"]
    assert [(each["code"], each["object"]) for each in findings] == [
        ("key-without-tenant", "public.order"),
        ("key-crossed", "public.order"),
        ("key-crossed", "public.practices"),
    ]
    assert "Declare the foreign key in the models" in findings[0]["mend"]


@pytest.mark.parametrize(
    ("guard", "code", "name"),
    [
        ("observing", "mode-observe", None),
        ("off", "mode-off", None),
        ("loose", "table-unclassified", "jobs"),
    ],
)
def test_guard_that_does_not_guard(world: World, guard: str, code: str, name: str | None) -> None:
    """Observing, off and unclassified tables are findings."""
    assert (code, name) in found(world, guard=guard)


def test_warning_is_accepted_with_a_reason_and_an_error_is_not(world: World) -> None:
    """An accepted warning ends with 0 and stays in sight; an error stays an error."""
    accept = ("--accept", "mode-observe=rolling out")
    assert found(world, *accept, guard="observing") == set()
    listed = document(doctor(world, "--format", "json", *accept, guard="observing"))["accepted"]
    [accepted] = [each for each in listed if each["code"] == "mode-observe"]
    assert accepted["reason"] == "rolling out"
    text = doctor(world, *accept, guard="observing").stdout
    assert "accepted mode-observe: The guard's mode is 'observe'" in text
    assert "(rolling out)" in text
    world.run("ALTER TABLE users NO FORCE ROW LEVEL SECURITY")
    assert ("rls-not-forced", "public.users") in found(world, "--accept", "rls-not-forced=why not")


@pytest.mark.parametrize("given", ["server-cve", "server-cve=", "=reason", "server-cve= "])
def test_acceptance_needs_a_code_and_a_reason(world: World, given: str) -> None:
    """Without a reason nothing is accepted and nothing is looked at."""
    result = doctor(world, "--accept", given)
    assert result.exit_code == 2
    assert "needs a code and a reason" in result.stderr


# -- who may look -----------------------------------------------------------------------------


def test_owner_under_force_could_not_look(world: World) -> None:
    """The tables' owner sees no rows under FORCE; that is named and ends with 2, never a zero."""
    with login(world, world.roles.owner) as url:
        world.run(f'REVOKE "{world.roles.maintenance}" FROM "{world.roles.owner}"')
        result = doctor(world, admin=url)
    assert result.exit_code == 2
    assert "✓ keys" not in result.stdout
    assert "✓ tenants" not in result.stdout
    assert "? keys: not looked at. Policies or missing privileges hide rows of" in result.stdout
    assert "maintenance role" in result.stdout


@pytest.mark.parametrize("role", ["maintenance", "backup"])
def test_login_of_a_role_that_sees_all_can_look(world: World, role: str) -> None:
    """A login that is granted the maintenance or the backup role counts what a superuser counts."""
    world.run(unchecked(f"INSERT INTO {LINES} VALUES (7, '{B}', 1, NULL)"))
    with login(world, getattr(world.roles, role)) as url:
        result = doctor(world, "--format", "json", admin=url)
    listed = document(result)
    assert [each["code"] for each in listed["findings"]] == ["key-crossed"]
    assert [each["check"] for each in listed["not_looked_at"]] == ["engines"]
    assert result.exit_code == 1


def test_maintenance_policy_that_was_narrowed_is_not_believed(world: World) -> None:
    """Where the maintenance role's policy no longer shows everything, its count is not taken."""
    world.run("ALTER POLICY tenantguard_maintenance ON users USING (id > 1)")
    with login(world, world.roles.maintenance) as url:
        result = doctor(world, admin=url)
    assert result.exit_code == 2
    assert (
        "? tenants: not looked at. Policies or missing privileges hide rows of public.users "
        in result.stdout
    )
    assert "- tenants: 2 of 3 tables, 3 rows" in result.stdout


def test_restrictive_policy_on_the_maintenance_role_is_seen(world: World) -> None:
    """A restrictive policy to PUBLIC hides rows from the maintenance role as well."""
    world.run("CREATE POLICY floor ON users AS RESTRICTIVE USING (id > 1)")
    with login(world, world.roles.maintenance) as url:
        result = doctor(world, admin=url)
    assert result.exit_code == 2
    assert "missing privileges hide rows of public.users " in result.stdout


def test_table_that_is_not_there_could_not_be_looked_at(world: World) -> None:
    """A table that the database does not have is named, and the others are counted."""
    world.run("DROP TABLE users CASCADE")
    result = doctor(world)
    assert result.exit_code == 2
    assert "error table-missing: The database has no table for public.users" in result.stdout
    assert "? tenants: not looked at. public.users: PostgreSQL refused (42P01" in result.stdout
    assert "- tenants: 2 of 3 tables" in result.stdout


def test_many_hidden_tables_are_counted(world: World) -> None:
    """A role that may read nothing is told so in one line, however many tables there are."""
    eyes = Eyes(replace(subject(world), admin=world.owner), [("Oth er", 'Li"n%e')])
    eyes.hidden = {("public", f"t{number}") for number in range(7)}
    [reason] = eyes.missed()
    assert "public.t0, public.t1, public.t2, public.t3, public.t4 and 2 more" in reason


def test_looking_writes_nothing(world: World) -> None:
    """The transactions that count are read-only, whatever the admin's role may do."""
    eyes = Eyes(subject(world), [target_of(entry) for entry in world.catalog if entry.guarded])
    assert eyes.hidden == set()
    with pytest.raises(DBAPIError, match="read-only"), eyes.transaction() as run:
        run("UPDATE users SET email = 'x'")


def test_count_as_the_owner_is_an_error(world: World) -> None:
    """Should a table be counted that policies hide after all, PostgreSQL refuses to count it."""
    given = replace(subject(world), admin=world.owner)
    world.run(f'REVOKE "{world.roles.maintenance}" FROM "{world.roles.owner}"')
    eyes = Eyes(given, [("public", "users"), ("public", "materials")])
    assert eyes.hidden == {("public", "users")}
    with pytest.raises(DBAPIError, match="row-level security"), eyes.transaction() as run:
        run("SELECT count(*) FROM users")


def subject(world: World) -> Subject:
    return Subject(
        world.catalog,
        world.roles,
        "enforce",
        application=create_engine(world.url.set(username=world.roles.application)),
        admin=world.admin,
        engines={},
        is_protected=bool,
    )


@pytest.mark.parametrize("whose", ["application", "admin"])
def test_address_that_does_not_answer_ends_with_2(world: World, whose: str) -> None:
    """An address that cannot be reached is named without being printed, and is never green."""
    nowhere = world.url.set(query={}, host="127.0.0.1", port=1)
    addresses: dict[str, Any] = {whose: nowhere}
    result = doctor(world, **addresses)
    assert result.exit_code == 2
    needle = "application's" if whose == "application" else "admin"
    assert f"The {needle} address cannot be reached" in result.stdout
    assert "127.0.0.1" not in result.output


def test_what_was_not_looked_at_counts_for_more_than_findings(world: World) -> None:
    """With findings and with something not looked at the end is 2, and the findings are printed."""
    nowhere = world.url.set(query={}, host="127.0.0.1", port=1)
    result = doctor(world, admin=nowhere, guard="observing")
    assert result.exit_code == 2
    assert "! warning mode-observe" in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("0 errors, 1 warning")
    assert last.endswith("; 2 could not be looked at, 1 left out.")


def test_superuser_is_one_finding(world: World) -> None:
    """As a superuser the application reaches every relation; the role is what is to be mended."""
    plant(world, "CREATE TABLE t (i int); CREATE MATERIALIZED VIEW m AS SELECT * FROM users")
    result = doctor(world, "--format", "json", application=world.url)
    listed = document(result)
    codes = {each["code"] for each in listed["findings"]}
    assert "role-superuser" in codes
    assert not codes & {"relation-unknown", "view-materialised"}
    [missed] = [each for each in listed["not_looked_at"] if not each["chosen"]]
    assert missed["check"] == "relations"
    assert result.exit_code == 2


def test_without_addresses_nothing_is_green(world: World) -> None:
    """Without any address each check says which option it needs, and the end is 2."""
    del world
    result = CliRunner().invoke(main, ["doctor", "--guard", "doctor_app:guard"])
    assert result.exit_code == 2
    assert "TENANTGUARD_DATABASE_URL" in result.stdout
    assert "--without-admin" in result.stdout
    assert "✓ policies" not in result.stdout
    assert "✓ keys" not in result.stdout


def test_without_admin_is_a_choice(world: World) -> None:
    """What was left out on purpose is named, and does not keep the rest from being green."""
    result = doctor(world, "--without-admin")
    assert result.exit_code == 0
    assert "? keys: not looked at. --without-admin" in result.stdout
    assert "0 could not be looked at, 3 left out." in result.stdout


def test_locked_table_could_not_be_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that stays locked is named instead of waited for; the others are counted."""
    monkeypatch.setattr("tenantguard.doctor.subject.LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr("tenantguard.doctor.eyes._PREAMBLE", ("SET LOCAL lock_timeout = '50ms'",))
    with world.admin.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        result = doctor(world)
    assert result.exit_code == 2
    assert "? tenants: not looked at. public.users: PostgreSQL refused (55P03" in result.stdout
    assert "- tenants: 2 of 3 tables, 3 rows" in result.stdout


# -- the application's own engine -------------------------------------------------------------


@pytest.mark.parametrize("name", ["engine", "make_engine"])
def test_engine_is_taken_and_its_address_used(world: World, name: str) -> None:
    """An engine, or a function that returns it, is looked at, and gives the address if none was."""
    result = CliRunner().invoke(
        main,
        ["doctor", "--guard", "doctor_app:guard", "--engine", f"doctor_app:{name}", *VERSION],
        env={"TENANTGUARD_ADMIN_URL": with_password(world.url)},
    )
    assert result.exit_code == 0, result.output
    assert f"✓ engines: doctor_app:{name}: protected" in result.stdout
    assert "✓ policies" in result.stdout


def test_engine_of_another_guard_is_not_protected(world: World) -> None:
    """An engine that this guard does not protect is an error."""
    assert ("engine-unprotected", "doctor_app:engine") in found(
        world, "--engine", "doctor_app:engine", guard="observing"
    )


@pytest.mark.parametrize(
    "name", ["doctor_app:guard", "doctor_app:absent", "doctor_app:broken", "x"]
)
def test_engine_that_is_none_could_not_be_looked_at(world: World, name: str) -> None:
    """What is named and is no engine ends with 2, without the application's own error text."""
    result = doctor(world, "--engine", name)
    assert result.exit_code == 2
    assert "? engines: not looked at." in result.stdout


def with_engine(world: World, made: Engine, *arguments: str) -> Result:
    """Run the command with an engine of the application, and no address beside it."""
    module: Any = sys.modules["doctor_app"]
    module.guard.protect(made)
    module.other = made
    options = (*VERSION, "--without-admin", *arguments)
    result = CliRunner().invoke(
        main,
        ["doctor", "--guard", "doctor_app:guard", "--engine", "doctor_app:other", *options],
    )
    assert isinstance(result.exception, SystemExit | None)
    assert world.roles.application not in result.output
    return result


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    ("libpq", "asyncpg", "words"),
    [
        ({}, {}, "✓ policies"),
        ({"user": "postgres"}, {"user": "postgres"}, "error role-superuser"),
        (
            {"options": "-c row_security=off"},
            {"server_settings": {"row_security": "off"}},
            "error row-security-off",
        ),
        (
            {"options": f"-c tenantguard.tenant={A}"},
            {"server_settings": {"tenantguard.tenant": str(A)}},
            "error setting-bound",
        ),
    ],
)
def test_engine_is_examined_with_its_arguments(
    world: World, driver: str, libpq: dict[str, Any], asyncpg: dict[str, Any], words: str
) -> None:
    """What only `connect_args` say is found as if the address said it, with every driver."""
    arguments = asyncpg if driver == "asyncpg" else libpq
    url = world.url.set(username=world.roles.application)
    result = with_engine(world, engine_of(url, driver, connect_args=arguments))
    assert words in result.stdout
    assert (result.exit_code == 0) is (arguments == {})
    assert str(A) not in result.output


def test_engine_whose_arguments_cannot_be_carried_over_is_not_green(world: World) -> None:
    """Nothing about the database is green then, and the end is 2."""
    url = world.url.set(username=world.roles.application)
    made = engine_of(url, "asyncpg", connect_args={"ssl": create_default_context()})
    result = with_engine(world, made)
    assert result.exit_code == 2
    assert "? policies: not looked at. An argument of doctor_app:other" in result.stdout
    assert "✓ policies" not in result.stdout
    assert "✓ transport" not in result.stdout


def test_address_beside_an_engine_that_says_more(world: World) -> None:
    """Given an address, the engine's other arguments are a finding, and can be accepted."""
    url = world.url.set(username=world.roles.application)
    made = create_engine(url, connect_args={"options": "-c row_security=off"})
    address = ("--database-url", with_password(url))
    result = with_engine(world, made, *address)
    assert result.exit_code == 1
    assert "! warning engine-arguments" in result.stdout
    accepted = with_engine(world, made, *address, "--accept", "engine-arguments=none matters")
    assert accepted.exit_code == 0


def test_guard_knows_what_it_protects(world: World) -> None:
    """An engine is protected by the guard whose `protect` it was given, and by no other."""
    module: Any = sys.modules["doctor_app"]
    other = engine_of(world.url, "asyncpg")
    assert module.guard.protects(module.engine)
    assert module.guard.protects(module.engine.execution_options(x=1))
    assert not module.guard.protects(other)
    assert not module.observing.protects(module.engine)
    behind = AsyncEngine(other)
    module.guard.protect(behind)
    assert module.guard.protects(behind)


# -- tables that stay locked ------------------------------------------------------------------


@contextmanager
def locked(world: World) -> Iterator[None]:
    with world.admin.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.fixture
def hasty(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert LOCK_TIMEOUT == "3s"
    monkeypatch.setattr("tenantguard.rls.role_question.LOCK_TIMEOUT", "50ms")
    # Whoever waits longer than this would wait for the lock's end.
    world.run(f"ALTER ROLE \"{world.roles.application}\" SET statement_timeout = '5s'")


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("autocommit", [False, True])
def test_verification_does_not_wait_for_a_migration(
    world: World,
    autocommit: bool,  # noqa: FBT001
) -> None:
    """A locked table ends as a finding that says to try again; the connection is left as it was."""
    with world.as_application(autocommit=autocommit) as connection:
        with locked(world):
            found = rls.verify(connection, world.catalog, world.roles)
        assert found == [LOCKED]
        assert LOCKED.code == "could-not-compare"
        assert "Try again" in LOCKED.mend
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
        connection.rollback()
        assert rls.verify(connection, world.catalog, world.roles) == []
        assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("driver", DRIVERS)
def test_first_connection_does_not_wait_for_a_migration(world: World, driver: str) -> None:
    """The first connection is refused while a table is locked, and works once it is free.

    The application's own transactions wait as long as they did.
    """
    module: Any = sys.modules["doctor_app"]
    made = engine_of(world.url.set(username=world.roles.application), driver)
    module.guard.protect(made)
    with locked(world), pytest.raises(PolicyDriftError, match=r"stayed locked.*Try again"):
        made.connect()
    with module.guard.tenant_context(A), made.connect() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "0"
    made.dispose()


@pytest.mark.usefixtures("hasty")
def test_locked_table_is_not_green_without_an_admin_address(world: World) -> None:
    """The doctor could not look at the policies of a locked table, and says so."""
    with locked(world):
        result = doctor(world, "--without-admin")
    assert result.exit_code == 2
    assert "? policies: not looked at. A table stayed locked" in result.stdout


# -- poolers ----------------------------------------------------------------------------------


class Pooled:
    """A driver's connection that claims another process than the server's, as PgBouncer's do."""

    def __init__(self, connection: Any, claimed: int | None, version: str | None = None) -> None:
        self._connection = connection
        known = connection.info.parameter_status("server_version")
        self.info = SimpleNamespace(
            backend_pid=claimed, parameter_status=lambda _: version or known
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize(
    ("claimed", "version", "shared", "port", "codes"),
    [
        ("own", None, False, None, []),
        ("own", "0.1", False, None, ["pooler-between"]),
        ("other", None, False, None, ["pooler-between"]),
        ("other", None, True, None, ["pooler-transaction"]),
        ("none", None, False, 6432, ["pooler-between"]),
        ("none", None, False, 5432, []),
    ],
)
def test_pooler_is_told_from_the_server(  # noqa: PLR0917  (one column a parameter)
    world: World,
    claimed: str,
    version: str | None,
    shared: bool,  # noqa: FBT001
    port: int | None,
    codes: list[str],
) -> None:
    """A process id or version of a pooler's own is found; one process for two clients is worse."""
    with world.as_application() as one, world.as_application() as two:
        pids = {"own": None, "other": -1, "none": None}
        connections = iter(
            Pooled(each, each.info.backend_pid if claimed == "own" else pids[claimed], version)
            for each in (one, one if shared else two)
        )

        class Planted(Subject):
            @contextmanager
            def application_connection(self) -> Iterator[Any]:
                # Open transactions would keep a pooler from sharing its server connection.
                assert one.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                opened = next(connections)
                opened.cursor().execute("SELECT 1")
                yield opened

        clean = subject(world)
        url = world.url.set(username=world.roles.application, port=port)
        planted = Planted(
            **{
                name: getattr(replace(clean, application=create_engine(url)), name)
                for name in clean.__dataclass_fields__
            }
        )
        findings = look_at_pooler(planted).findings
        assert [finding.code for finding in findings] == codes
        assert all(finding.severity is Severity.WARNING for finding in findings)
        assert all("ALTER ROLE … SET" in finding.mend for finding in findings)
        assert any("prepare_threshold=None" in finding.mend for finding in findings) is (
            codes == ["pooler-transaction"]
        )
