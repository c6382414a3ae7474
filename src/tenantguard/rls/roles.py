"""Roles, and what they may do with schemas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.rls.grants import granted_roles
from tenantguard.rls.names import column_list, do_block, plain_literal, quote, target_of
from tenantguard.rls.step import Kind, Phase, Step, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Entry, Roles

__all__ = ["role_steps", "schema_steps"]


def role_steps(roles: Roles) -> Iterator[Step]:
    """Yield a step for each role. Passwords are never set, and no role is granted to another."""
    attributes = {
        roles.owner: "NOLOGIN",
        roles.application: "LOGIN",
        roles.maintenance: "NOLOGIN",
        roles.support: "NOLOGIN",
        roles.backup: "NOLOGIN BYPASSRLS",
    }
    for role, attribute in attributes.items():
        create = do_block(
            "BEGIN\n"
            f"    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {plain_literal(role)}) THEN\n"
            f"        CREATE ROLE {quote(role)} {attribute};\n"
            "    END IF;\n"
            "END"
        )
        yield Step(Phase.CLUSTER, ("", ""), Kind.ROLE, role, (create,), (), Value(role))


def schema_steps(entries: list[Entry], roles: Roles) -> Iterator[Step]:
    """Yield a step for each schema that holds tables."""
    everyone = column_list(granted_roles(roles))
    confined = column_list((roles.application, roles.support))
    for schema in sorted({target_of(entry)[0] for entry in entries}):
        yield Step(
            phase=Phase.SCHEMAS,
            target=(schema, ""),
            kind=Kind.SCHEMA,
            name="privileges",
            up=(
                f"REVOKE CREATE ON SCHEMA {quote(schema)} FROM PUBLIC, {confined}",
                f"GRANT USAGE ON SCHEMA {quote(schema)} TO {everyone}",
            ),
            down=(f"REVOKE USAGE ON SCHEMA {quote(schema)} FROM {everyone}",),
            wanted=Value(schema),
        )
