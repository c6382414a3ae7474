"""The adapter refuses what the guard's mode refuses."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from practice import Base

from tenantguard import TenantGuard
from tenantguard.integrations.flask import FlaskGuard


@pytest.mark.parametrize(
    ("mode", "status", "counted"),
    [("enforce", 403, {}), ("observe", 200, {"refused": 1}), ("off", 200, {})],
)
@pytest.mark.parametrize("resolved", [None, "nonsense"])
def test_a_request_without_a_valid_tenant(
    mode: Any, status: int, counted: dict[str, int], resolved: Any
) -> None:
    """Enforce answers 403; observe counts it and lets it pass; off does not ask."""
    guard = TenantGuard(Base.metadata, tenants="practices", mode=mode)
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: "shown")
    FlaskGuard(app, guard, resolver=lambda _request: resolved)
    assert app.test_client().get("/").status_code == status
    assert guard.observations.counts == counted
