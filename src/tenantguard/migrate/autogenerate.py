"""What Alembic's autogenerate has to know, as two functions for `context.configure()` in `env.py`.

Alembic itself is not imported.
"""

from __future__ import annotations

from typing import Any, Literal

from tenantguard.columns.types import Encrypted
from tenantguard.keytable import KEY_TABLE
from tenantguard.rls.signed import SIGNING_TABLE

__all__ = ["include_object", "render_item"]

_OURS = "tg_"
_MADE_BY_RLS = ("foreign_key_constraint", "unique_constraint", "index")


def include_object(
    _object: Any,
    name: str | None,
    type_: str,
    reflected: bool,  # noqa: FBT001  (Alembic's signature)
    compare_to: Any,
) -> bool:
    """Keep autogenerate from dropping what `tenantguard rls` makes, the tenants' keys first of all.

    For `context.configure(include_object=…)`.
    """
    if type_ == "table":
        return name not in (KEY_TABLE, SIGNING_TABLE)
    only_in_database = reflected and compare_to is None
    made_by_rls = type_ in _MADE_BY_RLS and (name or "").startswith(_OURS)
    return not (only_in_database and made_by_rls)


def render_item(type_: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    """Write the type of an encrypted column into a migration as what it is there: `bytea`.

    For `context.configure(render_item=…)`.
    """
    if type_ != "type" or not isinstance(item, Encrypted):
        return False
    autogen_context.imports.add("from sqlalchemy.dialects import postgresql")
    return "postgresql.BYTEA()"
