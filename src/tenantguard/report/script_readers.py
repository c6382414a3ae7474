"""The facts that the statements of a generated script make, each read from a match of its form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

from tenantguard.report.script_names import SEQUENCE_GRANT, is_whole, plain, roles_in

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["READERS", "Reader"]


class Reader(Protocol):
    """What notes the facts."""

    def put(self, kind: str, at: str, name: str, *value: str) -> bool:
        """Note a fact, unless there is one already."""

    def add(self, kind: str, at: str, name: str, values: set[str]) -> bool:
        """Add to a fact that is a set."""

    def granted(self, at: str) -> bool:
        """Return whether anything was granted on *at* so far."""

    def has(self, kind: str, at: str, name: str) -> bool:
        """Return whether the fact is known."""

    def inside(self, body: str) -> bool:
        """Read the statements of a block."""


def _role(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("role", plain(found["role"]), "", *found["attributes"].split())


def _revoke(reader: Reader, found: re.Match[str]) -> bool:
    at = plain(found["at"])
    # What is revoked after it was granted is another script than the generator's.
    return not reader.granted(at) and reader.add(
        "revoked", at, found["what"], roles_in(found["roles"])
    )


def _grant(reader: Reader, found: re.Match[str]) -> bool:
    privileges = set(found["privileges"].split(", "))
    for role in sorted(roles_in(found["roles"])):
        reader.add("privileges", plain(found["at"]), role, privileges)
    return True


def _no_create(reader: Reader, found: re.Match[str]) -> bool:
    return reader.add("revoked", plain(found["at"]), "CREATE", roles_in(found["roles"]))


def _policy(reader: Reader, found: re.Match[str]) -> bool:
    parts = (found["mode"], plain(found["role"]), found["using"], found["check"])
    whole = is_whole(found["using"]) and is_whole(found["check"])
    return whole and reader.put("policy", plain(found["at"]), plain(found["name"]), *parts)


def _dropped(reader: Reader, found: re.Match[str]) -> bool:
    """Take note of a DROP before its CREATE; of one after it, the policy would be gone."""
    return not reader.has("policy", plain(found["at"]), plain(found["name"]))


def _check(reader: Reader, found: re.Match[str]) -> bool:
    """Take an expression that closes no more than it opens: nothing of the statement is in it."""
    kind, at, name = "format check", plain(found["at"]), plain(found["name"])
    return is_whole(found["value"]) and reader.put(kind, at, name, found["value"])


def _generated(reader: Reader, found: re.Match[str]) -> bool:
    kind, at, name = "search column", plain(found["at"]), plain(found["name"])
    value = (found["type"], found["value"])
    return is_whole(found["value"]) and reader.put(kind, at, name, *value)


def _plain(reader: Reader, found: re.Match[str]) -> bool:
    at, name = plain(found["at"]), plain(found["name"])
    return reader.put("search column", at, name, found["type"], "kept by a trigger")


def _search_function(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("search function", plain(found["at"]), "", found["value"])


def _tables_owner(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("owner", plain(found["at"]), "", "the table's owner")


def _constraint_dropped(reader: Reader, found: re.Match[str]) -> bool:
    at, name = plain(found["at"]), plain(found["name"])
    kinds = ("format check", "foreign key", "unique key")
    return not any(reader.has(kind, at, name) for kind in kinds)


def _nothing(_reader: Reader, _found: re.Match[str]) -> bool:
    return True


def _switch(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("switch", plain(found["at"]), found["switch"], "")


def _invoker(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("switch", plain(found["at"]), "security_invoker", "")


def _column(kind: str) -> Callable[[Reader, re.Match[str]], bool]:
    def read(reader: Reader, found: re.Match[str]) -> bool:
        value = found.groupdict().get("value") or ""
        return reader.put(kind, plain(found["at"]), plain(found["name"]), value)

    return read


def _key(reader: Reader, found: re.Match[str]) -> bool:
    parts = (found["columns"], plain(found["parent"]), found["theirs"], found["options"])
    return reader.put("foreign key", plain(found["at"]), plain(found["name"]), *parts)


def _function(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("function", plain(found["at"]), "", found[0])


def _owner(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("owner", plain(found["at"].partition("(")[0]), "", plain(found["role"]))


def _execute(reader: Reader, found: re.Match[str]) -> bool:
    at = plain(found["at"].partition("(")[0])
    return reader.add("execute", at, "", roles_in(found["roles"]))


def _not_public(reader: Reader, found: re.Match[str]) -> bool:
    return reader.put("revoked", plain(found["at"].partition("(")[0]), "EXECUTE", "PUBLIC")


def _sequences(reader: Reader, found: re.Match[str]) -> bool:
    table = plain(found["at"].replace("''", "'"))
    for each in re.finditer(SEQUENCE_GRANT, found["commands"]):
        for role in sorted(roles_in(each[2])):
            reader.add("privileges", table, f"{role} on its sequences", set(each[1].split(", ")))
    return reader.put("sequences", table, "", found["extra"] or "")


def _if_present(reader: Reader, found: re.Match[str]) -> bool:
    return reader.inside(found["body"])


READERS: dict[str, Callable[[Reader, re.Match[str]], bool]] = {
    "role": _role,
    "revoke": _revoke,
    "grant": _grant,
    "no create": _no_create,
    "policy": _policy,
    "dropped": _dropped,
    "check": _check,
    "generated": _generated,
    "plain": _plain,
    "search trigger": _column("search trigger"),
    "search function": _search_function,
    "table's owner": _tables_owner,
    "constraint dropped": _constraint_dropped,
    "nothing": _nothing,
    "switch": _switch,
    "invoker": _invoker,
    "key": _key,
    "function": _function,
    "owner": _owner,
    "execute": _execute,
    "not public": _not_public,
    "sequences": _sequences,
    "if present": _if_present,
    "not null": _column("not null"),
    "default": _column("default"),
    "index": _column("index"),
    "unique key": _column("unique key"),
    "validated": _column("validated"),
}
"""What reads a match, by the name of its form; it returns False if it is not understood."""
