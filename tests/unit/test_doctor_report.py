"""The doctor's report: what it counts, how it ends, and how it is written."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table

from tenantguard.catalog import Catalog, Roles
from tenantguard.cli import main
from tenantguard.doctor import (
    CHECKS,
    Absence,
    Checked,
    NotLookedAt,
    Report,
    Subject,
    examine,
    write_text,
)
from tenantguard.doctor.models import look_at_tables
from tenantguard.findings import Finding, Severity

if TYPE_CHECKING:
    from tenantguard.doctor import Look

ERROR = Finding(
    "bad",
    "t",
    "It is bad.",
    "Mend it.",
)
WARNING = Finding(
    "weak",
    None,
    "It is weak.",
    "Mend it too.",
    Severity.WARNING,
)


def subject() -> Subject:
    metadata = MetaData()
    Table("practices", metadata, Column("id", Integer, primary_key=True))
    return Subject(
        Catalog(metadata, "practices"),
        Roles(),
        "enforce",
        application=Absence("no address"),
        admin=Absence("not wanted", chosen=True),
        engines=Absence("not wanted", chosen=True),
        is_protected=bool,
    )


def test_every_check_has_an_id_of_its_own() -> None:
    """The ids are stable names, each used once."""
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids) == 12


def test_accepting_hides_warnings_and_never_errors() -> None:
    """An accepted warning leaves the findings; an error with the same treatment stays."""
    checked = (Checked("one", "seen", (ERROR, WARNING)),)
    report = Report(checked, (), {"bad": "because", "weak": "because"})
    assert report.findings == [ERROR]
    assert [each.finding for each in report.accepted] == [WARNING]
    assert Report(checked, ()).findings == [ERROR, WARNING]


def test_complete_means_nothing_was_missed_by_accident() -> None:
    """What was left out on purpose does not make a report incomplete."""
    assert Report((), (NotLookedAt("one", "chosen", chosen=True),)).complete
    assert not Report((), (NotLookedAt("one", "failed"),)).complete


def test_absences_are_named_for_each_check_that_needs_them() -> None:
    """Without addresses the models are still looked at, and each other check says why it is not."""
    report = examine(subject())
    assert [each.check for each in report.checked] == ["mode", "tables"]
    reasons = {each.check: (each.reason, each.chosen) for each in report.not_looked_at}
    assert reasons["policies"] == ("no address", False)
    assert reasons["keys"] == ("not wanted", True)
    assert set(reasons) | {"mode", "tables"} == {check.id for check in CHECKS}


def test_check_that_breaks_is_not_green(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a check raises, it counts as not looked at, and its text is not repeated."""

    def broken(_subject: Subject) -> Look:
        raise LookupError("canary")

    monkeypatch.setattr(
        "tenantguard.doctor.checks.CHECKS", (type(CHECKS[0])("one", "models", broken),)
    )
    [missed] = examine(subject()).not_looked_at
    assert (missed.check, missed.chosen) == ("one", False)
    assert missed.reason == "Looking failed (LookupError)."


def test_catalog_that_does_not_fit_is_not_looked_at() -> None:
    """A guard that does not fit its models is explained in its own words."""
    unfit = subject()
    unfit.catalog.tenants = "nowhere"
    reasons = {each.check: each.reason for each in examine(unfit).not_looked_at}
    assert "The registry table 'nowhere' is not in the MetaData" in reasons["tables"]


def test_unclassified_table_is_found_and_a_classified_one_is_not() -> None:
    """A table nobody classified is an error that names the commands; declared, it is none."""
    given = subject()
    Table("lines", given.catalog.metadata, Column("id", Integer, primary_key=True))
    [finding] = look_at_tables(given).findings
    assert (finding.code, finding.object) == ("table-unclassified", "lines")
    assert "`tenantguard tables`" in finding.mend
    given.catalog.shared = {"lines": "an example"}
    given.catalog._entries.clear()
    assert look_at_tables(given).findings == []


def test_table_that_policies_cannot_hold_is_found() -> None:
    given = subject()
    metadata = given.catalog.metadata
    key = Column("id", Integer, primary_key=True)
    Table("orders", metadata, key, Column("tenant_id", Integer))
    Table("lines", metadata, Column("id", ForeignKey(key), primary_key=True))
    [finding] = look_at_tables(given).findings
    assert (finding.code, finding.object) == ("table-application-only", "lines")
    assert "`tenantguard migrate sql lines`" in finding.mend


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", "✓✗"), ("ascii", "okx")])
def test_text_fits_the_terminal_s_encoding(
    monkeypatch: pytest.MonkeyPatch, encoding: str, marks: str
) -> None:
    """Where marks cannot be written, words stand for them; no line is cut."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    long = Finding(
        "long",
        None,
        "word " * 60,
        "Mend it.",
    )
    missed = (NotLookedAt("keys", "no address"), NotLookedAt("tenants", "asked", chosen=True))
    write_text(
        Report(
            (Checked("mode", "enforce"), Checked("tables", "2 tables", (ERROR, long, WARNING))),
            missed,
            {"weak": "because"},
        )
    )
    stream.flush()
    text = raw.getvalue().decode(encoding)
    good, bad = (marks[0], marks[1]) if encoding == "utf-8" else ("ok", "x")
    assert f"  {good} mode: enforce\n" in text
    assert f"    {bad} error bad: It is bad.\n    {bad} error long: {'word ' * 60}" in text
    assert text.count("      mend these 2: Mend it.\n") == 1
    assert "Mend it too." not in text
    assert "    accepted weak: It is weak. (because)\n" in text
    assert "  ? keys: not looked at. no address\n" in text
    assert text.endswith(
        "2 errors, 0 warnings, 1 accepted; 1 could not be looked at, 1 left out.\n"
    )


def test_help_has_examples() -> None:
    """The command's help shows how it is typed, and says how it ends."""
    result = CliRunner().invoke(main, ["doctor", "--help"])
    assert result.exit_code == 0
    assert "$ tenantguard doctor --engine myapp.db:engine --format json" in result.stdout
    assert "Ends with 1 on findings, with 2 if" in " ".join(result.stdout.split())


def test_command_is_listed() -> None:
    """`tenantguard --help` has it."""
    assert "doctor" in CliRunner().invoke(main, ["--help"]).stdout


def test_every_code_is_in_the_manual() -> None:
    """The page on the doctor names every code and every check that the source has."""
    source = Path(__file__).parents[2] / "src" / "tenantguard"
    files = [*(source / "doctor").glob("*.py"), *(source / "rls").glob("*.py")]
    pattern = re.compile(r'(?:Finding|_error|_finding)\(\s*"([a-z-]+)"')
    codes = {code for path in files for code in pattern.findall(path.read_text())} - {"rls-off"}
    assert {"key-crossed", "view-of-owner", "log-plans", "role-superuser", "tls-off"} <= codes
    manual = (source.parents[1] / "docs" / "doctor.md").read_text()
    missing = {name for name in codes | {check.id for check in CHECKS} if f"`{name}`" not in manual}
    assert missing - {"engines"} == set()
