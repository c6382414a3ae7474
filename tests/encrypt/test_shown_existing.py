"""The Python and the commands that docs/encrypt-existing.md shows, run as they stand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from commanding import MODULE, serve
from shown import ROOT, blocks, new_base
from sqlalchemy import text
from sqlalchemy.orm import Session
from vault import A

from tenantguard import tenant_context
from tenantguard.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from shown import Shown

PAGE = ROOT / "docs" / "encrypt-existing.md"
# A further block on the page needs a test here.
MODEL, LARGE = blocks(PAGE)
# Blocks with Alembic's command need a project of its: tests/encrypt/test_revision.py has one, and
# tests/unit/test_shown_commands.py parses them.
COMMANDS = [
    line.removeprefix("$ ")
    for block in blocks(PAGE, "console")
    if "$ alembic" not in block
    for line in block.splitlines()
    if line.startswith("$ ")
]
# The page begins with what can be asked of a column once it is encrypted.
ENCRYPTED, MIGRATING = COMMANDS[:2], COMMANDS[2:]


@pytest.fixture
def page(shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """A patient in plaintext, and commands that find the guard and the address by themselves."""
    shown.run_in_class("name: Mapped[str]", "Patient")
    engine = shown.protect()
    with tenant_context(A), Session(engine) as session:
        session.add(shown.names["Patient"](name="Ada"))
        session.commit()
    shown.names["Base"] = new_base()
    address = shown.admin.url.render_as_string(hide_password=False)
    monkeypatch.setenv("TENANTGUARD_ADMIN_URL", address)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(f'[tool.tenantguard]\nguard = "{MODULE}:guard"\n')
    return shown


def run(command: str) -> None:
    result = CliRunner().invoke(main, shlex.split(command)[1:])
    # As the page says: steps are missing.
    expected = 1 if "expand" in command and "--dry-run" in command else 0
    assert result.exit_code == expected, (command, result.output)


def columns(page: Shown) -> list[str]:
    of_patients = "SELECT column_name FROM information_schema.columns WHERE table_name = 'patients'"
    with page.admin.connect() as connection:
        return sorted(connection.scalars(text(of_patients)))


def test_the_commands_of_the_page_encrypt_its_column(
    page: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the page's model, they do their work in its order, and no plaintext is left."""
    page.run(MODEL)
    serve(monkeypatch, guard=page.guard())
    for command in (*MIGRATING, *ENCRYPTED):
        run(command)
    assert columns(page) == ["id", "name_sealed", "name_sealed_bidx", "tenant_id"]


def test_the_large_table_is_not_rewritten(page: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the page's other declaration in place of the first, the table keeps its file."""
    [line] = [each for each in MODEL.splitlines(keepends=True) if "sealed_name:" in each]
    indented = "".join(f"    {each}" for each in LARGE.splitlines(keepends=True))
    page.run(MODEL.replace(line, indented))
    serve(monkeypatch, guard=page.guard())
    file = "SELECT pg_relation_filenode('patients')"
    with page.admin.connect() as connection:
        before = connection.scalar(text(file))
        run("tenantguard encrypt expand patients.name")
        assert connection.scalar(text(file)) == before
    assert "name_sealed_bidx" in columns(page)


def test_the_page_s_attribute_reads_writes_and_finds(
    page: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`name` is used as before: what was plaintext is read, and what is written goes into both."""
    page.run(MODEL)
    guard = page.guard()
    serve(monkeypatch, guard=guard)
    run("tenantguard encrypt expand patients.name")
    run("tenantguard rls apply")
    engine = page.connect(guard)
    patient = page.names["Patient"]
    with tenant_context(A), Session(engine) as session:
        session.add(patient(name="Bo"))
        session.commit()
        assert {each.name for each in session.query(patient)} == {"Ada", "Bo"}
        assert session.query(patient).where(patient.name == "Ada").one().sealed_name is None
        assert session.query(patient).where(patient.name == "Bo").one().sealed_name == "Bo"
