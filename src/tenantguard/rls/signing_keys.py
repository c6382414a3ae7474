"""Whether a database has the signed setting as it was generated."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.errors import sqlstate
from tenantguard.findings import Finding
from tenantguard.rls.names import literal
from tenantguard.rls.signed import (
    ENTER,
    SIGNING_TABLE,
    VERIFIED,
    enter_function,
    signed_steps,
    signing_target,
)
from tenantguard.rls.state import ask
from tenantguard.rls.step import Signed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Roles
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Step

__all__ = ["as_generated", "keys_open", "read_signed", "signed_findings", "unknown_key"]

_CONFIG = ["search_path=pg_catalog, pg_temp"]
_APPLY = "Run `tenantguard rls apply` with the owner's address."
_PUSH = "Run `tenantguard rls signing push` with the owner's address."
_UNKNOWN_KEY = "TG001"

_GRANTED = """(SELECT coalesce(json_agg(json_build_array(
        coalesce(r.rolname::text, 'public'), e.privilege_type)), '[]')
     FROM pg_catalog.aclexplode({acl}) e LEFT JOIN pg_catalog.pg_roles r ON r.oid = e.grantee)"""

# Whoever can become the owner has every privilege, too.
_REACHED = """(
        pg_catalog.pg_has_role(k.relowner, 'MEMBER')
        OR pg_catalog.pg_has_role(session_user, k.relowner, 'MEMBER')
        OR pg_catalog.has_table_privilege(k.oid, 'DELETE, TRUNCATE, TRIGGER')
        OR pg_catalog.has_any_column_privilege(k.oid, 'SELECT, INSERT, UPDATE, REFERENCES'))"""


def read_signed(run: Run, catalog: Catalog) -> dict[str, Facts]:
    """Return what the database has of the signed setting, by name; one statement."""
    schema, table = map(literal, signing_target(catalog))
    question = f"""
    SELECT coalesce(json_object_agg(f.name, f.facts), '{{}}')::text FROM (
        SELECT p.proname AS name, json_build_object('body', p.prosrc, 'definer', p.prosecdef,
            'config', p.proconfig, 'owner', pg_catalog.pg_get_userbyid(p.proowner),
            'volatile', p.provolatile::text, 'parallel', p.proparallel::text,
            'language', l.lanname, 'result', pg_catalog.pg_get_function_result(p.oid),
            'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid),
            'acl', {_GRANTED.format(acl="coalesce(p.proacl, acldefault('f', p.proowner))")}
            ) AS facts
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        JOIN pg_catalog.pg_language l ON l.oid = p.prolang
        WHERE n.nspname = {schema} AND p.proname IN ('{ENTER}', '{VERIFIED}')
            AND pg_catalog.pg_get_function_identity_arguments(p.oid) IN ('token text', '')
        UNION ALL
        SELECT k.relname, json_build_object('reached', {_REACHED},
            'owner', pg_catalog.pg_get_userbyid(k.relowner),
            'empty', pg_catalog.pg_relation_size(k.oid) = 0,
            'acl', {_GRANTED.format(acl="coalesce(k.relacl, acldefault('r', k.relowner))")},
            'column_acl', (SELECT coalesce(json_agg(a.attname), '[]')
                FROM pg_catalog.pg_attribute a WHERE a.attrelid = k.oid AND a.attacl IS NOT NULL))
        FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
        WHERE n.nspname = {schema} AND k.relname = {table} AND k.relkind = 'r') f"""
    found: dict[str, Facts] = ask(run, question)
    return found


def as_generated(step: Step, found: dict[str, Facts]) -> bool:
    """Return whether what *step* makes is among what was *found*, and is the same."""
    wanted, facts = step.wanted, found.get(step.name)
    if facts is None or not isinstance(wanted, Signed):
        return False
    return _same_function(wanted, facts) if wanted.body else _same_table(wanted, facts)


def signed_findings(
    found: dict[str, Facts], catalog: Catalog, roles: Roles, *, superuser: bool
) -> Iterator[Finding]:
    """Yield what keeps row-level security from believing the signature, and that alone."""
    schema = signing_target(catalog)[0]
    for step in signed_steps(catalog, roles):
        name = f"{schema}.{step.name}"
        if step.name not in found:
            yield Finding(
                "signing-missing", name, f"{name} of the signed setting is missing.", _APPLY
            )
        elif not as_generated(step, found):
            yield Finding(
                "signing-changed",
                name,
                f"{name} of the signed setting is not the generated one, or has other privileges.",
                _APPLY,
            )
    table = found.get(SIGNING_TABLE)
    name = f"{schema}.{SIGNING_TABLE}"
    # A superuser has every privilege; one finding says so.
    if table is not None and table["reached"] and not superuser:
        yield keys_open(name, "The connection's role")
    if table is not None and table["empty"]:
        yield Finding("signing-keys-empty", name, f"{name} has no keys.", _PUSH)


def keys_open(name: str, who: str) -> Finding:
    """Return the finding that *who* has privileges on the table of keys, *name*."""
    return Finding(
        "signing-keys-open",
        name,
        f"{who} has privileges on {name}, so injected SQL can sign.",
        "Revoke them, from the roles that it is a member of too; then make new keys, and "
        "remove the old ones.",
    )


def unknown_key(run: Run, catalog: Catalog, key: str) -> Iterator[Finding]:
    """Yield a finding if the database does not have *key*. It ends *run*'s transaction."""
    try:
        run(f"SELECT {enter_function(catalog)}({literal(key)})")
    except Exception as error:
        # Any other refusal comes after that.
        if not (sqlstate(error) or "").startswith("TG"):
            raise
        if sqlstate(error) == _UNKNOWN_KEY:
            yield Finding(
                "signing-key-unknown",
                ".".join(signing_target(catalog)),
                "The database does not have the key that signs.",
                _PUSH,
            )


def _same_function(wanted: Signed, facts: Facts) -> bool:
    same = {
        "body": wanted.body,
        "arguments": wanted.arguments,
        "result": wanted.result,
        "volatile": wanted.volatile,
        "parallel": wanted.parallel,
        "owner": wanted.owner,
        "language": "plpgsql",
        "config": _CONFIG,
        "definer": True,
    }
    return (
        all(facts[name] == value for name, value in same.items())
        and all([caller, "EXECUTE"] in facts["acl"] for caller in wanted.callers)
        and all(role != "public" for role, _ in facts["acl"])
    )


def _same_table(wanted: Signed, facts: Facts) -> bool:
    granted = {(role, may) for role, may in facts["acl"] if role != facts["owner"]}
    return granted == {(role, "SELECT") for role in wanted.callers} and not facts["column_acl"]
