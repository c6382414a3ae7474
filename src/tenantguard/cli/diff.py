"""tenantguard rls diff: what a change of the generated SQL does to the tenants' being apart."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import click

from tenantguard.cli.committed import joined, read_script
from tenantguard.cli.options import out_option, report_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.errors import ConfigurationError
from tenantguard.report import write_file
from tenantguard.report.script_changes import Verdict, changes
from tenantguard.report.script_facts import facts_of
from tenantguard.report.script_written import DIFF_FORMATS, diff_rendered

__all__ = ["diff"]


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard rls diff old.sql policies.sql",
        "tenantguard rls diff origin/main:sql/ sql/ --format markdown --out diff.md",
    ],
)
@click.argument("base")
@click.argument("head")
@report_option(DIFF_FORMATS)
@out_option
@click.pass_context
def diff(ctx: click.Context, *, base: str, head: str, output: str, out: Path | None) -> None:
    """Say of each change from BASE to HEAD whether it is safer, the same, or weaker.

    Both are files or directories that `tenantguard rls sql --out` wrote, or REVISION:PATH of git.
    Ends with 1 if anything is weaker, or is not understood.
    """
    found = changes(facts_of(_script(base)), facts_of(_script(head)))
    if out is not None:
        write_file(out, diff_rendered(found, output))
    click.echo(diff_rendered(found, "text" if out else output), nl=False)
    ctx.exit(FINDINGS if any(each.verdict is Verdict.WEAKER for each in found) else HOLDS)


def _script(name: str) -> str:
    revision, separator, path = name.partition(":")
    if Path(name).exists() or not (separator and revision and path):
        return read_script(Path(name))
    if revision.startswith("-"):
        raise ConfigurationError(f"{name!r} names no revision, which does not begin with a dash.")
    tree = _git(name, "ls-tree", "-z", "--name-only", revision, "--", f"{path.rstrip('/')}/")
    if not tree:
        return _git(name, "cat-file", "blob", f"{revision}:./{path}")
    names = [each for each in tree.split("\0") if each.endswith(".sql")]
    return joined(
        {
            PurePosixPath(each).name: _git(name, "cat-file", "blob", f"{revision}:./{each}")
            for each in names
        }
    )


def _git(name: str, *arguments: str) -> str:
    program = shutil.which("git")
    if program is None:
        raise ConfigurationError(f"{name!r} needs git. Install it, or name a file.")
    ended = subprocess.run(  # noqa: S603  (git, with a revision that is no option)
        [program, *arguments], capture_output=True, check=False
    )
    try:
        ended.check_returncode()
        return ended.stdout.decode("utf-8")
    except (subprocess.CalledProcessError, UnicodeDecodeError):
        raise ConfigurationError(
            f"git has no text {name!r}. Name a revision and a path in it, such as "
            "origin/main:policies.sql; in CI, fetch the whole history first."
        ) from None
