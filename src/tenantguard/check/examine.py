"""Looking by every rule, and saying where one could not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantguard.check.rules import RULES
from tenantguard.doctor.subject import is_lost, reason_of
from tenantguard.findings import Result, Unseen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenantguard.check.rule import Rule
    from tenantguard.check.subject import Subject
    from tenantguard.findings import Finding

__all__ = ["examine"]


def _nothing(_done: int, _total: int, _rule: str) -> None:
    """Show no progress."""


def examine(
    subject: Subject,
    rules: Sequence[Rule] = RULES,
    *,
    progress: Callable[[int, int, str], None] = _nothing,
) -> Result:
    """Look at *subject* by each of *rules*; without a database, by those that need none.

    Args:
        subject: The models, and perhaps a database. Nothing in either is changed.
        rules: All of them, unless only some are wanted.
        progress: Told how many rules are done, of how many, and the next one's id.

    Raises:
        DBAPIError: If the connection is lost: no other rule could look.
    """
    looked: list[str] = []
    findings: list[Finding] = []
    unseen: list[Unseen] = []
    wanted = [rule for rule in rules if subject.run is not None or rule.offline]
    for done, rule in enumerate(wanted):
        progress(done, len(wanted), rule.id)
        try:
            findings += rule.find(rule, subject)
        except Exception as error:
            if is_lost(error):
                raise
            # Whatever else it is, it must not look green.
            unseen.append(Unseen(rule.id, reason_of(error)))
        else:
            looked.append(rule.id)
    return Result(tuple(looked), tuple(dict.fromkeys(findings)), tuple(unseen))
