"""The doctor's checks that need no database: planted faults are found, and clean ones are clean."""

from __future__ import annotations

import logging
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import MetaData, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from tenantguard.catalog import Catalog, Roles
from tenantguard.doctor import Absence, Subject, engine_for
from tenantguard.doctor.engine import look_at_engines
from tenantguard.doctor.server_log import judge as judge_log
from tenantguard.doctor.transport import Way, _sslmode
from tenantguard.doctor.transport import judge as judge_way
from tenantguard.doctor.versions import END_OF_LIFE, FAULTS
from tenantguard.doctor.versions import judge as judge_version
from tenantguard.findings import Severity

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from tenantguard.doctor import Look

URL = "postgresql+psycopg://app:canary@db.example/x"
TODAY = date(2026, 6, 1)


def codes(look: Look) -> list[str]:
    return [finding.code for finding in look.findings]


# -- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.cve)
def test_last_faulty_version_is_found_and_first_mended_one_is_not(fault: Any) -> None:
    """Each fault is named up to the version before the one that mends it, in each major one."""
    for major, minor in fault.fixed.items():
        faulty, mended = (
            judge_version(major * 10_000 + number, TODAY).findings for number in (minor - 1, minor)
        )
        assert any(fault.cve in finding.message for finding in faulty)
        assert not any(fault.cve in finding.message for finding in mended)


@pytest.mark.parametrize(
    ("number", "cves", "needed"),
    [
        (180005, {"CVE-2026-14666"}, "18.6"),
        (180006, set(), None),
        (170000, {"CVE-2026-14666", "CVE-2025-8713", "CVE-2024-10976"}, "17.11"),
        (170005, {"CVE-2026-14666", "CVE-2025-8713"}, "17.11"),
        (170011, set(), None),
        (
            150002,
            {
                "CVE-2026-14666",
                "CVE-2025-8713",
                "CVE-2024-10976",
                "CVE-2023-39418",
                "CVE-2023-2455",
            },
            "15.19",
        ),
        (150019, set(), None),
        (140024, set(), None),
    ],
)
def test_faults_of_a_version(number: int, cves: set[str], needed: str | None) -> None:
    """The finding names every open fault and the version that mends them all."""
    found = judge_version(number, TODAY).findings
    named = {
        fault.cve for fault in FAULTS if any(fault.cve in finding.message for finding in found)
    }
    assert named == cves
    if needed:
        [finding] = found
        assert (finding.code, finding.severity) == ("server-cve", Severity.WARNING)
        assert f"to {needed} or later" in finding.mend


def test_end_of_life_is_found_the_day_after() -> None:
    """The last day of a major version is clean, the next one is not; unknown old ones never are."""
    for major, last in END_OF_LIFE.items():
        number = major * 10_000 + 99
        assert "server-end-of-life" not in codes(judge_version(number, last))
        assert "server-end-of-life" in codes(judge_version(number, last.replace(day=28)))
    assert "server-end-of-life" in codes(judge_version(120_099, date(2020, 1, 1)))


def test_version_newer_than_the_table_is_said_to_be() -> None:
    """A major version that is not in the table gives no finding, and no false praise either."""
    look = judge_version(190_000, TODAY)
    assert (codes(look), look.seen) == (
        [],
        "PostgreSQL 19.0, which is newer than what this version knows of",
    )


# -- transport --------------------------------------------------------------------------------

SOCKET = Way("/run/postgresql", False, None, None, peer_encrypted=False, sslmode="prefer")  # noqa: FBT003
REMOTE = Way("db.example", True, "10.0.0.2", "10.0.0.1", peer_encrypted=True, sslmode="verify-full")  # noqa: FBT003


def way(base: Way, **changes: Any) -> Way:
    facts = {name: getattr(base, name) for name in Way.__dataclass_fields__}
    return Way(**{**facts, **changes})


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        (SOCKET, {}, []),
        (SOCKET, {"host": None}, []),
        (SOCKET, {"host": "127.0.0.1", "peer": "127.0.0.1", "server": "127.0.0.1"}, []),
        (SOCKET, {"host": "::1", "peer": "::1", "server": "::1"}, []),
        (SOCKET, {"host": "localhost", "peer": "10.0.0.1", "server": "10.0.0.1"}, []),
        (REMOTE, {}, []),
        (REMOTE, {"encrypted": None}, []),
        # through a pooler beside the server, which speaks plainly to it
        (REMOTE, {"peer": None, "server": None, "peer_encrypted": False}, []),
        (REMOTE, {"encrypted": False}, ["tls-off"]),
        (REMOTE, {"peer_encrypted": False}, ["tls-off"]),
        (REMOTE, {"peer_encrypted": False, "encrypted": None}, ["tls-off"]),
        # through a pooler beside the application, which speaks plainly to the server
        (REMOTE, {"host": "127.0.0.1", "peer_encrypted": False}, ["tls-off"]),
        (REMOTE, {"sslmode": "prefer"}, ["tls-unverified"]),
        (REMOTE, {"sslmode": "require"}, ["tls-unverified"]),
        (REMOTE, {"sslmode": "verify-ca"}, ["tls-unverified"]),
    ],
)
def test_way_to_the_server(base: Way, changes: dict[str, Any], expected: list[str]) -> None:
    """Plain text over a network is found, and an unverified server; the rest is clean."""
    look = judge_way(way(base, **changes))
    assert codes(look) == expected
    assert all(finding.severity is Severity.WARNING for finding in look.findings)
    assert all("sslmode=verify-full" in finding.mend for finding in look.findings)


@pytest.mark.parametrize(
    ("query", "environment", "expected"),
    [
        ("", {}, "prefer"),
        ("?sslmode=verify-full", {}, "verify-full"),
        ("?sslmode=require", {"PGSSLMODE": "verify-full"}, "require"),
        ("", {"PGSSLMODE": "verify-ca"}, "verify-ca"),
        ("?sslrootcert=system", {}, "verify-full"),
        ("", {"PGSSLROOTCERT": "system"}, "verify-full"),
    ],
)
def test_sslmode_is_the_address_s_then_the_environment_s(
    monkeypatch: pytest.MonkeyPatch, query: str, environment: dict[str, str], expected: str
) -> None:
    """As libpq takes it: the address, then the environment, then `prefer`."""
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert _sslmode(make_url(URL + query)) == expected


# -- the server's log -------------------------------------------------------------------------

QUIET = {
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_statement_sample_rate": "1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "0",
}


@pytest.mark.parametrize(
    ("settings", "inline", "expected"),
    [
        ({}, False, []),
        ({}, True, []),
        ({"log_statement": "ddl"}, True, []),
        ({"log_statement": "mod"}, False, ["log-parameters"]),
        ({"log_statement": "all", "log_parameter_max_length": "0"}, False, []),
        ({"log_statement": "all", "log_parameter_max_length": "0"}, True, ["log-parameters"]),
        ({"log_min_duration_statement": "0"}, False, ["log-parameters"]),
        ({"log_min_duration_sample": "10"}, False, ["log-parameters"]),
        ({"log_min_duration_sample": "10", "log_statement_sample_rate": "0"}, False, []),
        ({"log_transaction_sample_rate": "0.01"}, False, ["log-parameters"]),
        ({"log_parameter_max_length_on_error": "-1"}, False, ["log-parameters-on-error"]),
        ({"auto_explain.log_min_duration": "-1"}, False, []),
        ({"auto_explain.log_min_duration": "100"}, False, ["log-plans"]),
    ],
)
def test_server_log(settings: dict[str, str], inline: bool, expected: list[str]) -> None:  # noqa: FBT001
    """Whatever writes values into the server's log is found, and what does not is not."""
    look = judge_log({**QUIET, **settings}, inline=inline)
    assert codes(look) == expected
    assert all("ALTER SYSTEM" in finding.mend for finding in look.findings)


# -- engines ----------------------------------------------------------------------------------


def engine(**options: Any) -> Engine:
    return create_engine(URL, **{"hide_parameters": True, **options})


def subject_of(engine: Engine, *, protected: bool = True) -> Subject:
    none = Absence("not here")
    return Subject(
        Catalog(MetaData(), "practices"),
        Roles(),
        "enforce",
        application=none,
        admin=none,
        engines={"app:engine": engine},
        is_protected=lambda _: protected,
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, []),
        ({"echo": True}, []),
        ({"isolation_level": "SERIALIZABLE"}, []),
        ({"pool_reset_on_return": "commit"}, []),
        ({"isolation_level": "AUTOCOMMIT"}, ["engine-autocommit"]),
        ({"execution_options": {"isolation_level": "AUTOCOMMIT"}}, ["engine-autocommit"]),
        ({"pool_reset_on_return": None}, ["engine-no-reset"]),
        ({"creator": lambda: None}, ["engine-creator"]),
        ({"hide_parameters": False}, ["engine-shows-parameters"]),
        ({"echo": "debug"}, ["engine-logs-rows"]),
    ],
)
def test_engine_s_options(options: dict[str, Any], expected: list[str]) -> None:
    """An option that works against the locks is found; the others are left alone."""
    look = look_at_engines(subject_of(engine(**options)))
    assert codes(look) == expected
    assert all(finding.object == "app:engine" for finding in look.findings)
    assert "canary" not in str(look)


def test_engine_of_execution_options_and_asynchronous_engine() -> None:
    """Engines derived from another, and those behind an AsyncEngine, are looked at alike."""
    derived = engine().execution_options(isolation_level="AUTOCOMMIT")
    assert codes(look_at_engines(subject_of(derived))) == ["engine-autocommit"]
    behind = create_async_engine(URL, hide_parameters=True).sync_engine
    assert codes(look_at_engines(subject_of(behind))) == []
    made = create_async_engine(URL, hide_parameters=True, async_creator=lambda: None)
    assert codes(look_at_engines(subject_of(made.sync_engine))) == ["engine-creator"]


def test_engine_that_is_not_protected() -> None:
    """An engine without the guard is an error whose mend is the line that protects it."""
    [finding] = look_at_engines(subject_of(engine(), protected=False)).findings
    assert (finding.code, finding.severity) == ("engine-unprotected", Severity.ERROR)
    assert "guard.protect(engine)" in finding.mend


def test_rows_are_logged_by_the_logger_s_level_too(caplog: pytest.LogCaptureFixture) -> None:
    """A logger that was set to DEBUG prints rows although parameters are hidden."""
    with caplog.at_level(logging.DEBUG, "sqlalchemy.engine"):
        assert codes(look_at_engines(subject_of(engine()))) == ["engine-logs-rows"]
    assert codes(look_at_engines(subject_of(engine()))) == []


# -- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "driver"),
    [
        (URL, "psycopg"),
        ("postgres://u:canary@h/x", "psycopg"),
        ("postgresql://u:canary@h/x", "psycopg"),
        ("postgresql+psycopg_async://u:canary@h/x", "psycopg"),
        ("postgresql+asyncpg://u:canary@h/x", "psycopg"),
        ("postgresql+psycopg2://u:canary@h/x", "psycopg2"),
    ],
)
def test_address_gives_an_engine_of_a_synchronous_driver(address: str, driver: str) -> None:
    """Whatever driver the application has, the doctor's own connections are synchronous."""
    found = engine_for(address, whose="application's")
    assert not isinstance(found, Absence)
    assert (found.dialect.driver, found.dialect.is_async) == (driver, False)
    assert found.hide_parameters


def test_asyncpg_s_word_for_encryption_is_understood() -> None:
    """The `ssl=` of asyncpg becomes libpq's `sslmode=`, and its other options are left out."""
    found = engine_for("postgresql+asyncpg://h/x?ssl=require&timeout=3", whose="application's")
    assert not isinstance(found, Absence)
    assert dict(found.url.query) == {"sslmode": "require"}


@pytest.mark.parametrize(
    ("address", "pattern"),
    [
        ("u:canary@h", "cannot be read"),
        ("postgresql://u:canary@h:port/x", "cannot be read"),
        ("postgresql+nothing://u:canary@h/x", "cannot be read"),
        ("sqlite:///canary", "not PostgreSQL"),
    ],
)
def test_bad_address_is_a_reason_without_it(address: str, pattern: str) -> None:
    """An address that does not work is explained, and neither it nor its password is shown."""
    found = engine_for(address, whose="admin")
    assert isinstance(found, Absence)
    assert pattern in found.reason
    assert "canary" not in found.reason
    assert not found.chosen
