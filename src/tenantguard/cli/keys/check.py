"""tenantguard keys check: the keys that are in use, against a published policy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from tenantguard.cli.keys.changing import KeyTable
from tenantguard.cli.keys.judging import FOREIGN, findings, judge, unopened_finding
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.policy import ALGORITHMS, POLICIES
from tenantguard.cli.keys.report import VERSION, listed_findings, write_findings
from tenantguard.cli.keys.rows import key_target, read_tenants
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.crypto.keyring import provider_of
from tenantguard.errors import KeyUnavailableError
from tenantguard.findings import Finding, Severity
from tenantguard.keystore import KNOWN_EVERYWHERE
from tenantguard.keytable import PURPOSES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.cli.keys.opening import Opened
    from tenantguard.cli.keys.policy import Policy
    from tenantguard.cli.keys.writing import KeyRow

__all__ = ["check"]

_DAY = 86_400.0
_KEYS = {
    "data": ("keys have sealed", ""),
    "index": ("keys have computed blind indexes", " --purpose index"),
}
"""What is said of old keys, and how they are rotated, by purpose."""


@dataclass(slots=True)
class _Seen:
    """What the keysets are.

    Attributes:
        kinds: How many keys open or search, by purpose, algorithm and bits.
        ages: For how many days each tenant's newest key has been the newest, by purpose.
        pending: How many newest keys are not the primary one although every process has them.
        previous: How many keysets a previous key-encryption key wraps.
        unopened: How many keysets stay shut.
    """

    kinds: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    ages: dict[str, list[float]] = field(
        default_factory=lambda: {purpose: [] for purpose in PURPOSES}
    )
    pending: int = 0
    previous: int = 0
    unopened: int = 0


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys check",
        "tenantguard keys check --policy bsi --rotated-within 365 --kms-required --format json",
    ],
)
@guard_option
@admin_option
@click.option(
    "--policy",
    "policy_name",
    type=click.Choice(sorted(POLICIES)),
    default="nist",
    show_default=True,
    help="Whose rules are cited.",
)
@click.option(
    "--rotated-within",
    "days",
    metavar="DAYS",
    type=click.IntRange(min=1),
    help="For how long a key may seal.  [default: 730]",
)
@click.option("--environment", metavar="NAME", help="What the keys' environment has to be.")
@click.option("--kms-required", is_flag=True, help="A key-encryption key in a file is a finding.")
@format_option
@click.pass_context
def check(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    policy_name: str,
    days: int | None,
    environment: str | None,
    kms_required: bool,
    output: str,
) -> None:
    """Open all keysets, and compare the keys with a policy; nothing is changed.

    The address must be a superuser's, or a login's that is granted the maintenance role. Ends with
    1 on findings.
    """
    policy = POLICIES[policy_name]
    days = days or policy.days
    with opened(guard_name, admin_url) as own:
        seen = _look(own, shown=output == "text")
        found = [*_of_rows(own), *_of_keys(own, seen, policy, days)]
        found += _of_provider(own, policy, environment, kms_required=kms_required)
        facts = _facts(own, seen, policy, days)
    if output == "json":
        click.echo(json.dumps({**facts, "findings": listed_findings(found)}, indent=2))
    else:
        write_findings(found)
        click.echo(_text(facts, found))
    ctx.exit(FINDINGS if found else HOLDS)


def _look(own: Opened, *, shown: bool) -> _Seen:
    table, seen = KeyTable(own), _Seen()
    total = table.count("true")
    with progress_bar("opening keysets", shown=shown) as progress:
        for number, row in enumerate(table.rows("true")):
            progress(number, total, "opening keysets")
            # Of another key's rows nothing is known; they are a finding of their own.
            if provider_of(own.provider, row.kek_uri):
                _note(table, row, seen)
                seen.previous += row.kek_uri != own.provider.uri
    return seen


def _note(table: KeyTable, row: KeyRow, seen: _Seen) -> None:
    from tenantguard.crypto.rotation import keys_of  # noqa: PLC0415  (loads Tink)
    from tenantguard.crypto.strength import strengths  # noqa: PLC0415

    try:
        stored = table.stored(row)
        seen.kinds.update((row.purpose, *each) for each in strengths(stored))
    except KeyUnavailableError:
        table.require_answer(row.kek_uri)
        seen.unopened += 1
        return
    seen.ages[row.purpose].append(row.age / _DAY)
    waits = not keys_of(stored)[-1].seals
    seen.pending += waits and row.age > KNOWN_EVERYWHERE


def _of_rows(own: Opened) -> Iterator[Finding]:
    tenants = read_tenants(own.guard, own.engine)
    judge(tenants, own.provider)
    yield from findings(own.guard, tenants, own.provider)


def _of_keys(own: Opened, seen: _Seen, policy: Policy, days: int) -> Iterator[Finding]:
    table = ".".join(key_target(own.guard))

    def finding(code: str, message: str, mend: str) -> Finding:
        return Finding(code, table, f"{message} ({policy.sources[code]}.)", mend, Severity.WARNING)

    for (purpose, algorithm, bits), number in sorted(seen.kinds.items()):
        wanted, least = ALGORITHMS[purpose]
        if algorithm != wanted or bits < least:
            yield finding(
                "key-algorithm",
                f"{number:,} keys for {purpose} are {algorithm} with {bits} bits, not {wanted} "
                f"with {least}.",
                "Somebody has written the rows by other means. `tenantguard keys rotate`, "
                "`encrypt rewrite` and `keys retire` replace the keys, with --purpose index those "
                "for indexes.",
            )
    for purpose, (keys, option) in _KEYS.items():
        old = sum(age > days for age in seen.ages[purpose])
        if old:
            yield finding(
                "key-too-old",
                f"{old:,} tenants' {keys} for more than {days} days.",
                f"Run `tenantguard keys rotate{option} --all`, or with --tenant.",
            )
    if seen.pending:
        yield finding(
            "key-rotation-pending",
            f"{seen.pending:,} new keys of tenants are not used yet.",
            "Run `tenantguard keys rotate` again, for each --purpose; it continues.",
        )
    if seen.previous:
        yield finding(
            "kek-previous",
            f"{seen.previous:,} keysets are wrapped by a previous key-encryption key.",
            "Run `tenantguard keys rewrap`.",
        )
    if seen.unopened:
        yield unopened_finding(own.guard, seen.unopened)


def _of_provider(
    own: Opened, policy: Policy, environment: str | None, *, kms_required: bool
) -> Iterator[Finding]:
    if kms_required and _kind(own) == "file":
        yield Finding(
            "kek-in-file",
            None,
            f"The key-encryption key is in a file. ({policy.sources['kek-in-file']}.)",
            "Give keys= a key management service, as docs/key-providers.md says, and run "
            "`tenantguard keys rewrap`.",
            Severity.WARNING,
        )
    if environment not in {None, own.provider.environment}:
        yield Finding(
            "key-environment",
            None,
            f"The keys are for {own.provider.environment!r}, and {environment!r} was expected.",
            "Give keys= the key of the environment that this database belongs to.",
        )


def _kind(own: Opened) -> str:
    return own.provider.uri.partition(":")[0]


def _facts(own: Opened, seen: _Seen, policy: Policy, days: int) -> dict[str, object]:
    return {
        "version": VERSION,
        "policy": policy.name,
        "rotated_within_days": days,
        "environment": own.provider.environment,
        "kek_uri": own.provider.uri,
        "provider": _kind(own),
        "keys": [
            {"purpose": purpose, "algorithm": algorithm, "bits": bits, "keys": number}
            for (purpose, algorithm, bits), number in sorted(seen.kinds.items())
        ],
        "oldest_days": _oldest(seen.ages["data"]),
        "oldest_index_days": _oldest(seen.ages["index"]),
        "rules": dict(policy.sources),
    }


def _oldest(ages: list[float]) -> float | None:
    return round(max(ages), 1) if ages else None


def _text(facts: dict[str, object], found: list[Finding]) -> str:
    keys: list[dict[str, object]] = facts["keys"]  # type: ignore[assignment]
    head = f"policy: {facts['policy']}; environment: {facts['environment']}; "
    lines = [f"{head}key-encryption key: {facts['kek_uri']}"]
    lines += [
        f"{each['purpose']}: {each['keys']:,} keys, {each['algorithm']}, {each['bits']} bits"
        for each in keys
    ]
    for name, use in (("oldest_days", "seals"), ("oldest_index_days", "computes indexes")):
        if facts[name] is not None:
            lines.append(f"The oldest key that {use} is {facts[name]} days old.")
    if {each.code for each in found} & {FOREIGN}:
        lines.append("Keysets of another key-encryption key were not opened.")
    lines.append(f"Findings: {len(found)}." if found else "All keys are as the policy asks.")
    return "\n".join(lines)
