"""What a published policy asks of keys, and where it says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.keytable import PURPOSES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ALGORITHMS", "POLICIES", "Policy"]

ALGORITHMS = dict(zip(PURPOSES, (("AES-GCM", 256), ("HMAC-SHA256", 256)), strict=True))
"""What each purpose's keys are, and their least size in bits."""

_GRUNDSCHUTZ = "IT-Grundschutz (2023) CON.1.A4"
_NIST = "NIST SP 800-57 Part 1 Rev. 5"


@dataclass(frozen=True, slots=True)
class Policy:
    """A published policy.

    Attributes:
        name: As it is cited.
        days: For how long a key may seal, where nothing else is asked for.
        sources: Where the policy says it, by the code of the finding.
    """

    name: str
    days: int
    sources: Mapping[str, str]


POLICIES = {
    "bsi": Policy(
        "BSI TR-02102-1",
        730,
        {
            "key-algorithm": "BSI TR-02102-1 (2026-01), Tables 3.1 and 3.2 (AES-256, GCM); Data "
            "authentication, Message authentication codes (HMAC)",
            "key-too-old": f"{_GRUNDSCHUTZ}: keys should be changed often enough. It names no "
            "number; 730 days unless --rotated-within says otherwise",
            "key-rotation-pending": _GRUNDSCHUTZ,
            "kek-previous": _GRUNDSCHUTZ,
            "kek-in-file": f"{_GRUNDSCHUTZ}: secret keys must be stored safely, and protected from "
            "access",
        },
    ),
    "nist": Policy(
        _NIST,
        730,
        {
            "key-algorithm": f"{_NIST}, 5.6.1 (Tables 2 and 3)",
            "key-too-old": f"{_NIST}, 5.3.6 (Table 1): a symmetric data-encryption key is used by "
            "originators for two years at most",
            "key-rotation-pending": f"{_NIST}, 5.3.6",
            "kek-previous": f"{_NIST}, 5.3.6 (Table 1): a symmetric key-wrapping key is used by "
            "originators for two years at most",
            "kek-in-file": f"{_NIST}, 6.2.2",
        },
    ),
}
