"""Migrations that give an existing table its tenant column without stopping the application."""

from tenantguard.migrate.script import sql
from tenantguard.migrate.steps import MigrationStep, migration

__all__ = ["MigrationStep", "migration", "sql"]
