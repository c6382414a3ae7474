"""Counting what enforcement would change, and saying where in the application it came from."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path
from sysconfig import get_path
from threading import Lock
from typing import TYPE_CHECKING

import sqlalchemy

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["Observer"]

_LOG = logging.getLogger("tenantguard.observe")
_OWN = (str(Path(__file__).parents[1]), str(Path(sqlalchemy.__file__ or "").parent))
_INSTALLED = tuple({get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_MAX_PLACES = 10_000


class Observer:
    """Counts observations by kind, and logs each place in the application once."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def __call__(self, kind: str, message: str) -> None:
        """Count one observation of *kind*; *message* must not contain values."""
        place = _caller()
        with self._lock:
            self.counts[kind] += 1
            first = (kind, place) not in self.places and len(self.places) < _MAX_PLACES
            if first or (kind, place) in self.places:
                self.places[kind, place] += 1
        if first:
            _LOG.warning("%s at %s: %s", kind, place, message)


def _caller() -> str:
    """Return the place that sent the statement; in an installed package only if nothing else is."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001  (inspect.stack() reads every file)
    installed = "unknown"
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(("<", *_OWN)):
            place = f"{file}:{frame.f_lineno}"
            if not file.startswith(_INSTALLED):
                return place
            installed = place if installed == "unknown" else installed
        frame = frame.f_back
    return installed
