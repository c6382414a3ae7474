"""From pytest's tests to named ones: family, lock, and whether it is attack, control or limit."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from attacking import LOCKS
from families import CONTROLS, FAMILIES, LIMITS, LOCK_OF

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

__all__ = ["Named", "families_of", "files", "is_counted", "items_of", "named", "unplaced"]

TESTS = Path(__file__).parents[1]
_ATTACKS = "attacks/"


@dataclass(frozen=True, slots=True)
class Named:
    """A test by its name, the same under each lock; *kind* is attack, control or limit."""

    name: str
    lock: str
    kind: str

    @property
    def is_ours(self) -> bool:
        """Whether it is one of tests/attacks, where every test has to belong to a family."""
        module = self.name.partition(".")[0]
        return "/" not in module and module != "families"


def is_counted(test: Named) -> bool:
    """Return whether the table counts *test*: those of this directory, and those of encryption."""
    return test.is_ours or families_of(test.name)[:1] == ["Encryption"]


def named(item: pytest.Item) -> Named:
    """Return what *item* is called here."""
    module = _module(item.path)
    spec = getattr(item, "callspec", None)
    ids = [] if spec is None else [each for each in spec._idlist if each not in LOCKS]
    locks = [] if spec is None else [each for each in spec._idlist if each in LOCKS]
    function = getattr(item, "originalname", item.name).removeprefix("test_")
    name = f"{module}.{function}: {'-'.join(ids)}"
    lock = (
        locks[0]
        if locks
        else next((lock for pattern, lock in LOCK_OF.items() if _fits(name, pattern)), "both")
    )
    return Named(name, lock, _kind(name))


@cache
def families_of(name: str) -> list[str]:
    """Return the families that name the test, the first one first."""
    return list(dict.fromkeys(family for family, _ in items_of(name)))


@cache
def items_of(name: str) -> list[tuple[str, str]]:
    """Return the items of families that the test stands for."""
    return [
        (family, item)
        for family, items in FAMILIES.items()
        for item, patterns in items.items()
        if any(_fits(name, pattern) for pattern in patterns)
    ]


def files() -> list[str]:
    """Return this directory, and the files elsewhere that families name."""
    patterns = [each for items in FAMILIES.values() for some in items.values() for each in some]
    modules = {each.partition(":")[0].partition(".")[0].partition("*")[0] for each in patterns}
    elsewhere = sorted(module for module in modules if "/" in module)
    paths = [TESTS / f"{module.replace('/', '/test_')}.py" for module in elsewhere]
    return [str(TESTS / "attacks"), *(str(path) for path in paths if path.exists())]


def _module(path: Path) -> str:
    relative = path.relative_to(TESTS).with_suffix("").as_posix()
    return relative.replace("/test_", "/").removeprefix(_ATTACKS)


def _kind(name: str) -> str:
    for kind, patterns in (("limit", LIMITS), ("control", CONTROLS)):
        if any(_fits(name, pattern) for pattern in patterns):
            return kind
    return "attack"


def _fits(name: str, pattern: str) -> bool:
    where, _, case = pattern.partition(": ")
    where = where if "." in where else f"{where}.*"
    return fnmatchcase(name, f"{where}: {case or '*'}")


def unplaced(tests: Iterable[Named]) -> list[str]:
    """Return the names of attacks that no family has."""
    return sorted({each.name for each in tests if each.is_ours and not families_of(each.name)})
