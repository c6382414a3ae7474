"""Each form of a report: what its readers need, and nothing that they would misread."""

from __future__ import annotations

import json
import re
from datetime import date
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from validating import fits, validate

from tenantguard.errors import ConfigurationError
from tenantguard.findings import Finding, Result, Severity, Unseen
from tenantguard.report import FORMATS, Accepted, Lapsed, Place, Report, rendered, write
from tenantguard.report import as_text as text_module

if TYPE_CHECKING:
    from collections.abc import Callable

SARIF = json.loads((Path(__file__).parent / "sarif-2.1.0.json").read_text("utf-8"))
OURS = json.loads((files("tenantguard.report") / "report-1.schema.json").read_text("utf-8"))

MISSING = Finding(
    "policy-missing", "public.patients", "public.patients has no policy, 100%.", "Run: apply\n now"
)
WEAK = Finding(
    "index-slow", "public.orders", "Slow.", "Add one.", Severity.WARNING, column="tenant_id"
)
ROLE = Finding("role-super", "app", "app is a superuser.", "ALTER ROLE app NOSUPERUSER.")
OLD = Finding("grant-public", "public.tags", "PUBLIC reads public.tags.", "REVOKE it.")
PLACES = {MISSING: Place("src/my app/models.py", 12), WEAK: Place("src/my app/models.py", 40)}


def report(**changes: Any) -> Report:
    given: dict[str, Any] = {
        "command": "rls check",
        "result": Result(
            ("policy-missing", "index-slow", "force-off"),
            (MISSING, WEAK, ROLE),
            (Unseen("grant-public", "PostgreSQL refused (42501)."),),
        ),
        "accepted": (Accepted(OLD, "exemption", "until the rewrite", date(2027, 1, 31)),),
        "lapsed": (Lapsed("force-off", "public.tags", "baseline", "no longer occurs"),),
        "place": PLACES.get,
    }
    return Report(**{**given, **changes})


CLEAN = report(result=Result(("policy-missing",), ()), accepted=(), lapsed=())


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (Result(("a-rule",), ()), 0),
        (Result(("a-rule",), (MISSING,)), 1),
        (Result(("a-rule",), (), (Unseen("b-rule", "refused"),)), 2),
        (Result(("a-rule",), (MISSING,), (Unseen("b-rule", "refused"),)), 2),
        (Result((), ()), 2),
    ],
)
def test_what_was_not_looked_at_counts_for_more(result: Result, code: int) -> None:
    """2 if something could not be looked at, and if nothing was; 1 on findings; 0 if all holds."""
    assert report(result=result).exit_code == code


def test_text_says_where_what_and_what_mends_it() -> None:
    assert rendered(report(), "text").splitlines() == [
        "error policy-missing at public.patients (src/my app/models.py:12)",
        "    public.patients has no policy, 100%.",
        "    mend: Run: apply now",
        "warning index-slow at public.orders.tenant_id (src/my app/models.py:40)",
        "    Slow.",
        "    mend: Add one.",
        "error role-super at app",
        "    app is a superuser.",
        "    mend: ALTER ROLE app NOSUPERUSER.",
        "accepted error grant-public at public.tags: until the rewrite, until 2027-01-31",
        "note: baseline of force-off at public.tags no longer occurs",
        "? grant-public: not looked at. PostgreSQL refused (42501).",
        "3 rules looked at: 2 errors, 1 warning, 1 accepted; 1 could not be looked at.",
    ]


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = StringIO()
    text_module.write_text(report(), plain)
    assert "\x1b[" not in plain.getvalue()
    coloured = StringIO()
    terminal = Console(file=coloured, force_terminal=True, highlight=False, color_system="standard")
    monkeypatch.setattr(text_module, "Console", lambda **_: terminal)
    text_module.write_text(report(), coloured)
    assert "\x1b[31m" in coloured.getvalue()


@pytest.mark.parametrize("each", [report(), CLEAN], ids=["findings", "clean"])
def test_json_is_as_its_schema_says(each: Report) -> None:
    validate(json.loads(rendered(each, "json")), OURS, OURS)


def test_the_schema_refuses_another_version() -> None:
    """A program that validates finds out that it does not know the form."""
    document = json.loads(rendered(CLEAN, "json"))
    assert not fits({**document, "version": 2}, OURS, OURS)
    assert not fits({**document, "more": 1}, OURS, OURS)


@pytest.mark.parametrize("each", [report(), CLEAN], ids=["findings", "clean"])
def test_sarif_is_as_the_standard_says(each: Report) -> None:
    """The schema is the standard's own, cut down to what a report uses."""
    validate(json.loads(rendered(each, "sarif")), SARIF, SARIF)


def run_of(each: Report) -> dict[str, Any]:
    [run] = json.loads(rendered(each, "sarif"))["runs"]
    return dict(run)


def test_sarif_points_at_the_model_and_every_result_has_a_file() -> None:
    """GitHub refuses a whole file for one result without a location."""
    places = [each["locations"][0]["physicalLocation"] for each in run_of(report())["results"]]
    assert [(at["artifactLocation"]["uri"], at["region"]["startLine"]) for at in places] == [
        ("src/my%20app/models.py", 12),
        ("src/my%20app/models.py", 40),
        ("pyproject.toml", 1),
    ]


def test_sarif_results_name_their_rule() -> None:
    run = run_of(report(rules={"force-off": Severity.ERROR}))
    rules = run["tool"]["driver"]["rules"]
    assert [each["id"] for each in rules] == [
        *("force-off", "policy-missing", "index-slow", "role-super")
    ]
    assert all(rules[each["ruleIndex"]]["id"] == each["ruleId"] for each in run["results"])
    assert [each["level"] for each in run["results"]] == ["error", "warning", "error"]
    assert run["automationDetails"]["id"] == "tenantguard/rls-check/"


def test_sarif_of_an_incomplete_run_was_not_successful() -> None:
    """GitHub refuses it then, instead of closing the alerts of what was not looked at."""
    [invocation] = run_of(report())["invocations"]
    assert invocation["executionSuccessful"] is False
    assert invocation["exitCode"] == 2
    assert invocation["toolExecutionNotifications"][0] == {
        "level": "error",
        "message": {"text": "grant-public: not looked at. PostgreSQL refused (42501)."},
    }
    assert run_of(CLEAN)["invocations"][0]["executionSuccessful"] is True


def test_sarif_leaves_out_what_is_accepted() -> None:
    """GitHub takes no notice of suppressions, and would show it as open."""
    assert "grant-public" not in {each["ruleId"] for each in run_of(report())["results"]}


def test_fingerprints_stay_when_the_model_moves() -> None:
    def marks(each: Report) -> list[Any]:
        return [result["partialFingerprints"] for result in run_of(each)["results"]]

    assert marks(report()) == marks(report(place=lambda _: Place("elsewhere.py", 99)))
    assert len({str(each) for each in marks(report())}) == 3


def test_fingerprints_tell_names_apart_and_not_counts() -> None:
    """A count changes by itself; a second fault of the same rule at the same table is a new one."""

    def mark(message: str) -> str:
        finding = Finding("a-rule", "public.t", message, "Mend it.")
        return report(result=Result(("a-rule",), (finding,))).fingerprints[finding]

    assert mark("3 rows of t, 1,200 in all") == mark("4 rows of t, 1,201 in all")
    assert mark("policy p1") != mark("policy p2")
    assert mark('policy "1"') != mark('policy "2"')
    twins = (
        Finding("a-rule", "public.t", "3 rows.", "Mend it."),
        Finding("a-rule", "public.t", "4 rows.", "Mend it."),
    )
    found = report(result=Result(("a-rule",), twins)).fingerprints
    assert found[twins[1]] == found[twins[0]].replace(":1", ":2")


def test_annotations_are_escaped_as_github_reads_them() -> None:
    odd = Finding("a-rule", "s.a,b", "50%\r\n::error::no", "Mend it.", Severity.WARNING)
    each = report(
        result=Result(("a-rule",), (odd,)),
        accepted=(),
        lapsed=(),
        place=lambda _: Place("a:b,c%.py", 3),
    )
    assert rendered(each, "github").splitlines() == [
        "::warning file=a%3Ab%2Cc%25.py,line=3,title=a-rule::50%25%0D%0A::error::no Mend it.",
        "1 rule looked at: 0 errors, 1 warning; 0 could not be looked at.",
    ]


def test_annotations_say_what_was_not_looked_at() -> None:
    lines = rendered(report(), "github").splitlines()
    assert "::error title=could not look::grant-public: not looked at. " in "\n".join(lines)
    assert sum(each.startswith("::error file=") for each in lines) == 1


def test_gitlab_has_a_line_and_a_fingerprint_for_each() -> None:
    listed = json.loads(rendered(report(), "gitlab"))
    assert [each["check_name"] for each in listed] == [
        *("policy-missing", "index-slow", "role-super", "grant-public")
    ]
    assert [each["severity"] for each in listed] == ["critical", "major", "critical", "blocker"]
    assert listed[0]["location"] == {"path": "src/my app/models.py", "lines": {"begin": 12}}
    assert len({each["fingerprint"] for each in listed}) == 4


def test_junit_has_a_case_for_each_rule() -> None:
    root = ET.fromstring(rendered(report(), "junit"))
    cases = {each.get("name"): [child.tag for child in each] for each in root.iter("testcase")}
    assert cases == {
        "policy-missing": ["failure"],
        "index-slow": ["failure"],
        "force-off": [],
        "role-super": ["failure"],
        "grant-public": ["error"],
    }
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("5", "3", "1")


def test_junit_has_a_case_for_each_table() -> None:
    """Where tables are looked at one by one, a table's finding is its case's failure."""
    each = report(result=Result(("public.patients", "public.tags"), (MISSING,)), unit="table")
    cases = list(ET.fromstring(rendered(each, "junit")).iter("testcase"))
    assert [(case.get("name"), len(case)) for case in cases] == [
        ("public.patients", 1),
        ("public.tags", 0),
    ]


def test_markdown_shows_names_as_they_are() -> None:
    """A name is no link, no mark and no mention, and a comment is not longer than it may be."""
    odd = Finding("a-rule", "s.t", "[x](y) <b> `q` a|b @team __init__", "Mend\n# it")
    text = rendered(report(result=Result(("a-rule",), (odd,))), "markdown")
    assert r"\[x\](y) \<b\> \`q\` a\|b" in text
    assert "@team" not in text
    assert r"Mend \# it" in text
    many = tuple(Finding("a-rule", f"s.t{n}", "x" * 90, "y" * 90) for n in range(1000))
    long = rendered(report(result=Result(("a-rule",), many)), "markdown")
    assert len(long) < 65_536
    assert re.search(r"- and \d+ more", long)
    assert "1000 errors" in long


NAME = "nasty\x1b[31m\x00\u202ename"


@pytest.mark.parametrize("output", sorted({*FORMATS}))
def test_no_control_character_reaches_a_reader(output: str) -> None:
    """A table may be called anything; no form of a report lets that speak to a terminal."""
    odd = Finding("a-rule", NAME, f"{NAME} is open.", f"DROP {NAME}")
    text = rendered(report(result=Result(("a-rule",), (odd,), (Unseen(NAME, NAME),))), output)
    assert not {"\x1b", "\x00", "\u202e"} & set(text)


def to_file(tmp_path: Path) -> Path:
    return tmp_path / "out.sarif"


def to_directory(tmp_path: Path) -> Path:
    return tmp_path


def test_a_file_gets_the_form_and_the_terminal_the_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(report(), "sarif", to=to_file(tmp_path))
    assert json.loads(to_file(tmp_path).read_text("utf-8"))["version"] == "2.1.0"
    assert "error policy-missing" in capsys.readouterr().out


@pytest.mark.parametrize("place", [to_directory])
def test_a_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, place: Callable[[Path], Path]
) -> None:
    with pytest.raises(ConfigurationError, match="cannot be written"):
        write(report(), "json", to=place(tmp_path))
