"""How names, roles and values stand in a generated script, as regular expressions."""

from __future__ import annotations

import re

__all__ = [
    "CAST",
    "FUNCTION",
    "LITERAL",
    "NAME",
    "PRIVILEGES",
    "ROLES",
    "SEQUENCE_GRANT",
    "SETTING",
    "TABLE",
    "is_whole",
    "plain",
    "roles_in",
]

NAME = r'"(?:[^"]|"")+"'
TABLE = rf"{NAME}\.{NAME}"
ROLES = rf"(?:PUBLIC|{NAME})(?:, {NAME})*"
FUNCTION = rf"{TABLE}\([^()\n]*(?:\([^()\n]*\))?[^()\n]*\)"
PRIVILEGES = r"[A-Z]+(?:, [A-Z]+)*"
LITERAL = r"E?'(?:[^'\\]|''|\\.)*'"
SETTING = re.escape("nullif(pg_catalog.current_setting('tenantguard.tenant', true), '')")
CAST = r'(?:::[\w."]+(?:\(\d+(?:, \d+)?\))?)?'
SEQUENCE_GRANT = (
    rf"        EXECUTE format\('GRANT ({PRIVILEGES}) ON SEQUENCE %s TO ({ROLES})', found\);\n"
)


def plain(name: str) -> str:
    """Return a quoted, perhaps qualified name as it reads without quotes."""
    return ".".join(
        part[1:-1].replace('""', '"') if part.startswith('"') else part
        for part in re.findall(rf"{NAME}|[^.\"]+", name)
    )


def roles_in(text: str) -> set[str]:
    """Return the roles of a list."""
    return {plain(each) for each in re.findall(rf"PUBLIC|{NAME}", text)}


def is_whole(expression: str) -> bool:
    """Return whether *expression* closes no bracket that it does not open, and has no comment."""
    bare = re.sub(rf"{LITERAL}|{NAME}", "", expression)
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0 and not re.search(r"--|/\*|['\";$]", bare)
