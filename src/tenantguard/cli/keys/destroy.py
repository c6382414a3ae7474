"""tenantguard keys destroy: a tenant's keys are gone, and with them what they have sealed."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import click

from tenantguard.binding.literal import sql_literal
from tenantguard.cli.keys.changing import KeyTable
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.receipt import Receipt, write_receipt
from tenantguard.cli.keys.writing import LIVE
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, GuardedCommand, could_not_look
from tenantguard.errors import KeyUnavailableError
from tenantguard.keytable import MIGRATING, PURPOSES, encrypted_columns
from tenantguard.rls.names import qualified, target_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.cli.keys.opening import Opened

__all__ = ["destroy"]

_TIME = """'YYYY-MM-DD"T"HH24:MI:SS"Z"'"""


@click.command(
    cls=GuardedCommand,
    examples=[
        "tenantguard keys destroy --tenant 7 --reason left --backups-kept 30 --force",
        'tenantguard keys destroy --tenant 7 --reason "ticket 4711" --yes',
    ],
)
@guard_option
@admin_option
@click.option("--tenant", metavar="ID", required=True, help="The tenant; its id is never printed.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; it stands in the receipt.")
@click.option(
    "--backups-until",
    "until",
    metavar="DATE",
    type=click.DateTime(["%Y-%m-%d"]),
    help="When the last backup that has the keys will be gone.",
)
@click.option(
    "--backups-kept",
    "days",
    metavar="DAYS",
    type=click.IntRange(min=0),
    help="The same, as so many days from now: a backup of today has the keys.",
)
@click.option("--force", is_flag=True, help="Destroy them although backups still have them.")
@click.option("--yes", is_flag=True, help="Do not ask for the tenant's id again.")
@format_option
@click.pass_context
def destroy(
    ctx: click.Context,
    *,
    guard_name: str | None,
    admin_url: str | None,
    tenant: str,
    reason: str,
    until: datetime | None,
    days: int | None,
    force: bool,
    yes: bool,
    output: str,
) -> None:
    """Destroy a tenant's keys: nobody opens its encrypted fields any more.

    No command undoes it, and they are never made again. A receipt says what can still be read, and
    until when. While backups are known to have the keys, it takes --force. The address must be a
    superuser's, or a login's that is granted the maintenance role. Ends with 1 if it was refused.
    """
    if not reason.strip():
        could_not_look("--reason is empty. Say why, for who reads the receipt.")
    if until and days is not None:
        could_not_look("Give --backups-until or --backups-kept, not both.")
    last = _last_backup(until, days)
    with opened(guard_name, admin_url, asks=False) as own:
        keys = _Tenant(own, tenant)
        if not keys.destroyed:
            _refuse_early(ctx, last, force=force)
            if not yes:
                keys.confirm()
        receipt = keys.destroy(reason.strip(), last)
    write_receipt(receipt, output)


def _last_backup(until: datetime | None, days: int | None) -> date | None:
    if days is not None:
        return datetime.now(UTC).date() + timedelta(days=days)
    return until.date() if until else None


def _refuse_early(ctx: click.Context, last: date | None, *, force: bool) -> None:
    if last is None or force or last < datetime.now(UTC).date():
        return
    click.echo(
        f"Nothing was destroyed: backups have the keys until {last}, so what they have sealed "
        "could be read until then. --force destroys them now all the same; the receipt says so.",
        err=True,
    )
    ctx.exit(FINDINGS)


class _Tenant:
    """The keysets of one tenant.

    Raises:
        ConfigurationError: If there is no such tenant.
    """

    def __init__(self, own: Opened, tenant: str) -> None:
        self._table = KeyTable(own)
        self._uri = own.provider.uri
        self._own_rows = self._table.of_tenant(tenant)
        self._id = self._table.canonical(tenant)
        self._registered = self._table.is_registered(self._id)
        self._catalog = own.guard.catalog
        states = self._table.ask(f"SELECT k.state FROM {self._table.name} k WHERE {self._own_rows}")
        missing = len(PURPOSES) - len(states) if self._registered else 0
        self.destroyed = not missing and all(state == "destroyed" for [state] in states)

    def confirm(self) -> None:
        """Let the tenant's id be typed again; end the command if it is another."""
        if not _is_terminal():
            could_not_look("There is no terminal to ask for the tenant's id again. Give --yes.")
        typed = click.prompt("This cannot be undone. Type the tenant's id again", err=True)
        try:
            same = self._table.canonical(typed) == self._id
        except KeyUnavailableError:
            same = False
        if not same:
            could_not_look("That is another id. Nothing was destroyed.")

    def destroy(self, reason: str, last: date | None) -> Receipt:
        """Destroy the keysets in one transaction, if they are not; return the receipt."""
        plain = tuple(self._plaintext())
        with self._table.changing() as run:
            # First: it waits for whoever is making keys, which then are there to be destroyed.
            added = run(self._tombstones()).rowcount if self._registered else 0
            live = run(
                "SELECT k.purpose, pg_catalog.encode(pg_catalog.sha256(k.wrapped), 'hex') "
                f"FROM {self._table.name} k WHERE {self._own_rows} AND {LIVE} "
                "ORDER BY k.purpose FOR UPDATE"
            ).fetchall()
            run(_destroying(self._table.name, self._own_rows))
            [[at]] = run(
                f"SELECT pg_catalog.to_char(max(k.shredded_at) AT TIME ZONE 'UTC', {_TIME}) "
                f"FROM {self._table.name} k WHERE {self._own_rows}"
            ).fetchall()
        before = not (added or live)
        return Receipt(at, before, dict(map(tuple, live)), reason, last, plain)

    def _plaintext(self) -> Iterator[str]:
        """Yield the columns of plaintext that encrypted ones are to take the place of."""
        for column in encrypted_columns(self._catalog.metadata):
            source = column.info.get(MIGRATING)
            if source is None:
                continue
            entry = self._catalog.entry(column.table)
            table = sql_literal(qualified(target_of(entry)))
            [[there]] = self._table.ask(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE NOT attisdropped "
                f"AND attrelid = pg_catalog.to_regclass({table}) "
                f"AND attname = {sql_literal(source)})"
            )
            if there:
                yield f"{entry.fullname}.{source}"

    def _tombstones(self) -> str:
        """Return the statement that adds the rows that are not there, so that none are made."""
        rows = ", ".join(
            f"({sql_literal(self._id)}, '{purpose}', {sql_literal(self._uri)}, 'destroyed', "
            "pg_catalog.clock_timestamp())"
            for purpose in PURPOSES
        )
        return (
            f"INSERT INTO {self._table.name} (tenant_id, purpose, kek_uri, state, shredded_at) "
            f"VALUES {rows} ON CONFLICT DO NOTHING"
        )


def _destroying(table: str, condition: str) -> str:
    return (
        f"UPDATE {table} k SET state = 'destroyed', wrapped = NULL, check_value = NULL, "
        "shredded_at = pg_catalog.clock_timestamp(), generation = k.generation + 1 "
        f"WHERE {condition} AND {LIVE}"
    )


def _is_terminal() -> bool:
    return sys.stdin.isatty()
