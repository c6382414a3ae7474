"""tenantguard keys export and import: the keysets as they are stored, never unwrapped."""

# ruff: noqa: S608  (statements are put together from quoted names and escaped literals)

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tenantguard.binding.literal import sql_literal
from tenantguard.cli.keys.changing import KeyTable
from tenantguard.cli.keys.export import ExportedRow, read_export, write_export
from tenantguard.cli.keys.opening import opened
from tenantguard.cli.keys.report import VERSION
from tenantguard.cli.keys.rows import require_encryption
from tenantguard.cli.keys.writing import KeyRow, bytes_literal
from tenantguard.cli.locate import admin_engine, load_guard
from tenantguard.cli.options import admin_option, format_option, guard_option
from tenantguard.cli.outcome import FINDINGS, HOLDS, GuardedCommand
from tenantguard.cli.progress import progress_bar
from tenantguard.errors import KeyUnavailableError
from tenantguard.rls.names import qualified, quote, target_of
from tenantguard.rls.policies import bound_tenant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tenantguard.cli.keys.opening import Opened

__all__ = ["export", "import_"]

_BATCH = 200

_DESTROYED = "EXISTS (SELECT FROM {table} d WHERE d.tenant_id = v.tenant AND d.state = 'destroyed')"
"""The condition that a tenant's keys were destroyed."""


@dataclass(slots=True)
class _Imported:
    """What became of the file's rows.

    Attributes:
        added: They were not there.
        there: They were, with the same content.
        different: Another keyset stands in their place, which stays.
        destroyed: The tenant's keys were destroyed; they stay so.
        unknown: The registry does not have the tenant.
        unopened: The guard's keys do not open them.
    """

    added: int = 0
    there: int = 0
    different: int = 0
    destroyed: int = 0
    unknown: int = 0
    unopened: int = 0

    @property
    def refused(self) -> int:
        return self.different + self.destroyed + self.unknown + self.unopened


@click.command(cls=GuardedCommand, examples=["tenantguard keys export --wrapped keys.jsonl"])
@guard_option
@admin_option
@click.option(
    "--wrapped",
    "file",
    metavar="FILE",
    required=True,
    type=click.Path(path_type=Path),
    help="Where to write them; the file must not exist.",
)
@format_option
def export(*, guard_name: str | None, admin_url: str | None, file: Path, output: str) -> None:
    """Write all rows of tenantguard_keys to FILE, with a checksum.

    They stay wrapped: whoever has the file needs the key-encryption key as well. It has the
    tenants' ids, and only its owner may read it. The address must see all rows.
    """
    guard = load_guard(guard_name)
    require_encryption(guard)
    engine = admin_engine(admin_url)
    try:
        environment = guard.keys.environment if guard.keys else None
        rows = write_export(guard, engine, file, environment)
    finally:
        engine.dispose()
    if output == "json":
        click.echo(json.dumps({"version": VERSION, "file": str(file), "keysets": rows}, indent=2))
        return
    click.echo(
        f"Wrote {rows:,} keysets to {file}, wrapped as they are stored. A copy of them outlives "
        "`tenantguard keys destroy`: delete it when its time is over."
    )


@click.command(
    cls=GuardedCommand,
    name="import",
    examples=["tenantguard keys import keys.jsonl --dry-run", "tenantguard keys import keys.jsonl"],
)
@click.argument("file", type=click.Path(path_type=Path))
@guard_option
@admin_option
@click.option("--dry-run", is_flag=True, help="Count what would be added, and change nothing.")
@format_option
@click.pass_context
def import_(
    ctx: click.Context,
    *,
    file: Path,
    guard_name: str | None,
    admin_url: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Add the keysets of FILE that are missing; none that is there is changed.

    A tenant whose keys were destroyed gets none back, and what the guard's key does not open is not
    added. The address must be a superuser's, or a login's that is granted the maintenance role.
    Ends with 1 if rows were refused.
    """
    with opened(guard_name, admin_url) as own:
        rows = read_export(file, own.provider.environment)
        result = _Import(own, dry_run=dry_run).run(rows, shown=output == "text")
    if output == "json":
        document = {"version": VERSION, "dry_run": dry_run, **asdict(result)}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo(_text(result, dry_run=dry_run))
    ctx.exit(FINDINGS if result.refused else HOLDS)


class _Import:
    def __init__(self, own: Opened, *, dry_run: bool) -> None:
        self._table = KeyTable(own)
        self._dry_run = dry_run
        self._result = _Imported()
        catalog = own.guard.catalog
        self._tenant = catalog.key_table.c.tenant_id
        registry, key = qualified(target_of(catalog.registry)), catalog.registry_key()[1]
        # Of the rows v of both statements below.
        self._registered = f"EXISTS (SELECT FROM {registry} r WHERE r.{quote(key.name)} = v.tenant)"
        self._destroyed = _DESTROYED.format(table=self._table.name)

    def run(self, rows: list[ExportedRow], *, shown: bool) -> _Imported:
        with progress_bar("adding keysets", shown=shown) as progress:
            for start in range(0, len(rows), _BATCH):
                progress(start, len(rows), "adding keysets")
                usable = [row for row in rows[start : start + _BATCH] if self._opens(row)]
                if usable:
                    self._add(usable)
        return self._result

    def _opens(self, row: ExportedRow) -> bool:
        from tenantguard.crypto.rotation import handle_of  # noqa: PLC0415  (loads Tink)

        wrapped, check = (bytes.fromhex(each or "") for each in (row.wrapped, row.check))
        held = KeyRow(row.tenant, row.purpose, 0, row.kek_uri, wrapped, check, None, 0.0)
        try:
            self._table.canonical(row.tenant)
            if row.state != "destroyed":
                handle_of(self._table.stored(held))
        except KeyUnavailableError:
            self._table.require_answer(row.kek_uri)
            self._result.unopened += 1
            return False
        return True

    def _add(self, rows: list[ExportedRow]) -> None:
        with self._table.changing() as run:
            added = {tuple(row) for row in run(self._insert(rows))}
            stored = {tuple(row[:2]): tuple(row[2:]) for row in run(self._question(rows))}
            if self._dry_run:
                run("ROLLBACK")
        for row in rows:
            key = (row.tenant, row.purpose)
            name = "added" if key in added else _fate(row, stored.get(key))
            setattr(self._result, name, getattr(self._result, name) + 1)

    def _insert(self, rows: list[ExportedRow]) -> str:
        values = ", ".join(f"({', '.join(self._values(row))})" for row in rows)
        return (
            f"INSERT INTO {self._table.name} AS k (tenant_id, purpose, generation, kek_uri, state, "
            "wrapped, check_value, created_at, rotated_at, shredded_at) "
            f"SELECT v.* FROM (VALUES {values}) v (tenant) "
            f"WHERE NOT {self._destroyed} AND {self._registered} "
            "ON CONFLICT DO NOTHING RETURNING k.tenant_id::text, k.purpose"
        )

    def _question(self, rows: list[ExportedRow]) -> str:
        """Return the question what stands in the place of each row that is in the registry."""
        values = ", ".join(f"({self._id(row)}, {sql_literal(row.purpose)})" for row in rows)
        return (
            f"SELECT v.tenant::text, v.purpose, {self._destroyed}, k.state, "
            f"pg_catalog.encode(k.wrapped, 'hex') FROM (VALUES {values}) v (tenant, purpose) "
            f"LEFT JOIN {self._table.name} k ON k.tenant_id = v.tenant AND k.purpose = v.purpose "
            f"WHERE {self._registered}"
        )

    def _id(self, row: ExportedRow) -> str:
        return bound_tenant(self._tenant, sql_literal(row.tenant))

    def _values(self, row: ExportedRow) -> Iterator[str]:
        yield self._id(row)
        yield sql_literal(row.purpose)
        yield str(row.generation)
        yield sql_literal(row.kek_uri)
        yield sql_literal(row.state)
        for digits in (row.wrapped, row.check):
            yield "NULL::bytea" if digits is None else bytes_literal(bytes.fromhex(digits))
        for time in (row.created_at, row.rotated_at, row.shredded_at):
            yield "NULL::timestamptz" if time is None else f"{sql_literal(time)}::timestamptz"


def _fate(row: ExportedRow, stored: tuple[Any, ...] | None) -> str:
    """Return what *row* is beside what is stored: whether any is destroyed, state, keyset."""
    if stored is None:
        return "unknown"
    destroyed, state, wrapped = stored
    if (state, wrapped) == (row.state, row.wrapped):
        return "there"
    return "destroyed" if destroyed else "different"


_REFUSED: dict[str, Callable[[int], str]] = {
    "different": lambda n: (
        f"{n:,} have another keyset in the database, which stays. If that one is "
        "wrong, delete its row as the maintenance role first."
    ),
    "destroyed": lambda n: f"{n:,} are of tenants whose keys were destroyed; they stay destroyed.",
    "unknown": lambda n: (
        f"{n:,} are of tenants that the registry does not have. Restore those first."
    ),
    "unopened": lambda n: (
        f"{n:,} are not opened by the guard's keys. Give keys= the key that "
        "wrapped them, alone or in a Keyring."
    ),
}


_OLDER = (
    "If keys were rotated after the export, these lack the newer ones: `tenantguard encrypt "
    "status` counts values that do not open, and searches find all again after `tenantguard "
    "encrypt rewrite --indexes`."
)


def _text(result: _Imported, *, dry_run: bool) -> str:
    would = "would be added" if dry_run else "added"
    lines = [f"{result.added:,} keysets {would}; {result.there:,} were there."]
    lines += [_OLDER] if result.added and not dry_run else []
    counts = asdict(result)
    lines += [f"refused: {say(counts[name])}" for name, say in _REFUSED.items() if counts[name]]
    return "\n".join(lines)
