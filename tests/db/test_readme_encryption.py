"""What README shows of encrypted columns, works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session
from test_readme import python_blocks
from vault import A, Patient

import tenantguard
from tenantguard import tenant_context

if TYPE_CHECKING:
    from vault import Vault


def test_the_columns_are_declared_and_found_as_shown(vault: Vault) -> None:
    """The two lines declare encrypted columns, and the search that is promised finds."""
    *_, lines = python_blocks()
    for line in lines.splitlines():
        name, _, declared = line.partition(": ")
        made = eval(declared.partition(" = ")[2], vars(tenantguard))
        assert str(made.column.type.compile()) == "BYTEA"
        assert name in Patient.__table__.c
    with tenant_context(A), Session(vault.engine()) as session:
        session.add(Patient(name="Müller"))
        session.flush()
        assert session.scalars(select(Patient).where(Patient.name == "müller")).all()
