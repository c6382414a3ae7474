"""Tables with encrypted columns, and the table of the tenants' keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo import Zoo

from tenantguard.prove import State

if TYPE_CHECKING:
    from vault import Vault


def test_encrypted_columns_and_the_table_of_keys_are_proven(vault: Vault) -> None:
    """The rows fit the format's check, blind index included."""
    zoo = Zoo(vault.admin, vault.guard, vault.app_url)
    proven = zoo.prove()
    assert {name: (each.state, each.reasons) for name, each in proven.items()} == dict.fromkeys(
        ("patients", "practices", "tenantguard_keys", "visits"), (State.PROVEN, ())
    )
    assert "insert" in proven["tenantguard_keys"].held
