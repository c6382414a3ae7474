"""Stages on which a part of encryption does not work, to prove that the demo's checks notice."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from steps import copy_before, loaded

from tenantguard.columns import normalize
from tenantguard.context import active_tenant
from tenantguard.crypto.format import FieldContext
from tenantguard.demo.stage import Stage, set_up, stage_with
from tenantguard.keystore import Keystore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest
    from sqlalchemy import URL

NOTHING_SEALED = "an example that encrypts nothing"
CASE_MATTERS = "a search that minds the case"
ONE_KEY = "one key for all tenants"
NO_COLUMN = "values that are sealed for no column"

FAILS = {
    NOTHING_SEALED: {
        "ciphertext_at_rest",
        "copy_to_another_tenant_is_not_opened",
        "swapped_values_are_not_opened",
    },
    CASE_MATTERS: {"found_by_name"},
    ONE_KEY: {"copy_to_another_tenant_is_not_opened"},
    NO_COLUMN: {"swapped_values_are_not_opened"},
}
"""The checks that fail, by what does not work."""


@contextmanager
def staged(
    address: URL,
    *,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    directory: Path,
    app: str,
    driver: str = "psycopg",
) -> Iterator[Stage]:
    """Set up a stage with *how*, if it is one of `FAILS`, and a whole one if not."""
    options: dict[str, Any] = {"patients": 5, "tell": lambda _text: nullcontext()}
    options |= {"app": app, "driver": driver}
    with ExitStack() as stack:
        if how == NOTHING_SEALED:
            example = stack.enter_context(loaded(copy_before("encrypt", app, directory)))
            yield stack.enter_context(stage_with(example, address, **options))
            return
        if how == CASE_MATTERS:
            monkeypatch.setitem(normalize._NORMALIZERS, "nfc-casefold-v1", str)
        elif how == ONE_KEY:
            monkeypatch.setattr(Keystore, "keys_for", _first_keys())
        elif how == NO_COLUMN:
            monkeypatch.setattr(FieldContext, "_labels", lambda _self: (b"", b""))
        yield stack.enter_context(set_up(address, **options))


def _first_keys() -> Any:
    keys_for = Keystore.keys_for
    first: list[Any] = []

    def shared(self: Keystore, connection: Any, create: bool) -> Any:  # noqa: FBT001
        if not first:
            first.append(keys_for(self, connection, create))
        active = active_tenant()
        assert active is not None
        active.keys = first[0]
        return first[0]

    return shared
