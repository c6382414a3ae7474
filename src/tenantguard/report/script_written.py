"""The difference between two scripts, as text, JSON and Markdown."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tenantguard.report.as_markdown import escaped, within
from tenantguard.report.script_changes import Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tenantguard.report.script_changes import Change

__all__ = ["DIFF_FORMATS", "diff_rendered"]

_VERSION = 1

DIFF_FORMATS = ("text", "json", "markdown")


def diff_rendered(changes: Sequence[Change], output: str) -> str:
    """Return *changes* in the form *output*, one of `DIFF_FORMATS`."""
    return {"text": _text, "json": _json, "markdown": _markdown}[output](changes)


def _text(changes: Sequence[Change]) -> str:
    lines = [
        f"{each.verdict.value:6}  {each.object or '-'}: {each.what}".replace("\n", " ")
        for each in changes
    ]
    return "\n".join([*lines, _counts(changes), ""])


def _json(changes: Sequence[Change]) -> str:
    listed = [
        {"verdict": each.verdict.value, "object": each.object, "what": each.what}
        for each in changes
    ]
    weaker = any(each.verdict is Verdict.WEAKER for each in changes)
    return json.dumps({"version": _VERSION, "weaker": weaker, "changes": listed}, indent=2) + "\n"


def _markdown(changes: Sequence[Change]) -> str:
    lines = [
        f"- **{each.verdict.value}** {escaped(each.object or '-')}: {escaped(each.what)}"
        for each in changes
    ]
    return within("### tenantguard rls diff", lines, _counts(changes))


def _counts(changes: Sequence[Change]) -> str:
    if not changes:
        return "Nothing changed."
    counted = [
        f"{number} {verdict.value}"
        for verdict in Verdict
        if (number := sum(each.verdict is verdict for each in changes))
    ]
    return f"{', '.join(counted)}."
