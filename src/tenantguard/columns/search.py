"""How an encrypted column is searched: what of each value its blind indexes are computed of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tenantguard.columns.normalize import EXACT, normalizer
from tenantguard.crypto.format import MAX_INDEXES
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from tenantguard.columns.kind import Kind

__all__ = [
    "Exact",
    "KeptBy",
    "Last",
    "Prefix",
    "Search",
    "Searches",
    "checked_searches",
    "name_of",
    "rule_of",
]

KeptBy: TypeAlias = Literal["generation", "trigger"]

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MOST = 64


@dataclass(frozen=True, slots=True)
class Exact:
    """Search by equality and IN, through a blind index beside the ciphertext.

    Equal values have equal indexes: whoever reads the database sees how often each value occurs,
    and which rows share one, but not the value.

    Args:
        normalize: What counts as equal, for text: `nfc-casefold` (case and composition of letters),
            `digits` (telephone and insurance numbers) or `email`. None compares exactly. With a
            version, such as `nfc-casefold-v1`, or without, which means the first version for good.
        few_values: Why a column with few different values may be searched although its index then
            tells them by their frequency, such as for a bool.
        tenant_column: The tenant column that the index begins with.
        name: What `searched()` calls it; None for the one that `==` and IN use.
        kept_by: What fills the search column. With `generation` PostgreSQL generates it, which
            rewrites a table that is there; with `trigger` it is added to a table of any size in an
            instant, and a trigger fills it.
    """

    normalize: str | None = None
    few_values: str | None = None
    tenant_column: str = "tenant_id"
    name: str | None = None
    kept_by: KeptBy = "generation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What the searches by a part of a text have."""

    normalize: str | None = None
    few_values: str | None = None
    tenant_column: str = "tenant_id"
    name: str | None = None
    kept_by: KeptBy = "generation"


@dataclass(frozen=True, slots=True)
class Last(_Part):
    """Search by the last characters of a text, such as the last four digits of a number.

    Whoever reads the database sees which rows share these characters, and how often each occur. Of
    a shorter text all of it is indexed, and not found: a search has that many characters.

    Args:
        characters: How many, after normalisation; code points, not letters as they are read.
        normalize: As for `Exact`.
        few_values: Why one character may be searched; there are so few that frequencies tell them.
        tenant_column: As for `Exact`.
        name: What `searched()` calls it; None for `last4` and the like.
        kept_by: As for `Exact`.
    """

    characters: int


@dataclass(frozen=True, slots=True)
class Prefix(_Part):
    """Search by the first characters of a text; everything else as for `Last`.

    Args:
        characters: How many, after normalisation; code points, not letters as they are read.
        normalize: As for `Exact`.
        few_values: As for `Last`.
        tenant_column: As for `Exact`.
        name: What `searched()` calls it; None for `prefix3` and the like.
        kept_by: As for `Exact`.
    """

    characters: int


Search: TypeAlias = Exact | Last | Prefix
Searches: TypeAlias = Search | Sequence[Search]


def name_of(search: Search) -> str | None:
    """Return what *search* is called in its column; None for the one that `==` uses."""
    if search.name is not None or isinstance(search, Exact):
        return search.name
    return f"{type(search).__name__.lower()}{search.characters}"


def checked_searches(kind: Kind, searches: Searches | None) -> tuple[Search, ...]:
    """Return *searches* of a column of *kind*, in the order in which its values have the indexes.

    Raises:
        ConfigurationError: If one does not fit the column, or two are the same.
    """
    if searches is None:
        return ()
    found = tuple(searches) if isinstance(searches, list | tuple) else (searches,)
    for search in found:
        _check(kind, search)
    if not 0 < len(found) <= MAX_INDEXES:
        raise ConfigurationError(f"search= takes one search, or a list of up to {MAX_INDEXES}.")
    _refuse_repeated(found)
    return found


def rule_of(search: Search) -> tuple[str, ...]:
    """Return what tells the blind indexes of *search* from another's of the same values."""
    named = EXACT if search.normalize is None else normalizer(search.normalize)[0]
    if isinstance(search, Exact):
        return (named,)
    return (type(search).__name__.lower(), str(search.characters), named)


def _check(kind: Kind, search: object) -> None:
    if not isinstance(search, Exact | Last | Prefix):
        raise ConfigurationError(
            "search= takes an Exact(), a Last() or a Prefix(), such as search=Exact(), or a list "
            "of them."
        )
    if kind.equal is None:
        raise ConfigurationError("Encrypted JSON cannot be searched; leave search= out.")
    name, few = type(search).__name__, kind.few
    if isinstance(search, Last | Prefix):
        few = few or search.characters == 1
        _check_part(kind, search)
    _check_normalizer(kind, search)
    if search.name is not None and not _NAME.fullmatch(search.name):
        raise ConfigurationError(
            f"{name}(name=…) becomes part of a column's name: lower-case letters, digits and "
            "underscores, a letter first."
        )
    if search.kept_by not in get_args(KeptBy):
        raise ConfigurationError(f"{name}(kept_by=…) is 'generation' or 'trigger'.")
    if few and not (search.few_values or "").strip():
        raise ConfigurationError(
            f"What {name} indexes of a column that takes {kind.name} has so few values that a "
            "blind index tells them by their frequency. Leave it out, or say why in "
            f"{name}(few_values='…')."
        )


def _check_part(kind: Kind, search: Last | Prefix) -> None:
    name = type(search).__name__
    if kind.python_type is not str:
        raise ConfigurationError(f"{name} is for text, not for a column that takes {kind.name}.")
    if type(search.characters) is not int or not 0 < search.characters <= _MOST:
        raise ConfigurationError(f"{name} takes a number of characters, from 1 to {_MOST}.")


def _check_normalizer(kind: Kind, search: Search) -> None:
    if search.normalize is None:
        return
    normalizer(search.normalize)
    if kind.python_type is not str:
        raise ConfigurationError(
            f"Exact(normalize=…) is for text, not for a column that takes {kind.name}."
        )


def _refuse_repeated(searches: tuple[Search, ...]) -> None:
    names = [name_of(search) for search in searches]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            "Two searches of a column have the same name. One Exact() may be without a name, which "
            "== and IN use; give the others a name= each."
        )
    if len({rule_of(search) for search in searches}) < len(searches):
        raise ConfigurationError(
            "Two searches of a column would have the same blind indexes. Leave one of them out."
        )
