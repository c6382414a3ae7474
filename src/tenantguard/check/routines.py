"""The functions and procedures of a database that matter to policies, asked for once."""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.check import reach
from tenantguard.rls.names import DEFAULT_SCHEMA, literal, qualified
from tenantguard.rls.signed import ENTER, VERIFIED, signing_target
from tenantguard.rls.state import OWN_SCHEMAS, not_of_an_extension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.check.subject import Subject
    from tenantguard.rls.state import Facts

__all__ = ["Routine", "is_pinned", "routines", "setting_of"]


_TENANT = r'tenantguard"?\s*\.\s*"?tenant'

# The name of the setting is computed, so it can be the tenant's.
_ANY_SETTING = r"\mset_config\s*\(\s*(?!'[^']*'(::[a-z ]+)?\s*,)"

# A body in standard SQL is kept as a tree, and prosrc is empty then.
_BODY = "coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)"

# Functions that policies call, and what those call as far as PostgreSQL knows it.
_USED = """used(oid, relation) AS (
        SELECT d.refobjid, l.polrelid FROM pg_catalog.pg_depend d
        JOIN pg_catalog.pg_policy l ON l.oid = d.objid
        WHERE d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
        UNION
        SELECT d.refobjid, u.relation FROM used u JOIN pg_catalog.pg_depend d ON d.objid = u.oid
            AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
            AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass)"""

_FIRED = """(EXISTS (SELECT FROM pg_catalog.pg_trigger t
            WHERE t.tgfoid = p.oid AND NOT t.tgisinternal AND t.tgenabled <> 'D')
        OR EXISTS (SELECT FROM pg_catalog.pg_event_trigger e
            WHERE e.evtfoid = p.oid AND e.evtenabled <> 'D'))"""


@dataclass(frozen=True, slots=True)
class Routine:
    """A function or procedure, as the catalog has it."""

    facts: Facts
    application: str

    @property
    def name(self) -> str:
        """Its name with its schema, unquoted."""
        return f"{self.facts['s']}.{self.facts['f']}"

    @property
    def signature(self) -> str:
        """Its name and arguments, as SQL has them."""
        return f"{qualified((self.facts['s'], self.facts['f']))}({self.facts['arguments']})"

    @property
    def owner(self) -> str:
        """The role that owns it."""
        return str(self.facts["owner"])

    @property
    def unheld(self) -> bool:
        """Whether policies do not restrict its owner."""
        return bool(self.facts["unheld"])

    @property
    def rules(self) -> bool:
        """Whether it commands as the owner of guarded tables, who can turn policies off."""
        return bool(self.facts["rules"])

    @property
    def definer(self) -> bool:
        """Whether it runs as its owner."""
        return bool(self.facts["definer"])

    @property
    def leakproof(self) -> bool:
        """Whether it may run before policies."""
        return bool(self.facts["leakproof"])

    @property
    def triggered(self) -> bool:
        """Whether it is a trigger's, so that nobody can call it."""
        return bool(self.facts["triggered"])

    @property
    def callers(self) -> list[str]:
        """Those of application and support that may call it."""
        return list(self.facts["callers"])

    @property
    def who(self) -> str:
        """Who may call it, in words."""
        return "the application" if self.application in self.callers else "support"

    @property
    def runs(self) -> bool:
        """Whether the application or support may call it or set it off."""
        return bool(self.facts["fired"] if self.triggered else self.callers)

    @property
    def policies(self) -> list[str]:
        """The tables whose policies call it, itself or through others."""
        return list(self.facts["policies"])

    @property
    def body(self) -> str:
        """Its text, if it is a policy's or names the tenant."""
        return self.facts["body"] or ""

    @property
    def sets_any(self) -> bool:
        """Whether it sets a setting whose name it computes or is given."""
        return bool(self.facts["any"])

    @property
    def names_tenant(self) -> bool:
        """Whether its text names the tenant's setting."""
        return bool(self.facts["tenant"])


def routines(subject: Subject) -> Iterator[Routine]:
    """Yield the functions and procedures that are nobody's extension, and not generated."""
    for facts in subject.ask(_question(subject)):
        if not _is_generated(facts, subject):
            yield Routine(facts, subject.roles.application)


def _is_generated(facts: Facts, subject: Subject) -> bool:
    """Return whether *facts* are of a function that tenantguard makes, changed or not.

    One of the same name with other arguments is not.
    """
    called = (facts["s"], facts["f"])
    lookups = {
        (each.table.schema or DEFAULT_SCHEMA, each.function) for each in subject.catalog.lookups
    }
    if called in lookups:
        return bool(re.fullmatch("key [^,]+", facts["arguments"]))
    schema, _ = signing_target(subject.catalog)
    signed = {(schema, ENTER): "token text", (schema, VERIFIED): ""}
    return subject.catalog.signed and signed.get(called) == facts["arguments"]


def setting_of(routine: Routine, name: str) -> str | None:
    """Return what *routine* sets *name* to while it runs, None if it does not."""
    pairs = (each.partition("=") for each in routine.facts["config"] or ())
    return next((value for found, _, value in pairs if found.lower() == name), None)


def is_pinned(routine: Routine) -> bool:
    """Return whether its caller cannot choose what its names mean.

    Names in standard SQL are looked up once, when the function is made. In any other, temporary
    tables come first, unless the path says where they come.
    """
    if routine.facts["bound"] or routine.facts["language"] in {"c", "internal"}:
        return True
    path = setting_of(routine, "search_path")
    return path is not None and (path in {"", '""'} or "pg_temp" in path)


def _question(subject: Subject) -> str:
    return f"""
    WITH RECURSIVE {reach.confined(subject)}, {_USED},
    seen AS (
        SELECT p.*, n.nspname, {_BODY} AS body,
            p.oid IN (SELECT u.oid FROM used u) AS helps
        FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
        WHERE ({OWN_SCHEMAS} OR p.oid >= {reach.FIRST_OWN}) AND p.prokind IN ('f', 'p', 'w')
            AND {not_of_an_extension("p", "pg_proc")})
    SELECT coalesce(json_agg(json_build_object('s', p.nspname, 'f', p.proname,
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid), 'owner', o.rolname,
        'unheld', {reach.unheld("o", subject)},
        'rules', p.prosecdef AND {reach.rules_over("o", "p.body", subject)},
        'definer', p.prosecdef, 'config', p.proconfig, 'any', p.body ~* {literal(_ANY_SETTING)},
        'leakproof', p.proleakproof, 'volatile', p.provolatile::text,
        'parallel', p.proparallel::text, 'language', l.lanname,
        'bound', pg_catalog.pg_get_function_sqlbody(p.oid) IS NOT NULL,
        'triggered', p.prorettype IN (
            'trigger'::pg_catalog.regtype, 'event_trigger'::pg_catalog.regtype),
        'fired', {_FIRED}, 'tenant', p.body ~* {literal(_TENANT)},
        'callers', ARRAY(SELECT c.role FROM confined c
            WHERE pg_catalog.has_schema_privilege(c.oid, p.pronamespace, 'USAGE')
                AND pg_catalog.has_function_privilege(c.oid, p.oid, 'EXECUTE')),
        'policies', ARRAY(SELECT DISTINCT u.relation::pg_catalog.regclass::text FROM used u
            WHERE u.oid = p.oid ORDER BY 1),
        'body', CASE WHEN p.helps OR p.body ~* {literal(_TENANT)} THEN p.body END)
        ORDER BY p.nspname, p.proname, p.oid), '[]')::text
    FROM seen p JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
    JOIN pg_catalog.pg_language l ON l.oid = p.prolang
    WHERE p.prosecdef OR p.proleakproof OR p.helps OR p.body ~* {literal(_TENANT)}
        OR p.body ~* {literal(_ANY_SETTING)} OR EXISTS (SELECT FROM unnest(p.proconfig) f
            WHERE lower(f) ~ '^(row_security|tenantguard[.]tenant)=')"""
