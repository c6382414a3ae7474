"""Statements that are sent together, and the lock that they take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BESIDE", "EXCLUSIVE", "WRITES", "Statements"]

EXCLUSIVE = "ACCESS EXCLUSIVE"
BESIDE = "SHARE UPDATE EXCLUSIVE"
WRITES = "SHARE ROW EXCLUSIVE"


@dataclass(frozen=True, slots=True)
class Statements:
    """What is sent together.

    Attributes:
        what: What it does.
        sql: The statements; one transaction, unless *alone*.
        lock: The lock that they take on the table.
        duration: How long they keep it.
        alone: Whether they cannot run in a transaction.
        rewrites: Whether all of the table is written anew.
        undo: What is sent, in a transaction, if a row does not fulfil a check.
    """

    what: str
    sql: tuple[str, ...]
    lock: str
    duration: str
    alone: bool = False
    rewrites: bool = False
    undo: tuple[str, ...] = ()
