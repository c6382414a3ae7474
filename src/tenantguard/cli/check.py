"""tenantguard rls check: every rule on a database, on what migrations make, or on the models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tenantguard.check import RULES, Subject, connected, examine, server
from tenantguard.cli.committed import committed_sql
from tenantguard.cli.ephemeral import migrated
from tenantguard.cli.explain import SEVERITIES
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.migrations import Migrations
from tenantguard.cli.options import admin_option, guard_option, out_option, report_option
from tenantguard.cli.outcome import GuardedCommand, could_not_look
from tenantguard.cli.progress import progress_bar
from tenantguard.report import (
    FORMATS,
    Acceptance,
    Place,
    Places,
    Report,
    baseline_text,
    read_baseline,
    read_exemptions,
    write,
    write_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tenantguard.check import Rule
    from tenantguard.findings import Finding, Result
    from tenantguard.guard import TenantGuard

__all__ = ["check"]

_PYPROJECT = Path("pyproject.toml")
_MODELS_ALONE = ""


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard rls check",
        "tenantguard rls check --migrations alembic.ini --format sarif --out check.sarif",
        "tenantguard rls check --offline policies.sql",
        "tenantguard rls check --baseline tenantguard-baseline.json --write-baseline",
    ],
)
@guard_option
@admin_option
@click.option(
    "--migrations",
    metavar="INI",
    type=click.Path(path_type=Path),
    help="Check what `alembic upgrade head` makes of an empty database, on an embedded server.",
)
@click.option(
    "--url-variable",
    "variables",
    metavar="NAME",
    multiple=True,
    default=("DATABASE_URL",),
    show_default=True,
    help="Environment variable from which env.py takes the address.",
)
@click.option(
    "--offline",
    metavar="[PATH]",
    is_flag=False,
    flag_value=_MODELS_ALONE,
    help="Check the models alone, and the committed SQL at PATH, a file or a directory.",
)
@click.option(
    "--baseline",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Findings in FILE do not count.",
)
@click.option("--write-baseline", is_flag=True, help="Write what is found now to --baseline.")
@report_option(FORMATS)
@out_option
@click.pass_context
def check(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    migrations: Path | None,
    variables: tuple[str, ...],
    offline: str | None,
    baseline: Path | None,
    write_baseline: bool,
    output: str,
    out: Path | None,
) -> None:
    """Look for every fault that there is a rule for; `tenantguard rls explain RULE` tells of one.

    Nothing is changed. Ends with 1 on findings, with 2 if something could not be looked at.
    """
    if sum(each is not None for each in (admin_url, migrations, offline)) > 1:
        could_not_look("Give one of --admin-url, --migrations and --offline.")
    if write_baseline and baseline is None:
        could_not_look("--write-baseline needs --baseline FILE, which it writes.")
    guard = load_guard(guard_name)
    guard.catalog.check()
    acceptance = Acceptance(
        read_exemptions(_PYPROJECT, SEVERITIES),
        read_baseline(baseline) if baseline and not write_baseline else (),
    )
    scripts = Migrations(migrations) if migrations is not None else None
    if migrations is not None and scripts is not None:
        result = _of_migrations(guard, migrations, scripts, variables)
    elif offline is not None:
        result = _of_models(guard, offline)
    else:
        result = _of_database(guard, admin_url)
    severities = {each: SEVERITIES[each] for each in result.looked}
    report = Report("rls check", result, rules=severities, place=_places(guard, scripts))
    if baseline is not None and write_baseline:
        acceptance = _written(baseline, report, acceptance)
    report = acceptance.of(report)
    write(report, output, to=out)
    ctx.exit(report.exit_code)


def _of_database(guard: TenantGuard, url: str | None) -> Result:
    engine = admin_engine(url)
    try:
        with connected(engine, guard.catalog, guard.roles) as subject:
            return _examined(subject, RULES)
    finally:
        engine.dispose()


def _of_migrations(
    guard: TenantGuard, ini: Path, scripts: Migrations, variables: tuple[str, ...]
) -> Result:
    with (
        migrated(ini, guard.roles, variables) as engine,
        connected(engine, guard.catalog, guard.roles) as subject,
    ):
        # The embedded server is not the one that the application will have.
        rules = [each for each in RULES if each not in server.RULES]
        return _examined(subject, [*rules, scripts.rule()])


def _of_models(guard: TenantGuard, path: str) -> Result:
    rules = [] if path == _MODELS_ALONE else [committed_sql(Path(path))]
    return _examined(Subject(guard.catalog, guard.roles), [*RULES, *rules])


def _places(guard: TenantGuard, scripts: Migrations | None) -> Callable[[Finding], Place | None]:
    models = Places(guard.catalog, guard)
    places = scripts.places if scripts else {}
    return lambda finding: places.get(finding) or models(finding)


def _examined(subject: Subject, rules: Sequence[Rule]) -> Result:
    with progress_bar("rules") as progress:
        return examine(subject, rules, progress=progress)


def _written(path: Path, report: Report, acceptance: Acceptance) -> Acceptance:
    """Write what counts now to *path*, and return what accepts it."""
    if not report.complete:
        could_not_look(
            "No baseline is written, because something could not be looked at. Run the command "
            "without --write-baseline to see what."
        )
    counting = acceptance.of(report).result.findings
    write_file(path, baseline_text(report.result.findings, counting))
    return Acceptance(acceptance.exemptions, read_baseline(path), acceptance.today)
