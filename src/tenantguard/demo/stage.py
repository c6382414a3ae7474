"""What the demo plays on: roles, tables, rows and policies in a running server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Engine, create_engine
from sqlalchemy.pool import NullPool

from tenantguard import rls
from tenantguard.catalog import Roles
from tenantguard.demo.data import fill
from tenantguard.demo.example import load_example
from tenantguard.guard import TenantGuard

__all__ = ["Stage", "set_up"]

Tell = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Stage:
    """A database that is ready for the example.

    Attributes:
        admin: An engine of the superuser: sees everything.
        application: The address for the application's role.
        example: The package `flask_app`.
        guard: The example's guard.
        counts: The number of rows by practice and table.
    """

    admin: Engine
    application: URL
    example: Any
    guard: TenantGuard
    counts: Mapping[UUID, Mapping[str, int]]

    @property
    def models(self) -> Any:
        """The example's models."""
        return self.example.models

    @property
    def roles(self) -> Roles:
        """The PostgreSQL roles."""
        return self.guard.roles

    def app(self, **config: Any) -> Any:
        """Return the example as a Flask app, connected as the application's role."""
        return self.example.create_app({"DATABASE_URL": self.application, **config})


@contextmanager
def set_up(address: URL, *, patients: int, tell: Tell) -> Iterator[Stage]:
    """Create everything the example needs in an empty database.

    Args:
        address: Of the database, for a superuser.
        patients: How many for each practice.
        tell: Called with what is about to happen, and wraps it.
    """
    example = load_example()
    guard: TenantGuard = example.database.guard
    admin = create_engine(address, poolclass=NullPool)
    try:
        with tell("Creating the tables, as a migration would"):
            example.models.Base.metadata.create_all(admin)
        with (
            tell(f"Inserting two practices with {patients} patients each"),
            admin.begin() as connection,
        ):
            counts = fill(connection, example.models, patients=patients)
        with tell("Creating the roles and applying the generated policies (tenantguard rls apply)"):
            rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
        application = address.set(username=guard.roles.application, password=None)
        yield Stage(admin, application, example, guard, counts)
    finally:
        admin.dispose()
