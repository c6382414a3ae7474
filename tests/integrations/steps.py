"""The examples as they were before a documented diff, and packages loaded under another name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tenantguard.demo.stage import Stage

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def diff(step: str, app: str) -> Path:
    """The file that shows *step*, `protect` or `encrypt`, of the example *app*."""
    return ROOT / "docs" / f"{step}-{app}.diff"


def apply(path: Path, directory: Path, *options: str) -> None:
    """Apply the diff *path* to the examples that were copied to *directory*."""
    environment = {
        "PATH": "/usr/bin:/bin:/usr/local/bin",
        "GIT_CEILING_DIRECTORIES": str(directory.parent),
    }
    done = subprocess.run(
        ["git", "apply", *options, str(path)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def copy_before(step: str, app: str, directory: Path) -> Path:
    """Copy the examples to *directory*, as they were before *step*; return the package of *app*."""
    directory.mkdir(exist_ok=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(EXAMPLES, directory / "examples", ignore=ignored)
    for each in ("encrypt",) if step == "encrypt" else ("encrypt", "protect"):
        apply(diff(each, app), directory, "--reverse")
    return directory / "examples" / f"{app}_app"


def changed_lines(path: Path) -> tuple[int, int]:
    """The number of lines that a diff adds, and that it removes."""
    lines = path.read_text("utf-8").splitlines()
    added = [line for line in lines if line.startswith("+") and not line.startswith("+++ ")]
    removed = [line for line in lines if line.startswith("-") and not line.startswith("--- ")]
    return len(added), len(removed)


def files(package: Path) -> dict[str, bytes]:
    """What is in *package*, by name."""
    return {
        str(path.relative_to(package)): path.read_bytes()
        for path in package.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }


@contextmanager
def loaded(directory: Path, name: str = "another_app") -> Iterator[Any]:
    """Load the package in *directory* under a name of its own."""
    spec = spec_from_file_location(name, directory / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(package)
        import_module(f"{name}.models")
        yield package
    finally:
        for each in [each for each in sys.modules if each.split(".")[0] == name]:
            del sys.modules[each]


def last_name(stage: Stage) -> str:
    """The last name of the first practice's first patient, from a database that holds it open."""
    with stage.admin.connect() as connection:
        query = "SELECT last_name FROM patients WHERE id = 1"
        return str(connection.exec_driver_sql(query).scalar())


def dump(stage: Stage) -> str:
    """Every patient's row, as the superuser sees it."""
    with stage.admin.connect() as connection:
        rows = connection.exec_driver_sql("SELECT t::text FROM patients AS t").scalars()
        return "\n".join(rows)
