"""The examples, loaded from the checkout or from the wheel, each under one name."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tenantguard.errors import ConfigurationError

__all__ = ["load_example"]

_NAME = "flask_app"


def load_example(name: str = "") -> Any:
    """Return the package of the example *name*: `flask_app`, the default, or `starlette_app`.

    Raises:
        ConfigurationError: If the example is not there, or the name is taken by another package.
    """
    name = name or _NAME
    directory = _find(name)
    loaded = sys.modules.get(name)
    if loaded is None:
        spec = spec_from_file_location(
            name, directory / "__init__.py", submodule_search_locations=[str(directory)]
        )
        if spec is None or spec.loader is None:
            raise ConfigurationError("The example application cannot be loaded.")
        loaded = module_from_spec(spec)
        sys.modules[name] = loaded
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[name]
            raise
    if loaded.__file__ is None or Path(loaded.__file__).parent != directory:
        raise ConfigurationError(
            f"Another package called {name!r} is loaded already; run the demo on its own."
        )
    import_module(f"{name}.models")
    return loaded


def _find(name: str) -> Path:
    here = Path(__file__).resolve()
    for directory in (here.with_name(name), here.parents[3] / "examples" / name):
        if (directory / "__init__.py").is_file():
            return directory
    raise ConfigurationError(
        "The example application is missing: it is part of the wheel and of the checkout."
    )
