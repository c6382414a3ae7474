"""Values to try for any type: PostgreSQL's own, enums, domains, arrays, ranges, composites."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING

from tenantguard.prove.hints import hints_of
from tenantguard.prove.scalars import NUMBERS, TIMES, scalar_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.prove.scalars import Wish
    from tenantguard.prove.shape import Type

__all__ = ["base_of", "domain_checks", "is_checked_inside", "values_for"]

_FEW = 6
"""How many values of an inner type are tried in an outer one."""


def values_for(type_id: int, written: str, types: Mapping[int, Type], wish: Wish) -> list[str]:
    """Return texts to try for a column of the type, which is written as *written*."""
    known = types.get(type_id)
    if known is None:
        return []
    if known.kind == "d":
        return values_for(known.of, known.written, types, _also(known, wish))
    made = _OF_KIND.get(known.kind)
    if made is not None:
        return list(dict.fromkeys(made(known, types, wish)))
    return _vector(known, written) or _cut(scalar_values(known.name, wish), known, written)


def _cut(texts: list[str], known: Type, written: str) -> list[str]:
    """Return *texts* no longer than the type's length: PostgreSQL cuts them only outside others."""
    length = re.search(r"\((\d+)\)", written)
    if length is None or known.name not in ("varchar", "bpchar"):
        return texts
    return list(dict.fromkeys(each[: int(length.group(1))] for each in texts))


def base_of(type_id: int, written: str, types: Mapping[int, Type]) -> str:
    """Return how the type is written without its domains, whose checks come apart."""
    known = types.get(type_id)
    while known is not None and known.kind == "d":
        written, known = known.written, types.get(known.of)
    return written


def domain_checks(type_id: int, types: Mapping[int, Type]) -> Iterator[str]:
    """Yield the conditions of the domains that the type is, on VALUE."""
    known = types.get(type_id)
    while known is not None and known.kind == "d":
        yield from known.checks
        known = types.get(known.of)


def is_checked_inside(type_id: int, types: Mapping[int, Type]) -> bool:
    """Return whether a value may be refused for a part of it: a domain in an array, say."""
    known = types.get(type_id)
    if known is None or known.kind in ("b", "e"):
        return False
    inner = types.get(known.of)
    return known.kind == "c" or (
        inner is not None
        and ((known.kind != "d" and inner.kind == "d") or is_checked_inside(known.of, types))
    )


def _also(known: Type, wish: Wish) -> Wish:
    own = hints_of(list(known.checks))
    for name in ("strings", "numbers", "patterns", "likes"):
        getattr(own, name).extend(getattr(wish.hints, name))
    return replace(wish, hints=own)


def _enum(known: Type, _types: Mapping[int, Type], wish: Wish) -> Iterator[str]:
    yield from (each for each in wish.hints.strings if each in known.labels)
    yield from known.labels


def _arrays(known: Type, types: Mapping[int, Type], wish: Wish) -> Iterator[str]:
    inner = types.get(known.of)
    elements = values_for(known.of, inner.written if inner else "", types, wish)
    yield from (each for each in wish.hints.strings if each.startswith("{"))
    if not wish.unique:
        yield from (_array(elements[:1]), "{}")
    yield from (_array([each]) for each in elements)
    sizes = [each for each in wish.hints.lengths if each <= 64]  # noqa: PLR2004
    yield from (_array((elements * size)[:size]) for size in (2, 3, *sizes) if elements)
    # As many as are asked for, of one kind: a list of one of the allowed words.
    yield from (_array([each] * size) for each in elements[:_FEW] for size in sizes)
    yield from ("{}", _array([_array(elements[:2])]) if elements else "{}")


def _array(elements: list[str]) -> str:
    return (
        "{" + ",".join(e if e.startswith("{") and "," in e else _quoted(e) for e in elements) + "}"
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _composites(known: Type, types: Mapping[int, Type], wish: Wish) -> Iterator[str]:
    fields = [values_for(inner, written, types, wish)[:_FEW] for written, inner in known.fields]
    for number in range(_FEW):
        chosen = [values[number % len(values)] if values else None for values in fields]
        yield "(" + ",".join("" if each is None else _quoted(each) for each in chosen) + ")"


def _ranges(known: Type, types: Mapping[int, Type], wish: Wish) -> Iterator[str]:
    inner = types.get(known.of)
    told = [each for each in wish.hints.strings if each[:1] in "[(" and each[-1:] in "])"]
    yield from told
    if inner is not None:
        for low in values_for(known.of, inner.written, types, wish):
            high = _later(inner.name, low)
            yield f"[{_quoted(low)},{_quoted(high)}{')' if high != low else ']'}"
    yield from ("empty", "(,)")


def _multiranges(known: Type, types: Mapping[int, Type], wish: Wish) -> Iterator[str]:
    yield from (f"{{{each}}}" for each in _ranges(known, types, wish))


def _later(name: str, low: str) -> str:
    if name in NUMBERS:
        return str(Decimal(low) + 10)
    if name == "date":
        return (date.fromisoformat(low) + timedelta(1)).isoformat()
    if name in TIMES:
        try:
            return (datetime.fromisoformat(low) + timedelta(hours=1)).isoformat(" ")
        except (ValueError, OverflowError):
            return low
    return low


def _vector(known: Type, written: str) -> list[str]:
    """Return values of the types of the extension pgvector."""
    size = re.search(r"\((\d+)\)", written)
    if known.name not in {"vector", "halfvec", "sparsevec"}:
        return []
    count = int(size.group(1)) if size else 3
    if known.name == "sparsevec":
        return [f"{{1:1}}/{count}"]
    return ["[" + ",".join(chain(["1"], ["0"] * (count - 1))) + "]"]


_OF_KIND = {
    "e": _enum,
    "a": _arrays,
    "r": _ranges,
    "m": _multiranges,
    "c": _composites,
}
