"""The Python that docs/keys.md shows, run as it stands; its commands are parsed elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from shown import ROOT, blocks
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from vault import A

from tenantguard import Keyring, tenant_context

if TYPE_CHECKING:
    from shown import Shown

# A further block on the page needs a test here.
GUARD, KEYRING, FOLLOW = blocks(ROOT / "docs" / "keys.md")
SECONDS = 30.0


@pytest.fixture
def page(shown: Shown) -> Shown:
    """A patient with a note; the page itself declares no model."""
    shown.run_in_class("notes: Mapped[str | None] = encrypted_str()", "Patient")
    return shown


def write_and_read(page: Shown) -> None:
    patient = page.names["Patient"]
    with tenant_context(A), Session(page.names["engine"]) as session:
        session.add(patient(notes="caries"))
        session.commit()
        assert set(session.scalars(select(patient.notes))) == {"caries"}


def test_a_guard_with_a_key_file_seals(page: Shown) -> None:
    """The guard of the page writes and reads."""
    page.run(GUARD)
    page.protect(page.names["guard"])
    write_and_read(page)


def test_a_keyring_opens_what_each_of_its_keys_has_wrapped(page: Shown) -> None:
    """With the page's two keys, the first wraps."""
    page.run(KEYRING)
    assert isinstance(page.names["keys"], Keyring)
    page.run('guard = TenantGuard(Base.metadata, tenants="practices", keys=keys)')
    page.protect(page.names["guard"])
    write_and_read(page)


def test_keys_are_followed(page: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's follower connects, and the guard reads on after a notification."""
    page.run(GUARD)
    page.protect(page.names["guard"])
    write_and_read(page)
    url = page.names["engine"].url
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    page.run(FOLLOW)
    with page.names["follower"] as follower:
        assert follower.wait(SECONDS)
        assert follower.following
        with page.admin.begin() as connection:
            connection.execute(text("SELECT pg_notify('tenantguard_keys', '')"))
        write_and_read(page)
