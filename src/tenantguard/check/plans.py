"""How PostgreSQL would run a query, with row-level security and without; nothing is run."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import BigInteger, Integer, SmallInteger

from tenantguard.catalog import SETTING
from tenantguard.check.sight import as_role, settings
from tenantguard.tenant_ids import affinity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tenantguard.check.subject import Subject
    from tenantguard.rls.state import Run

__all__ = ["Scan", "as_application", "scans"]

_NUMBERS = {SmallInteger, Integer, BigInteger}

# A parameter is written in one way up to PostgreSQL 16, and in another from 17 on.
_PARAMETER = re.compile(r"\$\d+|\(InitPlan \d+\)\.col\d+|\(?hashed SubPlan \d+\)?|'(?:[^']|'')*'")

_SMALL = {"enable_seqscan": "off"}
"""An index is passed over on a small table; what is asked is whether it could be used."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One node that reads a table or an index.

    Attributes:
        node: PostgreSQL's name for it, such as "Bitmap Index Scan".
        index: The index that it reads, or None.
        condition: What it looks up in the index, with a question mark for each value, or "".
    """

    node: str
    index: str | None
    condition: str

    def __str__(self) -> str:
        return f"{self.node} using {self.index}" if self.index else self.node


@contextmanager
def as_application(subject: Subject, run: Run) -> Iterator[None]:
    """Be the application's role within the block, for a tenant that does not exist.

    Raises:
        CouldNotLookError: If the role of the address may not be it.
    """
    tenant = "0" if affinity(subject.catalog.tenant_type) in _NUMBERS else str(UUID(int=0))
    with (
        settings(run, {SETTING: tenant, "row_security": "on"}),
        as_role(run, subject.roles.application),
    ):
        yield


def scans(run: Run, query: str) -> list[Scan]:
    """Return the scans in the plan of *query*, as the current role would run it."""
    with settings(run, _SMALL):
        [[answer]] = run(f"EXPLAIN (FORMAT JSON, COSTS OFF) {query}")
    [document] = answer if isinstance(answer, list) else json.loads(answer)
    return list(_scans(document["Plan"]))


def _scans(plan: Mapping[str, Any]) -> Iterator[Scan]:
    if "Scan" in plan["Node Type"]:
        condition = _PARAMETER.sub("?", plan.get("Index Cond", ""))
        yield Scan(plan["Node Type"], plan.get("Index Name"), condition)
    for child in plan.get("Plans", ()):
        yield from _scans(child)
