"""Every rule has a page and a planted fault; a database as the generator makes it has none."""

from __future__ import annotations

import importlib
import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from planting import RULE, planted

from tenantguard.check import RULES, Rule, examine, page_of
from tenantguard.cli.explain import SEVERITIES

if TYPE_CHECKING:
    from locks import World

SECTIONS = ["How it hurts", "How it is found", "What to do"]
OF_THE_SERVER = {"server-cve", "server-end-of-life"}
rules = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)


def test_ids_are_unique() -> None:
    assert len(RULE) == len(RULES) > 0
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)+", each) for each in RULE)


@rules
def test_a_rule_has_a_page(rule: Rule) -> None:
    """The page says how the fault hurts, how it is found and what to do."""
    page = page_of(rule.id)
    assert page.splitlines()[0] == f"# {rule.id}"
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == SECTIONS
    assert all(len(part.strip()) > 60 for part in re.split(r"^#.*$", page, flags=re.MULTILINE)[1:])


def test_every_page_is_a_rules() -> None:
    pages = {each.name for each in (files("tenantguard.check") / "pages").iterdir()}
    assert pages == {f"{each}.md" for each in SEVERITIES} | {"index.md"}


def test_every_rule_has_a_planted_fault() -> None:
    planting = (importlib.import_module(each.stem) for each in Path(__file__).parent.glob("test_*"))
    plants = {plant.rule for module in planting for plant in getattr(module, "PLANTS", ())}
    assert plants == set(RULE)


def test_a_database_as_generated_is_clean(world: World) -> None:
    with planted(world, "") as subject:
        result = examine(subject)
    assert set(result.looked) == set(RULE)
    assert result.unseen == ()
    assert [each for each in result.findings if each.code not in OF_THE_SERVER] == []
