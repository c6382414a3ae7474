"""Where a database differs from what encrypted columns need: values would be lost, or not found.

What is missing can be made. What is there and differs is never altered: it is named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import ConfigurationError
from tenantguard.findings import Finding
from tenantguard.keytable import ENCRYPTED
from tenantguard.rls.encrypted import formats, idle_steps, keepers, searches
from tenantguard.rls.forms import BYTES, derived_shape
from tenantguard.rls.kept import is_keeper
from tenantguard.rls.names import qualified, quote, target_of, type_sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Entry
    from tenantguard.rls.forms import Shape
    from tenantguard.rls.state import Facts

    Forms = dict[Shape, str | None]

__all__ = ["checked", "derived_shapes", "drift", "is_search_column", "refuse_drift"]

_STORED = "s"
_MIGRATE = "Run the application's migrations first."

# What is missing is a step, or two.
_STEPS = {"search-column-missing", "search-trigger-changed", "format-check-missing"}


def refuse_drift(entry: Entry, facts: Facts, forms: Forms) -> None:
    """Raise a `ConfigurationError` if *entry*'s table cannot be completed without altering it."""
    for column in _encrypted(entry):
        found = facts["columns"].get(column)
        if found is None:
            raise ConfigurationError(
                f"Table {entry.fullname} has no column {column!r} in the database. {_MIGRATE}"
            )
        if found["type"] != BYTES:
            raise ConfigurationError(
                f"Column {entry.fullname}.{column} is {found['type']} in the database, and "
                "encrypted in the models, where it is bytea. Give the encrypted column a name of "
                "its own, beside the plaintext one."
            )
    for finding in drift(entry, facts, forms):
        if finding.code not in _STEPS:
            raise ConfigurationError(str(finding))


def drift(entry: Entry, facts: Facts, forms: Forms) -> Iterator[Finding]:
    """Yield what makes keys or searches of *entry*'s table go wrong."""
    if entry.kind is TableKind.KEYS:
        yield from _of_keys(entry, facts)
    elif entry.kind is TableKind.SCOPED and entry.table is not None:
        yield from _of_searches(entry, facts, forms)
        yield from _of_keepers(entry, facts)
        yield from _of_formats(entry, facts, forms)


def derived_shapes(entry: Entry) -> Iterator[Shape]:
    """Yield the shapes whose stored forms `drift` compares *entry*'s table with."""
    if entry.table is not None:
        yield from (derived_shape(wanted) for _, wanted in searches(entry.table))
        yield from (derived_shape(wanted) for _, wanted in formats(entry.table))


def is_search_column(found: Facts, expected: str | None, *, kept: bool) -> bool:
    """Return whether a column is generated from what is *expected* and stored; plain if *kept*."""
    if kept:
        return found["type"] == BYTES and not found["generated"]
    return bool(
        expected is not None
        and found["type"] == BYTES
        and found["generated"] == _STORED
        and found["expression"] == expected
        and found["alike"]
    )


def checked(facts: Facts, expected: str | None) -> list[Facts]:
    """Return the checks that demand what is *expected* of every new row, the validated first."""
    found = [
        each
        for each in facts["checks"]
        if expected is not None and each["enforced"] and each["expression"] == expected
    ]
    return sorted(found, key=lambda each: not each["valid"])


def _encrypted(entry: Entry) -> Iterator[str]:
    if entry.table is not None and entry.kind is TableKind.SCOPED:
        yield from (each.name for each in entry.table.columns if ENCRYPTED in each.info)


def _of_keys(entry: Entry, facts: Facts) -> Iterator[Finding]:
    if entry.table is None:
        return
    name = ".".join(target_of(entry))
    wrong = [
        f"column {column.name!r} is {'missing' if found is None else 'of another type'}"
        for column in entry.table.columns
        for found in [facts["columns"].get(column.name)]
        # The tenant's type shows where policies are compared.
        if found is None
        or (column is not entry.column and found["type"] != type_sql(column).lower())
    ]
    wanted = [column.name for column in entry.table.primary_key.columns]
    if facts["primary"] != wanted:
        wrong.append(f"the primary key is not ({', '.join(wanted)})")
    if wrong:
        yield Finding(
            "key-table-changed",
            name,
            f"The table of keys {name} is not the generated one: {'; '.join(wrong)}.",
            "It is never altered, because losing keys is losing data. Make it by hand what "
            f"CREATE TABLE {name} in `tenantguard rls sql` says, or restore it.",
        )


def _of_searches(entry: Entry, facts: Facts, forms: Forms) -> Iterator[Finding]:
    if entry.table is None:
        return
    name = ".".join(target_of(entry))
    for column, wanted in searches(entry.table):
        found = facts["columns"].get(column.name)
        expected = forms.get(derived_shape(wanted))
        drop = f"ALTER TABLE {qualified(target_of(entry))} DROP COLUMN {quote(column.name)}"
        if found is None:
            yield Finding(
                "search-column-missing",
                name,
                f"{name} has no column {column.name!r}, by which {wanted.source!r} is searched.",
                "Run the application's migrations, or `tenantguard rls apply` with the owner's "
                "address.",
                column=column.name,
            )
        elif not is_search_column(found, expected, kept=wanted.kept):
            yield Finding(
                "search-column-changed",
                name,
                f"Column {column.name!r} of {name} is not "
                + (
                    "a plain one that a trigger keeps, as the models say."
                    if wanted.kept
                    else f"generated from {wanted.source!r} as the models say, there or in a "
                    "partition, so searches would not find what is there."
                ),
                _made_plain(entry, found, column.name)
                if wanted.kept
                else f"It holds nothing of its own: {drop}; then run `tenantguard rls apply` with "
                "the owner's address, which makes it again and rewrites the table.",
                column=column.name,
            )


def _made_plain(entry: Entry, found: Facts, column: str) -> str:
    """Return how to make *column* a plain one: one that is generated keeps its values."""
    stored = found["type"] == BYTES and found["generated"] == _STORED
    change = f"ALTER {quote(column)} DROP EXPRESSION" if stored else f"DROP COLUMN {quote(column)}"
    return (
        f"It holds nothing of its own: ALTER TABLE {qualified(target_of(entry))} {change}; then "
        "run `tenantguard rls apply` with the owner's address. Nothing is rewritten."
    )


def _of_keepers(entry: Entry, facts: Facts) -> Iterator[Finding]:
    if entry.table is None:
        return
    name = ".".join(target_of(entry))
    for trigger, wanted in keepers(entry.table):
        if not is_keeper(facts["keepers"].get(trigger), wanted.body):
            yield Finding(
                "search-trigger-changed",
                name,
                f"Trigger {trigger} of {name}, which fills what {wanted.source!r} is searched by, "
                "is missing, disabled or changed: writes fail.",
                "Run `tenantguard rls apply` with the owner's address.",
                column=wanted.source,
            )
    for step in idle_steps(entry, facts):
        yield Finding(
            "search-trigger-changed",
            name,
            f"Trigger {step.name} of {name} fills search columns that are gone: writes fail.",
            "Run `tenantguard rls apply` with the owner's address, which drops it.",
        )


def _of_formats(entry: Entry, facts: Facts, forms: Forms) -> Iterator[Finding]:
    if entry.table is None:
        return
    name = ".".join(target_of(entry))
    for _, wanted in formats(entry.table):
        if any(each["valid"] for each in checked(facts, forms.get(derived_shape(wanted)))):
            continue
        risk = (
            "has a blind index, so searches could answer wrongly"
            if wanted.searched
            else "is encrypted, so SQL text could have stored plaintext"
        )
        what = f"each value in {wanted.source!r} {risk}"
        if wanted.kept:
            what = f"{wanted.column!r} is filled in every row, so searches could miss rows"
        yield Finding(
            "format-check-missing",
            name,
            f"No validated check of {name} makes sure that {what}.",
            "Run `tenantguard rls apply` with the owner's address.",
            column=wanted.column or wanted.source,
        )
