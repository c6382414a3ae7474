"""`tenantguard keys export` and `import`: keysets leave wrapped, and come back over nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from key_commands import IDS, C, Keys, Process, assert_could_not_look, serve
from vault import A, B, make_guard

from tenantguard.crypto.keyfile import make_key_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

ALL = "SELECT *, NULL FROM tenantguard_keys ORDER BY tenant_id, purpose"
NONE = {"added": 0, "there": 0, "different": 0, "destroyed": 0, "unknown": 0, "unopened": 0}


@pytest.fixture
def exported(rotating: Keys, tmp_path: Path) -> Path:
    """The export of two tenants with a value each."""
    path = tmp_path / "keys.jsonl"
    result = rotating("export", "--wrapped", str(path))
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Wrote 4 keysets to {path}, wrapped as they are stored" in result.stdout
    return path


def imported(keys: Keys, path: Path, *options: str, code: int = 0) -> dict[str, int]:
    """Run the command; return what it counted, if that is not zero."""
    document = keys.json("import", str(path), *options, code=code)
    assert not IDS.search(json.dumps(document))
    return {name: document[name] for name in NONE if document[name]}


def test_export_holds_what_is_stored(rotating: Keys, exported: Path) -> None:
    """Every row as it is, for its owner alone; an existing file is not overwritten."""
    _, *rows, end = (json.loads(line) for line in exported.read_text().splitlines())
    assert [(row["tenant"], row["purpose"], row["kek_uri"], row["wrapped"]) for row in rows] == (
        rotating.rows()
    )
    assert (end["rows"], exported.stat().st_mode & 0o777) == (4, 0o600)
    again = rotating("export", "--wrapped", str(exported))
    assert_could_not_look(again, "never overwritten")


def test_lost_rows_come_back_as_they_were(rotating: Keys, exported: Path) -> None:
    """Counted, then added, with their times; what is there is left; every value opens."""
    before = rotating.vault.run(ALL)
    rotating.vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :a", a=A)
    rotating.vault.run("DELETE FROM tenantguard_keys WHERE purpose = 'index'")
    assert imported(rotating, exported, "--dry-run") == {"added": 3, "there": 1}
    assert len(rotating.rows()) == 1
    result = rotating("import", str(exported))
    assert result.exit_code == 0
    assert result.stdout.startswith("3 keysets added; 1 were there.\nIf keys were rotated after")
    assert rotating.vault.run(ALL) == before
    assert imported(rotating, exported) == {"there": 4}
    assert (Process(rotating, A).read(), Process(rotating, B).read()) == ({"a"}, {"b"})


def test_import_overwrites_no_keyset(rotating: Keys, exported: Path) -> None:
    """A keyset that was changed since stays as it is, and the import says so."""
    rotating("rotate", "--tenant", str(A), "--no-wait")
    before = rotating.vault.run(ALL)
    assert imported(rotating, exported, code=1) == {"there": 3, "different": 1}
    assert rotating.vault.run(ALL) == before
    assert "refused: 1 have another keyset in the" in rotating("import", str(exported)).stdout


def test_import_brings_no_destroyed_tenant_back(rotating: Keys, exported: Path) -> None:
    """A tombstone keeps all of the tenant's keysets out, also those whose row is missing."""
    rotating("destroy", "--tenant", str(A), "--reason", "test", "--yes")
    rotating.vault.run(
        "DELETE FROM tenantguard_keys WHERE tenant_id = :a AND purpose = 'data'", a=A
    )
    before = rotating.vault.run(ALL)
    assert imported(rotating, exported, code=1) == {"there": 2, "destroyed": 2}
    assert rotating.vault.run(ALL) == before
    text = rotating("import", str(exported)).stdout
    assert "refused: 2 are of tenants whose keys were destroyed; they stay destroyed." in text


def test_tombstones_are_exported_too(rotating: Keys, tmp_path: Path) -> None:
    """What was destroyed before the export is destroyed where it is imported."""
    rotating("destroy", "--tenant", str(A), "--reason", "test", "--yes")
    before = rotating.vault.run(ALL)
    path = tmp_path / "keys.jsonl"
    rotating("export", "--wrapped", str(path))
    rotating.vault.run("DELETE FROM tenantguard_keys")
    assert imported(rotating, path) == {"added": 4}
    assert rotating.vault.run(ALL) == before


def test_unknown_tenants_are_left_out(rotating: Keys, tmp_path: Path) -> None:
    """Keysets without their tenant are counted, and not added."""
    rotating.add_tenant(C)
    rotating("create")
    path = tmp_path / "keys.jsonl"
    rotating("export", "--wrapped", str(path))
    rotating.vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :c", c=C)
    rotating.vault.run("DELETE FROM practices WHERE id = :c", c=C)
    assert imported(rotating, path, code=1) == {"there": 4, "unknown": 2}


def test_what_the_key_does_not_open_is_left_out(
    rotating: Keys, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export of another key-encryption key adds nothing that nobody could open."""
    rotating.vault.run("DELETE FROM tenantguard_keys")
    make_key_file(tmp_path / "other.json", environment="test")
    serve(monkeypatch, guard=make_guard(rotating.vault.guard.roles, tmp_path / "other.json"))
    assert imported(rotating, exported, code=1) == {"unopened": 4}
    assert rotating.rows() == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-100],
        lambda text: text.replace('"generation": 1', '"generation": 2', 1),
        lambda text: "\n".join(text.splitlines()[:2] + text.splitlines()[3:]),
        lambda text: text.replace('"environment": "test"', '"environment": "production"'),
        lambda _: "",
        lambda _: "{}\n[]",
    ],
)
def test_damaged_file_is_refused_whole(
    rotating: Keys, exported: Path, damage: Callable[[str], str]
) -> None:
    """A file that is cut off, altered or another environment's adds nothing, and is not quoted."""
    rotating.vault.run("DELETE FROM tenantguard_keys")
    exported.write_text(damage(exported.read_text()))
    result = rotating("import", str(exported))
    assert_could_not_look(result, "is damaged or cut off, or was written in another environment")
    assert not IDS.search(result.output)
    assert rotating.rows() == []


def test_missing_file_is_told(rotating: Keys, tmp_path: Path) -> None:
    """With one line."""
    assert_could_not_look(
        rotating("import", str(tmp_path / "none")), "cannot be read: No such file"
    )


def test_backup_exports_and_maintenance_imports(
    rotating: Keys, tmp_path: Path, login: Callable[..., URL]
) -> None:
    """Reading all is enough for the one, and not for the other."""
    roles, path = rotating.vault.guard.roles, tmp_path / "keys.jsonl"
    url = login(roles.backup)
    assert rotating("export", "--wrapped", str(path), url=url).exit_code == 0
    assert_could_not_look(rotating("import", str(path), url=url), "may not change keys")
    rotating.vault.run(f'GRANT "{roles.maintenance}" TO "{url.username}"')
    rotating.vault.run("DELETE FROM tenantguard_keys")
    assert "4 keysets added" in rotating("import", str(path), url=url).stdout
