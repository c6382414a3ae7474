"""What tells a finding from every other, wherever the model's line moves to."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tenantguard.findings import Finding

__all__ = ["fingerprints"]

# A count changes from run to run; a number within a name does not stand alone.
_NUMBER = re.compile(r"(?<![\w.\"'-])\d[\d,.]*(?![\w\"'-])")


def fingerprints(findings: Iterable[Finding]) -> dict[Finding, str]:
    """Return each finding's fingerprint, "digest:ordinal".

    The digest is of its rule, object, column and message without counts: neither a line nor a file
    is in it. Findings that agree in all of that are numbered, so that a second one is a new one.
    """
    seen: Counter[str] = Counter()
    found: dict[Finding, str] = {}
    for finding in findings:
        digest = _digest(finding)
        seen[digest] += 1
        found[finding] = f"{digest}:{seen[digest]}"
    return found


def _digest(finding: Finding) -> str:
    message = _NUMBER.sub("#", finding.message)
    parts = [finding.code, finding.object, finding.column, message]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
