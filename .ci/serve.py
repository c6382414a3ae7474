"""Run README's demo command, look at its first page, end it, and look for what is left behind.

serve.py COMMAND [OPTIONS …]: once for each OPTIONS, which are appended; '' is the command alone.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

_SECONDS = 180.0
_LINK = re.compile(r"http://127\.0\.0\.1:\d+/?")


def main(command: str, *options: str) -> int:
    codes = [_serve(f"{command} {each}".rstrip()) for each in options or ("",)]
    return max(codes)


def _serve(command: str) -> int:
    with tempfile.TemporaryDirectory() as directory:
        # A place of its own: what is left there is the demo's. As root, its server is `nobody`.
        Path(directory).chmod(0o755)
        log = Path(directory) / "log"
        with log.open("w") as output:
            # `exec` lets the signal reach the demo and not only the shell before it.
            last = command.rpartition("&& ")
            line = f"{last[0]}&& exec {last[2]}" if last[1] else f"exec {command}"
            demo = subprocess.Popen(  # noqa: S603
                ["bash", "-c", line],  # noqa: S607
                stdout=output,
                stderr=output,
                env={**os.environ, "TMPDIR": directory},
            )
        try:
            page = urllib.request.urlopen(_link(log, demo), timeout=10).read()  # noqa: S310
        finally:
            demo.send_signal(signal.SIGTERM)
            code = demo.wait(timeout=30)
        left = list(Path(directory).glob("tenantguard-*"))
        print(f"page of {len(page)} bytes, exit code {code}, left behind: {len(left)}")
        return 0 if b"<form" in page and code == 128 + signal.SIGTERM and not left else 1


def _link(log: Path, demo: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and demo.poll() is None:
        found = _LINK.search(log.read_text())
        if found:
            return found.group()
        time.sleep(0.2)
    raise SystemExit(f"the demo did not start:\n{log.read_text()}")


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
