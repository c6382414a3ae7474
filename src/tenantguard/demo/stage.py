"""What the demo plays on: roles, tables, rows and policies in a running server."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Engine, create_engine, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from tenantguard import rls
from tenantguard.catalog import Roles
from tenantguard.crypto.keyfile import make_key_file
from tenantguard.demo.data import fill
from tenantguard.demo.example import load_example
from tenantguard.guard import TenantGuard

__all__ = ["Stage", "set_up", "stage_with"]

Tell = Callable[[str], AbstractContextManager[None]]

_ENVIRONMENT = "demo"


@dataclass(frozen=True, slots=True)
class Stage:
    """A database that is ready for the example.

    Attributes:
        admin: An engine of the superuser: sees everything.
        application: The address for the application's role, with the driver that it uses.
        example: The example's package.
        guard: The example's guard.
        counts: The number of rows by practice and table.
        asynchronous: Whether the example works through an AsyncEngine.
    """

    admin: Engine
    application: URL
    example: Any
    guard: TenantGuard
    counts: Mapping[UUID, Mapping[str, int]]
    asynchronous: bool = False

    @property
    def models(self) -> Any:
        """The example's models."""
        return self.example.models

    @property
    def roles(self) -> Roles:
        """The PostgreSQL roles."""
        return self.guard.roles

    def engine(self) -> Engine | AsyncEngine:
        """Return an engine of the example's kind for the application's role, not protected."""
        create = create_async_engine if self.asynchronous else create_engine
        return create(self.application)

    def app(self, **config: Any) -> Any:
        """Return the example's WSGI or ASGI app, connected as the application's role."""
        return self.example.create_app({"DATABASE_URL": self.application, **config})

    def first(self, model: Any) -> list[int]:
        """Return the lowest number of *model* in each practice; 0 if it has none."""
        query = select(func.min(model.id)).where
        with self.admin.connect() as connection:
            found = [connection.scalar(query(model.tenant_id == tenant)) for tenant in self.counts]
        return [int(number or 0) for number in found]


@contextmanager
def set_up(
    address: URL,
    *,
    patients: int,
    tell: Tell,
    app: str = "flask",
    driver: str = "psycopg",
    directory: Path | None = None,
) -> Iterator[Stage]:
    """Create everything the example needs in an empty database.

    Args:
        address: Of the database, for a superuser.
        patients: How many for each practice.
        tell: Called with what is about to happen, and wraps it.
        app: Which example: `flask` or `starlette`.
        driver: By which the example connects.
        directory: Where the key file goes, that nobody else may enter; a temporary one of its own
            if none is given.
    """
    own = TemporaryDirectory(prefix="tenantguard-") if directory is None else nullcontext(directory)
    with own as place:
        key_file = Path(place) / "key.json"
        with tell("Making a key-encryption key (tenantguard keys init)"):
            make_key_file(key_file, environment=_ENVIRONMENT)
        variables = {"TENANTGUARD_KEY_FILE": str(key_file), "APP_ENV": _ENVIRONMENT}
        example = load_example(f"{app}_app", environment=variables)
        with stage_with(
            example, address, patients=patients, tell=tell, app=app, driver=driver
        ) as stage:
            yield stage


@contextmanager
def stage_with(
    example: Any, address: URL, *, patients: int, tell: Tell, app: str, driver: str = "psycopg"
) -> Iterator[Stage]:
    """Create everything that the package *example* needs; the rest is as for `set_up`."""
    guard: TenantGuard = example.database.guard
    application = address.set(username=guard.roles.application, password=None)
    admin = create_engine(address, poolclass=NullPool)
    try:
        with tell("Creating the tables, as a migration would"):
            example.models.Base.metadata.create_all(admin)
        with tell("Creating the roles and applying the generated policies (tenantguard rls apply)"):
            rls.apply(admin, guard.catalog, guard.roles, create_roles=True)
        with tell(f"Inserting two practices with {patients} patients each, as the application"):
            counts = _filled(admin, create_engine(application), example, patients)
        application = application.set(drivername=f"postgresql+{driver}")
        yield Stage(admin, application, example, guard, counts, app == "starlette")
    finally:
        admin.dispose()


def _filled(
    admin: Engine, engine: Engine, example: Any, patients: int
) -> Mapping[UUID, Mapping[str, int]]:
    example.database.guard.protect(engine)
    try:
        with admin.connect() as connection:
            return fill(connection, example.models, patients=patients, engine=engine)
    finally:
        engine.dispose()
