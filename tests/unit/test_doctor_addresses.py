"""Addresses and engines, and the plain engines that the commands make of them."""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

import pytest
from asyncpg.connect_utils import SSLMode
from practice import make_guard
from psycopg.rows import dict_row
from sqlalchemy import MetaData, NullPool, QueuePool, create_engine, event
from sqlalchemy.ext.asyncio import create_async_engine

from tenantguard.catalog import Catalog, Roles
from tenantguard.doctor import Absence, Subject, engine_for, engine_like
from tenantguard.doctor.engine import look_at_engines
from tenantguard.doctor.transport import Way, judge

if TYPE_CHECKING:
    from sqlalchemy import Engine

PSYCOPG, ASYNCPG = "postgresql+psycopg://u:canary@h/x", "postgresql+asyncpg://u:canary@h/x"


def libpq(found: Engine | Absence) -> dict[str, Any]:
    """What the engine's driver is called with, as libpq knows it."""
    assert not isinstance(found, Absence), found.reason
    assert not found.dialect.is_async
    given = dict(found.dialect.create_connect_args(found.url)[1])
    given.pop("context", None)
    return given


def given(address: str) -> dict[str, Any]:
    return libpq(engine_for(address, whose="application's"))


def like(address: str = ASYNCPG, /, **arguments: Any) -> dict[str, Any]:
    return libpq(engine_like(engine(address, **arguments), "app:engine"))


def engine(address: str, /, **arguments: Any) -> Engine:
    if "asyncpg" in address:
        return create_async_engine(address, connect_args=arguments).sync_engine
    return create_engine(address, connect_args=arguments)


# -- asyncpg's addresses ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("u:p@/db?host=db.internal:5433", {"host": "db.internal", "port": 5433}),
        ("u:p@/db?host=db.internal&port=5433", {"host": "db.internal", "port": "5433"}),
        ("u:p@db.internal:5433/db", {"host": "db.internal", "port": 5433}),
        ("u:p@/db?host=/run/pg", {"host": "/run/pg"}),
        ("u:p@/db?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}),
        ("u:p@/db?host=a,b&port=1,2", {"host": "a,b", "port": "1,2"}),
        ("h/db?user=u&password=p", {"host": "h"}),
        ("u:p@h/?database=db", {"host": "h"}),
        ("u:p@h/db?ssl=verify-full", {"host": "h", "sslmode": "verify-full"}),
        ("u:p@h/db?ssl=verify_ca", {"host": "h", "sslmode": "verify-ca"}),
        (
            "u:p@h/db?target_session_attrs=read-write&passfile=/x",
            {"host": "h", "target_session_attrs": "read-write", "passfile": "/x"},
        ),
        (
            "u:p@h/db?prepared_statement_cache_size=0&statement_cache_size=0&command_timeout=3",
            {"host": "h"},
        ),
        ("u:p@h/db?server_settings=x&timeout=1", {"host": "h"}),
    ],
)
def test_asyncpg_s_address_leads_to_the_same_place(rest: str, expected: dict[str, Any]) -> None:
    """Server, role, database and encryption stay; what libpq has no word for is left out."""
    found = given(f"postgresql+asyncpg://{rest}")
    if isinstance(found.get("port"), str) and isinstance(expected.get("port"), int):
        found["port"] = int(found["port"])
    wanted = {"user": "u", "password": "p", "dbname": "db", **expected}
    assert {name: str(value) for name, value in found.items()} == {
        name: str(value) for name, value in wanted.items()
    }


@pytest.mark.parametrize(
    "query", ["canary=1", "ssl=canary", "ssl=require&ssl=disable", "sslmode=canary", "dsn=canary"]
)
def test_argument_that_is_not_known_is_refused(query: str) -> None:
    """What cannot be kept is not guessed at, and is not shown: it may be part of a password."""
    found = engine_for(f"{ASYNCPG}?{query}", whose="application's")
    assert isinstance(found, Absence)
    assert "an argument of asyncpg's that libpq cannot be given" in found.reason
    assert "postgresql+psycopg://" in found.reason
    assert "canary" not in found.reason


@pytest.mark.parametrize("query", ["host=a:canary&host=b:2", "port=canary", "host=a,b&port=1,2,3"])
def test_address_that_sqlalchemy_refuses_is_a_reason(query: str) -> None:
    """Hosts and ports that do not fit are explained without them."""
    found = engine_for(f"postgresql+asyncpg://u:canary@/x?{query}", whose="admin")
    assert isinstance(found, Absence)
    assert "cannot be read" in found.reason
    assert "canary" not in found.reason


# -- drivers ----------------------------------------------------------------------------------


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Take every other synchronous driver away than the one named."""

    def take(kept: str) -> None:
        for name in {"psycopg", "psycopg2"} - {kept}:
            monkeypatch.setitem(sys.modules, name, None)

    return take


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+asyncpg", "postgresql+psycopg_async"])
@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_driver_that_is_installed_is_taken(only: Any, scheme: str, driver: str) -> None:
    """An address that names no synchronous driver is good with either."""
    only(driver)
    found = engine_for(f"{scheme}://u:canary@h/x", whose="admin")
    assert not isinstance(found, Absence)
    assert (found.dialect.driver, found.dialect.is_async) == (driver, False)


@pytest.mark.parametrize(
    ("scheme", "kept", "extra"),
    [
        ("postgresql+psycopg2", "psycopg", "psycopg2"),
        ("postgresql+psycopg", "psycopg2", "psycopg"),
        ("postgresql+asyncpg", "neither", "psycopg"),
        ("postgresql", "neither", "psycopg"),
    ],
)
def test_driver_that_is_missing_is_named_by_its_extra(
    only: Any, scheme: str, kept: str, extra: str
) -> None:
    """The line to install it is the address's driver's."""
    only(kept)
    found = engine_for(f"{scheme}://u:canary@h/x", whose="admin")
    assert isinstance(found, Absence)
    assert "need a synchronous driver" in found.reason
    assert found.reason.endswith(f"pip install 'tenantguard[{extra}]'.")


# -- engines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {}),
        ({"user": "postgres"}, {"user": "postgres"}),
        ({"options": "-c row_security=off"}, {"options": "-c row_security=off"}),
        ({"host": "a,b", "port": 1}, {"host": "a,b", "port": "1,1"}),
        ({"host": "a,b"}, {"host": "a,b", "port": ","}),
        ({"sslmode": "disable", "connect_timeout": 3, "sslcert": None}, {"sslmode": "disable"}),
        ({"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0}, {}),
    ],
)
@pytest.mark.parametrize("scheme", ["postgresql+psycopg", "postgresql+psycopg2"])
def test_libpq_s_arguments_are_the_engine_s(
    scheme: str, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    """The doctor's own connections are made with what the application's are made with."""
    found = like(f"{scheme}://u:canary@h/x", **arguments)
    found.pop("connect_timeout", None)
    assert found == {"user": "u", "password": "canary", "host": "h", "dbname": "x", **expected}


def context(verify: ssl.VerifyMode) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = verify
    return made


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ssl": False}, {"sslmode": "disable"}),
        ({"ssl": None}, {}),
        ({"ssl": True}, {"sslmode": "verify-full", "sslrootcert": "system"}),
        ({"ssl": SSLMode.verify_ca}, {"sslmode": "verify-ca"}),
        ({"ssl": context(ssl.CERT_NONE)}, {"sslmode": "require"}),
        ({"user": "postgres", "password": "p"}, {"user": "postgres", "password": "p"}),
        ({"host": "o", "port": 1, "database": "y"}, {"host": "o", "port": 1, "dbname": "y"}),
        ({"host": ["a", "b"], "port": [1, 2]}, {"host": "a,b", "port": "1,2"}),
        (
            {"server_settings": {"row_security": "off", "my.x": "a b\\c"}},
            {"options": "-c row_security=off -c my.x=a\\ b\\\\c"},
        ),
        ({"server_settings": {}, "statement_cache_size": 0, "command_timeout": 3.0}, {}),
    ],
)
def test_asyncpg_s_arguments_are_translated(
    arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    """What asyncpg is given beside the address has the same effect on the doctor's connections."""
    wanted = {"user": "u", "password": "canary", "host": "h", "dbname": "x", **expected}
    assert like(**arguments) == wanted


@pytest.mark.parametrize(
    ("address", "arguments", "name"),
    [
        (ASYNCPG, {"ssl": context(ssl.CERT_REQUIRED)}, "ssl"),
        (ASYNCPG, {"ssl": 1}, "ssl"),
        (ASYNCPG, {"password": lambda: "canary"}, "password"),
        (ASYNCPG, {"server_settings": {"user": "canary"}}, "server_settings"),
        (ASYNCPG, {"server_settings": {"a -c b": "canary"}}, "server_settings"),
        (ASYNCPG, {"server_settings": [("a", "b")]}, "server_settings"),
        (ASYNCPG, {"direct_tls": True}, ""),
        (f"{ASYNCPG}?canary=1", {}, ""),
        (PSYCOPG, {"conninfo": "host=canary"}, "conninfo"),
        (PSYCOPG, {"user": object()}, "user"),
        ("postgresql+psycopg2://u:canary@h/x", {"dsn": "host=canary"}, "dsn"),
    ],
)
def test_argument_that_cannot_be_carried_over_is_refused(
    address: str, arguments: dict[str, Any], name: str
) -> None:
    """The driver's argument is named, never its value, and the way out is."""
    found = engine_like(engine(address, **arguments), "app:engine")
    assert isinstance(found, Absence)
    assert f"cannot be given to libpq{f' ({name})' if name else ''}. " in found.reason
    assert "--database-url" in found.reason
    assert "canary" not in found.reason


def listened() -> Engine:
    made = create_engine(PSYCOPG)
    event.listen(made, "do_connect", lambda *_: None)
    return made


@pytest.mark.parametrize(
    "made",
    [
        create_engine(PSYCOPG, creator=lambda: None),
        create_engine(PSYCOPG, pool=QueuePool(lambda: None)),  # type: ignore[arg-type]
        create_async_engine(ASYNCPG, async_creator=lambda: None).sync_engine,
        listened(),
    ],
)
def test_engine_whose_arguments_cannot_be_known_is_refused(made: Engine) -> None:
    """Where something else than SQLAlchemy decides on the arguments, the doctor does not guess."""
    found = engine_like(made, "app:engine")
    assert isinstance(found, Absence)
    assert "How app:engine connects cannot be read" in found.reason
    assert "--database-url" in found.reason


def test_arguments_that_sqlalchemy_keeps_elsewhere_are_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Should a version of SQLAlchemy keep them in another way, nothing is taken for them."""
    monkeypatch.setattr("inspect.getclosurevars", lambda _: type("V", (), {"nonlocals": {}}))
    assert isinstance(engine_like(create_engine(PSYCOPG), "app:engine"), Absence)


def test_guard_s_own_listener_changes_nothing() -> None:
    """A protected engine, with any pool, is looked at like any other."""
    for address in (PSYCOPG, ASYNCPG, "postgresql+psycopg2://u:canary@h/x"):
        made = engine(address, user="postgres")
        make_guard(Roles()).protect(made)
        assert libpq(engine_like(made, "app:engine"))["user"] == "postgres"
    found = engine_like(create_engine(PSYCOPG, poolclass=NullPool), "app:engine")
    assert not isinstance(found, Absence)


def test_engine_of_another_database_or_driver_is_refused() -> None:
    """Only PostgreSQL, by the drivers that the guard binds."""
    sqlite = engine_like(create_engine("sqlite://"), "app:engine")
    assert isinstance(sqlite, Absence)
    assert "not PostgreSQL" in sqlite.reason
    other = create_engine(PSYCOPG)
    other.dialect.driver = "other"
    found = engine_like(other, "app:engine")
    assert isinstance(found, Absence)
    assert "not supported" in found.reason


def test_plain_text_is_seen_where_connect_args_ask_for_it() -> None:
    """Asyncpg's `ssl=False` over a network is `tls-off`, whatever the environment prefers."""
    mode = like(ssl=False)["sslmode"]
    way = Way("h", False, "10.0.0.2", "10.0.0.1", peer_encrypted=False, sslmode=mode)  # noqa: FBT003
    assert [finding.code for finding in judge(way).findings] == ["tls-off"]


# -- an address beside the engine -------------------------------------------------------------


def looked_at(made: Engine, *, address_given: bool = True) -> list[Any]:
    none = Absence("not here")
    made.hide_parameters = True
    subject = Subject(
        Catalog(MetaData(), "practices"),
        Roles(),
        "enforce",
        application=none,
        admin=none,
        engines={"app:engine": made},
        is_protected=lambda _: True,
        address_given=address_given,
    )
    return list(look_at_engines(subject).findings)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (engine(PSYCOPG, options="-c row_security=off", user="canary"), "options, user."),
        (engine(ASYNCPG, ssl=False), "says: ssl."),
        (listened(), "arguments that cannot be read"),
    ],
)
def test_engine_that_says_more_than_its_address(made: Engine, words: str) -> None:
    """With an address given, what only the engine says was not examined: that is a finding."""
    [finding] = looked_at(made)
    assert finding.code == "engine-arguments"
    assert words in finding.message
    assert "Leave out --database-url" in finding.mend
    assert "canary" not in str(finding)
    assert looked_at(made, address_given=False) == []


@pytest.mark.parametrize(
    "made",
    [
        engine(PSYCOPG, connect_timeout=3, application_name="x", prepare_threshold=None),
        engine(ASYNCPG, statement_cache_size=0, timeout=3),
        engine(PSYCOPG, user="u"),
    ],
)
def test_engine_that_says_no_more_than_its_address(made: Engine) -> None:
    """What changes neither the way, nor the role, nor the session is no finding."""
    assert looked_at(made) == []


def test_autocommit_of_the_driver_is_found() -> None:
    """The driver's own `autocommit` leaves no transaction to bind a tenant to, either."""
    findings = looked_at(engine(PSYCOPG, autocommit=True), address_given=False)
    assert [finding.code for finding in findings] == ["engine-autocommit"]
