"""What makes two texts equal for a search. A version never changes: stored indexes depend on it."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXACT", "normalizer"]

EXACT = "exact-v1"
"""The value as it is."""


def _folded(text: str) -> str:
    """Return *text* for caseless comparison (Unicode 3.13, D145), composed."""
    folded = unicodedata.normalize("NFD", text).casefold()
    return unicodedata.normalize("NFC", folded)


def _digits(text: str) -> str:
    """Return the digits of *text*, in any script, as 0 to 9; without any, the text folded."""
    digits = "".join(str(unicodedata.decimal(each)) for each in text if each.isdecimal())
    return digits or _folded(text)


def _email(text: str) -> str:
    return _folded(text.strip())


_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "nfc-casefold-v1": _folded,
    "digits-v1": _digits,
    "email-v1": _email,
}


def normalizer(name: str) -> tuple[str, Callable[[str], str]]:
    """Return the versioned name of the normaliser *name*, and the normaliser.

    Without a version the first is meant, for good.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    versioned = name if name in _NORMALIZERS else f"{name}-v1"
    if versioned not in _NORMALIZERS:
        raise ConfigurationError(
            f"Exact(normalize={name!r}): there are {', '.join(sorted(_NORMALIZERS))}."
        )
    return versioned, _NORMALIZERS[versioned]
