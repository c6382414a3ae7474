"""The checker: what is wrong with a history, given what the database holds in the end.

Every row is written by one worker only, so a worker's own history says exactly what its rows must
be. Of the others' rows a reader may see versions that were, or may have been, committed. Rows that
a transaction of unknown outcome has touched are left alone afterwards: they are as they were before
it or as they are after it, and all of them alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ledger import (
    Failure,
    Fault,
    History,
    Look,
    Mark,
    Outcome,
    Read,
    Refusal,
    Row,
    Transaction,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["Finding", "check"]

Key = tuple[str, str]
Version = int | None


class Finding(NamedTuple):
    """One thing that must not be; *where* is the worker and the number of its transaction."""

    kind: str
    where: tuple[int, int] | None
    text: str


def check(histories: Iterable[History], final: Iterable[Row]) -> list[Finding]:
    """Return what is wrong; nothing, if every row was its transaction's tenant's and none is lost.

    Args:
        histories: Of all workers.
        final: All rows that the database holds once they have ended, whatever the tenant.
    """
    histories, rows = list(histories), list(final)
    written = Written(histories)
    held = {(row.table, row.id): row for row in rows}
    found = [finding for row in rows for finding in _misplaced(row, written)]
    for transaction in (each for history in histories for each in history):
        found += _of_transaction(transaction, written)
    for history in histories:
        replay = Replay(written, held)
        for transaction in history:
            found += replay.transaction(transaction)
        found += replay.end()
    return found


class Written:
    """Which transaction wrote each version, and whether a savepoint took it back."""

    def __init__(self, histories: Iterable[History]) -> None:
        self.author: dict[tuple[int, int], Transaction] = {}
        self.row: dict[tuple[int, int], Key] = {}
        self.undone: set[tuple[int, int]] = set()
        self.seen: set[tuple[int, int]] = set()
        for transaction in (each for history in histories for each in history):
            self._add(transaction)

    def _add(self, transaction: Transaction) -> None:
        since: list[list[tuple[int, int]]] = []
        for op in transaction.ops:
            if isinstance(op, Write) and op.seq is not None:
                version = (transaction.worker, op.seq)
                self.author[version], self.row[version] = transaction, (op.table, op.id)
                for each in since:
                    each.append(version)
            elif op is Mark.SET:
                since.append([])
            elif op in (Mark.RELEASED, Mark.UNDONE) and since:
                inside = since.pop()
                self.undone |= set(inside) if op is Mark.UNDONE else set()


def _of_transaction(transaction: Transaction, written: Written) -> Iterator[Finding]:
    where = (transaction.worker, transaction.number)
    for op in transaction.ops:
        if isinstance(op, Failure):
            yield Finding("broken", where, op.text)
        elif isinstance(op, Fault):
            yield Finding(op.kind, where, op.text)
        elif isinstance(op, Refusal) and not op.refused:
            yield Finding("not refused", where, op.attempt)
        elif isinstance(op, Look) and op.leftovers:
            yield Finding("leftover", where, ", ".join(op.leftovers))
        elif isinstance(op, Read):
            for row in op.rows:
                yield from _read(row, op.by, transaction, written)


def _read(row: Row, by: str, transaction: Transaction, written: Written) -> Iterator[Finding]:
    where = (transaction.worker, transaction.number)
    version = (row.writer, row.seq)
    if {row.tenant, row.owner} != {transaction.tenant}:
        yield Finding("crossing", where, f"read {_name(row)} by {by}")
    author = written.author.get(version)
    if author is None or written.row[version] != (row.table, row.id):
        yield Finding("never written", where, f"read {_name(row)} by {by}")
    elif author is not transaction:
        written.seen.add(version)
        if author.outcome is Outcome.ROLLED_BACK or version in written.undone:
            yield Finding("resurrected", where, f"read {_name(row)} by {by}")


def _misplaced(row: Row, written: Written) -> Iterator[Finding]:
    author = written.author.get((row.writer, row.seq))
    if author is None or written.row[row.writer, row.seq] != (row.table, row.id):
        yield Finding("never written", None, f"the database has {_name(row)}")
    elif {row.tenant, row.owner} != {author.tenant}:
        yield Finding("written across", (author.worker, author.number), _name(row))


def _name(row: Row) -> str:
    return f"{row.table} {row.id}, version {row.writer}/{row.seq}"


class Replay:
    """One worker's rows, as its history says that they must be."""

    def __init__(self, written: Written, held: dict[Key, Row]) -> None:
        self._written = written
        self._held = held
        self._rows: dict[str, dict[Key, Version]] = {}
        self._unsettled: dict[Key, Transaction] = {}
        self._unknown: list[tuple[Transaction, dict[Key, Version], dict[Key, Version]]] = []
        self._worker = -1

    def transaction(self, transaction: Transaction) -> Iterator[Finding]:
        """Go through *transaction*, which is the next."""
        self._worker = transaction.worker
        before = self._rows.setdefault(transaction.tenant or "", {})
        after, points = dict(before), list[dict[Key, Version]]()
        for op in transaction.ops:
            if isinstance(op, Write):
                after[op.table, op.id] = op.seq
            elif isinstance(op, Read) and op.whole and transaction.tenant:
                yield from self._whole(op, after, transaction)
            elif op is Mark.SET:
                points.append(dict(after))
            elif op is Mark.UNDONE:
                after = points.pop()
            elif op is Mark.RELEASED:
                points.pop()
        self._settle(transaction, before, after)

    def _settle(
        self, transaction: Transaction, before: dict[Key, Version], after: dict[Key, Version]
    ) -> None:
        if transaction.outcome is Outcome.COMMITTED:
            self._rows[transaction.tenant or ""] = after
        elif transaction.outcome is Outcome.UNKNOWN:
            changed = {key for key in after if after[key] != before.get(key)}
            self._unsettled |= dict.fromkeys(changed, transaction)
            old = {key: before.get(key) for key in changed}
            self._unknown.append((transaction, old, {key: after[key] for key in changed}))

    def _whole(
        self, read: Read, expected: dict[Key, Version], transaction: Transaction
    ) -> Iterator[Finding]:
        where = (transaction.worker, transaction.number)
        seen = {
            (row.table, row.id): row.seq
            for row in read.rows
            if row.table == read.whole and row.writer == transaction.worker
        }
        keys = {key for key in expected if key[0] == read.whole} | set(seen)
        for key in keys - set(self._unsettled):
            yield from _differs(key, expected.get(key), seen.get(key), where, f"read by {read.by}")

    def end(self) -> Iterator[Finding]:
        """Compare what must be left with what the database holds."""
        for rows in self._rows.values():
            for key in set(rows) - set(self._unsettled):
                yield from _differs(key, rows[key], self._version(key), None, "in the end")
        for transaction, old, new in self._unknown:
            yield from self._all_or_nothing(transaction, old, new)

    def _version(self, key: Key) -> Version:
        row = self._held.get(key)
        return row.seq if row else None

    def _all_or_nothing(
        self, transaction: Transaction, old: dict[Key, Version], new: dict[Key, Version]
    ) -> Iterator[Finding]:
        where = (transaction.worker, transaction.number)
        now = {key: self._version(key) for key in old}
        was_read = any((self._worker, seq) in self._written.seen for seq in new.values() if seq)
        if now not in (old, new):
            yield Finding("torn", where, "a transaction of unknown outcome is there in part")
        elif was_read and now != new:
            yield Finding("lost", where, "a transaction that others saw committed is gone")


def _differs(
    key: Key, expected: Version, actual: Version, where: tuple[int, int] | None, when: str
) -> Iterator[Finding]:
    if expected == actual:
        return
    resurrected = expected is None or (actual is not None and actual > expected)
    kind = "resurrected" if resurrected else "lost"
    yield Finding(kind, where, f"{key[0]} {key[1]} is {actual}, not {expected}, {when}")
