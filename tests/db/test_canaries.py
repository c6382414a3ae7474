"""No plaintext, key or tenant id in any text: errors, logs, representations, a dump."""

from __future__ import annotations

import base64
import io
import json
import logging
import subprocess
import traceback
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import tink
from sqlalchemy import bindparam, event, func, insert, literal, select, text, update
from sqlalchemy.orm import Session
from tink import aead, proto_keyset_format, secret_key_access
from vault import ENVIRONMENT, A, B, Patient, Vault, Visit, make_guard

from tenantguard import (
    EncryptedValueError,
    KeyFile,
    TenantGuardError,
    current_tenant,
    tenant_context,
)
from tenantguard.columns.field import Unsealed
from tenantguard.context import active_tenant
from tenantguard.crypto import keysets
from tenantguard.crypto.format import keyset_context
from tenantguard.demo.server import _binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

NAME, NOTES, SCAN = "Kanarienvogel Ä", "canary-notes\ud800", b"canary-scan-\x00\xff"
NUMBER, FEE, BORN = 471147114711471147, Decimal("4711.4711"), date(1947, 11, 4)
HISTORY = {"canary-key": "canary-value"}
PATIENT: dict[str, Any] = {
    "name": NAME,
    "phone": "0049 4711 4711",
    "email": "canary@example.org",
    "number": NUMBER,
    "fee": FEE,
    "born": BORN,
    "scan": SCAN,
    "history": HISTORY,
}

SHORT = {"4711", "1947"}
"""What may stand by chance in hexadecimal digits, or in a plan's times."""


def _forms(secret: bytes) -> set[str]:
    """Return how *secret* would look in a text."""
    return {
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode().rstrip("="),
        repr(secret)[2:-1],
        "".join(chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}" for byte in secret),
    }


def _plaintexts() -> set[str]:
    texts = {"Kanarienvogel", "kanarienvogel", "canary", "4711", "1947"}
    for secret in (NAME.encode(), b"canary-notes", SCAN, b"canary@example.org"):
        texts |= _forms(secret)
    return texts | {NAME, repr(NAME)[1:-1], ascii(NAME)[1:-1]}


def _key_material(vault: Vault) -> set[str]:
    """Return the forms of the key-encryption key and of tenant A's keys."""
    document = json.loads(vault.key_file.read_text())
    kek = keysets.read_kek(json.dumps(document["keyset"]))
    secrets = [base64.b64decode(document["keyset"]["key"][0]["keyData"]["value"])[-32:]]
    rows = vault.run("SELECT purpose, wrapped FROM tenantguard_keys WHERE tenant_id = :a", a=A)
    for purpose, wrapped in rows:
        context = keyset_context(ENVIRONMENT, str(A).encode(), purpose)
        handle = proto_keyset_format.parse_encrypted(bytes(wrapped), kek, context)
        serialized = proto_keyset_format.serialize(handle, secret_key_access.TOKEN)
        # The protocol buffer has the key's 32 bytes after a tag and their length.
        start = serialized.index(b"\x1a\x20") + 2
        secrets.append(serialized[start : start + 32])
    assert [len(secret) for secret in secrets] == [32, 32, 32]
    return set.union(*map(_forms, secrets))


def _tenants() -> set[str]:
    return {form for tenant in (A, B) for form in (str(tenant), tenant.hex)}


def _shown(error: BaseException) -> str:
    """Return everything that *error* and what it hides behind `from None` would print."""
    parts, seen = [], set()
    queue: list[BaseException | None] = [error]
    while queue:
        each = queue.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        # Without the lines of the source, which are this file's.
        parts += [*traceback.format_exception_only(each), repr(each), *map(str, each.args)]
        queue += [each.__cause__, each.__context__]
    return "\n".join(parts)


@contextmanager
def _logs() -> Iterator[io.StringIO]:
    """Yield what all loggers write at any level."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield stream
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def _assert_clean(shown: str, *secrets: set[str]) -> None:
    assert shown
    assert [secret for secret in sorted(set.union(*secrets)) if secret in shown] == []


def _add(session: Session, **values: Any) -> None:
    session.add(Patient(**{**PATIENT, **values}))
    session.flush()


def _aborted(session: Session) -> None:
    connection = session.connection()
    with pytest.raises(Exception, match="division"):
        connection.execute(text("SELECT 1 / 0"))
    connection.execute(insert(Patient), [PATIENT])


FAILURES: dict[str, Callable[[Session], Any]] = {
    "a number for text": lambda session: _add(session, name=NUMBER),
    "text for a number": lambda session: _add(session, number=NAME),
    "text for a date": lambda session: _add(session, born=NAME),
    "text that is no Unicode": lambda session: _add(session, notes=NOTES),
    "a decimal that is none": lambda session: _add(session, fee=Decimal("NaN")),
    "JSON that is none": lambda session: _add(session, history={"canary": SCAN}),
    "text for bytes": lambda session: _add(session, scan=NAME),
    "bytes for text": lambda session: _add(session, name=SCAN),
    "many rows, one wrong": lambda session: session.execute(
        insert(Patient), [PATIENT, {**PATIENT, "number": NAME}]
    ),
    "a foreign key that leads nowhere": lambda session: session.execute(
        insert(Visit), [{"patient_id": 0, "reason": NAME}]
    ),
    "a name that is missing": lambda session: session.execute(
        insert(Patient), [{"notes": NAME, "name": None}]
    ),
    "plaintext by SQL": lambda session: session.execute(
        text("UPDATE patients SET name = :name"), {"name": NAME}
    ),
    "a search with a wrong type": lambda session: session.scalars(
        select(Patient).where(Patient.number == NAME)
    ).all(),
    "a search among wrong types": lambda session: session.scalars(
        select(Patient).where(Patient.born.in_([BORN, NAME]))
    ).all(),
    "a search that cannot be": lambda session: session.scalars(
        select(Patient).where(Patient.notes == NAME)
    ),
    "a pattern": lambda session: session.scalars(select(Patient).where(Patient.name.like(NAME))),
    "a literal": lambda session: session.scalars(
        select(Patient).where(literal(NAME) == Patient.name)
    ),
    "an expression": lambda session: session.execute(update(Patient).values(name=func.upper(NAME))),
    "a literal in SQL text": lambda session: select(Patient.name == NAME).compile(
        session.connection(), compile_kwargs={"literal_binds": True}
    ),
    "a parameter that is missing": lambda session: session.execute(
        select(Patient).where(Patient.name == bindparam("wanted"), Patient.city == NAME)
    ),
    "an aborted transaction": _aborted,
}


@pytest.fixture
def engine(vault: Vault, driver: str) -> Iterator[Engine]:
    """An engine that logs all it can, whose tenant A has keys."""
    engine = vault.fresh_engine(driver, echo=True)
    with tenant_context(A), Session(engine) as session:
        _add(session)
        session.commit()
    yield engine
    engine.dispose()


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "psycopg-async", "asyncpg"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_error_shows_a_value_a_key_or_a_tenant(
    vault: Vault, engine: Engine, failure: str
) -> None:
    """Whatever goes wrong: the error, its causes and the logs show neither."""
    with _logs() as logs, tenant_context(A), Session(engine) as session:
        with pytest.raises(Exception) as caught:  # noqa: PT011  (each failure has its own)
            FAILURES[failure](session)
        session.rollback()
        _add(session)
        session.commit()
        session.scalars(select(Patient).where(Patient.name == NAME)).all()
    shown = _shown(caught.value)
    _assert_clean(shown, _plaintexts(), _key_material(vault), _tenants())
    assert "INSERT INTO patients" in logs.getvalue()
    _assert_clean(logs.getvalue(), _plaintexts(), _key_material(vault), _tenants())


BROKEN_KEYS = {
    "altered": "UPDATE tenantguard_keys SET wrapped = substring(wrapped, 2)",
    "check value altered": "UPDATE tenantguard_keys SET check_value = substring(check_value, 2)",
    "of another key": "UPDATE tenantguard_keys SET kek_uri = 'file:production/0'",
    "destroyed": "UPDATE tenantguard_keys SET state = 'destroyed', wrapped = NULL",
    "decrypt-only": "UPDATE tenantguard_keys SET state = 'decrypt-only'",
    "gone": "ALTER TABLE tenantguard_keys RENAME TO taken_away",
    "without privilege": "REVOKE ALL ON tenantguard_keys FROM PUBLIC, {role}",
}


@pytest.mark.parametrize("damage", BROKEN_KEYS)
def test_no_error_of_the_keys_shows_one_or_the_tenant(
    vault: Vault, engine: Engine, damage: str
) -> None:
    """A damaged row of `tenantguard_keys` is an error of ours without value, key or tenant."""
    material = _key_material(vault)
    role = vault.guard.roles.application
    vault.run("CREATE TABLE kept AS TABLE tenantguard_keys")
    vault.run(BROKEN_KEYS[damage].format(role=role))
    # The connection was verified before the damage; the keys are read after it.
    context: Any = engine.dialect.execution_ctx_cls
    context.keys.__self__.forget()
    try:
        with (
            _logs() as logs,
            tenant_context(A),
            Session(engine) as session,
            pytest.raises(TenantGuardError) as caught,
        ):
            _add(session)
    finally:
        if damage == "gone":
            vault.run("ALTER TABLE taken_away RENAME TO tenantguard_keys")
        vault.run(f"GRANT SELECT, INSERT ON tenantguard_keys TO {role}")
        vault.run("DELETE FROM tenantguard_keys")
        vault.run("INSERT INTO tenantguard_keys TABLE kept")
        vault.run("DROP TABLE kept")
    _assert_clean(_shown(caught.value), _plaintexts(), material, _tenants())
    assert logs.getvalue()
    _assert_clean(logs.getvalue(), _plaintexts(), material, _tenants())


@pytest.mark.parametrize("driver", ["psycopg"])
@pytest.mark.parametrize("given", [NAME, bytearray(SCAN), 4711], ids=["str", "bytearray", "int"])
def test_the_type_error_of_tink_is_not_reached(vault: Vault, engine: Engine, given: Any) -> None:
    """Its text has the value. What is no bytes is refused before, or made bytes of."""
    bare = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM).primitive(aead.Aead)
    with pytest.raises(TypeError) as tinks:
        bare.encrypt(given, b"")
    assert any(secret in str(tinks.value) for secret in _plaintexts())
    with tenant_context(A), Session(engine) as session:
        if isinstance(given, bytearray):
            _add(session, scan=given)
            return
        with pytest.raises(EncryptedValueError) as caught:
            _add(session, scan=given)
    _assert_clean(_shown(caught.value), _plaintexts(), _key_material(vault), _tenants())


def test_values_that_do_not_open_are_not_shown(vault: Vault, engine: Engine) -> None:
    """Neither what is stored nor what was meant is in the error of a value that was moved."""
    errors = []
    for damage in (
        "UPDATE patients SET notes = name",
        "UPDATE patients SET notes = name || '\\x00'",
        "UPDATE patients SET notes = '\\x9e54ff00'",
    ):
        vault.run(damage)
        with tenant_context(A), Session(engine) as session:
            with pytest.raises(TenantGuardError) as caught:
                session.scalars(select(Patient.notes)).all()
            errors.append(_shown(caught.value))
    stored = {bytes(row[0]).hex() for row in vault.run("DELETE FROM patients RETURNING name")}
    for shown in errors:
        _assert_clean(shown, _plaintexts(), _key_material(vault), _tenants(), stored)


def test_no_representation_shows_a_value_a_key_or_a_tenant(vault: Vault, engine: Engine) -> None:
    """repr() and str() of everything that holds one."""
    query = select(Patient).where(Patient.name == NAME)
    with tenant_context(A), Session(engine) as session:
        session.scalars(query).all()
        keys = active_tenant().keys  # type: ignore[union-attr]
        shown = [active_tenant(), keys, keys.data, keys.searching]
        assert current_tenant() == A
    guard = make_guard(vault.guard.roles, vault.key_file)
    type_: Any = Patient.__table__.c.name.type
    field = type_.field
    shown += [
        guard,
        guard._open_keystore(),
        KeyFile(vault.key_file, environment=ENVIRONMENT),
        KeyFile(vault.key_file, environment=ENVIRONMENT)._content,
        field,
        field.context,
        type_,
        type_.search_value(),
        Unsealed(field.send, NAME),
        query.compile(engine),
        query.compile(),
    ]
    text_of_all = "\n".join(f"{each!r}\n{each}" for each in shown)
    _assert_clean(text_of_all, _plaintexts(), _key_material(vault), _tenants())


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "psycopg-async", "asyncpg"])
def test_the_server_shows_no_value_and_no_key(vault: Vault, engine: Engine) -> None:
    """Plans have neither, and other sessions see neither in what this one runs.

    The tenant is in each statement, because the database filters by it.
    """
    wanted = (Patient.name == NAME, Patient.number.in_([NUMBER, 1]))
    plans: list[str] = []

    def explain(*given: Any) -> Any:
        return f"EXPLAIN (ANALYZE, VERBOSE) {given[2]}", given[3]

    def explained(session: Session, statement: Any) -> None:
        event.listen(engine, "before_cursor_execute", explain, retval=True)
        try:
            plans.extend(str(row[0]) for row in session.connection().execute(statement))
        finally:
            event.remove(engine, "before_cursor_execute", explain)

    def seen() -> str:
        return "\n".join(row[0] for row in vault.run("SELECT query FROM pg_stat_activity"))

    with tenant_context(A), Session(engine) as session:
        explained(session, select(Patient.id).where(*wanted))
        shown = []
        for act in (
            lambda: session.scalars(select(Patient).where(*wanted)).all(),
            lambda: _add(session),
            lambda: session.execute(insert(Patient), [PATIENT, PATIENT]),
            lambda: session.execute(update(Patient).values(name=NAME, fee=FEE)),
        ):
            act()
            shown.append(seen())
            assert "patients" in shown[-1]
    assert "name_bidx" in "\n".join(plans)
    _assert_clean("\n".join(plans), _plaintexts() - SHORT, _key_material(vault))
    _assert_clean("\n".join(shown), _plaintexts() - SHORT, _key_material(vault))


def test_a_dump_shows_no_value_and_no_key(vault: Vault, engine: Engine) -> None:
    """What pg_dump writes has neither, in any form; it does have the rows."""
    assert engine is not None
    url = vault.admin.url
    dump = subprocess.run(
        [
            _binaries() / "pg_dump",
            "--dbname",
            url.set(drivername="postgresql").render_as_string(hide_password=False),
        ],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert str(A) in dump
    assert "\\\\x9e540101" in dump
    assert "file:test/" in dump
    _assert_clean(dump, _plaintexts() - SHORT, _key_material(vault))
