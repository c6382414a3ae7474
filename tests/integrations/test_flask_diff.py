"""The diffs in the documentation are the ones that protected and encrypted the example."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from steps import EXAMPLES, apply, changed_lines, copy_before, diff, dump, files, last_name, loaded

from tenantguard.demo.data import PRACTICES
from tenantguard.demo.stage import Stage, set_up, stage_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

EXAMPLE = EXAMPLES / "flask_app"
PROTECT, ENCRYPT = diff("protect", "flask"), diff("encrypt", "flask")


@pytest.fixture
def unprotected(tmp_path: Path) -> Path:
    """The example as it was before."""
    return copy_before("protect", "flask", tmp_path / "before")


@pytest.fixture
def protected(tmp_path: Path) -> Path:
    """The example with isolation and without encryption."""
    return copy_before("encrypt", "flask", tmp_path / "protected")


@pytest.fixture
def plain_stage(protected: Path, new_database: Callable[[], URL]) -> Iterator[Stage]:
    """A stage for the example without encryption."""
    with (
        loaded(protected, "protected_app") as package,
        stage_with(
            package, new_database(), patients=3, tell=lambda _text: nullcontext(), app="flask"
        ) as stage,
    ):
        yield stage


# -- isolation ---------------------------------------------------------------------------------


def test_diff_is_short() -> None:
    """At most 25 lines were added or removed."""
    assert 0 < sum(changed_lines(PROTECT)) <= 25


def test_unprotected_example_knows_nothing_of_tenantguard(unprotected: Path) -> None:
    """Reversed, the diffs leave an app without the library, that can be compiled."""
    for path in unprotected.rglob("*.py"):
        source = path.read_text("utf-8")
        assert "tenantguard" not in source
        compile(source, str(path), "exec")


def test_diff_makes_the_example(unprotected: Path, protected: Path) -> None:
    """Applied again, the diff gives the protected example, byte for byte."""
    apply(PROTECT, unprotected.parents[1])
    assert files(unprotected) == files(protected)


def test_no_tenant_condition_in_the_example(unprotected: Path) -> None:
    """Neither version filters by tenant: that is the library's work."""
    for directory in (unprotected, EXAMPLE):
        for path in directory.glob("*.py"):
            source = path.read_text("utf-8")
            assert ".tenant_id ==" not in source
            assert "filter_by(tenant_id" not in source


def test_unprotected_example_shows_everybody_everything(
    unprotected: Path, plain_stage: Stage
) -> None:
    """Negative control: what the diff mends was broken, and the policies alone close it."""
    with loaded(unprotected, "unprotected_app") as before:
        assert _patients(before, plain_stage.admin.url) == (200, 6)
        assert _patients(plain_stage.example, plain_stage.application) == (200, 3)
        assert _patients(before, plain_stage.application) == (403, 0)


# -- encryption --------------------------------------------------------------------------------


def test_encryption_is_short() -> None:
    """The numbers of lines are those that the page about the diff states."""
    page = ENCRYPT.with_name("diff-flask.md").read_text("utf-8")
    added, removed = changed_lines(ENCRYPT)
    assert 0 < added + removed <= 35
    assert f"{added} lines come and {removed} go" in " ".join(page.split())


def test_encryption_makes_the_example(protected: Path) -> None:
    """Applied again, the second diff gives the example, byte for byte."""
    apply(ENCRYPT, protected.parents[1])
    assert files(protected) == files(EXAMPLE)


def test_encryption_touches_models_keys_and_search_only(protected: Path) -> None:
    """No view, form or page but the search's is touched."""
    before, after = files(protected), files(EXAMPLE)
    changed = {name for name in after if before[name] != after[name]}
    assert changed == {"models.py", "database.py", "patients.py", "templates/patients.html"}


def test_users_see_the_same(plain_stage: Stage, new_database: Callable[[], URL]) -> None:
    """The pages of a patient are the same before and after; the database's rows are not."""
    with set_up(new_database(), patients=3, tell=lambda _text: nullcontext()) as stage:
        order, _ = stage.first(stage.models.Order)
        for path in ("/patients/1", "/patients/1/edit", f"/orders/{order}"):
            before, after = _page(plain_stage, path), _page(stage, path)
            assert before == after
            assert before[0] == 200
        name = last_name(plain_stage)
        assert name in _page(stage, "/patients/1")[1]
        assert name in dump(plain_stage)
        assert name not in dump(stage)


def test_what_searching_loses(plain_stage: Stage, new_database: Callable[[], URL]) -> None:
    """Before, a part of a name was enough; after, the whole name is needed, in any case."""
    name = last_name(plain_stage)
    part, whole = f"/patients/?q={name[:3]}", f"/patients/?q={name.upper()}"
    with set_up(new_database(), patients=3, tell=lambda _text: nullcontext()) as stage:
        for found in (_page(plain_stage, part), _page(plain_stage, whole), _page(stage, whole)):
            assert 'href="/patients/1"' in found[1]
        assert 'href="/patients/1"' not in _page(stage, part)[1]


def _page(stage: Stage, path: str) -> tuple[int, str]:
    """Return the status and the text of what the first practice is shown, without the token."""
    status, text = _get(stage.example, stage.application, path)
    return status, re.sub(r'name="csrf" value="[^"]*"', "", text)


def _patients(package: Any, address: URL) -> tuple[int, int]:
    """Return the status and the number of patients that the first practice is shown."""
    status, text = _get(package, address, "/patients/")
    return status, len(re.findall(r'href="/patients/\d+"', text))


def _get(package: Any, address: URL, path: str) -> tuple[int, str]:
    app = package.create_app({"DATABASE_URL": address, "SECRET_KEY": "test"})
    client = app.test_client()
    with client.session_transaction() as session:
        session.update(user_id=1, practice_id=str(PRACTICES[0].id))
    page = client.get(path)
    app.extensions["engine"].dispose()
    return page.status_code, page.text
