"""One change to the database: what it does, how it is undone, and how it is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Derived",
    "Grants",
    "Keeper",
    "Key",
    "Kind",
    "Lookup",
    "Phase",
    "Policy",
    "Signed",
    "Step",
    "Target",
    "Value",
    "Wanted",
]

Target = tuple[str, str]
"""Schema and name."""


class Phase(IntEnum):
    """The order of transactions; within a phase, each table has one of its own.

    Keys come before protection: under FORCE the owner's VALIDATE sees no rows and succeeds.
    """

    CLUSTER = 0
    SCHEMAS = 1
    TABLES = 2
    STRUCTURE = 3
    DISTRIBUTION = 4
    KEYS = 5
    PROTECTION = 6
    LOOKUPS = 7


class Kind(Enum):
    """What a step makes."""

    ROLE = "role"
    SCHEMA = "schema"
    TABLE = "table"
    SIGNED = "signed setting"
    NOT_NULL = "not null"
    DEFAULT = "default"
    INDEX = "index"
    UNIQUE = "unique key"
    FOREIGN_KEY = "foreign key"
    SEARCH_COLUMN = "search column"
    SEARCH_TRIGGER = "search trigger"
    SEARCH_INDEX = "search index"
    FORMAT = "format check"
    DISTRIBUTION = "distribution"
    POLICY = "policy"
    ENABLE = "enable"
    FORCE = "force"
    INVOKER = "security invoker"
    GRANTS = "grants"
    LOOKUP = "lookup"


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy FOR ALL on *column*, to *role*; *expression* is both USING and WITH CHECK."""

    role: str
    permissive: bool
    expression: str
    column: str


@dataclass(frozen=True, slots=True)
class Key:
    """The columns of an index, a unique key or, with *parent*, a foreign key."""

    columns: tuple[str, ...]
    parent: Target | None = None
    parent_columns: tuple[str, ...] = ()
    on_delete: str = ""


@dataclass(frozen=True, slots=True)
class Grants:
    """Privileges by role, on the table and on the sequences of its columns; PUBLIC has none."""

    table: Mapping[str, frozenset[str]]
    sequences: Mapping[str, frozenset[str]]
    named_sequences: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Value:
    """A role, a schema, a switch, or an expression for *column*."""

    text: str
    column: str = ""


@dataclass(frozen=True, slots=True)
class Lookup:
    """A function with *body*; *types* are its key's and its result columns', called *names*."""

    body: str
    owner: str
    caller: str
    types: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Derived:
    """What follows from the encrypted column *source*.

    *expression* is what *column* is generated as or, without a column or if a trigger has *kept*
    it, what every row fulfils. *searched* is whether each value needs a blind index.
    """

    expression: str
    source: str
    column: str = ""
    searched: bool = False
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Keeper:
    """The trigger that fills the search columns of *source*; *body* is its function's."""

    body: str
    source: str


@dataclass(frozen=True, slots=True)
class Signed:
    """What the signed setting needs: a function or, without a body, the table of its keys.

    *callers* may execute the one, or read the other; the letters are those of PostgreSQL's catalog.
    """

    body: str = ""
    arguments: str = ""
    result: str = ""
    volatile: str = ""
    parallel: str = ""
    owner: str = ""
    callers: tuple[str, ...] = ()


Wanted = Policy | Key | Grants | Value | Lookup | Derived | Keeper | Signed


@dataclass(frozen=True, slots=True)
class Step:
    """A change that makes one thing.

    Attributes:
        phase: Which round of transactions it belongs to.
        target: Schema and name of the table; ("", "") for roles, (schema, "") for schemas.
        kind: What is made.
        name: The name of what is made.
        up: Statements that make it.
        down: Statements that remove exactly that.
        wanted: What the planner compares with the database.
    """

    phase: Phase
    target: Target
    kind: Kind
    name: str
    up: tuple[str, ...]
    down: tuple[str, ...]
    wanted: Wanted

    @property
    def table(self) -> str:
        """The table's name with its schema, unquoted, for messages."""
        return ".".join(part for part in self.target if part)

    def __str__(self) -> str:
        return " ".join(part for part in (self.table, self.kind.value, self.name) if part)
