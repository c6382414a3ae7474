"""The examples need their key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tenantguard.crypto.keyfile import make_key_file
from tenantguard.demo.example import load_example
from tenantguard.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("app", ["flask_app", "starlette_app"])
def test_app_without_its_key_does_not_start(tmp_path: Path, app: str) -> None:
    """A file that is missing, and a key for another environment, are refused at once."""
    variables = {"TENANTGUARD_KEY_FILE": str(tmp_path / "key.json"), "APP_ENV": "production"}
    config = {"DATABASE_URL": "postgresql+psycopg:///", "SECRET_KEY": "test"}
    example = load_example(app, environment=variables)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        example.create_app(config)
    make_key_file(tmp_path / "key.json", environment="test")
    with pytest.raises(ConfigurationError, match="made for the environment 'test'"):
        example.create_app(config)
