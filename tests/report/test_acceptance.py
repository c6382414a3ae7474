"""What is accepted does not count and is always listed; what was accepted once counts again."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

import pytest

from tenantguard.errors import ConfigurationError
from tenantguard.findings import Finding, Result, Severity, Unseen
from tenantguard.report import (
    Acceptance,
    Report,
    baseline_text,
    read_baseline,
    read_exemptions,
    rendered,
)
from tenantguard.report.baseline import Known
from tenantguard.report.exemptions import Exemption

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date(2027, 3, 1)
OPEN = Finding("policy-missing", "public.tags", "No policy.", "Add it.")
SLOW = Finding("index-slow", "public.tags", "Slow.", "Add it.", Severity.WARNING)
SERVER = Finding("server-cve", None, "Old.", "Update.", Severity.WARNING)
RULES = ("policy-missing", "index-slow", "server-cve")


def report(*findings: Finding, unseen: tuple[Unseen, ...] = ()) -> Report:
    return Report("rls check", Result(RULES, findings, unseen))


def accepting(*exemptions: Exemption) -> Acceptance:
    return Acceptance(exemptions, today=TODAY)


def test_what_is_exempt_does_not_count_and_is_listed() -> None:
    """Also an error, which keeps tenants from being apart: its reason stands in every output."""
    found = accepting(Exemption("policy-missing", "public.tags", "moved in May")).of(report(OPEN))
    assert found.exit_code == 0
    assert "accepted error policy-missing at public.tags: moved in May" in rendered(found, "text")
    assert "moved in May" in rendered(found, "json")
    assert "moved in May" in rendered(found, "markdown")
    assert "moved in May" in rendered(found, "sarif")
    assert "moved in May" in rendered(found, "github")
    assert "moved in May" in rendered(found, "junit")


@pytest.mark.parametrize(
    "exemption",
    [
        Exemption("policy-missing", "public.orders", "another table"),
        Exemption("policy-missing", None, "no table"),
        Exemption("policy-missing", "tags", "not its full name"),
        Exemption("index-slow", "public.tags", "another rule"),
        Exemption("policy-missing", "public.%", "no pattern"),
    ],
)
def test_an_exemption_is_of_one_rule_at_one_object(exemption: Exemption) -> None:
    assert accepting(exemption).of(report(OPEN)).exit_code == 1


def test_a_finding_about_no_object_is_exempt_without_one() -> None:
    assert accepting(Exemption("server-cve", None, "in May")).of(report(SERVER)).exit_code == 0


def test_an_exemption_holds_on_its_last_day_and_not_after() -> None:
    """What it accepted counts again from then on, and the report says so."""
    last = Exemption("policy-missing", "public.tags", "until the move", TODAY)
    over = Exemption("policy-missing", "public.tags", "until the move", date(2027, 2, 28))
    assert accepting(last).of(report(OPEN)).exit_code == 0
    found = accepting(over).of(report(OPEN))
    assert found.exit_code == 1
    [lapsed] = found.lapsed
    assert str(lapsed).startswith("exemption of policy-missing at public.tags ended on 2027-02-28")
    assert str(lapsed).endswith("counts again")


def test_an_exemption_that_accepts_nothing_is_listed() -> None:
    found = accepting(Exemption("index-slow", "public.tags", "small")).of(report())
    assert [str(each) for each in found.lapsed] == [
        "exemption of index-slow at public.tags accepts nothing: remove it"
    ]
    assert found.exit_code == 0


def test_nothing_is_said_of_a_rule_that_could_not_look() -> None:
    """Its findings may still be there."""
    unseen = Result(("policy-missing",), (), (Unseen("index-slow", "refused"),))
    known = (Known("0" * 32 + ":1", "index-slow", "public.tags"),)
    acceptance = Acceptance((Exemption("index-slow", "public.tags", "small"),), known, TODAY)
    assert acceptance.of(Report("rls check", unseen)).lapsed == ()


def pyproject(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "pyproject.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_exemptions_are_read(tmp_path: Path) -> None:
    path = pyproject(
        tmp_path,
        '[[tool.tenantguard.exempt]]\nrule = "index-slow"\nobject = "public.tags"\n'
        'reason = " small "\nuntil = 2027-01-31\n'
        '[[tool.tenantguard.exempt]]\nrule = "server-cve"\nreason = "x"\nuntil = "2027-02-01"\n',
    )
    assert read_exemptions(path, RULES) == (
        Exemption("index-slow", "public.tags", "small", date(2027, 1, 31)),
        Exemption("server-cve", None, "x", date(2027, 2, 1)),
    )
    assert read_exemptions(tmp_path / "none.toml", RULES) == ()
    assert read_exemptions(pyproject(tmp_path, '[tool.tenantguard]\nguard = "a:b"\n'), RULES) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('rule = "index-slow"\nobject = "public.tags"', "has no reason"),
        ('rule = "index-slow"\nobject = "public.tags"\nreason = "  "', "has no reason"),
        ('rule = "no-such"\nobject = "public.tags"\nreason = "x"', "names no rule"),
        ('object = "public.tags"\nreason = "x"', "names no rule"),
        ('rule = "index-slow"\nreason = "x"\nuntil = "soon"', "until is no date"),
        ('rule = "index-slow"\nreason = "x"\nuntil = 2027-01-31T00:00:00', "until is no date"),
        ('rule = "index-slow"\nreason = "x"\ntable = "tags"', "key that there is not"),
        ('rule = "index-slow"\nreason = "x"\nobject = 3', "object is no text"),
        ('rule = "index-slow"\nreason = "x"\nrule = "index-slow"', "cannot be read"),
        (
            "\n[[tool.tenantguard.exempt]]\n".join(['rule = "index-slow"\nreason = "x"'] * 2),
            "Two exemptions",
        ),
    ],
)
def test_an_exemption_that_says_less_is_refused(tmp_path: Path, text: str, message: str) -> None:
    """A typing error accepts nothing: the command could not look."""
    path = pyproject(tmp_path, f"[[tool.tenantguard.exempt]]\n{text}\n")
    with pytest.raises(ConfigurationError, match=message):
        read_exemptions(path, RULES)


def test_exempt_that_is_no_list_is_refused(tmp_path: Path) -> None:
    path = pyproject(tmp_path, '[tool.tenantguard]\nexempt = "index-slow"\n')
    with pytest.raises(ConfigurationError, match="no list"):
        read_exemptions(path, RULES)


def baseline(tmp_path: Path, *findings: Finding) -> Path:
    path = tmp_path / "baseline.json"
    path.write_text(baseline_text(findings, findings), encoding="utf-8")
    return path


def test_only_what_the_baseline_has_not_counts(tmp_path: Path) -> None:
    acceptance = Acceptance((), read_baseline(baseline(tmp_path, SLOW)))
    found = acceptance.of(report(SLOW, OPEN))
    assert found.result.findings == (OPEN,)
    assert [(each.finding, each.by) for each in found.accepted] == [(SLOW, "baseline")]
    assert "accepted warning index-slow at public.tags: in the baseline" in rendered(found, "text")


def test_a_second_fault_of_the_same_kind_is_new(tmp_path: Path) -> None:
    """Two findings that differ in a count alone are still two."""
    one = Finding("index-slow", "public.tags", "3 rows.", "Add it.")
    two = Finding("index-slow", "public.tags", "4 rows.", "Add it.")
    known = read_baseline(baseline(tmp_path, one))
    found = Acceptance((), known).of(report(one, two))
    assert found.result.findings == (two,)
    assert set(found.fingerprints.values()) == {
        known[0].fingerprint,
        known[0].fingerprint.replace(":1", ":2"),
    }


def test_what_no_longer_occurs_is_listed(tmp_path: Path) -> None:
    found = Acceptance((), read_baseline(baseline(tmp_path, SLOW))).of(report())
    assert [str(each) for each in found.lapsed] == [
        "baseline of index-slow at public.tags no longer occurs: write the baseline anew"
    ]


def test_a_baseline_is_the_same_whatever_the_order() -> None:
    both = [OPEN, SLOW]
    assert baseline_text(both, both) == baseline_text(both[::-1], both[::-1])


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        '{"version": 2, "findings": []}',
        '{"version": 1, "findings": [{"code": "index-slow"}]}',
        '{"version": 1, "findings": [{"code": 3, "object": null, "fingerprint": "x"}]}',
        '{"version": 1}',
    ],
)
def test_a_baseline_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="--write-baseline"):
        read_baseline(path)


def test_a_baseline_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A mistyped name must not accept nothing silently, nor everything."""
    with pytest.raises(ConfigurationError, match="There is no baseline"):
        read_baseline(tmp_path / "none.json")
