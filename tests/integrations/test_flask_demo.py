"""`tenantguard demo`: what it reports, that each check can fail, and that nothing is left."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import unsealed
from click.testing import CliRunner
from sqlalchemy import create_engine, select
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from tenantguard.columns.execution import attach_encryption
from tenantguard.context import tenant_context
from tenantguard.demo import command
from tenantguard.demo.checks import CHECKS, Result, run_checks
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.example import load_example
from tenantguard.demo.stage import Stage, set_up
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import URL

# What the tests themselves were started with is inherited: a job in the background ignores SIGINT.
START = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from tenantguard.demo.command import demo
demo()
"""
DEMO = [sys.executable, "-c", START]
FAILS = {
    "an engine of the superuser without the guard": {
        "orm_reads_own_rows",
        "core_reads_own_rows",
        "raw_sql_is_contained",
        "no_tenant_is_an_error",
        "foreign_insert_is_refused",
        "foreign_update_is_refused",
        "foreign_move_is_refused",
    },
    "the superuser as the application's role": {
        "rls_alone_reads_own_rows",
        "rls_alone_without_tenant",
        "foreign_insert_is_refused",
        "foreign_update_is_refused",
        "foreign_move_is_refused",
    },
    "a database without composite keys": {"foreign_key_is_refused"},
    "a guard that protects nothing": {"superuser_is_refused"},
    "rows that are not there": {"both_practices_have_rows"},
    **unsealed.FAILS,
}
DROP_COMPOSITE_KEYS = """
DO $$
DECLARE key record;
BEGIN
    FOR key IN SELECT conrelid::regclass AS place, conname FROM pg_constraint
        WHERE contype = 'f' AND cardinality(conkey) > 1
    LOOP
        EXECUTE format('ALTER TABLE %%s DROP CONSTRAINT %%I', key.place, key.conname);
    END LOOP;
END $$
"""


class NoGuard:
    def protect(self, _engine: object) -> None:
        """Protect nothing."""


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(new_database(), patients=5, tell=lambda _text: nullcontext()) as stage:
        yield stage


def _names(results: list[Result], status: str) -> set[str]:
    by_text = {(check.__doc__ or "").rstrip("."): check.__name__ for check in CHECKS}
    return {by_text[result.name] for result in results if result.status == status}


# -- the checks -------------------------------------------------------------------------------


def test_every_check_is_seen(stage: Stage) -> None:
    """On a protected database, all checks hold."""
    results = list(run_checks(stage))
    assert [result for result in results if result.status != "ok"] == []
    assert len(results) == len(CHECKS)


def _sabotaged(stage: Stage, how: str) -> list[Result]:
    bare = create_engine(stage.admin.url)
    try:
        match how:
            case "an engine of the superuser without the guard":
                return list(run_checks(stage, bare))
            case "the superuser as the application's role":
                engine = create_engine(stage.application)
                stage.guard.protect(engine)
                return list(run_checks(replace(stage, application=stage.admin.url), engine))
            case "a database without composite keys":
                with bare.begin() as connection:
                    connection.exec_driver_sql(DROP_COMPOSITE_KEYS)
                engine = create_engine(stage.application)
                stage.guard._bind(engine, verify=lambda *_: None)
                attach_encryption(engine.dialect, stage.guard._open_keystore().keys_for)
                stage.guard._scope(engine, text_allowed=lambda: True)
                return list(run_checks(stage, engine))
            case "a guard that protects nothing":
                no_guard: Any = NoGuard()
                return list(run_checks(replace(stage, guard=no_guard)))
            case "rows that are not there":
                more = {
                    practice.id: {"patients": 6, "orders": 6, "order_items": 6}
                    for practice in PRACTICES
                }
                return list(run_checks(replace(stage, counts=more)))
            case _:
                return list(run_checks(stage))
    finally:
        bare.dispose()


@pytest.mark.parametrize("how", FAILS)
def test_each_check_can_fail(
    new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    """A check that cannot fail proves nothing: without its lock, it goes red."""
    with unsealed.staged(
        new_database(), how=how, monkeypatch=monkeypatch, directory=tmp_path, app="flask"
    ) as stage:
        assert _names(_sabotaged(stage, how), "failed") >= FAILS[how]


def test_every_check_has_a_negative_control() -> None:
    """The table above leaves no check out."""
    assert set.union(*FAILS.values()) == {check.__name__ for check in CHECKS}


def test_a_server_that_is_gone_is_unknown(stage: Stage) -> None:
    """Could not look is neither seen nor failed."""
    lost = replace(stage, application=stage.application.set(database="none"))
    engine = create_engine(lost.application)
    lost.guard.protect(engine)
    results = list(run_checks(lost, engine))
    assert "core_reads_own_rows" in _names(results, "unknown")
    assert _names(results, "ok") == {"both_practices_have_rows", "superuser_is_refused"}


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def prepared(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command use the module's stage instead of starting a server."""
    monkeypatch.setattr(command, "_stage", lambda _console, _rows: nullcontext(stage))


@pytest.mark.usefixtures("prepared")
def test_check_as_json() -> None:
    """Standard output is one document with a version, nothing else."""
    result = CliRunner().invoke(command.demo, ["--check", "--format", "json"])
    document = json.loads(result.stdout)
    assert (result.exit_code, document["version"], document["ok"]) == (0, 1, True)
    assert {check["status"] for check in document["checks"]} == {"ok"}
    assert set(document["checks"][0]) == {"name", "status", "seen"}


@pytest.mark.usefixtures("prepared")
@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        (["ok", "ok"], 0),
        (["ok", "failed"], 1),
        (["unknown", "failed"], 1),
        (["ok", "unknown"], 2),
        ([], 2),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, statuses: list[Any], code: int) -> None:
    """0 all seen, 1 one not seen, 2 could not look."""
    results = [Result("name", status, "seen") for status in statuses]
    monkeypatch.setattr("tenantguard.demo.checks.run_checks", lambda _stage: iter(results))
    result = CliRunner().invoke(command.demo, ["--check"])
    assert result.exit_code == code
    assert f"{statuses.count('ok')} of {len(statuses)} seen." in result.output


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the message names what to install."""
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "argon2" else name)
    result = CliRunner().invoke(command.demo, ["--check"])
    assert result.exit_code == 2
    assert "argon2" in result.output
    assert "pip install 'tenantguard[demo]'" in result.output


def test_port_in_use() -> None:
    """A port that is taken is known before anything was started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(command.demo, ["--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "could not look: " in result.output
    assert "Started PostgreSQL" not in result.output


@pytest.mark.parametrize(
    "error",
    [ConfigurationError("No server."), OSError("No server."), SQLAlchemyError("No server.")],
)
def test_nothing_to_look_at(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A server that does not start is neither green nor red."""

    def fail(_console: object, _rows: int) -> None:
        raise error

    monkeypatch.setattr(command, "_stage", fail)
    result = CliRunner().invoke(command.demo, ["--check"])
    assert result.exit_code == 2
    assert "could not look: No server." in result.output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 0)])
def test_serving_ends_cleanly(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """The demo serves the example; Ctrl-C and SIGTERM leave no process, directory, key or port."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*DEMO, "--rows", "3"], stdout=output, stderr=output, cwd=tmp_path
        )
    try:
        address = _wait_for(process, log, r"Open (http://\S+)")
        directory = Path(_wait_for(process, log, r"Started PostgreSQL in (\S+)"))
        server = int((directory / "data" / "postmaster.pid").read_text().split()[0])
        assert stat.S_IMODE((directory / "key.json").stat().st_mode) == 0o600
        with urllib.request.urlopen(address, timeout=10) as page:
            assert "Sign in" in page.read().decode()
    finally:
        process.send_signal(number)
        assert process.wait(30) == code, log.read_text()
    assert not directory.exists()
    assert not Path(f"/proc/{server}").exists()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=2)


def _wait_for(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        found = re.search(pattern, log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


# -- the data and the example ------------------------------------------------------------------


def test_data_is_the_same_at_every_start(new_database: Callable[[], URL]) -> None:
    """The rows are invented once: two databases have the same ones, and numbers alternate."""
    seen = []
    for _ in range(2):
        with set_up(new_database(), patients=7, tell=lambda _text: nullcontext()) as stage:
            seen.append((stage.counts, [_patients(stage, each.id) for each in PRACTICES]))
    assert seen[0] == seen[1]
    numbers = [[row.id for row in rows] for rows in seen[0][1]]
    assert numbers == [[1, 3, 5, 7, 9, 11, 13], [2, 4, 6, 8, 10, 12, 14]]


def _patients(stage: Stage, tenant: UUID) -> list[Any]:
    engine = create_engine(stage.application)
    stage.guard.protect(engine)
    patients = stage.models.Patient.__table__
    with tenant_context(tenant), engine.connect() as connection:
        found = list(connection.execute(select(patients).order_by(patients.c.id)))
    engine.dispose()
    return found


def test_key_is_the_owners_and_goes(
    new_database: Callable[[], URL], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key's file can be read by its owner only, and leaves with its directory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with set_up(new_database(), patients=1, tell=lambda _text: nullcontext()):
        (directory,) = tmp_path.iterdir()
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE((directory / "key.json").stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_each_load_of_an_example_is_a_process_of_its_own(tmp_path: Path) -> None:
    """Each has its own guard, under one name, and the environment is given back."""
    before = dict(os.environ)
    first = load_example(environment={"TENANTGUARD_KEY_FILE": str(tmp_path), "APP_ENV": "test"})
    assert first is sys.modules["flask_app"]
    assert repr(first.database.guard.keys) == "<KeyFile environment='test'>"
    second = load_example()
    assert second is sys.modules["flask_app"]
    assert second.models is sys.modules["flask_app.models"]
    assert second.database.guard is not first.database.guard
    assert dict(os.environ) == before


def test_another_package_of_that_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo does not run somebody else's application."""
    monkeypatch.setitem(sys.modules, "flask_app", json)
    with pytest.raises(ConfigurationError, match="Another package called 'flask_app'"):
        load_example()


def test_missing_example_is_an_error() -> None:
    """A broken installation says so."""
    with pytest.raises(ConfigurationError, match="example application is missing"):
        load_example("no_such_app")


def test_set_up_needs_a_server() -> None:
    """A server that is not there is an error, not a skip."""
    engine = create_engine("postgresql+psycopg://x@127.0.0.1:1/x")
    with (
        pytest.raises(OperationalError),
        set_up(engine.url, patients=1, tell=lambda _text: nullcontext()),
    ):
        pass
