"""`rls sql` into a directory: a file a table and phase, checked, and never another's file."""

from __future__ import annotations

import re
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid

from tenantguard import rls
from tenantguard.catalog import Catalog, Roles
from tenantguard.cli import main
from tenantguard.rls.files import INDEX

if TYPE_CHECKING:
    from pathlib import Path

_numbers = count()

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, LargeBinary, MetaData, Table, Uuid
from tenantguard import TenantGuard
from tenantguard.keytable import ENCRYPTED

def table(name, *columns):
    Table(name, metadata, Column("id", Integer, primary_key=True), *columns)

def tenant():
    return Column("tenant_id", Uuid, nullable=False)

metadata = MetaData()
Table("practices", metadata, Column("id", Uuid, primary_key=True))
table("orders", tenant(), Column("name", LargeBinary, info={ENCRYPTED: "orders.name"}))
table("lines", tenant(), Column("order_id", ForeignKey("orders.id")))
guard = TenantGuard(metadata, tenants="practices")
fewer = TenantGuard(metadata, tenants="practices", untenanted={"lines": "an example"})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"file_models_{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return name


def sql(module: str, *arguments: str, guard: str = "guard") -> Result:
    return CliRunner().invoke(main, ["rls", "sql", "--guard", f"{module}:{guard}", *arguments])


def in_order(directory: Path) -> str:
    """The files as the index runs them, without what only files have."""
    names = re.findall(r"(?m)^\\ir (.*)$", (directory / INDEX).read_text())
    texts = [(directory / name).read_text().partition("\n\n")[2] for name in names]
    assert sorted([INDEX, *names]) == sorted(each.name for each in directory.iterdir())
    return "\n".join(texts)


@pytest.mark.parametrize("options", [(), ("--create-roles",), ("--down",)])
def test_directory_holds_what_one_file_would(
    module: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Run in the index's order, the files are the script; --check accepts them."""
    directory = tmp_path / "sql"
    written = sql(module, *options, "--out", str(directory))
    assert written.exit_code == 0
    files = len(list(directory.iterdir()))
    assert f"{files} files written to {directory}." in written.stderr
    assert written.stdout == ""
    found, whole = (
        [line for line in text.splitlines() if line]
        for text in (in_order(directory), sql(module, *options).stdout)
    )
    assert [line for line in found if line[:2] != "--"] == [
        line for line in whole if line[:2] != "--"
    ]
    assert sorted(found) == sorted(whole)
    checked = sql(module, *options, "--check", str(directory))
    assert (checked.exit_code, checked.stdout) == (0, "")


def test_files_are_named_by_table_and_phase(module: str, tmp_path: Path) -> None:
    """What concerns a table is in files of its name; a key comes before any protection."""
    sql(module, "--create-roles", "--out", str(tmp_path / "sql"))
    names = re.findall(r"\\ir (.*)\n", (tmp_path / "sql" / INDEX).read_text())
    assert names[0] == "cluster.sql"
    assert {name for name in names if ".lines." in name} == {
        "public.lines.structure.sql",
        "public.lines.keys.sql",
        "public.lines.protection.sql",
    }
    assert max(names.index(name) for name in names if name.endswith(".keys.sql")) < min(
        names.index(name) for name in names if name.endswith(".protection.sql")
    )


def test_changed_missing_and_stale_files_are_findings(module: str, tmp_path: Path) -> None:
    """Each file that differs is named, with a diff where there is one; writing again mends it."""
    directory = tmp_path / "sql"
    sql(module, "--out", str(directory))
    changed = directory / "public.orders.protection.sql"
    changed.write_text(changed.read_text().replace("FORCE", "NO FORCE"))
    (directory / "public.lines.keys.sql").unlink()
    result = sql(module, "--check", str(directory))
    assert result.exit_code == 1
    assert f"--- {changed}" in result.stdout
    assert "\n-ALTER TABLE" in result.stdout
    assert f"missing: {directory / 'public.lines.keys.sql'}\n" in result.stdout
    stale = sql(module, "--check", str(directory), guard="fewer")
    assert f"stale: {directory / 'public.lines.structure.sql'}\n" in stale.stdout
    assert sql(module, "--out", str(directory), guard="fewer").exit_code == 0
    assert sql(module, "--check", str(directory), guard="fewer").exit_code == 0
    assert not (directory / "public.lines.structure.sql").exists()


def test_files_of_others_stay(module: str, tmp_path: Path) -> None:
    """Only what the same command has written is removed; a name that is taken stops it."""
    directory = tmp_path / "sql"
    sql(module, "--out", str(directory))
    own = directory / "own.sql"
    own.write_text("SELECT 1;\n")
    sql(module, "--down", "--out", str(tmp_path / "down"))
    (directory / "undo.sql").write_text((tmp_path / "down" / INDEX).read_text())
    assert sql(module, "--out", str(directory), guard="fewer").exit_code == 0
    assert own.read_text() == "SELECT 1;\n"
    assert (directory / "undo.sql").exists()
    taken = directory / "public.orders.structure.sql"
    taken.write_text("SELECT 2;\n")
    before = {each.name: each.read_text() for each in directory.iterdir()}
    refused = sql(module, "--out", str(directory))
    assert refused.exit_code == 2
    assert f"{taken} was not written by this command" in refused.stderr
    assert {each.name: each.read_text() for each in directory.iterdir()} == before


def test_what_cannot_be_read_is_not_green(module: str, tmp_path: Path) -> None:
    """A directory that is not there, and one below a file, end with 2 and what to do."""
    absent = sql(module, "--check", str(tmp_path / "absent"))
    assert absent.exit_code == 2
    assert "Write it with `tenantguard rls sql --out" in absent.stderr
    (tmp_path / "file.sql").write_text("")
    below = sql(module, "--out", str(tmp_path / "file.sql" / "sql"))
    assert below.exit_code == 2
    assert "Choose another --out" in below.stderr


def test_names_of_files_fit_every_file_system() -> None:
    """Tables whose names differ in case, dots or slashes alone have files of their own."""
    metadata = MetaData()
    Table("practices", metadata, Column("id", Uuid, primary_key=True))
    for name in ("a", "A", "a/b", "a.b", "../a", "ü" * 60, "u" * 63):
        Table(
            name,
            metadata,
            Column("id", Integer, primary_key=True),
            Column("tenant_id", ForeignKey("practices.id"), nullable=False),
        )
    names = [name for name in rls.files(Catalog(metadata, "practices"), Roles()) if "-" in name]
    assert len(names) == 5 * 2
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"public\.[a-z0-9_]*-[0-9a-f]{8}\.(structure|protection)\.sql", name)
