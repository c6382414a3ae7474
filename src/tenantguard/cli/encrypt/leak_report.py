"""What `tenantguard encrypt leaks` prints: what indexes and lengths tell, and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tenantguard.cli.encrypt.leak_findings import findings, name_of, notes
from tenantguard.cli.encrypt.report import write_findings
from tenantguard.cli.terminal import printable
from tenantguard.encrypt.leaks import Groups
from tenantguard.encrypt.statistics import CHANGED
from tenantguard.encrypt.telling import FEW, MANY, RARE, SKEWED, Telling

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tenantguard.cli.encrypt.leak_findings import Report
    from tenantguard.encrypt.leaks import Leak, Lengths
    from tenantguard.findings import Finding

__all__ = ["VERSION", "write_leaks"]

VERSION = 1

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""
_STYLES = {
    Telling.UNIQUE: "green",
    Telling.SHARED: "yellow",
    Telling.EVEN: "yellow",
    Telling.FREQUENCIES: "bold red",
}
_LEAST = 0.001
_ESTIMATED = (
    "These are PostgreSQL's statistics of all tenants' rows together. Whoever reads the database "
    "looks at each tenant apart, so they can show that frequencies tell values, and cannot rule it "
    "out: --exact counts each tenant's rows."
)


def write_leaks(report: Report, *, output: str, named: bool) -> None:
    """Write what each search and each column tells; with *named*, by tenant too."""
    found = findings(report)
    if output == "json":
        click.echo(json.dumps(_document(report, found, named=named), indent=2))
        return
    _write(_searches(report, named=named))
    _write(_lengths(report))
    if not report.exact:
        click.echo(_ESTIMATED)
    for column, reason in report.unknown:
        click.echo(f"? {name_of(column)}: {reason}")
    for _, name, text in notes(report):
        click.echo(f"· {name}: {text}")
    write_findings(found)
    click.echo(_verdict(report, found))


def _searches(report: Report, *, named: bool) -> Table:
    tenant = ("tenant",) if named else ()
    numbers = ("rows", "no value", "indexes", "most frequent", "largest", "smallest", "alone")
    table = _table("column", "search", *tenant, *numbers, "the index tells")
    for leak in report.leaks:
        listed: Sequence[Leak | Groups] = leak.counted if named else (leak,)
        for each in listed:
            own = (printable(each.tenant),) if isinstance(each, Groups) else ()
            cells = (name_of(leak.of.column), leak.of.name or "==", *own, *_numbers(each))
            telling = Text(each.telling.value, style=_STYLES.get(each.telling, ""))
            table.add_row(*map(Text, cells), telling)
    return table


def _numbers(each: Leak | Groups) -> Iterator[str]:
    groups = each.number if isinstance(each, Groups) else each.groups
    about = "" if isinstance(each, Groups) or each.told is not None else "~"
    yield f"{about}{each.rows:,}"
    yield _share(each.empty, each.rows + each.empty)
    yield f"{about}{groups:,}"
    yield _percent(each.share) if each.rows else ""
    yield f"{about}{each.largest:,}"
    for number in (each.smallest, each.alone):
        yield "" if number is None else f"{number:,}"


def _lengths(report: Report) -> Table:
    table = _table("column", "stored lengths", "most frequent", "rarest", "lengths tell")
    for each in report.lengths:
        if each.number is None:
            cells = [f"{each.mean:,} bytes on average", "", "", "" if each.rows else "no value"]
        else:
            shares = (_share(number, each.rows) for number in (each.commonest, each.rarest))
            cells = [f"{each.number:,}", *shares, _said(each)]
        table.add_row(*map(Text, (name_of(each.column), *cells)))
    return table


def _said(each: Lengths) -> str:
    if not each.rows:
        return "no value"
    if each.padded:
        return "padded"
    return "values or rows" if each.tell else "nothing" if each.number == 1 else "a size"


def _share(number: int, of: int) -> str:
    return _percent(number / of) if of else ""


def _percent(share: float) -> str:
    # What is there is seen, however little it is.
    return f"{share:.1%}" if not 0 < share < _LEAST else f"<{_LEAST:.1%}"


def _document(report: Report, found: Sequence[Finding], *, named: bool) -> dict[str, Any]:
    return {
        "version": VERSION,
        "exact": report.exact,
        "thresholds": {
            "group_rows": MANY,
            "few": FEW,
            "times_the_average": SKEWED,
            "shared_and_still_unique": RARE,
            "changed_since_analyze": CHANGED,
        },
        "searches": [_search(each, named=named) for each in report.leaks],
        "lengths": [_length(each) for each in report.lengths],
        "findings": [
            {"code": each.code, "object": each.object, "message": each.message, "mend": each.mend}
            for each in found
        ],
        "notes": [
            {"code": code, "object": column, "message": text}
            for code, column, text in notes(report)
        ],
        "not_known": [
            {"column": name_of(column), "reason": reason} for column, reason in report.unknown
        ],
    }


def _search(leak: Leak, *, named: bool) -> dict[str, Any]:
    own = [{"tenant": each.tenant, **_figures(each, each.number)} for each in leak.counted]
    return {
        "column": name_of(leak.of.column),
        "search": leak.of.name,
        "reason": leak.of.reason,
        "tenants": leak.tenants,
        "tenants_told": leak.told,
        **_figures(leak, leak.groups),
        **({"by_tenant": own} if named else {}),
    }


def _figures(each: Leak | Groups, groups: int) -> dict[str, Any]:
    return {
        "rows": each.rows,
        "no_value": each.empty,
        "indexes": groups,
        "most_frequent": round(each.share, 4),
        "largest": each.largest,
        "smallest": each.smallest,
        "alone": each.alone,
        "tells": each.telling.value,
    }


def _length(each: Lengths) -> dict[str, Any]:
    known = each.number is not None
    return {
        "column": name_of(each.column),
        "rows": each.rows,
        "padded": each.padded,
        "mean": each.mean,
        "lengths": each.number,
        "most_frequent": each.commonest if known else None,
        "rarest": each.rarest if known else None,
        "tell": each.tell if known else None,
    }


def _table(*headers: str) -> Table:
    return Table(*(Column(name, overflow="fold") for name in headers), box=None, pad_edge=False)


def _write(table: Table) -> None:
    if not table.row_count:
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich takes 80 columns for a file or a pipe, and cuts what is longer.
        console.width = _NO_TERMINAL
    console.print(table)
    click.echo()


def _verdict(report: Report, found: Sequence[Finding]) -> str:
    searches = len(report.leaks)
    return f"{searches:,} searches of {len(report.lengths):,} columns. Findings: {len(found)}."
