"""The command `tenantguard`."""

from tenantguard.cli.app import main

__all__ = ["main"]
