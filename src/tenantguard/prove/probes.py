"""What is tried as the application, each within a savepoint of its own."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tenantguard.prove.case import REFUSED, Case, Seen, judged
from tenantguard.rls.names import column_list, literal, quote

if TYPE_CHECKING:
    from collections.abc import Callable

    from tenantguard.prove.invent import Row

__all__ = ["OWN", "PROBES", "Probe"]

_MALFORMED = "tenantguard: not a tenant"
_DATA = "22"


@dataclass(frozen=True, slots=True)
class Probe:
    """One way to cross.

    Attributes:
        name: Stable; findings are called `prove-` and this.
        says: What the application did if it reached something.
        act: Tries it.
        needs: What the application must be able to do to its own rows for the try to mean anything.
        fits: Whether the table is of a kind that it can be tried on.
        blind: Why it would say nothing of these rows, or an empty text.
    """

    name: str
    says: str
    act: Callable[[Case], Seen]
    needs: tuple[str, ...]
    fits: Callable[[Case], bool] = lambda _: True
    blind: Callable[[Case], str] = lambda _: ""


def _read(case: Case) -> Seen:
    return case.reads(case.owned_by(case.b))


def _read_by_key(case: Case) -> Seen:
    return case.reads(case.owned_by(case.b), case.is_row(case.row_b))


def _update(case: Case) -> Seen:
    return case.sweeps(f"UPDATE {case.name} SET {_assignment(case, case.row_a)}")


def _delete(case: Case) -> Seen:
    return case.sweeps(f"DELETE FROM {case.name}")


def _insert(case: Case) -> Seen:
    return case.writes(_inserted(case, case.written(case.row_b)))


def _move(case: Case) -> Seen:
    return case.writes(f"UPDATE {case.name} SET {quote(case.column)} = {literal(case.b)}")


def _upsert(case: Case) -> Seen:
    """Insert a row in the way of the other's, which is then updated."""
    key = _arbiter(case)
    own, foreign = case.written(case.row_a), case.written(case.row_b)
    values = own | {name: foreign[name] for name in key if name in foreign}
    return case.writes(
        f"{_inserted(case, values)} ON CONFLICT ({column_list(key)}) "
        f"DO UPDATE SET {_assignment(case, case.row_a)}"
    )


def _returning(case: Case) -> Seen:
    return case.sweeps(f"DELETE FROM {case.name} RETURNING {case.owned_by(case.b)}")


def _copy(case: Case) -> Seen:
    column = quote(case.column)
    plain = case.table.kind == "r"
    source = f"{case.name} ({column})" if plain else f"(SELECT {column} FROM {case.name})"
    case.session.attempt_as(case.a, "SELECT")
    reply = case.session.attempt_copy(f"COPY {source} TO STDOUT")
    return judged(reply, reached=(case.b,) in reply.rows)


def _unset_read(case: Case) -> Seen:
    return case.reads("true", tenant="")


def _unset_write(case: Case) -> Seen:
    return case.writes(f"DELETE FROM {case.name}", tenant="")


def _malformed(case: Case) -> Seen:
    seen = case.reads("true", tenant=_MALFORMED)
    if seen.refusal is not None and seen.refusal.state.startswith(_DATA):
        return REFUSED
    return seen


def _savepoint(case: Case) -> Seen:
    """Release a savepoint in which the other was active, after switching back."""
    bind = case.session.bind
    return case.asks(
        f"SAVEPOINT inner_tenant; {bind(case.b)}; {bind(case.a)}; RELEASE SAVEPOINT inner_tenant; "
        f"{_sees_b(case)}"
    )


def _prepared(case: Case) -> Seen:
    """Run a statement for the other that was prepared and run before, with a generic plan."""
    bind = case.session.bind
    execute = "EXECUTE tenantguard_prove"
    return case.asks(
        f"{bind(case.b)}; SET LOCAL plan_cache_mode = force_generic_plan; "
        f"PREPARE tenantguard_prove AS {_sees_b(case)}; {execute}; {bind(case.a)}; {execute}"
    )


def _cursor(case: Case) -> Seen:
    """Fetch for one what was opened for the other: it must not be rows of both."""
    reply = case.session.attempt_as(
        case.b,
        "DECLARE tenantguard_prove NO SCROLL CURSOR FOR SELECT "
        f"{case.owned_by(case.a)}, {case.owned_by(case.b)} FROM {case.name}; "
        f"{case.session.bind(case.a)}; FETCH ALL FROM tenantguard_prove",
    )
    both = any(row[0] for row in reply.rows) and any(row[1] for row in reply.rows)
    return judged(reply, reached=both)


def _forged(case: Case) -> Seen:
    """Name the other with the proof that was given for oneself."""
    return case.asks(f"{case.session.bind(case.b, proven=False)}; {_sees_b(case)}")


def _sees_b(case: Case) -> str:
    return f"SELECT coalesce(bool_or({case.owned_by(case.b)}), false) FROM {case.name}"


def _inserted(case: Case, values: dict[str, str]) -> str:
    return (
        f"INSERT INTO {case.name} ({column_list(values)}) OVERRIDING SYSTEM VALUE "
        f"VALUES ({', '.join(values.values())})"
    )


def _assignment(case: Case, row: Row) -> str:
    """Return an assignment of what *row* has already, which reads no column."""
    keys = {name for key in case.table.keys for name in key.columns}
    keys |= {name for each in case.table.references for name in each.columns}
    free = [
        each.name
        for each in case.table.columns.values()
        if each.updatable and not each.generated and each.identity != "a"
    ]
    chosen = next((name for name in free if name not in keys), case.column)
    return f"{quote(chosen)} = {row.values[chosen]}"


def _arbiter(case: Case) -> tuple[str, ...]:
    """Return the columns of a key: one without NULL if there is one, of these a shared one."""
    keys = [key.columns for key in case.table.keys if key.arbitrates and key.columns]
    return min(keys, key=lambda key: (_has_null(case, key), case.column in key), default=())


def _has_null(case: Case, key: tuple[str, ...]) -> bool:
    return any(row.values[name] == "NULL" for row in (case.row_a, case.row_b) for name in key)


def _without_conflict(case: Case) -> str:
    if not _has_null(case, _arbiter(case)):
        return ""
    return (
        "a row has NULL in each key, so nothing conflicts. Put rows of two tenants there that have "
        "none, and run it with --samples existing"
    )


def _is_table(case: Case) -> bool:
    return case.table.kind in ("r", "p")


def _has_key(case: Case) -> bool:
    return _is_table(case) and bool(_arbiter(case))


def _is_signed(case: Case) -> bool:
    return bool(case.session.proofs)


PROBES = (
    Probe("read", "reads another tenant's rows without WHERE", _read, ("read",)),
    Probe("key", "reads another tenant's row by its key", _read_by_key, ("read",)),
    Probe("copy", "copies another tenant's rows out", _copy, ("read",)),
    Probe("unset", "reads rows while no tenant is set", _unset_read, ("read",)),
    Probe("malformed", "reads rows with a malformed tenant", _malformed, ("read",)),
    Probe("savepoint", "reads another's rows after a savepoint's release", _savepoint, ("read",)),
    Probe("prepared", "reads another's rows by a statement prepared for it", _prepared, ("read",)),
    Probe("cursor", "fetches rows of two tenants from one cursor", _cursor, ("read",)),
    Probe("forged", "reads rows of a tenant that nobody signed", _forged, ("read",), _is_signed),
    Probe("update", "changes another tenant's rows without WHERE", _update, ("update",), _is_table),
    Probe("delete", "deletes another tenant's rows without WHERE", _delete, ("delete",), _is_table),
    Probe(
        "returning",
        "is returned another tenant's rows by a DELETE",
        _returning,
        ("read", "delete"),
        _is_table,
    ),
    Probe(
        "write-unset", "deletes rows while no tenant is set", _unset_write, ("delete",), _is_table
    ),
    Probe("insert", "puts a row into another tenant's", _insert, ("insert",), _is_table),
    Probe("move", "gives a row to another tenant", _move, ("update",), _is_table),
    Probe(
        "upsert",
        "changes another tenant's row by INSERT … ON CONFLICT",
        _upsert,
        ("read", "insert", "update"),
        _has_key,
        _without_conflict,
    ),
)


def _own_read(case: Case) -> Seen:
    return case.reads(case.owned_by(case.a))


def _own_insert(case: Case) -> Seen:
    return case.writes(_inserted(case, case.written(case.row_a)), of=case.a)


def _own_update(case: Case) -> Seen:
    return case.writes(f"UPDATE {case.name} SET {_assignment(case, case.row_a)}", of=case.a)


def _own_delete(case: Case) -> Seen:
    return case.writes(f"DELETE FROM {case.name} WHERE {case.is_row(case.row_a)}", of=case.a)


OWN: dict[str, Callable[[Case], Seen]] = {
    "read": _own_read,
    "insert": _own_insert,
    "update": _own_update,
    "delete": _own_delete,
}
"""What a tenant may do to its own rows, by the name that probes need it by."""
