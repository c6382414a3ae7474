"""What `tenantguard encrypt status` prints: rows by key, with a bar, and tenants if asked for."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from tenantguard.cli.encrypt.standing import Standing
from tenantguard.cli.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tenantguard.cli.encrypt.standing import Stood
    from tenantguard.findings import Finding

__all__ = ["VERSION", "write_findings", "write_status"]

VERSION = 1

_NO_TERMINAL = 10_000
"""Width in characters where there is no terminal: more than any line has."""
_BAR = 20
"""Width in characters of a bar that stands for all rows."""
_STYLES = {
    Standing.PRIMARY: "green",
    Standing.OLDER: "yellow",
    Standing.UNKNOWN: "bold red",
    Standing.OTHER: "bold red",
}
_SEALED = (Standing.PRIMARY, Standing.OLDER, Standing.UNKNOWN, Standing.DESTROYED)


class _Line(NamedTuple):
    """Rows of one column that hold what has the same standing."""

    column: str
    standing: Standing
    tenant: str | None
    keys: frozenset[int]
    tenants: int
    rows: int
    share: float


def write_status(
    stood: Sequence[Stood], found: Sequence[Finding], *, output: str, named: bool
) -> None:
    """Write rows by column and key; with *named*, by tenant too."""
    if output == "json":
        click.echo(json.dumps(_document(stood, found, named=named), indent=2))
        return
    _write_table(_lines(stood, named=named), named=named)
    write_findings(found)
    click.echo(_verdict(stood, found))


def write_findings(found: Iterable[Finding]) -> None:
    """Write each of *found* with what mends it."""
    console = Console(highlight=False, soft_wrap=True)
    for each in found:
        console.print(
            Text.assemble(
                ("✗ ", "bold red"),
                (f"{each.severity.value} {each.code}", "bold"),
                f" {each.object}: {each.message}\n  mend: {each.mend}",
            )
        )


def _document(stood: Sequence[Stood], found: Sequence[Finding], *, named: bool) -> dict[str, Any]:
    return {
        "version": VERSION,
        "columns": [_column(name, same, named=named) for name, same in _by_column(stood).items()],
        "findings": [
            {"code": each.code, "object": each.object, "message": each.message, "mend": each.mend}
            for each in found
        ],
    }


def _column(name: str, stood: list[Stood], *, named: bool) -> dict[str, Any]:
    keys: dict[tuple[str | None, int | None, str], list[Stood]] = {}
    for each in stood:
        if each.rows.key is not None:
            tenant = each.rows.tenant if named else None
            keys.setdefault((tenant, each.rows.key, each.standing.value), []).append(each)
    return {
        "column": name,
        "rows": _total(stood),
        "no_value": _total(each for each in stood if each.standing is Standing.NULL),
        "not_sealed": _total(each for each in stood if each.standing is Standing.OTHER),
        "keys": [
            {
                **({"tenant": tenant} if named else {}),
                "key": number,
                "standing": standing,
                "rows": _total(same),
            }
            for (tenant, number, standing), same in keys.items()
        ],
    }


def _by_column(stood: Iterable[Stood]) -> dict[str, list[Stood]]:
    found: dict[str, list[Stood]] = {}
    for each in stood:
        found.setdefault(f"{each.rows.table}.{each.rows.column}", []).append(each)
    return found


def _lines(stood: Iterable[Stood], *, named: bool) -> list[_Line]:
    lines = []
    for column, same in _by_column(stood).items():
        groups: dict[tuple[str | None, int | None, Standing], list[Stood]] = {}
        for each in same:
            # Each tenant has keys of its own, so without tenants their numbers say little.
            who = (each.rows.tenant, each.rows.key) if named else (None, None)
            groups.setdefault((*who, each.standing), []).append(each)
        total = _total(same)
        order = list(Standing)
        ranked = sorted(
            groups.items(), key=lambda item: (item[0][0] or "", order.index(item[0][2]))
        )
        for (tenant, _, standing), group in ranked:
            keys = frozenset(each.rows.key for each in group if each.rows.key is not None)
            tenants = len({each.rows.tenant for each in group})
            rows = _total(group)
            lines.append(_Line(column, standing, tenant, keys, tenants, rows, rows / total))
    return lines


def _write_table(lines: Sequence[_Line], *, named: bool) -> None:
    headers = ("column", *(("tenant",) if named else ()), "key", "number", "rows", "share")
    table = Table(*(Column(name, overflow="fold") for name in headers), box=None, pad_edge=False)
    former: tuple[Any, ...] = ()
    for line in lines:
        where = (line.column, *((line.tenant or "",) if named else ()))
        shown = where if where[0] not in former else ("", *where[1:])
        former = where
        style = _STYLES.get(line.standing, "")
        cells = (*map(printable, shown), line.standing.value, _number(line), f"{line.rows:,}")
        table.add_row(*map(Text, cells), Text(_bar(line.share), style=style))
    console = Console(highlight=False)
    if not console.is_terminal:
        # Rich takes 80 columns for a file or a pipe, and cuts what is longer.
        console.width = _NO_TERMINAL
    console.print(table)


def _number(line: _Line) -> str:
    if len(line.keys) == 1:
        return str(next(iter(line.keys)))
    return f"{len(line.keys):,} keys" if line.keys else ""


def _bar(share: float) -> str:
    # What is there is seen, however little it is.
    return f"{'█' * max(1, round(share * _BAR))} {share:.1%}"


def _verdict(stood: Sequence[Stood], found: Sequence[Finding]) -> str:
    counts: Counter[Standing] = Counter()
    for each in stood:
        counts[each.standing] += each.rows.rows
    sealed = sum(counts[standing] for standing in _SEALED)
    said = (
        f"{counts[Standing.PRIMARY]:,} of {sealed:,} values are under their tenants' primary keys"
    )
    older = (
        f"; `tenantguard encrypt rewrite` seals {counts[Standing.OLDER]:,} anew."
        if counts[Standing.OLDER]
        else "."
    )
    return f"{said}{older}" + (f" Findings: {len(found)}." if found else "")


def _total(stood: Iterable[Stood]) -> int:
    return sum(each.rows.rows for each in stood)
