"""Trying one table: what the application could do, and whether the trial could have noticed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tenantguard.findings import Finding
from tenantguard.prove.beside import (
    crossings,
    point_across,
    truncate,
    with_truncate,
    without_tenant,
)
from tenantguard.prove.case import NOTHING, Case, Seen, What
from tenantguard.prove.invent import NotProvableError
from tenantguard.prove.probes import OWN, PROBES
from tenantguard.rls.names import qualified

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.prove.beside import Crossing
    from tenantguard.prove.invent import Row
    from tenantguard.prove.probes import Probe
    from tenantguard.rls.step import Target

__all__ = ["Tried", "tried"]

_MEND = (
    "Run `tenantguard rls check`: it names what lets this pass. `tenantguard rls apply --dry-run`, "
    "with the owner's address, says what the table lacks."
)
_PRIVILEGES = {"read": "SELECT", "insert": "INSERT", "update": "UPDATE", "delete": "DELETE"}


@dataclass(slots=True)
class Tried:
    """What came of the probes of one table.

    Attributes:
        held: Probes that held and whose negative control went red.
        left_out: Probes that cannot be tried there, with the reason.
        findings: What the application could do.
        doubts: Why the table is not proven.
    """

    held: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def tried(case: Case, application: str, registry: Target) -> Tried:
    """Try every probe on *case*, with the policies and without them."""
    result = Tried()
    foreign = _foreign_rows(case, registry, result)
    own, seen = _acts(case)
    with case.session.undone():
        case.session.run(_without_policies(case))
        own_open, seen_open = _acts(case)
    able = {name for name, each in own_open.items() if each.what is What.REACHED}
    _judge_own(case, own, able, result)
    for probe in PROBES:
        if probe.fits(case):
            _judge(case, probe, (seen[probe.name], seen_open[probe.name]), able, result)
    if case.table.kind in ("r", "p"):
        _try_truncate(case, application, result)
        for crossing, row in foreign:
            _try_crossing(case, crossing, row, able, result)
    return result


def _acts(case: Case) -> tuple[dict[str, Seen], dict[str, Seen]]:
    view = case.table.kind not in ("r", "p")
    own = {
        name: _run(case, act)
        for name, act in OWN.items()
        if _may(case, name) and not (view and name != "read")
    }
    probes = {
        each.name: _run(case, each.act)
        for each in PROBES
        if each.fits(case) and all(map(own.__contains__, each.needs))
    }
    untried = {each.name: NOTHING for each in PROBES if each.name not in probes}
    return own, probes | untried


def _may(case: Case, act: str) -> bool:
    return _PRIVILEGES[act] in case.table.privileges


def _run(case: Case, act: Callable[[Case], Seen]) -> Seen:
    with case.session.undone():
        return act(case)


def _without_policies(case: Case) -> str:
    return "; ".join(
        f"ALTER TABLE {qualified(each.target)} NO FORCE ROW LEVEL SECURITY, "
        "DISABLE ROW LEVEL SECURITY"
        for each in case.tables
    )


def _judge_own(case: Case, own: dict[str, Seen], able: set[str], result: Tried) -> None:
    if "read" in own and "read" not in able:
        result.doubts.append("Without its policies, too, a tenant does not see its own row.")
    for name, seen in own.items():
        if name in able and seen.what is not What.REACHED:
            result.findings.append(
                _finding(case, f"own-{name}", f"cannot {name} its own tenant's rows")
            )


def _judge(
    case: Case, probe: Probe, seen: tuple[Seen, Seen], able: set[str], result: Tried
) -> None:
    missing = [each for each in probe.needs if each not in able]
    if missing:
        result.left_out[probe.name] = f"the application cannot {', '.join(missing)} its own rows"
    elif seen[0].holds and (blind := probe.blind(case)):
        result.doubts.append(f"Probe {probe.name} says nothing: {blind}.")
    else:
        _conclude(case, (probe.name, probe.says), *seen, result)


def _conclude(case: Case, what: tuple[str, str], seen: Seen, control: Seen, result: Tried) -> None:
    name, says = what
    if seen.what is What.REACHED:
        result.findings.append(_finding(case, name, says))
    elif not seen.holds:
        result.doubts.append(f"Probe {name} ended in another error: {seen.refusal}.")
    elif not _went_red(control):
        result.doubts.append(
            f"Probe {name} found nothing although its negative control had taken the protection "
            "away, so it says nothing."
        )
    else:
        result.held.append(name)


def _went_red(control: Seen) -> bool:
    """Return whether a probe notices that the protection is gone: if not, it says nothing."""
    return not control.holds


def _finding(case: Case, name: str, says: str) -> Finding:
    table = ".".join(case.table.target)
    return Finding(f"prove-{name}", table, f"On {table} the application {says}.", _MEND)


def _try_truncate(case: Case, application: str, result: Tried) -> None:
    seen = _run(case, truncate)
    with case.session.undone():
        case.session.run(with_truncate(case, application))
        control = _run(case, truncate)
    _conclude(case, ("truncate", "empties the table for every tenant"), seen, control, result)


def _foreign_rows(case: Case, registry: Target, result: Tried) -> list[tuple[Crossing, Row]]:
    """Return what can be pointed at, made while constraints may still be deferred."""
    found = []
    for crossing in crossings(case.table, case.inventor.owned, registry):
        own = crossing.parent == case.table.target
        try:
            row = case.row_b if own else case.inventor.row(crossing.parent, case.b)
        except NotProvableError as error:
            result.doubts.append(f"The foreign key by {crossing.columns} was not tried: {error}")
        else:
            found.append((crossing, row))
    case.session.run("SET CONSTRAINTS ALL IMMEDIATE")
    return found


def _try_crossing(case: Case, crossing: Crossing, row: Row, able: set[str], result: Tried) -> None:
    name = f"foreign-key {crossing.columns}"
    if not able & {"insert", "update"}:
        result.left_out[name] = "the application writes no rows there"
        return

    def act(case: Case) -> Seen:
        return point_across(case, crossing, row, updates="update" in able)

    seen = _run(case, act)
    drop = without_tenant(case, crossing)
    control = NOTHING
    if drop is not None:
        with case.session.undone():
            case.session.run(drop)
            control = _run(case, act)
    says = f"refers by {crossing.columns} to another tenant's row"
    if seen.what is What.REACHED:
        table = ".".join(case.table.target)
        result.findings.append(
            Finding(
                "prove-foreign-key",
                table,
                f"On {table} the application {says}.",
                _MEND,
                column=crossing.pairs[0][0],
            )
        )
    else:
        _conclude(case, (name, says), seen, control, result)
