"""Run a command of `tenantguard` in a process that is killed by `kill -9` in the midst of it.

    python killed_command.py SETTINGS ARGUMENT…

SETTINGS is JSON: what the guard is made of (*base*, *roles*, and *keys*, the files with the current
one first), and *at*: after which statement that begins with *counted* the process ends. It is
written then, and not committed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib import import_module
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from key_commands import Keys
    from sqlalchemy import URL

    from tenantguard import Roles

GUARD = "killed_guard:guard"


@dataclass(frozen=True, slots=True)
class Killed:
    """A command, for the database at *url*, in processes that are killed.

    Attributes:
        url: A superuser's address.
        roles: The guard's roles.
        files: Its key files, the current one first.
        base: Where its models are declared, as *module:name*.
    """

    url: URL
    roles: Roles
    files: Sequence[Path]
    base: str = "vault:Base"

    def ends(self, *arguments: str, at: int, counted: str = "") -> int:
        """Return how the process ended: the number of the signal, below zero, if it was killed."""
        settings = {
            "base": self.base,
            "roles": asdict(self.roles),
            "keys": [str(each) for each in self.files],
            "at": at,
            "counted": counted,
        }
        url = self.url.render_as_string(hide_password=False)
        command = [sys.executable, __file__, json.dumps(settings), *arguments, "--guard", GUARD]
        environment = {**os.environ, "TENANTGUARD_ADMIN_URL": url}
        return subprocess.run(command, env=environment, check=False).returncode

    def until_it_ends(self, *arguments: str, every: int = 1) -> int:
        """Start it again and again, each time killed *every* statements later; return how often."""
        for times, at in enumerate(count(1, every)):
            code = self.ends(*arguments, at=at)
            if code != -signal.SIGKILL:
                assert code in {0, 1}, code
                return times
        raise AssertionError


def run_and_kill(keys: Keys, files: Sequence[Path], *arguments: str, at: int) -> int:
    """Return how the process ended that is killed with UPDATE number *at*."""
    killed = Killed(keys.vault.admin.url, keys.vault.guard.roles, files)
    return killed.ends(*arguments, at=at, counted="UPDATE")


def main() -> None:
    from sqlalchemy import Engine, event  # noqa: PLC0415
    from vault import ENVIRONMENT  # noqa: PLC0415

    from tenantguard import KeyFile, Keyring, Roles, TenantGuard, cli  # noqa: PLC0415
    from tenantguard.cli.keys import changing  # noqa: PLC0415

    settings = json.loads(sys.argv[1])
    sys.path.append(str(Path(__file__).parent / "encrypt"))
    declared, _, name = settings["base"].partition(":")
    files = [KeyFile(each, environment=ENVIRONMENT) for each in settings["keys"]]
    module: Any = ModuleType("killed_guard")
    module.guard = TenantGuard(
        getattr(import_module(declared), name).metadata,
        tenants="practices",
        roles=Roles(**settings["roles"]),
        keys=Keyring(*files) if len(files) > 1 else files[0],
    )
    sys.modules[module.__name__] = module
    statements = count(1)

    def end(*given: Any) -> None:
        if str(given[2]).startswith(settings["counted"]) and next(statements) == settings["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", end)
    changing._BATCH = 1
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
