"""A process of the application that follows keys, for the tests of that.

    python following_process.py SETTINGS

SETTINGS is JSON: the guard's *roles*, its *key* file, the addresses of the application and of what
is listened on (*app*, *listened*), and the *tenant*. It says when it has read with keys that are in
its cache, and ends with 0 when these were forgotten and the tenant's are destroyed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

_SECONDS = 60.0


def main() -> None:
    from sqlalchemy import create_engine, select  # noqa: PLC0415
    from sqlalchemy.orm import Session  # noqa: PLC0415
    from vault import Patient, make_guard  # noqa: PLC0415

    from tenantguard import Roles, TenantShreddedError  # noqa: PLC0415

    settings = json.loads(sys.argv[1])
    guard = make_guard(Roles(**settings["roles"]), Path(settings["key"]))
    engine = create_engine(settings["app"])
    guard.protect(engine)
    # Not stopped: a process ends all the same.
    follower = guard.follow_keys(settings["listened"])
    assert follower.wait(_SECONDS)

    def read() -> list[str | None]:
        with guard.tenant_context(settings["tenant"]), Session(engine) as session:
            return list(session.scalars(select(Patient.notes)))

    assert read() == ["a"]
    sys.stdout.write("has the keys\n")
    sys.stdout.flush()
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        try:
            read()
        except TenantShreddedError:
            engine.dispose()
            return
        time.sleep(0.01)
    raise SystemExit("The destroyed keys are still used.")


if __name__ == "__main__":
    main()
