"""Values to try for PostgreSQL's own types, as text; the likeliest first."""

from __future__ import annotations

import json
import string
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from tenantguard.prove.patterns import like_strings, matching_strings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from tenantguard.prove.hints import Hints

__all__ = ["NUMBERS", "TIMES", "Wish", "scalar_values"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a value has to be: what is *said* of it, and whether it must be unlike any other."""

    hints: Hints
    unique: bool
    chance: Random


_BITS = {"int2": 15, "int4": 31, "int8": 63, "oid": 31}
_WORD = string.ascii_lowercase + string.digits
_SMALL = ("1", "0", "2", "5", "10", "12", "50", "60", "100", "1000", "2024", "-1", "100000")
_FAR = 300_000
"""Days; the year 2900 is not far beyond."""


def scalar_values(name: str, wish: Wish) -> list[str]:
    """Return texts to try for the type that PostgreSQL calls *name*; none if it is unknown."""
    made = _MAKERS.get(name)
    return list(dict.fromkeys(made(name, wish))) if made else []


def _integers(name: str, wish: Wish) -> Iterator[str]:
    bits = _BITS[name]
    told = list(_near(wish))
    salted = [str(wish.chance.randrange(1 << (bits - 1), 1 << bits)) for _ in range(3)]
    salted += [str(wish.chance.randrange(1, min(1 << bits, 30_000))) for _ in range(3)]
    whole = [each for each in told if "." not in each and abs(int(each)) < 1 << bits]
    listed = [each for each in _SMALL if int(each) < 1 << bits]
    yield from (*salted, *whole, *listed) if wish.unique else (*whole, *listed, *salted)


def _numerics(_name: str, wish: Wish) -> Iterator[str]:
    salted = [f"{wish.chance.randrange(1, limit)}" for limit in (10**9, 10**6, 1000, 100)]
    listed = [*_near(wish), *_SMALL[:5], "0.5", "0.01", "-0.5", *_SMALL[5:]]
    yield from (*salted, *listed) if wish.unique else (*listed, *salted)


def _near(wish: Wish) -> Iterator[str]:
    for text in wish.hints.numbers:
        number = Decimal(text)
        for near in (number, number + 1, number - 1, number * 2, number / 2):
            yield str(near.normalize() if near % 1 else int(near))


def _booleans(_name: str, _wish: Wish) -> Iterator[str]:
    yield from ("true", "false")


def _texts(_name: str, wish: Wish) -> Iterator[str]:
    chance = wish.chance
    told = [
        made for each in wish.hints.patterns for made in matching_strings(each, chance, count=8)
    ]
    told += [made for each in wish.hints.likes for made in like_strings(each)]
    word = chance.choice(string.ascii_lowercase) + _some(chance, _WORD, 9)
    strings = [each for each in wish.hints.strings if each not in wish.hints.patterns]
    yield from told
    yield from (word, *strings) if wish.unique else (*strings, word)
    for length in wish.hints.lengths:
        yield from _of_length(length, word, chance)
    yield from _usual(word, chance)


def _of_length(length: int, word: str, chance: Random) -> Iterator[str]:
    yield (word * (length // len(word) + 1))[:length]
    yield _some(chance, string.ascii_uppercase, length)
    yield _some(chance, string.digits, length)


def _usual(word: str, chance: Random) -> Iterator[str]:
    digits = _some(chance, string.digits[1:], 10)
    yield from (word.upper(), word.capitalize(), digits, f"{word}@example.org")
    yield from (f"https://example.org/{word}", f"+49{digits}", str(_uuid(chance)))
    yield from ("2024-01-01", "12:00", "#a1b2c3", "192.0.2.1", "Europe/Berlin", "en-US", "de_DE")
    yield from ("A", "a", "1", "0", "DE", "de", "EUR", "{}", "[]", "true", "", f"/{word}", "1.0.0")
    yield from (_some(chance, string.ascii_uppercase, size) for size in (2, 3, 4))
    yield from (word * 4, word * 20)


def _some(chance: Random, letters: str, count: int) -> str:
    return "".join(chance.choice(letters) for _ in range(count))


def _uuid(chance: Random) -> uuid.UUID:
    return uuid.UUID(int=chance.getrandbits(128), version=4)


def _uuids(_name: str, wish: Wish) -> Iterator[str]:
    for text in wish.hints.strings:
        with suppress(ValueError):
            yield str(uuid.UUID(text))
    yield from (str(_uuid(wish.chance)) for _ in range(3))


def _days(wish: Wish) -> Iterator[date]:
    salted = [date(2100, 1, 1) + timedelta(wish.chance.randrange(_FAR)) for _ in range(3)]
    told = []
    for text in wish.hints.strings:
        with suppress(ValueError, OverflowError):
            day = date.fromisoformat(text[:10])
            told += [day, day + timedelta(1), day - timedelta(1)]
    years = [int(each) for each in wish.hints.numbers if each.isdigit() and len(each) == 4]  # noqa: PLR2004
    told += [date(year, 6, 15) for year in years if year]
    usual = [date.today(), date(2024, 1, 2), date(1990, 5, 17), date(2050, 12, 31)]  # noqa: DTZ011
    yield from (*salted, *told, *usual) if wish.unique else (*told, *usual, *salted)


def _dates(_name: str, wish: Wish) -> Iterator[str]:
    yield from (day.isoformat() for day in _days(wish))


def _timestamps(name: str, wish: Wish) -> Iterator[str]:
    zone = "+00" if name == "timestamptz" else ""
    told = [
        each
        for each in wish.hints.strings
        if len(each) > len("2024-01-01") and each[:4].isdigit() and each[4] == "-"
    ]
    yield from told
    for day in _days(wish):
        yield f"{day.isoformat()} 00:00:00{zone}"
        yield f"{day.isoformat()} 12:34:56{zone}"


def _clock(_name: str, wish: Wish) -> Iterator[str]:
    yield from (each for each in wish.hints.strings if each[:2].isdigit() and each[2:3] == ":")
    yield from (f"{wish.chance.randrange(24):02}:{wish.chance.randrange(60):02}:00", "12:00:00")
    yield from ("08:00:00", "18:00:00", "00:00:00", "23:59:59")


def _bytes(_name: str, wish: Wish) -> Iterator[str]:
    prefixes = [each for each in wish.hints.strings if each.startswith("\\x")] or ["\\x"]
    salt = f"{wish.chance.getrandbits(64):016x}"
    for prefix in prefixes:
        # What encrypted columns hold: the format's version, and a flag that says "searchable".
        yield from (f"{prefix}01{flag}{salt * 8}" for flag in ("01", "00"))
        yield from (f"{prefix}{salt}", prefix)
    for length in wish.hints.lengths:
        yield "\\x" + (salt * length)[: 2 * length]
    yield "\\x"


def _documents(_name: str, wish: Wish) -> Iterator[str]:
    strings = [each for each in wish.hints.strings if not each.startswith(("{", "["))]
    for text in wish.hints.strings:
        with suppress(ValueError):
            json.loads(text)
            yield text
    values: list[object] = ["x", 1, {}, [], True, ["x"], *strings]
    values += [_number(each) for each in wish.hints.numbers]
    yield from ("{}", "[]")
    for key in strings:
        yield from (json.dumps({key: value}) for value in values)
    for value in values:
        yield json.dumps(dict.fromkeys(strings, value))
    for first in strings:
        yield from (json.dumps(dict.fromkeys(strings, "x") | {first: value}) for value in values)
    yield from ('"x"', "1", "[1]", "null", "true")


def _number(text: str) -> object:
    with suppress(ValueError):
        return int(text)
    return float(text)


def _listed(*values: str) -> Callable[[str, Wish], Iterator[str]]:
    def made(_name: str, wish: Wish) -> Iterator[str]:
        yield from (each.replace("%", str(wish.chance.randrange(1, 200))) for each in values)

    return made


NUMBERS = frozenset({"int2", "int4", "int8", "numeric", "float4", "float8"})
TIMES = frozenset({"date", "timestamp", "timestamptz"})

_MAKERS: dict[str, Callable[[str, Wish], Iterator[str]]] = {
    **dict.fromkeys(_BITS, _integers),
    **dict.fromkeys(("numeric", "float4", "float8", "money"), _numerics),
    **dict.fromkeys(("text", "varchar", "bpchar", "name", "citext", "char"), _texts),
    **dict.fromkeys(("json", "jsonb"), _documents),
    **dict.fromkeys(("timestamp", "timestamptz"), _timestamps),
    **dict.fromkeys(("time", "timetz"), _clock),
    "bool": _booleans,
    "uuid": _uuids,
    "date": _dates,
    "bytea": _bytes,
    "interval": _listed("1 day", "1 hour", "% minutes", "0", "30 days", "1 year"),
    "inet": _listed("192.0.2.%", "2001:db8::%", "192.0.2.0/24"),
    "cidr": _listed("192.0.%.0/24", "2001:db8::/32"),
    "macaddr": _listed("08:00:2b:01:02:03"),
    "macaddr8": _listed("08:00:2b:01:02:03:04:05"),
    "bit": _listed("1", "0", "101"),
    "varbit": _listed("1", "0", "101"),
    "point": _listed("(%,%)"),
    "line": _listed("{1,-1,%}"),
    "lseg": _listed("[(0,0),(%,1)]"),
    "box": _listed("(%,1),(0,0)"),
    "path": _listed("((0,0),(1,1),(%,0))"),
    "polygon": _listed("((0,0),(1,1),(%,0))"),
    "circle": _listed("<(0,0),%>"),
    "tsvector": _listed("word%"),
    "tsquery": _listed("word%"),
    "xml": _listed("<a/>"),
    "pg_lsn": _listed("0/%"),
    "jsonpath": _listed("$"),
    "hstore": _listed("", "a=>1"),
    "ltree": _listed("a%.b"),
    "regclass": _listed("pg_catalog.pg_class"),
}
