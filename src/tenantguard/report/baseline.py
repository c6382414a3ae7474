"""A file of the findings that were there when checking began: only new ones count."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.errors import ConfigurationError
from tenantguard.report.fingerprints import fingerprints

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tenantguard.findings import Finding

__all__ = ["Known", "baseline_text", "read_baseline"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Known:
    """An entry of the baseline; only *fingerprint* is compared, the rest is for people."""

    fingerprint: str
    code: str
    object: str | None


def read_baseline(path: Path) -> tuple[Known, ...]:
    """Return the entries of the baseline at *path*.

    Raises:
        ConfigurationError: If it is not there, or not of this form.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _entries(document)
    except FileNotFoundError:
        raise ConfigurationError(
            f"There is no baseline {path}. Write it with --baseline {path} --write-baseline."
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(
            f"The baseline {path} cannot be read ({type(error).__name__}). Write it anew with "
            "--write-baseline."
        ) from None


def baseline_text(found: Sequence[Finding], kept: Sequence[Finding]) -> str:
    """Return a baseline of *kept*, some of the findings *found*, in a stable order."""
    marks = fingerprints(found)
    entries = [
        {"code": each.code, "object": each.object, "fingerprint": marks[each]} for each in kept
    ]
    entries.sort(key=lambda each: (each["code"] or "", each["object"] or "", each["fingerprint"]))
    return json.dumps({"version": _VERSION, "findings": entries}, indent=2) + "\n"


def _entries(document: Any) -> tuple[Known, ...]:
    if document["version"] != _VERSION:
        raise ValueError
    known = tuple(
        Known(each["fingerprint"], each["code"], each["object"]) for each in document["findings"]
    )
    if not all(isinstance(each.fingerprint, str) and isinstance(each.code, str) for each in known):
        raise TypeError
    return known
