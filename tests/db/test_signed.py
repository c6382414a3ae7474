"""The signed setting: row-level security believes a tenant that the application signed."""

from __future__ import annotations

import json
import struct
import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner
from drivers import DRIVERS, engine_of
from driving import ONE, driven, inside, wait
from hypothesis import given
from hypothesis import strategies as st
from locks import Locks
from practice import UNKNOWN, A, B, Patient, make_guard
from proxy import proxy
from psycopg import sql
from signing_world import ENTER, TABLE, VERIFIED, build_signed, push, signing_file, token
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tenantguard import (
    ConfigurationError,
    CrossTenantError,
    PolicyDriftError,
    UnknownTenantError,
    rls,
    tenant_context,
)
from tenantguard.binding import entry
from tenantguard.cli import main
from tenantguard.crypto.signing import SigningKey, add_signing_key, make_signing_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from locks import World
    from sqlalchemy import URL, Engine

PATIENTS: Any = Patient.__table__
READ = select(Patient.name).order_by(Patient.name)
OWN = {A: ["patient a0", "patient a1", "patient a2"], B: ["patient b0", "patient b1", "patient b2"]}
# BEGIN, the statement, COMMIT.
TRIPS = 3
EPOCH_2000 = 946_684_800_000_000

every_driver = pytest.mark.parametrize("driver", DRIVERS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("signing") / "signing.json"


@pytest.fixture(scope="module")
def signed(new_database: Callable[[], URL], path: Path) -> Iterator[World]:
    built = build_signed(new_database(), path)
    yield built
    built.dispose()


@pytest.fixture
def locks(signed: World, driver: str) -> Iterator[Locks]:
    engines = Locks(signed, driver)
    yield engines
    engines.dispose()
    with signed.admin.begin() as connection:
        connection.execute(text("DELETE FROM patients WHERE name NOT LIKE 'patient __'"))


@pytest.fixture
def mended(signed: World) -> Iterator[World]:
    """The world; afterwards it is as it was generated, whatever the test has done to it."""
    yield signed
    rls.apply(signed.admin, signed.guard.catalog, signed.guard.roles)
    push(signed.admin, signed.guard)


def run(world: World, *statements: str) -> None:
    """Run *statements* as the superuser, committed."""
    with world.admin.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def names(engine: Engine, tenant: Any) -> list[str]:
    with tenant_context(tenant), engine.connect() as connection:
        return list(connection.scalars(READ))


def key_of(world: World) -> SigningKey:
    assert world.guard.signing is not None
    return world.guard.signing.primary


# -- binding ------------------------------------------------------------------------------------


@every_driver
def test_each_tenant_has_its_rows(locks: Locks) -> None:
    """On one connection, tenants take turns, and text is held as before."""
    engine = locks.both(**ONE)
    for tenant in (A, B, A):
        assert names(engine, tenant) == OWN[tenant]
        with tenant_context(tenant), engine.connect() as connection:
            found = connection.execute(text("SELECT name FROM patients ORDER BY name"))
            assert list(found.scalars()) == OWN[tenant]


@every_driver
def test_each_transaction_of_a_check_out_is_entered(locks: Locks) -> None:
    """Also one that nothing is cleaned for, because the same tenant's was before it."""
    with tenant_context(A), locks.both(**ONE).connect() as connection:
        for _ in range(3):
            assert connection.scalars(READ).all() == OWN[A]
            connection.commit()


@every_driver
def test_rows_are_written(locks: Locks) -> None:
    """What a unit of work and an executemany as the first statement write is the tenant's."""
    engine = locks.both(**ONE)
    with tenant_context(A), Session(engine) as session:
        session.add(Patient(name="by flush"))
        session.commit()
        session.execute(insert(PATIENTS), [{"name": "many"}, {"name": "many"}])
        session.commit()
        connection = session.connection()
        connection.execute(insert(PATIENTS).values(name="once more"))
        session.commit()
    with tenant_context(A), engine.begin() as connection:
        rows = [{"name": "first"}, {"name": "first"}]
        connection.execute(PATIENTS.insert().inline(), rows)
    written = [row[2] for row in locks.world.rows("patients", A) if row[2] not in OWN[A]]
    assert sorted(written) == ["by flush", "first", "first", "many", "many", "once more"]


@every_driver
@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_isolation_level_is_kept(locks: Locks, level: Any) -> None:
    """The signature rides on the driver's own start command."""
    engine = locks.both(isolation_level=level)
    with tenant_context(A), engine.begin() as connection:
        found = connection.scalar(text("SHOW transaction_isolation"))
        assert found == level.lower()
        assert list(connection.scalars(READ)) == OWN[A]


@every_driver
def test_read_only_transactions_are_entered(locks: Locks) -> None:
    """Entering writes nothing."""
    options = {"isolation_level": "SERIALIZABLE", "postgresql_readonly": True}
    engine = locks.both()
    with tenant_context(A), engine.connect().execution_options(**options) as connection:
        assert list(connection.scalars(READ)) == OWN[A]
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(insert(PATIENTS).values(name="never"))


@every_driver
def test_savepoints_keep_the_tenant(locks: Locks) -> None:
    """A rollback to a savepoint, or its release, leaves the proof of the transaction."""
    with tenant_context(A), locks.both().begin() as connection:
        for end in ("rollback", "commit"):
            savepoint = connection.begin_nested()
            assert list(connection.scalars(READ)) == OWN[A]
            getattr(savepoint, end)()
            assert list(connection.scalars(READ)) == OWN[A]


@every_driver
def test_each_transaction_is_entered(locks: Locks) -> None:
    """A commit or a rollback in mid-request begins again for the same tenant."""
    with tenant_context(A), Session(locks.both()) as session:
        for end in (session.commit, session.rollback, session.commit):
            assert list(session.scalars(READ)) == OWN[A]
            end()


@every_driver
def test_two_phase_is_entered(locks: Locks) -> None:
    """A two-phase transaction is the tenant's, and its rows are there in the end."""
    with tenant_context(A), locks.both().connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(insert(PATIENTS).values(name="two-phase"))
        transaction.prepare()
        transaction.commit()
    assert "two-phase" in [row[2] for row in locks.world.rows("patients", A)]


@every_driver
def test_a_new_server_process_is_entered(locks: Locks) -> None:
    """After a connection was lost, signatures are for the process that follows."""
    engine = locks.both(**ONE)
    asked = text("SELECT pg_backend_pid()")
    with tenant_context(A):
        with engine.connect() as connection:
            lost = connection.scalar(asked)
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.scalar(asked) != lost
            assert list(connection.scalars(READ)) == OWN[A]


@every_driver
def test_an_unknown_tenant_is_refused(locks: Locks) -> None:
    """The registry is asked in the same message, and sees the tenant's own row."""
    with (
        tenant_context(UNKNOWN),
        locks.both().connect() as connection,
        pytest.raises(UnknownTenantError),
    ):
        connection.execute(READ)


@every_driver
def test_without_a_tenant_nothing_is_entered(locks: Locks) -> None:
    """No tenant, no rows, and no error for what asks for none."""
    with locks.both().connect() as connection:
        assert connection.scalar(select(1)) == 1
        assert connection.scalar(select(func.public.tenantguard_verified())) is None


@every_driver
def test_a_tenant_change_in_a_transaction_is_refused(locks: Locks) -> None:
    """An open transaction goes on for its tenant only."""
    with tenant_context(A), locks.both().connect() as connection:
        connection.execute(READ)
        with tenant_context(B), pytest.raises(CrossTenantError):
            connection.execute(READ)


@every_driver
def test_no_additional_round_trip(locks: Locks, driver: str) -> None:
    """A signed transaction has as many messages as one without any lock."""
    world = locks.world
    with proxy(world.app_url) as counted, tenant_context(A):
        plain = engine_of(counted.url(world.admin.url), driver)
        guarded = locks._engine(counted.url(world.app_url), {})
        world.guard.protect(guarded)
        trips = {}
        for name, engine in (("plain", plain), ("guarded", guarded)):
            for _ in range(3):
                before = counted.round_trips
                with engine.begin() as connection:
                    connection.execute(select(PATIENTS.c.id)).all()
                trips[name] = counted.round_trips - before
        plain.dispose()
    assert trips == {"plain": TRIPS, "guarded": TRIPS}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg-async"])
def test_a_transaction_may_begin_in_a_pipeline(locks: Locks) -> None:
    """The pipeline is left for the BEGIN, also with commands in it, and entered again."""
    with driven(locks.both(**ONE), A) as connection, inside(connection.pipeline()):
        for _ in range(2):
            cursors = [wait(connection.execute("SELECT count(*) FROM patients")) for _ in "ab"]
            assert [wait(cursor.fetchone()) for cursor in cursors] == [(3,), (3,)]
            wait(connection.execute("SELECT 1"))
            wait(connection.commit())


@every_driver
def test_clocks_that_moved_apart_cost_one_connection(
    locks: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signature out of its time is refused; the next connection compares the clocks anew."""
    engine, now = locks.both(**ONE), entry._now
    assert names(engine, A) == OWN[A]
    monkeypatch.setattr(entry, "_now", lambda: now() + 11_000_000)
    with pytest.raises(DBAPIError, match="clocks") as caught:
        names(engine, A)
    assert str(A) not in str(caught.value)
    assert names(engine, A) == OWN[A]


@every_driver
def test_a_pooler_is_refused(locks: Locks, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind PgBouncer the process is not known in advance, so a signature cannot name it."""
    module = import_module(f"tenantguard.binding.{driver.removesuffix('-async')}")
    owner = getattr(module, "TenantBinding", module.TenantConnection)
    monkeypatch.setattr(owner, "server_process", lambda _self: 0)
    with pytest.raises(ConfigurationError, match="PgBouncer is between"):
        names(locks.both(), A)


@every_driver
def test_observing_signs_nothing(signed: World, driver: str) -> None:
    """In observe mode the database need not have the functions; the tenant is only named."""
    guard = make_guard(
        signed.guard.roles, signing=signed.guard.signing, signed_setting=True, mode="observe"
    )
    engine = engine_of(signed.admin.url, driver)
    guard.protect(engine)
    with tenant_context(A), engine.connect() as connection:
        verdict = text(f"SELECT current_setting('tenantguard.tenant'), {VERIFIED}()")
        assert connection.execute(verdict).one() == (str(A), None)
    engine.dispose()


# -- the signature ------------------------------------------------------------------------------


@given(
    tenant=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
    secret=st.binary(min_size=32, max_size=32),
)
def test_the_database_signs_as_the_file_does(signed: World, tenant: str, secret: bytes) -> None:
    """For any tenant and key, PostgreSQL's HMAC is `SigningKey.sign`'s, in token and proof."""
    key = SigningKey("0123abcd", secret, "2026-01-01T00:00:00+00:00")
    blocks = rls.signed.blocks(secret)
    address = signed.admin.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(address, autocommit=True) as own:
        process = own.info.backend_pid
        given = sql.quote(token(key, tenant, process=process))
        added = (
            f"BEGIN; DELETE FROM {TABLE} WHERE id = '{key.id}'; INSERT INTO {TABLE} VALUES "
            rf"('{key.id}', '\x{blocks[0].hex()}', '\x{blocks[1].hex()}', now())"
        )
        own.execute(f"{added}; SELECT {ENTER}({given})".encode())
        found = own.execute(
            f"SELECT {VERIFIED}(), current_setting('tenantguard.proof'), "
            "(extract(epoch FROM transaction_timestamp()) * 1000000)::bigint"
        ).fetchone()
        own.execute("ROLLBACK")
    assert found is not None
    bound = struct.pack(">qi", found[2] - EPOCH_2000, process)
    message = bound[8:] + bound[:8] + tenant.encode()
    assert found[:2] == (tenant, f"{key.id}.{key.sign('tenantguard.bound', message).hex()}")


# -- the database -------------------------------------------------------------------------------


def findings(world: World) -> set[str]:
    engine = engine_of(world.app_url, "psycopg")
    connection: Any = engine.raw_connection()
    found = rls.verify(connection, world.guard.catalog, world.guard.roles, key_of(world).id)
    connection.close()
    engine.dispose()
    return {each.code for each in found}


BODY = f"CREATE OR REPLACE FUNCTION {VERIFIED}() RETURNS text "
MADE = "LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog"
BELIEVES = "AS $$ BEGIN RETURN current_setting('tenantguard.tenant', true); END $$"
UNSIGNED = "tenant_id = (SELECT nullif(current_setting('tenantguard.tenant', true), '')::uuid)"
DRIFTS = {
    "another body": (f"{BODY}{MADE}, pg_temp {BELIEVES}", "signing-changed"),
    "another search path": (
        f"ALTER FUNCTION {VERIFIED}() SET search_path = pg_temp, pg_catalog",
        "signing-changed",
    ),
    "no search path": (f"ALTER FUNCTION {ENTER}(text) RESET search_path", "signing-changed"),
    "caller's rights": (f"ALTER FUNCTION {ENTER}(text) SECURITY INVOKER", "signing-changed"),
    "immutable": (f"ALTER FUNCTION {VERIFIED}() IMMUTABLE", "signing-changed"),
    "parallel": (f"ALTER FUNCTION {VERIFIED}() PARALLEL SAFE", "signing-changed"),
    "another owner": (f"ALTER FUNCTION {VERIFIED}() OWNER TO {{owner}}", "signing-changed"),
    "open to all": (f"GRANT EXECUTE ON FUNCTION {ENTER}(text) TO PUBLIC", "signing-changed"),
    "not callable": (f"REVOKE EXECUTE ON FUNCTION {ENTER}(text) FROM {{app}}", "signing-changed"),
    "no function": (f"DROP FUNCTION {ENTER}(text)", "signing-missing"),
    "no verdict": (f"DROP FUNCTION {VERIFIED}() CASCADE", "signing-missing"),
    "no table": (f"DROP TABLE {TABLE}", "signing-missing"),
    "readable": (f"GRANT SELECT ON {TABLE} TO {{app}}", "signing-keys-open"),
    "readable by all": (f"GRANT SELECT ON {TABLE} TO PUBLIC", "signing-keys-open"),
    "one column readable": (
        f"GRANT SELECT (outer_block) ON {TABLE} TO {{app}}",
        "signing-keys-open",
    ),
    "writable": (f"GRANT INSERT ON {TABLE} TO {{app}}", "signing-keys-open"),
    "owned": (f"ALTER TABLE {TABLE} OWNER TO {{app}}", "signing-keys-open"),
    "emptied": (f"TRUNCATE {TABLE}", "signing-keys-empty"),
    "without the key": (f"DELETE FROM {TABLE}", "signing-key-unknown"),
    "a floor that believes": (
        f"ALTER POLICY tenantguard_application_floor ON patients USING ({UNSIGNED})",
        "policy-changed",
    ),
}


@pytest.mark.parametrize("name", DRIFTS)
def test_what_differs_is_found_and_mended(mended: World, name: str) -> None:
    """Each difference refuses the application, and is mended by apply and push."""
    statement, code = DRIFTS[name]
    roles = mended.guard.roles
    assert findings(mended) == set()
    run(mended, statement.format(app=roles.application, owner=roles.owner))
    assert code in findings(mended)
    locks = Locks(mended)
    with pytest.raises((PolicyDriftError, ConfigurationError)):
        names(locks.both(), A)
    locks.dispose()
    if name == "owned":
        run(mended, f"ALTER TABLE {TABLE} OWNER TO CURRENT_USER")
    rls.apply(mended.admin, mended.guard.catalog, roles)
    push(mended.admin, mended.guard)
    assert findings(mended) == set()
    assert rls.apply(mended.admin, mended.guard.catalog, roles) == []


def test_a_guard_that_does_not_sign_is_refused(signed: World) -> None:
    """On a signed database it would see nothing; its first connection says what differs."""
    engine = engine_of(signed.app_url, "psycopg")
    make_guard(signed.guard.roles).protect(engine)
    with pytest.raises(PolicyDriftError, match="application_floor"):
        names(engine, A)
    engine.dispose()


@every_driver
def test_a_key_that_is_gone_is_named(mended: World, locks: Locks) -> None:
    """Where the key is taken away under a running application, its error says what to do."""
    engine = locks.both(**ONE)
    assert names(engine, A) == OWN[A]
    run(mended, f"DELETE FROM {TABLE}")
    with pytest.raises(DBAPIError, match="tenantguard rls signing push"):
        names(engine, A)
    push(mended.admin, mended.guard)
    assert names(engine, A) == OWN[A]


@every_driver
def test_a_transaction_that_cannot_begin_leaves_its_connection_usable(
    mended: World, locks: Locks
) -> None:
    """Also where nothing was cleaned, and so nothing speaks for closing it."""
    with tenant_context(A), locks.both(**ONE).connect() as connection:
        process = connection.scalar(select(func.pg_backend_pid()))
        connection.commit()
        run(mended, f"DELETE FROM {TABLE}")
        with pytest.raises(DBAPIError, match="tenantguard rls signing push"):
            connection.execute(READ)
        connection.rollback()
        push(mended.admin, mended.guard)
        assert connection.scalars(READ).all() == OWN[A]
        assert connection.scalar(select(func.pg_backend_pid())) == process


@every_driver
def test_another_key_of_the_same_id_is_named(mended: World, locks: Locks) -> None:
    """So is a key that differs under its id."""
    engine = locks.both(**ONE)
    assert names(engine, A) == OWN[A]
    run(mended, f"UPDATE {TABLE} SET inner_block = outer_block")
    with pytest.raises(DBAPIError, match="another key than the one that signs"):
        names(engine, A)
    assert push(mended.admin, mended.guard).added == (key_of(mended).id,)
    assert names(engine, A) == OWN[A]


def test_the_script_has_no_key(signed: World) -> None:
    """`rls sql` makes the table and the functions, and says where the keys come from."""
    key, (catalog, roles) = key_of(signed), (signed.guard.catalog, signed.guard.roles)
    script = rls.sql(catalog, roles)
    assert "tenantguard rls signing push" in script
    assert script.index(f"CREATE OR REPLACE FUNCTION {_quoted(VERIFIED)}") < script.index("POLICY")
    for secret in (key.secret, *rls.signed.blocks(key.secret)):
        assert secret.hex() not in script
    down = rls.down_sql(catalog, roles)
    assert down.index("DROP POLICY") < down.index(f"DROP FUNCTION IF EXISTS {_quoted(VERIFIED)}")
    assert f"DROP TABLE IF EXISTS {_quoted(TABLE)}" in down


def _quoted(name: str) -> str:
    return ".".join(f'"{part}"' for part in name.split("."))


def test_the_table_goes_and_comes(mended: World) -> None:
    """Down and up again leave a database that believes signatures only."""
    known = (mended.guard.catalog, mended.guard.roles)
    with psycopg.connect(
        mended.admin.url.set(drivername="postgresql").render_as_string(), autocommit=True
    ) as own:
        own.execute(rls.down_sql(*known))
        own.execute(rls.sql(*known))
    assert findings(mended) == {"signing-keys-empty"}


# -- commands -----------------------------------------------------------------------------------


@pytest.fixture
def command(mended: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command on the world's guard, which reads its file anew; text or JSON comes back."""
    module = ModuleType("signing_cli_guard")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    url = mended.admin.url.render_as_string(hide_password=False)

    def invoke(*words: str, path: Path | None = None) -> tuple[int, str]:
        located = ["--guard", "signing_cli_guard:guard", "--admin-url", url]
        if path is not None:
            module.guard = make_guard(  # type: ignore[attr-defined]
                mended.guard.roles, signing=signing_file(path), signed_setting=True
            )
        result = CliRunner().invoke(main, [*words, *(located if words[0] == "rls" else [])])
        return result.exit_code, result.output

    return invoke


def test_keys_change_while_the_application_runs(
    mended: World, command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Add, push, deploy, promote, deploy, remove, push: at no moment is a request refused."""
    path = tmp_path / "signing.json"
    assert command("keys", "signing", "init", str(path), "--environment", "test")[0] == 0
    old = signing_file(path).primary.id
    assert command("rls", "signing", "push", path=path)[0] == 0
    running: list[Engine] = []

    def deploy() -> None:
        engine = engine_of(mended.app_url, "psycopg")
        make_guard(mended.guard.roles, signing=signing_file(path), signed_setting=True).protect(
            engine
        )
        running.append(engine)
        serve()

    def serve() -> None:
        for engine in running[-2:]:
            assert names(engine, A) == OWN[A]

    deploy()
    assert command("keys", "signing", "add", str(path))[0] == 0
    new = next(key for key in signing_file(path).keys if key != old)
    assert command("rls", "signing", "push", "--dry-run", path=path)[0] == 1
    assert command("rls", "signing", "push", path=path) == (0, f"added: signing key {new}\n")
    serve()
    deploy()
    assert command("keys", "signing", "promote", str(path), new)[0] == 0
    serve()
    deploy()
    assert command("keys", "signing", "remove", str(path), old)[0] == 0
    assert command("rls", "signing", "push", path=path) == (0, f"removed: signing key {old}\n")
    assert command("rls", "signing", "push", "--dry-run", path=path)[0] == 0
    assert names(running[-1], A) == OWN[A]
    with pytest.raises(DBAPIError, match="does not have the key"):
        names(running[0], A)
    for engine in running:
        engine.dispose()


def test_apply_adds_keys_and_removes_none(
    mended: World, command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """A process that has an older file takes no key away from those that have a newer one."""
    path = tmp_path / "signing.json"
    own = make_signing_file(path, environment="test")
    code, output = command("rls", "apply", "--dry-run", "--format", "json", path=path)
    assert (code, json.loads(output)["signing_keys"]["added"]) == (1, [own])
    assert command("rls", "apply", path=path)[0] == 0
    code, output = command("rls", "apply", "--format", "json", path=path)
    pushed = json.loads(output)["signing_keys"]
    assert (code, pushed) == (0, {"added": [], "removed": [], "kept": [own]})
    assert findings(mended) == set()


def test_commands_name_keys_and_show_none(
    command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Lists and results have ids; secrets are nowhere in them."""
    path = tmp_path / "signing.json"
    first = make_signing_file(path, environment="test")
    second = add_signing_key(path)
    code, listed = command("keys", "signing", "list", str(path))
    assert code == 0
    assert [line.split()[0] for line in listed.splitlines()] == [first, second]
    assert listed.splitlines()[0].endswith("signs")
    code, answer = command("keys", "signing", "list", str(path), "--format", "json")
    assert [key["id"] for key in json.loads(answer)["keys"]] == [first, second]
    pushed = command("rls", "signing", "push", "--format", "json", path=path)[1]
    assert json.loads(pushed)["added"] == [first, second]
    for key in signing_file(path).keys.values():
        for secret in (key.secret, *rls.signed.blocks(key.secret)):
            assert secret.hex() not in listed + answer + pushed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("promote", "00000000"), "no such signing key"),
        (("remove", "00000000"), "no such signing key"),
        (("remove", "signs"), "This key signs"),
    ],
)
def test_commands_refuse_what_cannot_be(
    command: Callable[..., tuple[int, str]], tmp_path: Path, words: tuple[str, str], says: str
) -> None:
    """A key that is not there, or that signs, is not taken away."""
    path = tmp_path / "signing.json"
    own = make_signing_file(path, environment="test")
    verb, key = words
    code, output = command("keys", "signing", verb, str(path), own if key == "signs" else key)
    assert code == 2
    assert says in output


def test_push_says_what_is_missing(
    mended: World, command: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    """Without a table, or without keys in the guard, nothing is pushed."""
    path = tmp_path / "signing.json"
    make_signing_file(path, environment="test")
    run(mended, f"DROP TABLE {TABLE}")
    code, output = command("rls", "signing", "push", path=path)
    assert (code, "rls apply` first" in output) == (2, True)
    sys.modules["signing_cli_guard"].guard = make_guard(mended.guard.roles)  # type: ignore[attr-defined]
    code, output = command("rls", "signing", "push")
    assert (code, "keys signing init" in output) == (2, True)
    refused = partial(rls.push_signing_keys, keys=signing_file(path).keys)
    locks = Locks(mended)
    with pytest.raises(ConfigurationError, match="no table of signing keys"):
        refused(locks.none(), mended.guard.catalog)
    locks.dispose()
