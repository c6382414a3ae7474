"""Lint by pgrls what tenantguard generates: whatever it finds has to be explained here.

Run: python benchmarks/pgrls_lint.py --pgrls .venv-pgrls/bin/pgrls

pgrls is installed in an environment of its own (`pip install pgrls`). Each world gets a server of
its own, with the roles and policies that `rls apply` makes. pgrls looks twice: as it is, and with
allowlists of single objects, which `explained()` derives from the models. Ends with 1 if it finds
anything beside those. docs/compatibility.md has the results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import machine
from citus_world import STAND_INS, Cluster
from locks import build_world, unique_roles
from signing_world import build_signed
from sqlalchemy import URL, create_engine
from vault import build_vault

from tenantguard import rls
from tenantguard.catalog import Catalog, Kind, Roles
from tenantguard.demo.example import load_example
from tenantguard.demo.server import embedded_server
from tenantguard.rls.names import target_of
from tenantguard.rls.signed import ENTER, SIGNING_TABLE, VERIFIED

if TYPE_CHECKING:
    from collections.abc import Callable

    Built = tuple[Catalog, Roles]

MAINTENANCE = "tenantguard_maintenance"


class Found(NamedTuple):
    """One finding of pgrls."""

    rule: str
    severity: str
    message: str


def practice(url: URL, _directory: Path) -> Built:
    world = build_world(url)
    world.dispose()
    return world.guard.catalog, world.guard.roles


def signed(url: URL, directory: Path) -> Built:
    world = build_signed(url, directory / "signing.json")
    world.dispose()
    return world.guard.catalog, world.guard.roles


def encrypted(url: URL, directory: Path) -> Built:
    vault = build_vault(url, directory)
    vault.dispose()
    return vault.guard.catalog, vault.guard.roles


def citus(url: URL, _directory: Path) -> Built:
    """What is generated for Citus, with stand-ins for its functions."""
    cluster = Cluster(url)
    cluster.run(STAND_INS)
    cluster.apply(create_roles=True)
    cluster.admin.dispose()
    return cluster.guard.catalog, cluster.guard.roles


def example(name: str) -> Callable[[URL, Path], Built]:
    def build(url: URL, directory: Path) -> Built:
        key = str(directory / f"{name}.json")
        guard = load_example(name, environment={"TENANTGUARD_KEY_FILE": key}).database.guard
        admin, roles = create_engine(url), unique_roles()
        guard.catalog.metadata.create_all(admin)
        rls.apply(admin, guard.catalog, roles, create_roles=True)
        admin.dispose()
        return guard.catalog, roles

    return build


WORLDS: dict[str, Callable[[URL, Path], Built]] = {
    "practice": practice,
    "signed": signed,
    "encrypted": encrypted,
    "flask_app": example("flask_app"),
    "starlette_app": example("starlette_app"),
    "citus": citus,
}


def explained(catalog: Catalog, roles: Roles) -> dict[str, list[str]]:
    """Return by rule the objects that are as they have to be; the page says why."""
    names = {entry: ".".join(target_of(entry)) for entry in catalog}
    guarded = [name for entry, name in names.items() if entry.guarded]
    open_ = [name for entry, name in names.items() if entry.kind in {Kind.SHARED, Kind.UNTENANTED}]
    schema = target_of(catalog.registry)[0]
    functions = [
        f"{lookup.table.schema or 'public'}.{lookup.function}" for lookup in catalog.lookups
    ]
    if catalog.signed:
        open_.append(f"{schema}.{SIGNING_TABLE}")
        functions += [f"{schema}.{name}" for name in (ENTER, VERIFIED)]
    maintenance = [f"{name}.{MAINTENANCE}" for name in guarded]
    found = {
        "SEC001": open_,
        **dict.fromkeys(("SEC005", "SEC008", "SEC028", "SEC038"), maintenance),
        "SEC014": functions,
        "SEC016": [roles.backup],
        "SEC035": [
            f"{each.table.schema or 'public'}.{each.table.name}" for each in catalog.lookups
        ],
    }
    if catalog.dialect == "citus":
        found["SEC007"] = guarded
        found["PERF001"] = [
            f"{name}.tenantguard_{role}" for name in guarded for role in ("application", "support")
        ]
    return found


def configured(pgrls: str, url: URL, catalog: Catalog, roles: Roles, directory: Path) -> list[str]:
    """Return the command that lints *url*'s database with the allowlists of `explained`."""
    config = directory / "explained.toml"
    config.write_text(
        "".join(
            f"[lint.rules.{rule}]\nallowlist = {json.dumps(objects)}\n"
            for rule, objects in explained(catalog, roles).items()
        )
    )
    return command(pgrls, url, config)


def command(pgrls: str, url: URL, config: Path) -> list[str]:
    address = url.set(drivername="postgresql").render_as_string(hide_password=False)
    given = ["--database-url", address, "--config", str(config)]
    return [pgrls, "lint", *given, "--format", "json", "--fail-on", "info"]


def findings(run: list[str]) -> list[Found]:
    """Return what pgrls finds, at any severity, when it is *run*."""
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    if result.returncode not in (0, 1):
        raise SystemExit(f"pgrls could not look ({result.returncode}): {result.stderr[-500:]}")
    document: dict[str, Any] = json.loads(result.stdout)
    found = [Found(e["rule_id"], e["severity"], e["message"]) for e in document["violations"]]
    if bool(found) != bool(result.returncode):
        raise SystemExit(f"pgrls ended with {result.returncode} and {len(found)} findings.")
    return found


def lint(pgrls: str, name: str) -> int:
    """Print what pgrls finds in the world *name*; return how much is not explained."""
    with embedded_server() as server, TemporaryDirectory() as temporary:
        directory = Path(temporary)
        catalog, roles = WORLDS[name](server.url(), directory)
        nothing = directory / "nothing.toml"
        nothing.write_text("")
        every = Counter(each.rule for each in findings(command(pgrls, server.url(), nothing)))
        rest = findings(configured(pgrls, server.url(), catalog, roles, directory))
    print(f"{name}: found {dict(every)}, not explained {len(rest)}", flush=True)
    for found in rest:
        print(f"  {found.rule} {found.severity}: {found.message}")
    return len(rest)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pgrls", default="pgrls", help="the command")
    parser.add_argument("worlds", nargs="*", default=list(WORLDS), metavar="WORLD")
    options = parser.parse_args()
    machine()
    version = [options.pgrls, "--version"]
    print(subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip())
    return 1 if sum([lint(options.pgrls, name) for name in options.worlds]) else 0


if __name__ == "__main__":
    sys.exit(main())
