"""What the application reaches beside the tables of its models.

Policies stand on tables. A view runs as its owner unless it says otherwise, a materialised view is
a copy without policies, a partition has policies of its own or none, and a SECURITY DEFINER
function sees what its owner sees.
"""

# ruff: noqa: S608  (statements are put together from constants and escaped literals)

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.doctor.subject import CouldNotLookError, Look
from tenantguard.findings import Finding, Severity
from tenantguard.rls.generate import entries
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.session import rolled_back
from tenantguard.rls.signed import ENTER, VERIFIED, signing_target
from tenantguard.rls.state import OWN_SCHEMAS, as_recordset, ask, not_of_an_extension
from tenantguard.rls.views import materialised_view, open_part, view_of_owner

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tenantguard.doctor.subject import Subject
    from tenantguard.rls.state import Facts
    from tenantguard.rls.step import Target

__all__ = ["definer_function", "look_at_relations"]

_REACHED = """(
        pg_catalog.has_any_column_privilege(k.oid, 'SELECT, INSERT, UPDATE')
        OR pg_catalog.has_table_privilege(k.oid, 'DELETE, TRUNCATE'))"""


def look_at_relations(subject: Subject) -> Look:
    """Find relations and functions through which the application gets past the policies."""
    known = entries(subject.catalog)
    guarded = [target_of(entry) for entry in known if entry.guarded]
    lookups = {(each.table.schema or "public", each.function) for each in subject.catalog.lookups}
    if subject.catalog.signed:
        lookups |= {(signing_target(subject.catalog)[0], name) for name in (ENTER, VERIFIED)}
    with subject.application_connection() as connection, rolled_back(connection) as run:
        [[superuser]] = run("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")
        if superuser:
            raise CouldNotLookError(
                "The application's role is a superuser, which reaches everything. Mend that first."
            )
        relations = ask(run, _relations(guarded))
        functions = ask(run, _functions(subject.roles.maintenance))
    in_models = {target_of(entry) for entry in known}
    findings = [
        *(found for each in relations for found in _relation(each, in_models)),
        *(definer_function(each) for each in functions if (each["s"], each["f"]) not in lookups),
    ]
    return Look(f"{len(relations)} relations within the application's reach", findings)


def _relations(guarded: Iterable[Target]) -> str:
    wanted = as_recordset(({"s": s, "t": t} for s, t in guarded), "s text, t text")
    return f"""
    WITH RECURSIVE guarded(oid) AS (
        SELECT k.oid FROM {wanted}
        JOIN pg_catalog.pg_namespace n ON n.nspname = w.s
        JOIN pg_catalog.pg_class k ON k.relnamespace = n.oid AND k.relname = w.t),
    parts(oid) AS (
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN guarded g ON g.oid = i.inhparent
        UNION
        SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN parts p ON p.oid = i.inhparent),
    readers(oid) AS (
        SELECT oid FROM guarded UNION SELECT oid FROM parts
        UNION
        SELECT w.ev_class FROM readers e
        JOIN pg_catalog.pg_depend d ON d.refobjid = e.oid
            AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
            AND d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
        JOIN pg_catalog.pg_rewrite w ON w.oid = d.objid AND w.ev_class <> e.oid)
    SELECT coalesce(json_agg(json_build_object('s', n.nspname, 't', k.relname,
        'kind', k.relkind::text, 'reads', k.oid IN (SELECT oid FROM readers),
        'part', k.oid IN (SELECT oid FROM parts),
        'locked', k.relrowsecurity AND k.relforcerowsecurity,
        'invoker', coalesce((SELECT o.option_value::boolean
            FROM pg_catalog.pg_options_to_table(k.reloptions) o
            WHERE o.option_name = 'security_invoker'), false))
        ORDER BY n.nspname, k.relname), '[]')::text
    FROM pg_catalog.pg_class k JOIN pg_catalog.pg_namespace n ON n.oid = k.relnamespace
    WHERE k.relkind IN ('r', 'p', 'v', 'm', 'f') AND {OWN_SCHEMAS}
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND {_REACHED}
        AND {not_of_an_extension("k", "pg_class")}"""


def _functions(maintenance: str) -> str:
    wanted = as_recordset([{"r": maintenance}], "r text")
    return f"""
    SELECT coalesce(json_agg(json_build_object('s', n.nspname, 'f', p.proname,
        'arguments', pg_catalog.pg_get_function_identity_arguments(p.oid), 'owner', o.rolname)
        ORDER BY n.nspname, p.proname), '[]')::text
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    JOIN pg_catalog.pg_roles o ON o.oid = p.proowner CROSS JOIN {wanted}
    WHERE p.prosecdef AND {OWN_SCHEMAS}
        AND p.prorettype NOT IN ('trigger'::pg_catalog.regtype, 'event_trigger'::pg_catalog.regtype)
        AND (o.rolsuper OR o.rolbypassrls OR o.rolname = w.r)
        AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
        AND {not_of_an_extension("p", "pg_proc")}"""


def _relation(facts: Facts, in_models: set[Target]) -> Iterator[Finding]:
    target = (facts["s"], facts["t"])
    if facts["kind"] == "m" and facts["reads"]:
        yield materialised_view(target)
    elif facts["kind"] == "v" and facts["reads"] and not facts["invoker"]:
        yield view_of_owner(target)
    elif facts["part"] and not facts["locked"] and target not in in_models:
        yield open_part(target)
    elif facts["kind"] in "rpf" and not facts["part"] and target not in in_models:
        name = ".".join(target)
        yield Finding(
            "relation-unknown",
            name,
            f"The application reaches {name}, which the models do not know.",
            f"REVOKE ALL ON {qualified(target)} FROM the application's role and from PUBLIC; or "
            "put it into the models and classify it (`tenantguard tables`).",
        )


def definer_function(facts: Facts, who: str = "the application") -> Finding:
    """Return the finding of a function that *who* may call, and that no policy restricts."""
    name = f"{facts['s']}.{facts['f']}"
    signature = f"{qualified((facts['s'], facts['f']))}({facts['arguments']})"
    return Finding(
        "function-definer",
        name,
        f"{who[0].upper()}{who[1:]} may call {name}, which runs as {facts['owner']!r}, whom no "
        "policy restricts.",
        f"Read it; then REVOKE EXECUTE ON ROUTINE {signature} FROM PUBLIC, or ALTER ROUTINE "
        f"{signature} OWNER TO a role with fewer rights than {quote(facts['owner'])}.",
        Severity.WARNING,
    )
