"""`tenantguard demo --app starlette`: the same promises through an AsyncEngine, and serving."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from html import unescape
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import unsealed
from click.testing import CliRunner
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from websockets.asyncio.client import connect as connect_socket

from tenantguard.columns.execution import attach_encryption
from tenantguard.demo import command
from tenantguard.demo.checks import CHECKS, Result, run_checks
from tenantguard.demo.data import PRACTICES
from tenantguard.demo.example import load_example
from tenantguard.demo.stage import Stage, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
    "the superuser without the guard": {
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
# Named for the driver, but not `driver`, which conftest.py gives to tests of its own.
both = pytest.mark.parametrize("by", ["psycopg", "asyncpg"])


class NoGuard:
    def protect(self, _engine: object) -> None:
        """Protect nothing."""


@pytest.fixture(scope="module")
def stage(new_database: Callable[[], URL]) -> Iterator[Stage]:
    with set_up(
        new_database(), patients=5, tell=lambda _text: nullcontext(), app="starlette"
    ) as stage:
        yield stage


def by_driver(stage: Stage, by: str) -> Stage:
    return replace(stage, application=stage.application.set(drivername=f"postgresql+{by}"))


def _names(results: list[Result], status: str) -> set[str]:
    by_text = {(check.__doc__ or "").rstrip("."): check.__name__ for check in CHECKS}
    return {by_text[result.name] for result in results if result.status == status}


# -- the checks -------------------------------------------------------------------------------


@both
def test_every_check_is_seen(stage: Stage, by: str) -> None:
    """On a protected database, all checks hold, by either driver."""
    results = list(run_checks(by_driver(stage, by)))
    assert [result for result in results if result.status != "ok"] == []
    assert len(results) == len(CHECKS)


@both
def test_checks_go_through_the_asynchronous_driver(stage: Stage, by: str) -> None:
    """The engine of the checks is the example's: asynchronous, and by the chosen driver."""
    dialect = by_driver(stage, by).engine().dialect
    assert (dialect.is_async, dialect.driver.removesuffix("_async")) == (True, by)


def _sabotaged(stage: Stage, how: str) -> list[Result]:
    name = stage.application.drivername
    match how:
        case "the superuser without the guard":
            superuser = stage.admin.url.set(drivername=name)
            return list(run_checks(stage, create_async_engine(superuser)))
        case "the superuser as the application's role":
            engine = stage.engine()
            stage.guard.protect(engine)
            lost = replace(stage, application=stage.admin.url.set(drivername=name))
            return list(run_checks(lost, engine))
        case "a database without composite keys":
            with stage.admin.begin() as connection:
                connection.exec_driver_sql(DROP_COMPOSITE_KEYS)
            unverified = create_async_engine(stage.application)
            stage.guard._bind(unverified.sync_engine, verify=lambda *_: None)
            attach_encryption(unverified.sync_engine.dialect, stage.guard._open_keystore().keys_for)
            stage.guard._scope(unverified.sync_engine, text_allowed=lambda: True)
            return list(run_checks(stage, unverified))
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


@both
@pytest.mark.parametrize("how", FAILS)
def test_each_check_can_fail(
    new_database: Callable[[], URL],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    how: str,
    by: str,
) -> None:
    """A check that cannot fail proves nothing: without its lock, it goes red."""
    with unsealed.staged(
        new_database(),
        how=how,
        monkeypatch=monkeypatch,
        directory=tmp_path,
        app="starlette",
        driver=by,
    ) as stage:
        assert _names(_sabotaged(stage, how), "failed") >= FAILS[how]


def test_every_check_has_a_negative_control() -> None:
    """The table above leaves no check out."""
    assert set.union(*FAILS.values()) == {check.__name__ for check in CHECKS}


@both
def test_a_database_that_is_gone_is_unknown(stage: Stage, by: str) -> None:
    """Could not look is neither seen nor failed, however the driver says it."""
    there = by_driver(stage, by)
    lost = replace(there, application=there.application.set(database="none"))
    results = list(run_checks(lost))
    assert _names(results, "ok") == {"both_practices_have_rows", "superuser_is_refused"}
    assert _names(results, "failed") == set()


@both
def test_a_server_that_is_gone_is_unknown(stage: Stage, by: str, tmp_path: Path) -> None:
    """A socket that is not there is neither seen nor failed."""
    there = by_driver(stage, by)
    nowhere = there.application.set(host=None, query={"host": str(tmp_path)})
    results = list(run_checks(replace(there, application=nowhere)))
    assert _names(results, "ok") == {"both_practices_have_rows", "superuser_is_refused"}
    assert _names(results, "failed") == set()


# -- the command ------------------------------------------------------------------------------


@both
def test_check_as_json(monkeypatch: pytest.MonkeyPatch, stage: Stage, by: str) -> None:
    """--check plays the chosen app by the chosen driver, and reports as for the other."""
    wanted: list[Any] = []

    def play(_console: object, what: Any) -> Any:
        wanted.append(what)
        return nullcontext(by_driver(stage, what.driver))

    monkeypatch.setattr(command, "_stage", play)
    options = ["--check", "--app", "starlette", "--driver", by, "--format", "json"]
    result = CliRunner().invoke(command.demo, options)
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], len(document["checks"])) == (0, True, len(CHECKS))
    assert [(each.app, each.driver) for each in wanted] == [("starlette", by)]


def test_driver_that_the_app_cannot_use() -> None:
    """The driver asyncpg with the Flask example is refused, with the option that it needs."""
    result = CliRunner().invoke(command.demo, ["--driver", "asyncpg"])
    assert result.exit_code == 2
    assert "needs --app starlette" in result.output


@pytest.mark.parametrize(
    ("absent", "options"),
    [("fastapi", []), ("uvicorn", ["--check"]), ("asyncpg", ["--driver", "asyncpg"])],
)
def test_missing_package(monkeypatch: pytest.MonkeyPatch, absent: str, options: list[str]) -> None:
    """Without the extra, the message names what to install, before anything was started."""
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == absent else name)
    result = CliRunner().invoke(command.demo, ["--app", "starlette", *options])
    assert result.exit_code == 2
    assert f"Not installed: {absent}. Run: pip install 'tenantguard[demo]'" in result.output


def test_help_has_examples() -> None:
    """--help shows how to play the other example."""
    result = CliRunner().invoke(command.demo, ["--help"])
    assert "tenantguard demo --check --app starlette --driver asyncpg" in result.output


@pytest.mark.parametrize(
    ("number", "code", "options"),
    [(signal.SIGTERM, 143, []), (signal.SIGINT, 0, ["--driver", "asyncpg"])],
)
def test_serving_ends_cleanly(
    tmp_path: Path, number: signal.Signals, code: int, options: list[str]
) -> None:
    """What it says to try works; Ctrl-C and SIGTERM leave nothing, open WebSockets or not."""
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*DEMO, "--app", "starlette", "--rows", "3", *options],
            stdout=output,
            stderr=output,
            cwd=tmp_path,
        )
    # A second signal would end the demo in the middle of ending.
    end = cache(lambda: process.send_signal(number))
    try:
        address = _wait_for(process, log, r"Open (http://\S+)")
        directory = Path(_wait_for(process, log, r"Started PostgreSQL in (\S+)"))
        server = int((directory / "data" / "postmaster.pid").read_text().split()[0])
        asyncio.run(_try(address, end))
    finally:
        end()
        assert process.wait(30) == code, log.read_text()
    assert "Traceback" not in log.read_text()
    assert not directory.exists()
    assert not Path(f"/proc/{server}").exists()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=2)


async def _try(address: str, end: Callable[[], None]) -> None:
    """Do what the first page says, and end the demo while a WebSocket is open."""
    jar = CookieJar()
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar))

    def ask(path: str, body: str = "") -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(address + path, body.encode() or None, headers)
        try:
            with opener.open(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    status, page = ask("")
    assert status == 200
    assert "$" not in page.replace("${", "")
    logins = re.findall(r"value='(.*?)'", page)
    assert len(logins) == len(PRACTICES)
    assert ask("docs")[0] == 200
    assert ask("patients")[0] == 401
    assert ask("sign-in", unescape(logins[0]))[0] == 204
    own, foreign = re.findall(r'href="/patients/([12])"', page)
    assert ask(f"patients/{own}")[0] == 200
    assert ask(f"patients/{foreign}") == ask("patients/999999") == (404, '{"detail":"Not Found"}')
    assert len(ask("patients/export.csv")[1].splitlines()) == 4
    cookie = {"Cookie": f"session={next(iter(jar)).value}"}
    live = address.replace("http", "ws", 1) + "orders/live"
    async with connect_socket(live, additional_headers=cookie) as socket:
        await socket.send('{"order": 999999}')
        assert json.loads(await socket.recv()) == {"detail": "Not Found"}
        end()
        await socket.wait_closed()


def _wait_for(process: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        found = re.search(pattern, log.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_example_has_one_name() -> None:
    """Wherever the example lies, its package is `starlette_app`."""
    example = load_example("starlette_app")
    assert example is sys.modules["starlette_app"]
    assert example.models is sys.modules["starlette_app.models"]
    assert load_example().__name__ == "flask_app"


def test_both_examples_have_the_same_tables(new_database: Callable[[], URL]) -> None:
    """One set of rows and checks serves both: table by table, the columns are the same."""
    created = []
    for name in ("flask_app", "starlette_app"):
        engine = create_engine(new_database())
        load_example(name).models.Base.metadata.create_all(engine)
        with engine.connect() as connection:
            query = (
                "SELECT table_name, column_name, data_type, is_nullable, column_default "
                "FROM information_schema.columns WHERE table_schema = 'public' "
                "ORDER BY table_name, ordinal_position"
            )
            created.append(connection.exec_driver_sql(query).all())
        engine.dispose()
    assert created[0] == created[1] != []
