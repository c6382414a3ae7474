"""The long run: `python tests/history/long.py --transactions 200000 --seed 1 --pgbouncer`.

Runs rounds of random transactions, checks each, and prints the totals as JSON; Ctrl-C ends it
early. Exits with 1 if a round had findings, which are printed with the round's seed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from bouncer import pgbouncer
from crews import Crew, crews, judge, run
from disturbing import Disturber
from drivers import DRIVERS
from entries import Site
from ledger import totals
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn
from watch import Patience

from tenantguard.demo.server import embedded_server

_ROUND = 4000
_CONNECTION = 20.0
_WHOLE = 1800.0


def main() -> int:
    """Run as the arguments say; return the exit code."""
    options = _arguments()
    # The pool logs each connection that it finds closed.
    for name in ("sqlalchemy.pool", "psycopg"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        server = stack.enter_context(embedded_server())
        site = Site.build(server.url())
        stack.callback(site.dispose)
        if options.pgbouncer:
            site.pooler = stack.enter_context(pgbouncer(site))
        counted = _rounds(site, options)
    sys.stdout.write(json.dumps(dict(sorted(counted.items())), indent=1) + "\n")
    return 1 if counted["findings"] else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pgbouncer", action="store_true", help="through PgBouncer")
    parser.add_argument(
        "--patience", type=float, default=120, help="seconds a crew may stand still"
    )
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="default: all")
    return parser.parse_args()


def _rounds(site: Site, options: argparse.Namespace) -> Counter[str]:
    """Run rounds until there are enough transactions, or Ctrl-C."""
    counted: Counter[str] = Counter(findings=0, crossings=0, lost=0)
    members = crews(tuple(options.driver or DRIVERS))
    patience = Patience(connection=_CONNECTION, crew=options.patience, whole=_WHOLE)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console) as progress, suppress(KeyboardInterrupt, SystemExit):
        bar = progress.add_task("transactions", total=options.transactions)
        for number in range(sys.maxsize):
            left = options.transactions - counted["transactions"]
            if left <= 0:
                break
            seed = f"{options.seed}.{number}"
            terms = {"transactions": min(left, _ROUND), "seed": seed, "patience": patience}
            counted.update(_round(site, members, terms, console))
            progress.update(bar, completed=counted["transactions"])
            if not console.is_terminal:
                console.print(f"round {seed}: {counted['transactions']} transactions", markup=False)
    return counted


def _round(
    site: Site, members: list[Crew], terms: dict[str, Any], console: Console
) -> Counter[str]:
    disturber = Disturber(site)
    histories = run(site, members, disturber=disturber, **terms)
    findings = judge(site, histories)
    site.clear()
    for finding in findings[:20]:
        console.print(f"round {terms['seed']}: {finding}", markup=False)
    kinds = Counter(finding.kind for finding in findings)
    crossings = kinds["crossing"] + kinds["written across"]
    found = Counter(findings=len(findings), crossings=crossings, lost=kinds["lost"])
    return totals(histories) + disturber.count + found


if __name__ == "__main__":
    sys.exit(main())
