"""One blind index of an encrypted column: what is computed of values, and of what is looked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tenantguard.columns.normalize import normalizer
from tenantguard.columns.search import Exact, Prefix, name_of, rule_of
from tenantguard.crypto.format import INDEX_OFFSET, INDEX_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.columns.kind import Kind
    from tenantguard.columns.search import Search
    from tenantguard.crypto.format import FieldContext

__all__ = ["BlindIndex", "WrongLength"]


class WrongLength(ValueError):  # noqa: N818  (it never leaves the package)
    """What is looked for has not as many characters as the index is of."""


class BlindIndex:
    """A search of one column.

    Attributes:
        search: What the application has declared.
        name: What the search is called; None for the one that `==` uses.
        rule: What tells it from another search of the same values.
        offset: Where a stored value has it, in bytes from its beginning.
        prefix: What stands before the value in the input of the pseudorandom function.
        of: Returns what is computed of a value; raises TypeError or ValueError for another type.
        sought: Likewise of a value that is looked for; raises `WrongLength` too.
    """

    __slots__ = ("name", "of", "offset", "prefix", "rule", "search", "sought")

    def __init__(self, search: Search, kind: Kind, position: int) -> None:
        self.search = search
        self.name = name_of(search)
        self.rule = kind.rule or rule_of(search)
        self.offset = INDEX_OFFSET + INDEX_SIZE * position
        self.prefix = b""
        self.of, self.sought = _computed(search, kind)

    def attach(self, context: FieldContext) -> None:
        """Compute it for the column of *context*, so that no other's is the same."""
        self.prefix = context.search_prefix(*self.rule)


def _computed(search: Search, kind: Kind) -> tuple[Callable[[Any], bytes], Callable[[Any], bytes]]:
    if isinstance(search, Exact):
        whole = kind.equal or kind.pack
        if search.normalize is not None:
            whole = _folding(kind.pack, normalizer(search.normalize)[1])
        return whole, whole
    number = search.characters
    fold = _as_it_is if search.normalize is None else normalizer(search.normalize)[1]
    part = slice(number) if isinstance(search, Prefix) else slice(-number, None)

    def exactly(text: str) -> str:
        folded = fold(text)
        if len(folded) != number:
            raise WrongLength
        return folded

    return _folding(kind.pack, lambda text: fold(text)[part]), _folding(kind.pack, exactly)


def _as_it_is(text: str) -> str:
    return text


def _folding(pack: Callable[[Any], bytes], fold: Callable[[str], str]) -> Callable[[Any], bytes]:
    def computed(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError
        return pack(fold(value))

    return computed
