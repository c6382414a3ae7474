"""Run README's demo command, look at its first page, end it, and look for what is left behind."""

from __future__ import annotations

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


def main(command: str) -> int:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        with log.open("w") as output:
            # `exec` lets the signal reach the demo and not only the shell before it.
            last = command.rpartition("&& ")
            line = f"{last[0]}&& exec {last[2]}" if last[1] else f"exec {command}"
            demo = subprocess.Popen(["bash", "-c", line], stdout=output, stderr=output)  # noqa: S603, S607
        try:
            page = urllib.request.urlopen(_link(log, demo), timeout=10).read()  # noqa: S310
        finally:
            demo.send_signal(signal.SIGTERM)
            code = demo.wait(timeout=30)
        left = list(Path(tempfile.gettempdir()).glob("tenantguard-*"))
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
    raise SystemExit(main(sys.argv[1]))
