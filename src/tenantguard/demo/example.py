"""The Flask example, loaded from the checkout or from the wheel under one name."""

import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tenantguard.errors import ConfigurationError

__all__ = ["load_example"]

_NAME = "flask_app"


def load_example() -> Any:
    """Return the example's package, `flask_app`.

    Raises:
        ConfigurationError: If the example is not there, or the name is taken by another package.
    """
    directory = _find()
    loaded = sys.modules.get(_NAME)
    if loaded is None:
        spec = spec_from_file_location(
            _NAME, directory / "__init__.py", submodule_search_locations=[str(directory)]
        )
        if spec is None or spec.loader is None:
            raise ConfigurationError("The example application cannot be loaded.")
        loaded = module_from_spec(spec)
        sys.modules[_NAME] = loaded
        try:
            spec.loader.exec_module(loaded)
        except BaseException:
            del sys.modules[_NAME]
            raise
    if loaded.__file__ is None or Path(loaded.__file__).parent != directory:
        raise ConfigurationError(
            f"Another package called {_NAME!r} is loaded already; run the demo on its own."
        )
    import_module(f"{_NAME}.models")
    return loaded


def _find() -> Path:
    here = Path(__file__).resolve()
    for directory in (here.with_name(_NAME), here.parents[3] / "examples" / _NAME):
        if (directory / "__init__.py").is_file():
            return directory
    raise ConfigurationError(
        "The example application is missing: it is part of the wheel and of the checkout."
    )
