"""tenantguard rls explain: what a rule finds, how it hurts, and what to do."""

from __future__ import annotations

import click
from rich.console import Console
from rich.markdown import Markdown

from tenantguard.check import RULES, page_of
from tenantguard.cli.committed import SQL_DIFFERS
from tenantguard.cli.migrations import DATA_STATEMENT
from tenantguard.cli.outcome import GuardedCommand, could_not_look
from tenantguard.findings import Severity
from tenantguard.report.pages import page

__all__ = ["SEVERITIES", "explain", "index"]

BESIDE = (SQL_DIFFERS, DATA_STATEMENT)
"""Rules that look at what is committed, and so at no database."""

SEVERITIES = {
    **{rule.id: rule.severity for rule in RULES},
    **dict.fromkeys(BESIDE, Severity.ERROR),
}
"""Every rule's severity by its id, in the order of the rules."""


@click.command(
    cls=GuardedCommand,
    examples=["tenantguard rls explain", "tenantguard rls explain policy-missing"],
)
@click.argument("rule", required=False)
def explain(rule: str | None) -> None:
    """Print the page of RULE; without it, list all rules."""
    if rule is None:
        click.echo("\n".join(_listed()))
        return
    if rule not in SEVERITIES:
        could_not_look(f"There is no rule {rule!r}. `tenantguard rls explain` lists them.")
    console = Console()
    if console.is_terminal:
        console.print(Markdown(page_of(rule)))
    else:
        click.echo(page_of(rule), nl=False)


def index() -> str:
    """Return the page that lists all rules, in Markdown."""
    rows = [
        f"| [{rule}]({rule}.md) | {severity.value} | {_summary(rule)} |"
        for rule, severity in sorted(SEVERITIES.items())
    ]
    return "\n".join([_HEAD, *rows, ""])


_HEAD = """\
# Rules

What `tenantguard rls check` looks for. An *error* keeps tenants from being apart; a *warning*
weakens what stands around that. `tenantguard rls explain RULE` prints a rule's page.

| rule | severity | how it hurts |
|---|---|---|"""


def _listed() -> list[str]:
    width = max(map(len, SEVERITIES))
    return [
        f"{rule:{width}}  {severity.value:7}  {_summary(rule)}"
        for rule, severity in SEVERITIES.items()
    ]


def _summary(rule: str) -> str:
    found = page(rule)
    return found.summary.replace("|", "\\|") if found else ""
