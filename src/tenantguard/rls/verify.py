"""Whether the second lock holds, asked as the application's own role.

At most four statements, however many tables there are, and two more for the signed setting, in a
transaction that is rolled back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tenantguard.catalog import WRITTEN
from tenantguard.catalog import Kind as TableKind
from tenantguard.errors import LOCK_NOT_AVAILABLE, LOST, sqlstate
from tenantguard.findings import Finding
from tenantguard.rls.comparing import APPLY, extra_policy, floors_hold, policy_findings
from tenantguard.rls.dialect import dialect_of
from tenantguard.rls.drift import derived_shapes, drift
from tenantguard.rls.encrypted import watched_columns
from tenantguard.rls.forms import shape_of, stored_forms
from tenantguard.rls.generate import LOCK_TIMEOUT, entries
from tenantguard.rls.names import target_of
from tenantguard.rls.policies import APPLICATION_POLICIES, wanted_policies
from tenantguard.rls.role import role_findings
from tenantguard.rls.session import rolled_back
from tenantguard.rls.signed import VERIFIED, verified_call
from tenantguard.rls.signing_keys import read_signed, signed_findings, unknown_key
from tenantguard.rls.state import read_tables
from tenantguard.rls.views import is_view, view_findings, way_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.catalog import Catalog, Entry, Roles
    from tenantguard.rls.policies import PolicyForm
    from tenantguard.rls.state import Facts, Run
    from tenantguard.rls.step import Policy

__all__ = ["LOCKED", "privilege_excess", "switch_findings", "verify", "verify_role"]

_CLASSIFY = "Classify the table (`tenantguard tables` says how), or revoke the privilege."
_WRITES = {"INSERT", "UPDATE", "DELETE"}

LOCKED = Finding(
    "could-not-compare",
    None,
    f"A table stayed locked for {LOCK_TIMEOUT}, as a migration does it, so its policies could not "
    "be read.",
    "Try again when the other transaction has ended.",
)
"""What `verify` finds while a table is locked: nothing is proven then."""

_NEVER = {"TRUNCATE", "REFERENCES", "TRIGGER"}


def verify(
    connection: Any, catalog: Catalog, roles: Roles, signing_key: str | None = None
) -> list[Finding]:
    """Return everything that keeps the second lock from holding on *connection*; none is good.

    A table that stays locked is a finding too, after 3 seconds: who connects must not wait for a
    migration to end.

    Args:
        connection: A DBAPI connection. What is open on it is rolled back; it is left idle.
        catalog: The application's tables.
        roles: The roles the policies speak of.
        signing_key: The id of the key that signs the tenant, if there is one to ask for.
    """
    known = entries(catalog)
    with rolled_back(connection) as run:
        findings = list(role_findings(run, catalog, roles))
        columns = {
            target_of(each): each.column.name if each.guarded and each.column is not None else ""
            for each in known
        }
        try:
            watched = {target_of(each): watched_columns(each) for each in known}
            tables = read_tables(run, columns, watched)
        except Exception as error:
            if _is_locked(error):
                return [*findings, LOCKED]
            raise
        superuser = any(finding.code == "role-superuser" for finding in findings)
        for entry in known:
            facts = tables.get(target_of(entry))
            findings.extend(switch_findings(entry, facts))
            # A superuser has every privilege; one finding says so.
            if facts is not None and not superuser:
                findings.extend(_privileges(entry, facts))
                findings.extend(way_findings(facts, {target_of(each) for each in known}))
        signed = read_signed(run, catalog) if catalog.signed else {}
        findings.extend(signed_findings(signed, catalog, roles, superuser=superuser))
        compared = _Compared(
            roles, verified_call(catalog), dialect_of(catalog).form, missing=VERIFIED not in signed
        )
        findings.extend(_policies(run, known, tables, compared))
        if signing_key is not None and not findings:
            findings.extend(unknown_key(run, catalog, signing_key))
    # A view of two guarded tables is found with each.
    return list(dict.fromkeys(findings))


def verify_role(connection: Any, catalog: Catalog, roles: Roles) -> list[Finding]:
    """Return what may have changed since `verify`, in one statement: the role, and RLS itself."""
    with rolled_back(connection) as run:
        return list(role_findings(run, catalog, roles, switches=True))


def _is_locked(error: BaseException) -> bool:
    return sqlstate(error) == LOCK_NOT_AVAILABLE


def _is_lost(error: BaseException) -> bool:
    """Return whether the connection has ended, which says nothing of the policies."""
    return (sqlstate(error) or LOST[0]).startswith(LOST)


def switch_findings(entry: Entry, facts: Facts | None) -> Iterator[Finding]:
    """Yield whether *entry*'s table is missing, or its row-level security is off for anyone."""
    if not entry.guarded:
        return
    name = ".".join(target_of(entry))
    if facts is None or facts["type"] is None:
        missing = "table" if facts is None else "tenant column"
        yield Finding(
            f"{missing.replace('tenant ', '')}-missing",
            name,
            f"The database has no {missing} for {name}, or the role cannot see it.",
            "Run the application's migrations, then `tenantguard rls apply`.",
        )
        return
    if is_view(entry):
        yield from view_findings(entry, facts)
        return
    if not facts["enabled"]:
        yield Finding(
            "rls-not-enabled", name, f"Row-level security is not enabled on {name}.", APPLY
        )
    if not facts["forced"]:
        yield Finding(
            "rls-not-forced", name, f"Row-level security is not forced on {name}'s owner.", APPLY
        )


def privilege_excess(entry: Entry, excess: list[str], who: str = "The application") -> Finding:
    """Return the finding that *who* may do with *entry*'s table what its kind does not allow."""
    name = ".".join(target_of(entry))
    return Finding(
        "privilege-excess",
        name,
        f"{who} may {', '.join(excess)} on {name}, which is {entry.kind.value}.",
        _CLASSIFY if entry.kind is TableKind.UNCLASSIFIED else APPLY,
    )


def _privileges(entry: Entry, facts: Facts) -> Iterator[Finding]:
    excess = sorted(_refused(entry) & set(facts["privileges"]))
    if excess:
        yield privilege_excess(entry, excess)


def _refused(entry: Entry) -> set[str]:
    if entry.kind in (TableKind.UNTENANTED, TableKind.UNCLASSIFIED):
        return _NEVER | _WRITES | {"SELECT"}
    if entry.kind is TableKind.KEYS:
        return _NEVER | (_WRITES - {"INSERT"})
    return _NEVER if entry.kind in WRITTEN else _NEVER | _WRITES


@dataclass(frozen=True, slots=True)
class _Compared:
    """Which policies are compared; *verified* as in `wanted_policies`.

    What calls the function that proves a tenant cannot be, while that is *missing*.
    """

    roles: Roles
    verified: str | None
    form: PolicyForm
    missing: bool

    def __call__(self, entry: Entry) -> dict[str, Policy]:
        wanted = wanted_policies(entry, self.roles, self.verified, self.form)
        uncallable = self.verified if self.missing else None
        return {
            name: wanted[name]
            for name in APPLICATION_POLICIES
            if name in wanted and (uncallable is None or uncallable not in wanted[name].expression)
        }


def _policies(
    run: Run, known: list[Entry], tables: dict[Any, Facts], compared: _Compared
) -> Iterator[Finding]:
    found = {
        target_of(entry): (entry, tables[target_of(entry)])
        for entry in known
        if entry.guarded and not is_view(entry) and tables.get(target_of(entry), {}).get("type")
    }
    wanted = {target: compared(entry) for target, (entry, _) in found.items()}
    shapes = [
        shape_of(policy, found[target][1])
        for target in wanted
        for policy in wanted[target].values()
    ]
    derived = [shape for entry, _ in found.values() for shape in derived_shapes(entry)]
    try:
        forms = stored_forms(run, [*shapes, *derived])
    except Exception as error:
        if _is_locked(error):
            yield LOCKED
            return
        if _is_lost(error):
            raise
        yield Finding(
            "could-not-compare",
            None,
            f"The policies could not be compared with the models ({type(error).__name__}): "
            "this needs a temporary table.",
            "Verify on the primary server, with GRANT TEMPORARY ON DATABASE … to the "
            "application's role.",
        )
        return
    for target, (entry, facts) in found.items():
        yield from drift(entry, facts, forms)
        yield from policy_findings(target, wanted[target], facts, forms)
        held = floors_hold(wanted[target], facts, forms)
        yield from _strangers(target, facts, held=held)


def _strangers(target: tuple[str, str], facts: Facts, *, held: bool) -> Iterator[Finding]:
    for name, stored in sorted(facts["policies"].items()):
        if name not in APPLICATION_POLICIES and stored["permissive"] and stored["applies"]:
            yield extra_policy(target, name, facts, held=held)
