"""What Alembic 1.18 and later load as a plugin, in every application of the environment.

So importing this imports nothing of Alembic, which is half loaded then, and does nothing for an
application whose `env.py` does not call `tenantguard.integrations.alembic.configure`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["NAME", "OPTION", "compare", "plugin"]

NAME = "tenantguard"
"""What `context.configure(autogenerate_plugins=…)` calls the plugin."""

OPTION = "tenantguard"
"""The option of `context.configure` that carries the guard."""


class _Plugin(ModuleType):
    """A module that is a collection of itself.

    Up to 1.20.0 Alembic iterates over what the entry point names, and fails on a plain module;
    later versions take a module, and warn of a collection.
    """

    def __iter__(self) -> Iterator[ModuleType]:
        yield self

    def setup(self, registered: Any) -> None:
        """Register the comparison with Alembic's *registered* plugin, to run after all others.

        Alembic asks plugins in the order in which they were loaded, and loads this one before its
        own. What protects a table stands behind what makes it, and sees what Alembic has found.
        """
        last = importlib.import_module("alembic.util").DispatchPriority.LAST
        registered.add_autogenerate_comparator(compare, "schema", NAME, priority=last)


def compare(autogen_context: Any, upgrade_ops: Any, schemas: Any) -> Any:
    """Add to *upgrade_ops* what the guard of `env.py` asks for, if it has one."""
    del schemas
    guard = autogen_context.opts.get(OPTION)
    if guard is None:
        return None
    found: Any = importlib.import_module("tenantguard.integrations.alembic.compare")
    return found.compare(autogen_context, upgrade_ops, guard)


plugin = _Plugin(__name__, __doc__)
