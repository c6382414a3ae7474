"""Run a command of `tenantguard` in a process that is killed when it has written, uncommitted.

    python killed_command.py SETTINGS ARGUMENT…

SETTINGS is JSON: the guard's *roles* and key files (*keys*, the current one first), and *at*: with
which UPDATE the process ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from itertools import count
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from key_commands import Keys

GUARD = "killed_guard:guard"


def run_and_kill(keys: Keys, files: Sequence[Path], *arguments: str, at: int) -> int:
    """Return how the process ended: the number of the signal, below zero."""
    settings = {
        "roles": asdict(keys.vault.guard.roles),
        "keys": [str(each) for each in files],
        "at": at,
    }
    url = keys.vault.admin.url.render_as_string(hide_password=False)
    command = [sys.executable, __file__, json.dumps(settings), *arguments, "--guard", GUARD]
    environment = {**os.environ, "TENANTGUARD_ADMIN_URL": url}
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> None:
    from sqlalchemy import Engine, event  # noqa: PLC0415
    from vault import ENVIRONMENT, Base  # noqa: PLC0415

    from tenantguard import KeyFile, Keyring, Roles, TenantGuard, cli  # noqa: PLC0415
    from tenantguard.cli.keys import changing  # noqa: PLC0415

    settings = json.loads(sys.argv[1])
    files = [KeyFile(each, environment=ENVIRONMENT) for each in settings["keys"]]
    module: Any = ModuleType("killed_guard")
    module.guard = TenantGuard(
        Base.metadata,
        tenants="practices",
        roles=Roles(**settings["roles"]),
        keys=Keyring(*files) if len(files) > 1 else files[0],
    )
    sys.modules[module.__name__] = module
    updates = count(1)

    def end(*given: Any) -> None:
        if str(given[2]).startswith("UPDATE") and next(updates) == settings["at"]:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "after_cursor_execute", end)
    changing._BATCH = 1
    cli.main(sys.argv[2:])


if __name__ == "__main__":
    main()
