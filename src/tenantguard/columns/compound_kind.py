"""Values of several columns as one: a tuple, packed as its parts with their lengths before them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from tenantguard.columns.kind import Kind, Tag, UnknownMember, after
from tenantguard.columns.normalize import EXACT, normalizer
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Compound", "compound_of", "unsettled"]

_LENGTH = 4


@dataclass(frozen=True, slots=True, eq=False)
class Compound(Kind):
    """A tuple of values of several columns.

    Attributes:
        parts: The keys of those columns in their table.
        folds: For each the normaliser that it is searched with; None if as it is.
    """

    parts: tuple[str, ...] = ()
    folds: tuple[str | None, ...] = ()


def unsettled(parts: tuple[str, ...], folds: tuple[str | None, ...]) -> Compound:
    """Return the kind of a compound whose table, and so the types of its parts, is not known."""
    return Compound("a tuple", tuple, _unknown, _unknown, _unknown, parts=parts, folds=folds)


@cache
def compound_of(
    parts: tuple[str, ...], folds: tuple[str | None, ...], kinds: tuple[Kind, ...]
) -> Compound:
    """Return the kind of tuples of *kinds*: the same for the same arguments.

    Raises:
        ConfigurationError: If a part cannot be searched, or its normaliser is not for its type.
    """
    for part, fold, kind in zip(parts, folds, kinds, strict=True):
        _check(part, fold, kind)
    packs = [kind.pack for kind in kinds]
    equals = [_equal(kind, fold) for kind, fold in zip(kinds, folds, strict=True)]
    return Compound(
        f"a tuple of ({', '.join(kind.name for kind in kinds)})",
        tuple,
        lambda value: _packed(packs, value),
        lambda packed: _unpacked(kinds, packed),
        lambda value: _packed(equals, value),
        few=all(kind.few for kind in kinds),
        rule=("compound", *(EXACT if fold is None else normalizer(fold)[0] for fold in folds)),
        parts=parts,
        folds=folds,
    )


def _check(part: str, fold: str | None, kind: Kind) -> None:
    if kind.equal is None or isinstance(kind, Compound):
        raise ConfigurationError(
            f"encrypted_compound(): column {part!r} takes {kind.name}, by which nothing can be "
            "searched. Leave it out."
        )
    if fold is not None and kind.python_type is not str:
        raise ConfigurationError(
            f"encrypted_compound(normalize=…): column {part!r} takes {kind.name}, and only text "
            "is normalised. Leave it out there."
        )


def _equal(kind: Kind, fold: str | None) -> Callable[[Any], bytes]:
    if fold is None:
        return kind.equal or kind.pack
    folded, pack = normalizer(fold)[1], kind.pack

    def equal(value: Any) -> bytes:
        if not isinstance(value, str):
            raise TypeError
        return pack(folded(value))

    return equal


def _packed(packs: list[Callable[[Any], bytes]], value: Any) -> bytes:
    if not isinstance(value, tuple) or len(value) != len(packs):
        raise TypeError
    packed = [pack(part) for pack, part in zip(packs, value, strict=True)]
    return Tag.COMPOUND + b"".join([len(each).to_bytes(_LENGTH, "big") + each for each in packed])


def _unpacked(kinds: tuple[Kind, ...], packed: bytes) -> tuple[Any, ...]:
    parts = list(_split(after(Tag.COMPOUND, packed)))
    return tuple(_values(zip(kinds, parts, strict=True)))


def _split(packed: bytes) -> Iterator[bytes]:
    while packed:
        end = _LENGTH + int.from_bytes(packed[:_LENGTH], "big")
        if len(packed) < end:
            raise ValueError
        yield packed[_LENGTH:end]
        packed = packed[end:]


def _values(pairs: Iterable[tuple[Kind, bytes]]) -> Iterator[Any]:
    for kind, part in pairs:
        try:
            yield kind.unpack(part)
        except UnknownMember:
            # Which of the parts it is, the error of a whole column could not say.
            raise ValueError from None


def _unknown(_value: Any) -> NoReturn:
    raise ConfigurationError(
        "An encrypted_compound() was used without its table. Take it from a mapped class."
    )
