"""The examples, loaded from the checkout or from the wheel."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tenantguard.errors import ConfigurationError

__all__ = ["load_example"]


def load_example(name: str = "flask_app", *, environment: Mapping[str, str] | None = None) -> Any:
    """Return the package of the example *name*: `flask_app` or `starlette_app`.

    It is loaded anew each time, as a process of its own would: with a guard of its own, which knows
    nothing of another database's keys.

    Args:
        name: Of the package.
        environment: Environment variables that it finds while it is loaded.

    Raises:
        ConfigurationError: If the example is not there, or the name is taken by another package.
    """
    directory = _find(name)
    _forget(name, directory)
    spec = spec_from_file_location(
        name, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    if spec is None or spec.loader is None:
        raise ConfigurationError("The example application cannot be loaded.")
    loaded = sys.modules[name] = module_from_spec(spec)
    try:
        with _environment(environment or {}):
            spec.loader.exec_module(loaded)
            import_module(f"{name}.models")
    except BaseException:
        del sys.modules[name]
        raise
    return loaded


def _find(name: str) -> Path:
    here = Path(__file__).resolve()
    for directory in (here.with_name(name), here.parents[3] / "examples" / name):
        if (directory / "__init__.py").is_file():
            return directory
    raise ConfigurationError(
        "The example application is missing: it is part of the wheel and of the checkout."
    )


def _forget(name: str, directory: Path) -> None:
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ != str(directory / "__init__.py"):
        raise ConfigurationError(
            f"Another package called {name!r} is loaded already; run the demo on its own."
        )
    for each in [each for each in sys.modules if each.partition(".")[0] == name]:
        del sys.modules[each]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
