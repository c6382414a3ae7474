"""`tenantguard encrypt rewrite` seals a compound anew as it does every other encrypted column."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from commanding import Command, serve
from compounds import A, Card, Patient, build, make_guard
from rotating import rotate
from sqlalchemy import select
from sqlalchemy.orm import Session

from tenantguard import tenant_context

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from sqlalchemy import URL

DAY = date(1980, 1, 2)


def test_compounds_are_sealed_anew(
    admin_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the keys were rotated; they are the same, bound to their row, and found as before."""
    vault = build(admin_url, tmp_path)
    guard = make_guard(vault.guard.roles, vault.key_file)
    serve(monkeypatch, guard=guard)
    with tenant_context(A), Session(vault.engine()) as session:
        session.add_all([Patient(name="Anna", born=DAY), Card(holder="Anna", serial="1")])
        session.commit()
    rotate(vault, A)
    before = vault.run("SELECT name_and_born, found_by, held FROM patients, cards")[0]
    assert Command(vault.admin).json("rewrite")["done"] == 7
    after = vault.run("SELECT name_and_born, found_by, held FROM patients, cards")[0]
    for old, new in zip(before, after, strict=True):
        assert bytes(old)[:20] == bytes(new)[:20]
        assert bytes(old)[20:] != bytes(new)[20:]
    with tenant_context(A), Session(vault.protected_by(guard)) as session:
        found = select(Patient.name_and_born).where(Patient.name_and_born == ("ANNA", DAY))
        assert session.scalars(found).all() == [("Anna", DAY)]
        card = session.scalars(select(Card).where(Card.held == ("Anna", "1"))).one()
        assert card.found_by == ("AOK", 2026, "Anna")
    vault.dispose()
