"""The statements that the generator writes, each with what reads the fact that it makes."""

# ruff: noqa: S608  (these are patterns of statements; nothing is sent to a database)

from __future__ import annotations

import re

from tenantguard.report.script_names import (
    CAST,
    FUNCTION,
    LITERAL,
    NAME,
    PRIVILEGES,
    ROLES,
    SEQUENCE_GRANT,
    SETTING,
    TABLE,
)

__all__ = ["FORMS"]


def _form(pattern: str) -> re.Pattern[str]:
    """Return *pattern*, in which spaces and line breaks stand as the generator writes them."""
    return re.compile(pattern, re.DOTALL)


_BLOCK = r"DO \$tenantguard_*\$\n"
_BLOCK_END = r"\n\$tenantguard_*\$"

_FORMS: list[tuple[re.Pattern[str], str]] = [
    (
        _form(
            rf"{_BLOCK}BEGIN\n    IF NOT EXISTS \(SELECT FROM pg_roles WHERE rolname = {LITERAL}\) "
            rf"THEN\n        CREATE ROLE (?P<role>{NAME}) (?P<attributes>[A-Z ]+);\n"
            rf"    END IF;\nEND{_BLOCK_END}"
        ),
        "role",
    ),
    (
        _form(rf"REVOKE CREATE ON SCHEMA (?P<at>{NAME}) FROM (?P<roles>{ROLES})"),
        "no create",
    ),
    (
        _form(rf"GRANT (?P<privileges>USAGE) ON SCHEMA (?P<at>{NAME}) TO (?P<roles>{ROLES})"),
        "grant",
    ),
    (
        _form(rf"REVOKE (?P<what>ALL) ON TABLE (?P<at>{TABLE}) FROM (?P<roles>{ROLES})"),
        "revoke",
    ),
    (
        _form(
            rf"GRANT (?P<privileges>{PRIVILEGES}) ON TABLE (?P<at>{TABLE}) "
            rf"TO (?P<roles>{ROLES})"
        ),
        "grant",
    ),
    (_form(rf"DROP POLICY IF EXISTS (?P<name>{NAME}) ON (?P<at>{TABLE})"), "dropped"),
    (
        _form(
            rf"CREATE POLICY (?P<name>{NAME}) ON (?P<at>{TABLE}) "
            rf"AS (?P<mode>PERMISSIVE|RESTRICTIVE) FOR ALL\n    TO (?P<role>{NAME})\n"
            r"    USING \((?P<using>[^\n]+)\)\n    WITH CHECK \((?P<check>[^\n]+)\)"
        ),
        "policy",
    ),
    (_form(rf"COMMENT ON POLICY {NAME} ON {TABLE} IS {LITERAL}"), "nothing"),
    (
        _form(rf"ALTER TABLE (?P<at>{TABLE}) (?P<switch>ENABLE|FORCE) ROW LEVEL SECURITY"),
        "switch",
    ),
    (_form(rf"ALTER VIEW (?P<at>{TABLE}) SET \(security_invoker = true\)"), "invoker"),
    (
        _form(rf"ALTER TABLE (?P<at>{TABLE}) ALTER COLUMN (?P<name>{NAME}) SET NOT NULL"),
        "not null",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ALTER COLUMN (?P<name>{NAME}) "
            rf"SET DEFAULT (?P<value>{SETTING}{CAST})"
        ),
        "default",
    ),
    (
        _form(
            rf"CREATE INDEX (?P<name>{NAME}) ON (?P<at>{TABLE}) "
            rf"\((?P<value>{NAME}(?:, {NAME})*)\)"
        ),
        "index",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ADD CONSTRAINT (?P<name>{NAME}) "
            rf"UNIQUE \((?P<value>{NAME}(?:, {NAME})*)\)"
        ),
        "unique key",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ADD CONSTRAINT (?P<name>{NAME})\n"
            rf"    FOREIGN KEY \((?P<columns>{NAME}(?:, {NAME})*)\)\n"
            rf"    REFERENCES (?P<parent>{TABLE}) \((?P<theirs>{NAME}(?:, {NAME})*)\)"
            rf"(?P<options>(?: [A-Z]+|[(]{NAME}(?:, {NAME})*[)]| )*?) NOT VALID"
        ),
        "key",
    ),
    (
        _form(
            rf"{_BLOCK}DECLARE\n    forced regclass\[\] := "
            r"ARRAY\(SELECT oid::regclass FROM pg_class\n"
            rf"        WHERE oid IN \((?:{LITERAL}::regclass)(?:, {LITERAL}::regclass)*\) "
            r"AND relforcerowsecurity ORDER BY oid\);\n    lifted regclass;\nBEGIN\n"
            r"    FOREACH lifted IN ARRAY forced LOOP\n"
            r"        EXECUTE format\('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', lifted\);\n"
            r"    END LOOP;\n"
            rf"    ALTER TABLE (?P<at>{TABLE}) VALIDATE CONSTRAINT (?P<name>{NAME});\n"
            r"    FOREACH lifted IN ARRAY forced LOOP\n"
            r"        EXECUTE format\('ALTER TABLE %s FORCE ROW LEVEL SECURITY', lifted\);\n"
            rf"    END LOOP;\nEND{_BLOCK_END}"
        ),
        "validated",
    ),
    (
        _form(
            rf"CREATE OR REPLACE FUNCTION (?P<at>{TABLE})\([^\n]*\)\n    RETURNS [^\n]+\n"
            r"    LANGUAGE (?:sql|plpgsql) (?:STABLE|VOLATILE) SECURITY DEFINER[^\n]*\n"
            rf"    SET search_path = pg_catalog, pg_temp\n    AS {LITERAL}"
        ),
        "function",
    ),
    (_form(rf"DROP FUNCTION IF EXISTS {FUNCTION}"), "nothing"),
    (_form(rf"REVOKE ALL ON FUNCTION (?P<at>{FUNCTION}) FROM PUBLIC"), "not public"),
    (
        _form(rf"GRANT EXECUTE ON FUNCTION (?P<at>{FUNCTION}) TO (?P<roles>{ROLES})"),
        "execute",
    ),
    (
        _form(
            rf"{_BLOCK}DECLARE lent boolean := NOT has_schema_privilege\({LITERAL}, {LITERAL}, "
            rf"'CREATE'\);\nBEGIN\n    IF lent THEN\n"
            rf"        GRANT CREATE ON SCHEMA (?P<schema>{NAME}) TO (?P<role>{NAME});\n"
            rf"    END IF;\n    ALTER FUNCTION (?P<at>{FUNCTION}) OWNER TO (?P=role);\n"
            rf"    IF lent THEN\n        REVOKE CREATE ON SCHEMA (?P=schema) FROM (?P=role);\n"
            rf"    END IF;\nEND{_BLOCK_END}"
        ),
        "owner",
    ),
    (
        _form(
            rf"{_BLOCK}DECLARE found regclass;\nBEGIN\n    FOR found IN\n"
            r"        SELECT DISTINCT c\.oid::regclass FROM pg_class c\n"
            r"        LEFT JOIN pg_depend d ON d\.objid = c\.oid AND d\.deptype IN \('a', 'i'\)\n"
            r"            AND d\.classid = 'pg_class'::regclass "
            r"AND d\.refclassid = 'pg_class'::regclass\n"
            rf"        WHERE c\.relkind = 'S' AND \(d\.refobjid = to_regclass\("
            r"'(?P<at>(?:[^']|'')+)'\)"
            rf"(?P<extra> OR c\.oid IN \((?:to_regclass\({LITERAL}\)(?:, )?)+\))?\)\n    LOOP\n"
            rf"(?P<commands>(?:{SEQUENCE_GRANT})+)"
            rf"\n?    END LOOP;\nEND{_BLOCK_END}"
        ),
        "sequences",
    ),
    (
        _form(rf"ALTER TABLE (?P<at>{TABLE}) DROP CONSTRAINT IF EXISTS (?P<name>{NAME})"),
        "constraint dropped",
    ),
    (
        _form(rf"ALTER TABLE (?P<at>{TABLE}) VALIDATE CONSTRAINT (?P<name>{NAME})"),
        "validated",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ADD CONSTRAINT (?P<name>{NAME}) "
            r"CHECK \((?P<value>[^\n]+)\) NOT VALID"
        ),
        "check",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ADD COLUMN IF NOT EXISTS (?P<name>{NAME}) "
            r"(?P<type>[A-Z]+(?:\(\d+\))?)\n    GENERATED ALWAYS AS \((?P<value>[^\n]+)\) STORED"
        ),
        "generated",
    ),
    (
        _form(
            rf"ALTER TABLE (?P<at>{TABLE}) ADD COLUMN IF NOT EXISTS (?P<name>{NAME}) "
            r"(?P<type>[A-Z]+)"
        ),
        "plain",
    ),
    (
        _form(
            rf"CREATE OR REPLACE FUNCTION (?P<at>{TABLE})\(\) RETURNS trigger\n"
            r"    LANGUAGE plpgsql\n    SET search_path = pg_catalog\n    AS '\nBEGIN\n"
            rf"(?P<value>(?:    NEW\.{NAME} := substring\(NEW\.{NAME}, \d+, \d+\);\n)+)"
            r"    RETURN NEW;\nEND\n'"
        ),
        "search function",
    ),
    (
        _form(
            rf"CREATE OR REPLACE TRIGGER (?P<name>{NAME}) BEFORE INSERT OR UPDATE "
            rf"ON (?P<at>{TABLE})\n    FOR EACH ROW EXECUTE FUNCTION (?P<value>{TABLE})\(\)"
        ),
        "search trigger",
    ),
    (
        _form(
            rf"{_BLOCK}DECLARE\n    keeper name := \(SELECT pg_get_userbyid\(relowner\) "
            rf"FROM pg_class\n        WHERE oid = {LITERAL}::regclass\);\nBEGIN\n"
            rf"    EXECUTE format\('ALTER FUNCTION (?P<at>{TABLE})\(\) OWNER TO %I', keeper\);\n"
            rf"END{_BLOCK_END}"
        ),
        "table's owner",
    ),
    (
        _form(
            rf"{_BLOCK}BEGIN\n    IF NOT EXISTS \(SELECT FROM pg_index\n"
            rf"            WHERE indexrelid = to_regclass\({LITERAL}\)\n"
            rf"            AND indrelid = {LITERAL}::regclass\) THEN\n"
            rf"        CREATE INDEX (?P<name>{NAME}) ON (?P<at>{TABLE}) "
            rf"\((?P<value>{NAME}(?:, {NAME})*)\);\n    END IF;\nEND{_BLOCK_END}"
        ),
        "index",
    ),
    (
        _form(
            rf"{_BLOCK}BEGIN\n    IF to_regclass\({LITERAL}\) IS NOT NULL THEN\n"
            rf"(?P<body>(?:        (?:REVOKE|GRANT) [^\n;]+;\n)+)    END IF;\nEND{_BLOCK_END}"
        ),
        "if present",
    ),
]

FORMS: dict[str, list[tuple[re.Pattern[str], str]]] = {}
"""Each form, with the name of what reads it, by the statement's first word."""

for _form_, _read in _FORMS:
    FORMS.setdefault(_form_.pattern.partition(" ")[0], []).append((_form_, _read))
