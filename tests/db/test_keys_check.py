"""`tenantguard keys check`: what is not as a policy asks is found, and where that says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tink
from key_commands import IDS, Keys, serve
from tink import aead, prf
from vault import ENVIRONMENT, A, Base

from tenantguard import KeyFile, Keyring, TenantGuard
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.crypto.keysets import IndexKeyset, _wrapped, wrap_data_keyset

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL


def codes(keys: Keys, *options: str) -> set[str]:
    result = keys("check", *options, "--format", "json")
    assert result.exit_code in {0, 1}, result.output
    found = {each["code"] for each in json.loads(result.stdout)["findings"]}
    assert result.exit_code == bool(found)
    assert not IDS.search(result.output)
    return found


@pytest.mark.parametrize("policy", ["bsi", "nist"])
def test_new_keys_are_as_each_policy_asks(rotating: Keys, policy: str) -> None:
    """No findings, and the facts in figures, each rule with its source."""
    document = rotating.json("check", "--policy", policy)
    assert document["findings"] == []
    assert document["keys"] == [
        {"purpose": "data", "algorithm": "AES-GCM", "bits": 256, "keys": 2},
        {"purpose": "index", "algorithm": "HMAC-SHA256", "bits": 256, "keys": 2},
    ]
    assert (document["environment"], document["provider"]) == (ENVIRONMENT, "file")
    assert document["rotated_within_days"] == 730
    assert len(document["rules"]) == 5
    text = rotating("check", "--policy", policy)
    assert (text.exit_code, "All keys are as the policy asks." in text.stdout) == (0, True)


def test_old_keys_are_found_until_they_are_rotated(
    rotating: Keys, later: Callable[[float], None]
) -> None:
    """A key's age begins with the tenant's newest key; the source of the rule is cited."""
    later(400 * 86_400)
    assert codes(rotating) == set()
    result = rotating("check", "--rotated-within", "365")
    assert "key-too-old: 2 tenants' keys have sealed for more than 365 days." in result.stdout
    assert "2 tenants' keys have computed blind indexes for more than 365 days." in result.stdout
    assert "Run `tenantguard keys rotate --purpose index --all`" in result.stdout
    assert "SP 800-57 Part 1 Rev. 5, 5.3.6 (Table 1)" in result.stdout
    later(400 * 86_400)
    for purpose, kept in (("data", {"key-too-old"}), ("index", set[str]())):
        assert codes(rotating) == {"key-too-old"}
        rotate = ("rotate", "--purpose", purpose, "--all", "--no-wait")
        rotating(*rotate)
        assert codes(rotating) == kept
        later(361)
        assert codes(rotating) == {"key-rotation-pending", *kept}
        rotating(*rotate)
        assert codes(rotating) == kept


@pytest.mark.parametrize("purpose", ["data", "index"])
def test_weaker_keys_are_found(rotating: Keys, purpose: str) -> None:
    """A keyset that somebody has made by other means, with a smaller key, is told."""
    held = rotating.vault.guard._open_keystore()
    kek, context = held._provider.kek, held._context(str(A), purpose)
    if purpose == "data":
        handle = tink.new_keyset_handle(aead.aead_key_templates.AES128_GCM)
        wrapped, check = wrap_data_keyset(handle, kek, context)
    else:
        handle = tink.new_keyset_handle(prf.prf_key_templates.HMAC_SHA512)
        check = IndexKeyset(handle).compute(b"tenantguard check")
        wrapped = _wrapped(handle, kek, context)
    rotating.vault.run(
        "UPDATE tenantguard_keys SET wrapped = :w, check_value = :c "
        "WHERE tenant_id = :a AND purpose = :p",
        w=wrapped,
        c=check,
        a=A,
        p=purpose,
    )
    assert codes(rotating) == {"key-algorithm"}
    assert f"1 keys for {purpose} are" in rotating("check").stdout


def test_previous_and_unknown_keys_are_found(
    rotating: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a previous key wait for rewrapping; those of an unknown one cannot be looked at."""
    make_key_file(tmp_path / "new.json", environment=ENVIRONMENT)
    new = KeyFile(tmp_path / "new.json", environment=ENVIRONMENT)
    old = KeyFile(rotating.vault.key_file, environment=ENVIRONMENT)
    for held, expected in (
        (Keyring(new, old), {"kek-previous"}),
        (new, {"key-of-another-kek"}),
    ):
        options: Any = {"roles": rotating.vault.guard.roles, "keys": held}
        serve(monkeypatch, guard=TenantGuard(Base.metadata, tenants="practices", **options))
        assert codes(rotating) == expected


def test_damaged_and_lost_rows_are_found(rotating: Keys) -> None:
    """What `keys list` finds is found here too."""
    rotating.vault.run("UPDATE tenantguard_keys SET check_value = '' WHERE tenant_id = :a", a=A)
    assert codes(rotating) == {"key-unusable"}
    rotating.vault.run("DELETE FROM tenantguard_keys WHERE tenant_id = :a", a=A)
    assert codes(rotating) == {"key-lost"}


def test_provider_and_environment_are_compared_where_asked_for(rotating: Keys) -> None:
    """A file is no fault unless a service is required; neither is any environment."""
    assert codes(rotating, "--environment", ENVIRONMENT) == set()
    assert codes(rotating, "--kms-required") == {"kek-in-file"}
    assert codes(rotating, "--environment", "production") == {"key-environment"}


def test_maintenance_checks(rotating: Keys, login: Callable[..., URL]) -> None:
    """A login that is granted the role sees all it needs."""
    url = login(rotating.vault.guard.roles.maintenance)
    assert rotating("check", url=url).exit_code == 0
