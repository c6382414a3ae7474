"""Findings that somebody accepts in pyproject.toml, each with a reason and perhaps an end.

```toml
[[tool.tenantguard.exempt]]
rule = "tenant-index-missing"
object = "public.audit"
reason = "written only, read by maintenance"
until = 2027-01-31
```
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from tenantguard.findings import Finding

__all__ = ["Exemption", "read_exemptions"]

_KEYS = {"rule", "object", "reason", "until"}
_FORM = (
    "[[tool.tenantguard.exempt]] takes rule, object, reason and, if it ends, until = YYYY-MM-DD."
)


@dataclass(frozen=True, slots=True)
class Exemption:
    """One rule at one object, exempt for a reason.

    Attributes:
        rule: The rule's id.
        object: What its finding is about, exactly; None for a finding that is about no object.
        reason: Why it is accepted.
        until: The last day on which it is.
    """

    rule: str
    object: str | None
    reason: str
    until: date | None = None

    def fits(self, finding: Finding) -> bool:
        """Return whether *finding* is what is exempt."""
        return (self.rule, self.object) == (finding.code, finding.object)

    def ended(self, today: date) -> bool:
        """Return whether its last day is over."""
        return self.until is not None and self.until < today


def read_exemptions(path: Path, known: Collection[str]) -> tuple[Exemption, ...]:
    """Return the exemptions in the pyproject.toml at *path*; none without that file.

    Args:
        path: The file.
        known: The ids of all rules.

    Raises:
        ConfigurationError: If one has no reason, names no rule that there is, or is malformed.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{path.name} cannot be read ({type(error).__name__}). Correct it."
        ) from None
    given: Any = content
    for name in ("tool", "tenantguard"):
        given = given.get(name, {}) if isinstance(given, dict) else {}
    listed = given.get("exempt", []) if isinstance(given, dict) else []
    if not isinstance(listed, list):
        raise ConfigurationError(f"tool.tenantguard.exempt is no list of tables. {_FORM}")
    found = [_exemption(number, each, known) for number, each in enumerate(listed, 1)]
    _refuse_twice(found)
    return tuple(found)


def _exemption(number: int, given: Any, known: Collection[str]) -> Exemption:
    if not isinstance(given, dict) or given.keys() - _KEYS:
        raise ConfigurationError(f"Exemption {number} has a key that there is not. {_FORM}")
    rule, object_ = given.get("rule"), given.get("object")
    if not isinstance(rule, str) or rule not in known:
        raise ConfigurationError(
            f"Exemption {number} names no rule that there is. `tenantguard rls explain` lists them."
        )
    reason = given.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        raise ConfigurationError(
            f'Exemption {number}, of {rule}, has no reason. Say why it is accepted: reason = "…".'
        )
    if not isinstance(object_, str | None):
        raise ConfigurationError(f"Exemption {number}, of {rule}: object is no text. {_FORM}")
    return Exemption(rule, object_, reason.strip(), _until(number, given.get("until")))


def _until(number: int, given: Any) -> date | None:
    if isinstance(given, str):
        try:
            return date.fromisoformat(given)
        except ValueError:
            given = object()
    if given is None or (isinstance(given, date) and not isinstance(given, datetime)):
        return given
    raise ConfigurationError(f"Exemption {number}: until is no date. {_FORM}")


def _refuse_twice(found: list[Exemption]) -> None:
    seen: set[tuple[str, str | None]] = set()
    for each in found:
        key = (each.rule, each.object)
        if key in seen:
            raise ConfigurationError(
                f"Two exemptions of {each.rule} at the same object. Remove one of them."
            )
        seen.add(key)
