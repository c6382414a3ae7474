"""Injected SQL cannot change the tenant that row-level security believes, where it is signed.

Each attack is SQL text that runs as tenant A on a protected engine and is aimed at B's rows. Its
control is the same work aimed at A's own; where the database is not signed, those that are marked
*real* do reach B's rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from attacking import kind
from locks import Locks
from practice import A, B
from signing_world import ENTER, TABLE, VERIFIED, build_signed, token
from sqlalchemy import text

from tenantguard import tenant_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from locks import World
    from sqlalchemy import URL, Connection, Engine

    from tenantguard.crypto.signing import SigningKey

# Several commands in one message are sent by the drivers that interpolate, or take no parameters.
pytestmark = pytest.mark.drivers("psycopg", "psycopg2", "psycopg-async")

READ = "SELECT name FROM patients ORDER BY name"
OWN = {A: ["patient a0", "patient a1", "patient a2"], B: ["patient b0", "patient b1", "patient b2"]}
PRIVILEGE = "42501"
NOTHING: list[str] = []

UNKNOWN_KEY, NOT_THE_START, NOT_FOR_HERE, ANOTHER_TIME = "TG001", "TG002", "TG003", "TG004"


@dataclass
class Scene:
    """A connection of A's, and what an attacker may know beside it."""

    connection: Connection
    key: SigningKey
    at: UUID

    @property
    def process(self) -> int:
        return int(self.ask("SELECT pg_backend_pid()")[0])

    def ask(self, *statements: str) -> list[Any]:
        """Run *statements*, each a message; return the first column of the last."""
        options = {"no_parameters": True}
        for statement in statements:
            result = self.connection.exec_driver_sql(statement, execution_options=options)
        return list(result.scalars()) if result.returns_rows else []

    def enters(self, **changes: Any) -> str:
        """A call with a token as the application makes it for this connection, with *changes*."""
        given: dict[str, Any] = {"process": self.process, "key": self.key, "tenant": self.at}
        return f"SELECT {ENTER}('{token(**{**given, **changes})}')"

    def names(self, tenant: UUID | None = None) -> str:
        """SQL that sets the tenant to the one aimed at."""
        return f"set_config('tenantguard.tenant', '{tenant or self.at}', true)"


@pytest.fixture(scope="module")
def signed(new_database: Callable[[], URL], tmp_path_factory: Any) -> Iterator[World]:
    built = build_signed(new_database(), tmp_path_factory.mktemp("signing") / "signing.json")
    with built.admin.begin() as admin:
        # More than the application should have: a schema that it may make functions in.
        admin.execute(text(f"CREATE SCHEMA own AUTHORIZATION {built.guard.roles.application}"))
        admin.execute(text("GRANT USAGE ON SCHEMA own TO PUBLIC"))
    yield built
    built.dispose()


@pytest.fixture
def engine(signed: World, driver: str) -> Iterator[Engine]:
    locks = Locks(signed, driver)
    yield locks.both(pool_size=1, max_overflow=0)
    locks.dispose()


def key_of(world: World) -> SigningKey:
    assert world.guard.signing is not None
    return world.guard.signing.primary


def attacked(engine: Engine, key: SigningKey, at: UUID, work: Callable[[Scene], Any]) -> Any:
    """Return what *work*, aimed at the tenant *at*, gets as A; or the kind of the refusal."""
    with tenant_context(A), engine.connect() as connection:
        try:
            return work(Scene(connection, key, at))
        except Exception as error:  # noqa: BLE001  (the kind is what is asserted)
            return kind(error)


def said(*statements: str) -> Callable[[Scene], Any]:
    """Return an attack by *statements*, in which {tenant} is the tenant aimed at."""
    return lambda scene: scene.ask(*(each.format(tenant=scene.at) for each in statements))


SET = "SELECT set_config('tenantguard.tenant', '{tenant}', true)"


def _prepared(scene: Scene) -> Any:
    found = scene.ask(f"PREPARE stolen AS {READ}", f"SELECT {scene.names()}", "EXECUTE stolen")
    # What is left prepared by name would close the connection.
    scene.ask("DEALLOCATE stolen")
    return found


NAMING: dict[str, Callable[[Scene], Any]] = {
    "set_config": said(SET, READ),
    "set_config for the session": said(SET.replace("true", "false"), READ),
    "SET LOCAL": said("SET LOCAL tenantguard.tenant = '{tenant}'", READ),
    "SET": said("SET tenantguard.tenant = '{tenant}'", READ),
    "with others in a message": said(f"SELECT 1; {SET}; SELECT 2", READ),
    "savepoint": said("SAVEPOINT s", SET, READ),
    "savepoint released": said("SAVEPOINT s", SET, "RELEASE SAVEPOINT s", READ),
    "DO block": said(f"DO $$ BEGIN PERFORM {SET[7:]}; END $$", READ),
    "sub-transaction": said(
        f"DO $$ BEGIN PERFORM {SET[7:]}; EXCEPTION WHEN OTHERS THEN NULL; END $$", READ
    ),
    "prepared": _prepared,
    "cursor": said(f"DECLARE stolen CURSOR FOR {READ}", SET, "FETCH ALL FROM stolen"),
    "temporary function": said(
        f"CREATE FUNCTION pg_temp.stolen() RETURNS SETOF text LANGUAGE sql AS $$ {SET}; {READ} $$",
        "SELECT * FROM pg_temp.stolen()",
    ),
    "parallel query": said(
        "SET LOCAL debug_parallel_query = on; SET LOCAL parallel_setup_cost = 0; "
        "SET LOCAL parallel_tuple_cost = 0; SET LOCAL min_parallel_table_scan_size = 0",
        SET,
        READ,
    ),
    "search path": said("SET LOCAL search_path = pg_temp, public, pg_catalog", SET, READ),
}


@pytest.mark.parametrize("name", NAMING)
def test_a_tenant_that_is_only_named_is_not_believed(
    signed: World, world: World, engine: Engine, driver: str, name: str
) -> None:
    """However SQL changes the setting, B's rows are not shown; unsigned, they are."""
    work, key = NAMING[name], key_of(signed)
    assert attacked(engine, key, A, work) == OWN[A]
    assert attacked(engine, key, B, work) == NOTHING
    unsigned = Locks(world, driver)
    assert attacked(unsigned.both(), key, B, work) == OWN[B]
    unsigned.dispose()


WRITING = {
    "insert": (
        said(SET, "INSERT INTO patients (tenant_id, name) VALUES ('{tenant}', 'x') RETURNING name"),
        "CrossTenantError",
        ["x"],
    ),
    "insert by the default": (
        said(SET, "INSERT INTO patients (name) VALUES ('x') RETURNING name"),
        "CrossTenantError",
        ["x"],
    ),
    "update": (
        said(SET, "UPDATE patients SET name = 'x' WHERE name LIKE '%0' RETURNING name"),
        NOTHING,
        ["x"],
    ),
    "delete": (said(SET, "DELETE FROM users RETURNING true"), NOTHING, [True]),
    "registry": (said(SET, "SELECT name FROM practices"), NOTHING, ["Praxis A"]),
}


@pytest.mark.parametrize("name", WRITING)
def test_nothing_is_written_for_a_tenant_that_is_only_named(
    signed: World, engine: Engine, name: str
) -> None:
    """The floor holds writes and the registry as well."""
    work, refused, control = WRITING[name]
    assert attacked(engine, key_of(signed), A, work) == control
    assert attacked(engine, key_of(signed), B, work) == refused


PROOF = "set_config('tenantguard.proof', {}, true)"
BOUND = (
    "encode(sha256({outer} || sha256({inner} || convert_to('tenantguard.bound|', 'UTF8') "
    "|| int4send(pg_backend_pid()) || timestamptz_send(transaction_timestamp()) "
    "|| convert_to('{tenant}', 'UTF8'))), 'hex')"
)
GUESSED = BOUND.format(
    outer=r"'\x5c'::bytea", inner=r"'\x36'::bytea", tenant=B
)  # with a key of the attacker's own
SHADOW = (
    "CREATE TEMP TABLE tenantguard_signing_keys AS SELECT '{id}'::text AS id, "
    r"'\x36'::bytea AS inner_block, '\x5c'::bytea AS outer_block, now() AS created"
)


def _shadow(*setup: str) -> Callable[[Scene], Any]:
    """Let *setup* put something in front of what the function calls; then use a forged proof."""

    def work(scene: Scene) -> Any:
        proof = f"'{scene.key.id}.' || {GUESSED}"
        if scene.at == A:
            proof = "current_setting('tenantguard.proof')"
        prepared = [each.replace("{id}", scene.key.id) for each in setup]
        return scene.ask(*prepared, f"SELECT {scene.names()}, {PROOF.format(proof)}", READ)

    return work


YES = (
    "CREATE FUNCTION pg_temp.yes(bytea, bytea) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "CREATE OPERATOR pg_temp.= (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = pg_temp.yes)",
)
ALIKE = (
    "CREATE FUNCTION pg_temp.sha256(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE "
    r"AS $$ SELECT '\x00'::bytea $$"
)
FIRST = "SET LOCAL search_path = pg_temp, pg_catalog, public"
FORGING = {
    "guessed proof": _shadow(),
    "shadowed key table": _shadow(SHADOW, FIRST),
    "shadowed key table, nothing set": _shadow(SHADOW),
    "operator": _shadow(*YES, FIRST),
    "function": _shadow(ALIKE, FIRST),
    "function in a schema of its own": _shadow(
        f"DROP FUNCTION IF EXISTS own.sha256(bytea); {ALIKE.replace('pg_temp', 'own')}",
        "SET LOCAL search_path = own, pg_catalog, public",
    ),
    "all at once": _shadow(SHADOW, *YES, ALIKE, FIRST),
}


@pytest.mark.parametrize("name", FORGING)
def test_a_forged_proof_is_not_believed(signed: World, engine: Engine, name: str) -> None:
    """Neither by guessing, nor with a key of one's own put in front of the real one."""
    assert attacked(engine, key_of(signed), A, FORGING[name]) == OWN[A]
    assert attacked(engine, key_of(signed), B, FORGING[name]) == NOTHING


def test_the_own_proof_does_not_carry_over(signed: World, engine: Engine) -> None:
    """A proof is one transaction's: in a later one it is nothing."""
    key = key_of(signed)

    def proof(scene: Scene) -> Any:
        return scene.ask("SELECT current_setting('tenantguard.proof')")[0]

    with tenant_context(A), engine.connect() as connection:
        scene = Scene(connection, key, A)
        older = proof(scene)
        connection.commit()
        assert scene.ask(f"SELECT {PROOF.format(repr(proof(scene)))}", READ) == OWN[A]
        assert scene.ask(f"SELECT {PROOF.format(repr(older))}", READ) == NOTHING


def test_another_sessions_proof_is_nothing_here(signed: World, driver: str) -> None:
    """What B's session has, tenant and proof, shows nothing on A's, while both are open."""
    locks = Locks(signed, driver)
    engine, key = locks.both(pool_size=2), key_of(signed)
    with engine.connect() as other, engine.connect() as mine:
        with tenant_context(B):
            scene = Scene(other, key, B)
            stolen = scene.ask("SELECT current_setting('tenantguard.proof')")[0]
            assert scene.ask(f"SELECT {PROOF.format(repr(stolen))}", READ) == OWN[B]
        with tenant_context(A):
            scene = Scene(mine, key, B)
            both = f"SELECT {scene.names()}, {PROOF.format(repr(stolen))}"
            assert scene.ask(READ) == OWN[A]
            assert scene.ask(both, READ) == NOTHING
    locks.dispose()


def _anew(**changes: Any) -> Callable[[Scene], Any]:
    """Begin another transaction, and enter it in the same message."""
    return lambda scene: scene.ask(f"COMMIT; BEGIN; {scene.enters(**changes)}", READ)


def _other_key(scene: Scene) -> SigningKey:
    return replace(scene.key, secret=b"\1" * 32)


ENTERING = {
    "another process": (_anew(process=1), NOT_FOR_HERE),
    "expired": (_anew(seconds=-11), ANOTHER_TIME),
    "ahead": (_anew(seconds=11), ANOTHER_TIME),
    "another key under its id": (lambda scene: _anew(key=_other_key(scene))(scene), NOT_FOR_HERE),
    "unknown key": (
        lambda scene: _anew(key=replace(scene.key, id="00000000"))(scene),
        UNKNOWN_KEY,
    ),
    "another purpose": (
        lambda scene: _anew(key=_Purpose(scene.key, "tenantguard.bound"))(scene),
        NOT_FOR_HERE,
    ),
    "a later message": (lambda scene: scene.ask(scene.enters(), READ), NOT_THE_START),
    "a later message of another transaction": (
        lambda scene: scene.ask("COMMIT; BEGIN", scene.enters(), READ),
        NOT_THE_START,
    ),
    "a block that commits": (
        lambda scene: scene.ask(
            f"COMMIT; DO $$ BEGIN COMMIT; PERFORM {scene.enters()[7:]}; END $$"
        ),
        "2D000",
    ),
    "a block of text": (
        lambda scene: scene.ask(f"DO $$ BEGIN PERFORM {scene.enters()[7:]}; END $$", READ),
        NOT_THE_START,
    ),
    "the tenant exchanged": (
        lambda scene: scene.ask(
            f"COMMIT; BEGIN; {scene.enters(tenant=A).replace(str(A), str(B))}", READ
        ),
        NOT_FOR_HERE,
    ),
    "nothing": (lambda scene: scene.ask(READ, f"COMMIT; BEGIN; SELECT {ENTER}('')"), UNKNOWN_KEY),
    "NULL": (lambda scene: scene.ask(READ, f"COMMIT; BEGIN; SELECT {ENTER}(NULL)"), UNKNOWN_KEY),
}


@dataclass(frozen=True)
class _Purpose:
    """A key whose signatures were made for another purpose."""

    key: SigningKey
    purpose: str

    @property
    def id(self) -> str:
        return self.key.id

    def sign(self, _purpose: str, message: bytes) -> bytes:
        return self.key.sign(self.purpose, message)


@pytest.mark.parametrize("name", ENTERING)
def test_a_stolen_signature_enters_nothing(signed: World, engine: Engine, name: str) -> None:
    """A signature is good for one process, for seconds, and at the start of a transaction only."""
    work, refused = ENTERING[name]
    assert attacked(engine, key_of(signed), B, work) == refused
    assert attacked(engine, key_of(signed), A, _anew()) == OWN[A]


def test_no_session_shows_its_signature(signed: World, driver: str) -> None:
    """`pg_stat_activity` shows other sessions' statements, and ends before the signature."""
    locks = Locks(signed, driver)
    engine, key = locks.both(pool_size=2), key_of(signed)
    with tenant_context(A), engine.connect() as other, engine.connect() as mine:
        read = "SELECT pg_sleep(0), pg_backend_pid()"
        process = other.exec_driver_sql(read).all()[0][1]
        shown = Scene(mine, key, A).ask(
            f"SELECT query FROM pg_stat_activity WHERE pid = {process}",
        )
        # psycopg2 sends the first statement behind the signature, in one message.
        assert len(shown) == 1
        assert ("pg_sleep" in shown[0]) is (driver != "psycopg2")
        assert key.id not in shown[0]
        assert Scene(mine, key, A).ask("SELECT current_query()")[0].count(key.id) == 0
    locks.dispose()


def test_a_begun_transaction_shows_no_signature(signed: World) -> None:
    """Also while the message with the signature is the last one that was sent."""
    locks = Locks(signed, "psycopg")
    engine, key = locks.both(pool_size=2), key_of(signed)
    with tenant_context(A), engine.connect() as mine:
        checked_out: Any = engine.raw_connection()
        driven = checked_out.driver_connection
        with driven.transaction():
            [shown] = Scene(mine, key, A).ask(
                f"SELECT query FROM pg_stat_activity WHERE pid = {driven.info.backend_pid}"
            )
            assert shown.startswith("BEGIN")
            assert key.id not in shown
            assert driven.execute(READ).fetchone() == ("patient a0",)
        checked_out.close()
    locks.dispose()


LEAVING = {
    "RESET": ("RESET tenantguard.tenant", NOTHING),
    "RESET proof": ("RESET tenantguard.proof", NOTHING),
    "RESET ALL": ("RESET ALL", NOTHING),
    "DISCARD ALL": ("COMMIT; DISCARD ALL", "25001"),
    "COMMIT": ("COMMIT; BEGIN", NOTHING),
    "COMMIT AND CHAIN": ("COMMIT AND CHAIN", NOTHING),
    "ROLLBACK": ("ROLLBACK; BEGIN", NOTHING),
}


@pytest.mark.parametrize("name", LEAVING)
def test_whoever_leaves_a_tenant_has_none(signed: World, engine: Engine, name: str) -> None:
    """Taking the tenant away leaves nobody's rows; the next transaction is A's again."""
    statement, ends = LEAVING[name]
    key = key_of(signed)
    assert attacked(engine, key, A, said(statement, READ)) == ends
    assert attacked(engine, key, B, said(statement, SET, READ)) == ends
    assert attacked(engine, key, A, said(READ)) == OWN[A]


def forbidden(world: World) -> dict[str, str]:
    """What would take the signed setting apart, for whoever may do it."""
    roles = world.guard.roles
    body = "RETURNS text LANGUAGE sql AS 'SELECT ''x'''"
    return {
        "SET ROLE": f"SET ROLE {roles.maintenance}",
        "SET SESSION AUTHORIZATION": f"SET SESSION AUTHORIZATION {roles.owner}",
        "read the keys": f"SELECT * FROM {TABLE}",
        "read their ids": f"SELECT id FROM {TABLE}",
        "count the keys": f"SELECT count(*) FROM {TABLE}",
        "copy the keys": f"CREATE TEMP TABLE mine AS TABLE {TABLE}",
        "add a key": f"INSERT INTO {TABLE} VALUES ('00000000', '', '', now())",
        "remove the keys": f"DELETE FROM {TABLE}",
        "lock the keys": f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE",
        "a trigger on the keys": f"CREATE RULE r AS ON SELECT TO {TABLE} DO INSTEAD NOTHING",
        "replace the function": f"CREATE OR REPLACE FUNCTION {VERIFIED}() {body}",
        "overload it": f"CREATE FUNCTION {VERIFIED}(int) {body}",
        "drop it": f"DROP FUNCTION {VERIFIED}()",
        "alter it": f"ALTER FUNCTION {VERIFIED}() SECURITY INVOKER",
        "alter its path": f"ALTER FUNCTION {ENTER}(text) SET search_path = pg_temp",
        "drop the policy": "DROP POLICY tenantguard_application_floor ON patients",
        "turn it off": "ALTER TABLE patients DISABLE ROW LEVEL SECURITY",
    }


@pytest.mark.parametrize("number", range(17))
def test_the_application_cannot_take_it_apart(signed: World, engine: Engine, number: int) -> None:
    """Keys, functions and policies are out of the application's reach."""
    statements = list(forbidden(signed).values())
    assert len(statements) == 17
    found = attacked(engine, key_of(signed), B, said(statements[number].replace("{", "{{")))
    assert found == PRIVILEGE
    assert attacked(engine, key_of(signed), A, said(READ)) == OWN[A]


def test_the_catalogs_show_no_key(signed: World, engine: Engine) -> None:
    """The functions' source, their settings and the statistics hold nothing of a key."""
    key = key_of(signed)
    with signed.admin.begin() as admin:
        admin.execute(text(f"ANALYZE {TABLE}"))
        inner, outer = admin.execute(text(f"SELECT inner_block, outer_block FROM {TABLE}")).one()
    with tenant_context(A), engine.connect() as connection:
        scene = Scene(connection, key, A)
        shown = "\n".join(
            map(
                str,
                [
                    *scene.ask("SELECT p::text FROM pg_proc p WHERE proname LIKE 'tenantguard%'"),
                    *scene.ask("SELECT s::text FROM pg_stats s WHERE schemaname = 'public'"),
                ],
            )
        )
    assert "tenantguard_signing_keys" in shown
    for secret in (key.secret, bytes(inner), bytes(outer)):
        assert secret.hex() not in shown


def test_the_verdict_follows_what_is_set(signed: World, engine: Engine) -> None:
    """Asked by itself, the function names A, and nobody once the setting was changed."""
    verdict = f"SELECT {VERIFIED}()"
    with tenant_context(A), engine.connect() as connection:
        scene = Scene(connection, key_of(signed), B)
        assert scene.ask(verdict) == [str(A)]
        assert scene.ask("SAVEPOINT s", f"SELECT {scene.names()}", verdict) == [None]
        assert scene.ask("ROLLBACK TO s", verdict) == [str(A)]
        assert scene.ask(f"SELECT {scene.names(A)}", verdict) == [str(A)]
